//! The record: one document version as an item of the `changes` container (docs/history-format.md).
//!
//! Built as text from the slices of the payload; no member of the document is parsed or written anew.

use std::{borrow::Cow, fmt::Write as _};

use base64::Engine as _;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{
    Change, Op, Shape, Via,
    fidelity::{self, Delivery},
    key::{KeyPaths, KeyValue, PartitionKey},
    raw::{self, Member, RawDocument, Reserved},
};

/// Version of the format, `_change.v`.
pub const FORMAT_VERSION: u32 = 1;
/// The member that holds everything about the change.
pub const CHANGE: &str = "_change";
/// The member that holds the document's id.
pub const ORIGINAL_ID: &str = "_originalId";
/// Members the service adds to every item; they belong to the copy, not to the document.
pub const SYSTEM: [&str; 5] = ["_rid", "_self", "_etag", "_attachments", "_ts"];
/// Longest id the service accepts, in bytes (Azure Cosmos DB service quotas, "Per-item limits").
pub const MAX_ID_BYTES: usize = 1023;
/// Largest item the service accepts, in bytes of its JSON text, less room for the system properties it adds.
pub const MAX_ITEM_BYTES: usize = 2 * 1024 * 1024 - 4 * 1024;

/// How faithful the stored text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordFidelity {
    /// What Cosmos stored.
    Exact,
    /// What the host delivered, in which date strings may have been rewritten.
    Normalized,
    /// Some fields were left out or hashed on purpose; `_change.partial` says which.
    Partial,
}

impl RecordFidelity {
    /// The name in a record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Normalized => "normalized",
            Self::Partial => "partial",
        }
    }
}

/// A record ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The record's id, the same for every delivery of the same version.
    pub id: String,
    /// The document's id.
    pub source_id: String,
    /// The record's partition key in the changes container.
    pub key: PartitionKey,
    /// The item's JSON text.
    pub body: String,
    /// Create it only: it does not know everything of its version, and must not take the place of one that knows more.
    pub create_only: bool,
    /// Where it is created only and there is one: that one is completed by what this one knows ([`super::knowledge`]). Not
    /// the version before, which nearly always has its own record already.
    pub completes: bool,
    /// Whether the document was put compressed into `_change`.
    pub compressed: bool,
}

/// What all records of a batch share.
#[derive(Debug, Clone, Copy)]
pub struct RecordContext<'a> {
    /// The entrance.
    pub via: Via,
    /// Capture time, RFC 3339 with milliseconds.
    pub at: &'a str,
    /// Capture time, epoch seconds: stands in when a hand-made payload has no time at all.
    pub at_seconds: i64,
    /// Partition key paths of the changes container.
    pub paths: &'a KeyPaths,
    /// Partition key paths of the source, for `_change.key`; `None` when the source cannot be asked.
    pub source: Option<&'a KeyPaths>,
}

/// A change that no record can be made of: poison, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unrecordable {
    /// Why.
    pub reason: String,
}

/// The text of a document read again from the source, exact by definition.
#[derive(Debug, Clone)]
pub struct Reread<'a>(pub &'a str);

/// Makes the record of a change.
///
/// `reread` is the document as the source has it, used instead of the payload's text; `altered` says that the text
/// used may not be what the source has.
///
/// # Errors
/// When a tombstone does not say whose partition it belongs to.
pub fn build(
    change: &Change<'_>,
    reread: Option<Reread<'_>>,
    altered: bool,
    context: RecordContext<'_>,
) -> Result<Record, Unrecordable> {
    let exact;
    let (document, shape) = match &reread {
        Some(Reread(text)) => {
            exact = RawDocument::parse(text)
                .map_err(|e| Unrecordable { reason: format!("the document read again is not valid JSON: {e}") })?;
            (&exact, Shape::Stored)
        }
        None => (&change.document, change.shape),
    };
    let fidelity = if altered { RecordFidelity::Normalized } else { RecordFidelity::Exact };
    let members = if change.op.is_tombstone() { Vec::new() } else { own_members(document, shape) };
    // What was read again says who it is; the payload's id may have been altered as any text of it.
    let own_id = document.get("id").filter(|id| id.get().starts_with('"'));
    let source_id = match own_id {
        Some(id) if reread.is_some() => raw::unescape(id.get()),
        _ => Cow::Borrowed(change.id.as_ref()),
    };
    let id = record_id(change, &source_id, &members);
    let key = key_of(change, document, &source_id, &id, context.paths)?;
    // The id that stands for the source's path `/id` is the document's, not the record's.
    let own_key = context.source.and_then(|paths| key_of(change, document, &source_id, &source_id, paths).ok());
    let metadata = change_object(change, fidelity, context, own_key.as_ref(), &members, None);
    // The id's own text where there is one, so that the inverse is exact.
    let original_id: Cow<'_, str> = match own_id {
        Some(text) if !change.op.is_tombstone() && raw::unescape(text.get()) == source_id => text.get().into(),
        _ => serde_json::Value::from(source_id.as_ref()).to_string().into(),
    };

    // A document with its key members; a tombstone has only those.
    let mut body = String::with_capacity(change.text.len() + metadata.len() + id.len() + 64);
    let mut record = Record {
        source_id: source_id.to_string(),
        key,
        body: String::new(),
        // What knows everything need not look.
        create_only: change.healed || altered || !knows_what_happened(change),
        completes: !change.healed,
        compressed: false,
        id,
    };
    if change.op.is_tombstone() {
        record.body = bare(&record, &original_id, context.paths, &metadata);
        return Ok(record);
    }
    body.push('{');
    let mut has_id = false;
    for member in &members {
        if member.reserved().is_some_and(Reserved::is_moved) {
            continue;
        }
        if body.len() > 1 {
            body.push(',');
        }
        if member.reserved() == Some(Reserved::Id) {
            has_id = true;
            body.push_str("\"id\":");
            push_string(&mut body, &record.id);
        } else {
            push_member(&mut body, member.key.get(), member.value.get());
        }
    }
    if !has_id {
        if body.len() > 1 {
            body.push(',');
        }
        body.push_str("\"id\":");
        push_string(&mut body, &record.id);
    }
    push_tail(&mut body, &original_id, &metadata);
    if body.len() > MAX_ITEM_BYTES {
        let packed = pack(&render(&members));
        let metadata = change_object(change, fidelity, context, own_key.as_ref(), &[], Some(&packed));
        body = bare(&record, &original_id, context.paths, &metadata);
        record.compressed = true;
    }
    record.body = body;
    Ok(record)
}

/// Whether a change says all that can be known of it beside its document.
fn knows_what_happened(change: &Change<'_>) -> bool {
    let said =
        change.op == Op::Create || (change.op != Op::Upsert && change.op != Op::Baseline && change.prev_lsn.is_some());
    said && change.ts.is_some() && change.lsn.is_some()
}

/// The members that are the user's: system properties dropped, of duplicated reserved names the last kept.
fn own_members<'a>(document: &RawDocument<'a>, shape: Shape) -> Vec<Member<'a>> {
    let members = document.members();
    let mut own = Vec::with_capacity(members.len());
    for (i, member) in members.iter().enumerate() {
        let kept = match member.reserved() {
            None => true,
            Some(Reserved::System) => false,
            // The feed adds one behind everything else; one of the user's own stands before it.
            Some(Reserved::Lsn) => {
                shape != Shape::Feed || members[i + 1..].iter().any(|later| later.reserved() == Some(Reserved::Lsn))
            }
            Some(name) => !members[i + 1..].iter().any(|later| later.reserved() == Some(name)),
        };
        if kept {
            own.push(*member);
        }
    }
    own
}

/// The deterministic id: redelivered, reordered or captured by two paths, a version has one record.
fn record_id(change: &Change<'_>, source_id: &str, members: &[Member<'_>]) -> String {
    let version = if change.op.is_tombstone() {
        match (change.lsn, change.ts) {
            // With its time: a container that was made again counts its LSNs from the beginning.
            (Some(lsn), Some(ts)) => format!("del-{lsn}-{ts}"),
            (Some(lsn), None) => format!("del-{lsn}"),
            (None, Some(ts)) => format!("del-t{ts}"),
            (None, None) => "del".to_owned(),
        }
    } else {
        match (change.etag(), change.ts, change.lsn) {
            (Some(etag), _, _) => etag.trim_matches('"').to_owned(),
            (None, Some(ts), Some(lsn)) => format!("{ts}-{lsn}"),
            _ => {
                let digest = Sha256::digest(render(members).as_bytes());
                format!("h-{}", hex(&digest[..16]))
            }
        }
    };
    joined(source_id, &version)
}

/// The id of a change's record: the same for every delivery of the same version.
pub fn version_id(change: &Change<'_>) -> String {
    record_id(change, &change.id, &own_members(&change.document, change.shape))
}

/// The document of a change as its owner wrote it: without what the service and the feed add. `None` for a tombstone.
pub fn document_text(change: &Change<'_>) -> Option<String> {
    (!change.op.is_tombstone()).then(|| render(&own_members(&change.document, change.shape)))
}

/// The change's partition key in the source container.
///
/// # Errors
/// When a tombstone does not say whose partition it belongs to.
pub fn source_key(change: &Change<'_>, paths: &KeyPaths) -> Result<PartitionKey, Unrecordable> {
    key_of(change, &change.document, &change.id, &change.id, paths)
}

/// The id of the record of a document with this etag: where a live version is, or would be, in the history.
pub fn id_of_version(id: &str, etag: &str) -> String {
    joined(id, etag.trim_matches('"'))
}

fn joined(id: &str, version: &str) -> String {
    let id = format!("{id}~{version}");
    if id.len() <= MAX_ID_BYTES { id } else { hex(&Sha256::digest(id.as_bytes())) }
}

/// Whether documents of a source keyed so can be records of a history: a record keeps some members elsewhere, and its key
/// would be another one than its document's.
///
/// # Errors
/// With the path that a record needs for itself.
pub fn check_source_key(source: &KeyPaths) -> Result<(), String> {
    let is_taken = |name: &str| matches!(name, "ttl" | CHANGE | ORIGINAL_ID) || SYSTEM.contains(&name);
    match source.segments().iter().find(|path| path.first().is_some_and(|name| is_taken(name))) {
        None => Ok(()),
        Some(path) => Err(format!(
            "the source is keyed by {}, which a record of the history needs for itself, so its documents cannot be captured",
            super::key::render_path(path)
        )),
    }
}

/// Whether a history keyed by `changes` can keep the documents of a source keyed by `source` apart: a record lies by what
/// its document's key is, and two documents of one id may have one etag under different keys.
///
/// # Errors
/// With what is wrong with the history's key.
pub fn check_layout(changes: &KeyPaths, source: &KeyPaths) -> Result<(), String> {
    let is_own = |path: &[String]| matches!(path, [name] if name == "id" || name == ORIGINAL_ID);
    let shown = |paths: Vec<&Vec<String>>| {
        paths.into_iter().map(|path| super::key::render_path(path)).collect::<Vec<_>>().join(", ")
    };
    check_source_key(source)?;
    let foreign: Vec<_> = changes.segments().iter().filter(|p| !source.segments().contains(p) && !is_own(p)).collect();
    if !foreign.is_empty() {
        return Err(format!(
            "its partition key {} is not part of the source's ({source}), so a delete could not be recorded",
            shown(foreign)
        ));
    }
    // An id is in every record's own.
    let is_left_out = |path: &&Vec<String>| !changes.segments().contains(path) && path.as_slice() != ["id"];
    let left_out: Vec<_> = source.segments().iter().filter(is_left_out).collect();
    if !left_out.is_empty() {
        return Err(format!(
            "its partition key ({changes}) leaves out {} of the source's, so two documents of one id could share a record",
            shown(left_out)
        ));
    }
    Ok(())
}

/// The change's key by these paths; `source_id` is the document's id, `id` what stands for the path `/id`.
fn key_of(
    change: &Change<'_>,
    document: &RawDocument<'_>,
    source_id: &str,
    id: &str,
    paths: &KeyPaths,
) -> Result<PartitionKey, Unrecordable> {
    let from_metadata = change.op.is_tombstone() && change.document.members().is_empty();
    let parts = paths
        .segments()
        .iter()
        .enumerate()
        .map(|(index, path)| match path.as_slice() {
            [name] if name == ORIGINAL_ID => Ok(KeyValue::String(source_id.to_owned())),
            [name] if name == "id" => Ok(KeyValue::String(id.to_owned())),
            path if from_metadata => metadata_key(change.metadata_key, path, index),
            path => Ok(KeyPaths::extract_one(path, document)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(PartitionKey(parts))
}

/// A key component from an envelope's `metadata.partitionKey`: an object by path or by the path's last name, or an
/// array in the order of the paths.
fn metadata_key(raw: Option<&RawValue>, path: &[String], index: usize) -> Result<KeyValue, Unrecordable> {
    let Some(raw) = raw else {
        return Err(Unrecordable {
            reason: "the delete names no partition key and carries no image of the document".into(),
        });
    };
    let scalar = |raw: &RawValue| match RawDocument::parse(&format!("{{\"v\":{raw}}}")) {
        Ok(document) => KeyPaths::extract_one(&["v".to_owned()], &document),
        Err(_) => KeyValue::Undefined,
    };
    match raw.get().as_bytes().first() {
        Some(b'{') => {
            let object = RawDocument::parse(raw.get()).unwrap_or_default();
            let joined = path.join("/");
            Ok(match object.get(&joined).or_else(|| object.get(&format!("/{joined}"))) {
                Some(value) => scalar(value),
                None => match KeyPaths::extract_one(path, &object) {
                    KeyValue::Undefined => {
                        path.last().and_then(|last| object.get(last)).map_or(KeyValue::Undefined, scalar)
                    }
                    value => value,
                },
            })
        }
        Some(b'[') => {
            let parts: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
            Ok(parts.get(index).map_or(KeyValue::Undefined, |part| scalar(part)))
        }
        _ => Ok(scalar(raw)),
    }
}

/// The text of `_change`.
fn change_object(
    change: &Change<'_>,
    fidelity: RecordFidelity,
    context: RecordContext<'_>,
    key: Option<&PartitionKey>,
    members: &[Member<'_>],
    packed: Option<&Packed>,
) -> String {
    let mut out = String::with_capacity(320);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{{\"v\":{FORMAT_VERSION},\"op\":\"{}\",\"ts\":{}",
        change.op.as_str(),
        change.ts.unwrap_or(context.at_seconds)
    );
    if change.ts.is_none() {
        out.push_str(",\"tsFrom\":\"capture\"");
    }
    if let Some(lsn) = change.lsn {
        let _ = write!(out, ",\"lsn\":{lsn}");
    }
    if !change.op.is_tombstone()
        && let Some(etag) = change.etag_text()
    {
        push_pair(&mut out, "etag", etag);
    }
    if let Some(rid) = change.document.get("_rid").filter(|rid| rid.get().starts_with('"')) {
        push_pair(&mut out, "rid", rid.get());
    }
    if let Some(prev) = change.prev_lsn {
        let _ = write!(out, ",\"prevLsn\":{prev}");
    }
    if let Some(key) = key {
        push_key(&mut out, key);
    }
    push_moved(&mut out, members);
    for (name, value) in [("via", context.via.as_str()), ("fidelity", fidelity.as_str()), ("at", context.at)] {
        out.extend([",\"", name, "\":\"", value, "\""]);
    }
    if let Some(packed) = packed {
        push_packed(&mut out, packed);
    }
    out.push('}');
    out
}

/// The source's key values, so that no layout of the changes container decides whose version a record is.
fn push_key(out: &mut String, key: &PartitionKey) {
    out.push_str(",\"key\":[");
    for (i, part) in key.0.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match part {
            KeyValue::String(text) => push_string(out, text),
            other => out.push_str(&other.to_json().to_string()),
        }
    }
    out.push(']');
}

fn push_packed(out: &mut String, packed: &Packed) {
    out.push_str(&format!(
        ",\"body\":{{\"encoding\":\"gzip\",\"size\":{},\"sha256\":\"{}\",\"data\":\"{}\"}}",
        packed.size, packed.sha256, packed.data
    ));
}

/// `ttl`, and whatever the document has under our own names, with the place each of them had.
fn push_moved(out: &mut String, members: &[Member<'_>]) {
    let name = |member: &Member<'_>| match member.reserved()? {
        Reserved::Ttl => Some("ttl"),
        Reserved::Change => Some(CHANGE),
        Reserved::OriginalId => Some(ORIGINAL_ID),
        Reserved::Id | Reserved::System | Reserved::Lsn => None,
    };
    let moved: Vec<(usize, &str, &str)> =
        members.iter().enumerate().filter_map(|(i, m)| Some((i, name(m)?, m.value.get()))).collect();
    if moved.is_empty() {
        return;
    }
    let mut shadowed = String::new();
    for (_, name, value) in &moved {
        if *name == "ttl" {
            push_pair(out, "ttl", value);
        } else {
            push_pair(&mut shadowed, name, value);
        }
    }
    if let Some(inner) = shadowed.strip_prefix(',') {
        push_pair(out, "shadowed", &format!("{{{inner}}}"));
    }
    // The usual case, a ttl behind everything else, needs no place.
    if !matches!(moved.as_slice(), [(i, "ttl", _)] if i + 1 == members.len()) {
        let places: Vec<String> = moved.iter().map(|(i, name, _)| format!("\"{name}\":{i}")).collect();
        push_pair(out, "places", &format!("{{{}}}", places.join(",")));
    }
}

/// A record without the document's own members: its id, its key members, and `_change`.
fn bare(record: &Record, original_id: &str, paths: &KeyPaths, metadata: &str) -> String {
    let mut keys = serde_json::Map::new();
    for (path, value) in paths.segments().iter().zip(&record.key.0) {
        if matches!(path.as_slice(), [name] if name == "id" || name == ORIGINAL_ID) || *value == KeyValue::Undefined {
            continue;
        }
        insert_at(&mut keys, path, value.to_json());
    }
    let mut body = String::with_capacity(metadata.len() + 256);
    body.push_str("{\"id\":");
    push_string(&mut body, &record.id);
    for (name, value) in &keys {
        body.push(',');
        push_string(&mut body, name);
        body.push(':');
        body.push_str(&value.to_string());
    }
    push_tail(&mut body, original_id, metadata);
    body
}

fn insert_at(object: &mut serde_json::Map<String, serde_json::Value>, path: &[String], value: serde_json::Value) {
    match path {
        [] => {}
        [last] => {
            object.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = object.entry(first.clone()).or_insert_with(|| serde_json::Map::new().into());
            if let serde_json::Value::Object(inner) = inner {
                insert_at(inner, rest, value);
            }
        }
    }
}

fn push_tail(body: &mut String, original_id: &str, metadata: &str) {
    push_pair(body, ORIGINAL_ID, original_id);
    push_pair(body, CHANGE, metadata);
    body.push('}');
}

fn push_pair(out: &mut String, name: &str, value: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    out.push_str(value);
}

fn push_member(out: &mut String, key: &str, value: &str) {
    out.push_str(key);
    out.push(':');
    out.push_str(value);
}

fn push_string(out: &mut String, text: &str) {
    // Ids rarely need escapes; serde_json knows the rest.
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// The user's own text of a live document as it was read: without what the service adds to every item. Whatever the
/// service itself does not touch stays as it is.
///
/// # Errors
/// When the text is no JSON object.
pub fn own_text(stored: &str) -> Result<String, serde_json::Error> {
    Ok(render(&own_members(&RawDocument::parse(stored)?, Shape::Stored)))
}

/// Members as the text of an object.
pub(super) fn render(members: &[Member<'_>]) -> String {
    let mut out =
        String::with_capacity(members.iter().map(|m| m.key.get().len() + m.value.get().len() + 2).sum::<usize>() + 2);
    out.push('{');
    for (i, member) in members.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_member(&mut out, member.key.get(), member.value.get());
    }
    out.push('}');
    out
}

struct Packed {
    size: usize,
    sha256: String,
    data: String,
}

/// Compresses a document; gzip, so that any tool can read it back, with a checksum of the text.
fn pack(text: &str) -> Packed {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(text.len() / 4), flate2::Compression::default());
    // Writing to memory cannot fail; an empty result would fail its checksum when read.
    let bytes = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).unwrap_or_default();
    Packed {
        size: text.len(),
        sha256: hex(&Sha256::digest(text.as_bytes())),
        data: base64::engine::general_purpose::STANDARD.encode(bytes),
    }
}

/// Bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        for nibble in [b >> 4, b & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        out
    })
}

/// The record with its document compressed into `_change`: for a service that finds an item too large which we did not.
/// `None` when there is nothing to compress.
pub fn compress(record: &Record, paths: &KeyPaths) -> Option<Record> {
    if record.compressed {
        return None;
    }
    let document = super::version::Version::parse(&record.body).ok()?.document?;
    let stored = RawDocument::parse(&record.body).ok()?;
    let change = RawDocument::parse(stored.get(CHANGE)?.get()).ok()?;
    let kept: Vec<Member<'_>> = change
        .members()
        .iter()
        .filter(|m| !["ttl", "shadowed", "places"].iter().any(|name| m.is(name)))
        .copied()
        .collect();
    let mut metadata = render(&kept);
    metadata.pop();
    push_packed(&mut metadata, &pack(&document));
    metadata.push('}');
    let body = bare(record, stored.get(ORIGINAL_ID)?.get(), paths, &metadata);
    Some(Record { body, compressed: true, ..record.clone() })
}

/// The record marked as a part of the document only; `note` is the JSON text of `_change.partial`. It knows less than a
/// record of the whole document, so it never replaces one.
pub fn partial(record: Record, note: &str) -> Record {
    let fidelity = format!("\"{}\"", RecordFidelity::Partial.as_str());
    let marked = || {
        let stored = RawDocument::parse(&record.body).ok()?;
        let change = RawDocument::parse(stored.get(CHANGE)?.get()).ok()?;
        let members = change.members().iter().map(|member| {
            let value = if member.is("fidelity") { &fidelity } else { member.value.get() };
            format!("{}:{value}", member.key.get())
        });
        let metadata = format!("{{{},\"partial\":{note}}}", members.collect::<Vec<_>>().join(","));
        super::edit::set(&record.body, &[CHANGE.to_owned()], &metadata).ok()
    };
    // A record of our own making always has its `_change`.
    let body = marked().unwrap_or_else(|| record.body.clone());
    Record { body, create_only: true, ..record }
}

/// Whether the text of a change may differ from what the source stored.
pub fn may_be_altered(change: &Change<'_>, delivery: Delivery) -> bool {
    !change.op.is_tombstone() && (fidelity::may_be_altered(change.text, delivery) || lost_its_lsn(change))
}

/// Whether the feed put its `_lsn` in the place of the document's own: it stands before what the service adds, where
/// only a user's member does.
fn lost_its_lsn(change: &Change<'_>) -> bool {
    let members = change.document.members();
    let place = |wanted: &dyn Fn(&Member<'_>) -> bool| members.iter().position(wanted);
    change.shape == Shape::Feed
        && place(&|m| m.reserved() == Some(Reserved::Lsn))
            .zip(place(&|m| m.reserved() == Some(Reserved::System)))
            .is_some_and(|(own, system)| own < system)
        && members.iter().filter(|m| m.reserved() == Some(Reserved::Lsn)).count() == 1
}

/// What of a change's identity may have been altered on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Nothing: it is the document that it says.
    Sure,
    /// Its id; its partition key is its own.
    IdUnsure,
    /// Its partition key, and perhaps its id.
    KeyUnsure,
}

/// Whether a change may be another document's: the host alters ids and partition keys that look like dates, too.
/// `paths` are those of the source, or of its history.
pub fn identity(change: &Change<'_>, delivery: Delivery, paths: &KeyPaths) -> Identity {
    if delivery == Delivery::Direct {
        return Identity::Sure;
    }
    let unsure =
        |value: &KeyValue| matches!(value, KeyValue::String(s) if fidelity::string_may_be_altered(s, delivery));
    // The service's own paths name the record; its id is looked at below.
    let is_key = |path: &[String]| !matches!(path, [name] if name == "id" || name == ORIGINAL_ID);
    let key = key_of(change, &change.document, "", "", paths).map_or(Vec::new(), |key| key.0);
    if paths.segments().iter().zip(&key).any(|(path, value)| is_key(path) && unsure(value)) {
        return Identity::KeyUnsure;
    }
    // What a delete's metadata says of the id is never altered.
    if change.metadata_key.is_none() && fidelity::string_may_be_altered(&change.id, delivery) {
        Identity::IdUnsure
    } else {
        Identity::Sure
    }
}

/// The record marked as one whose id or partition key may not be its document's.
pub fn unsure(record: Record) -> Record {
    match super::edit::set(&record.body, &[CHANGE.to_owned(), "identity".to_owned()], "\"unsure\"") {
        // One that is sure is at another place; redelivered, this one must not replace anything.
        Ok(body) => Record { body, create_only: true, ..record },
        // A record of our own making is an object with a `_change`.
        Err(_) => record,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::change::{decode::decode, version::Version};

    const AT: &str = "2026-11-20T15:00:00.123Z";

    fn paths(paths: &[&str]) -> KeyPaths {
        KeyPaths::parse(paths).unwrap()
    }

    fn records(item: &str, key_paths: &[&str]) -> Vec<Record> {
        let raw: &RawValue = serde_json::from_str(item).unwrap();
        let mut changes = Vec::new();
        decode(raw, &mut changes).unwrap();
        let paths = paths(key_paths);
        let context =
            RecordContext { via: Via::Trigger, at: AT, at_seconds: 1_790_000_000, paths: &paths, source: None };
        changes.iter().map(|c| build(c, None, false, context).unwrap()).collect()
    }

    #[test]
    fn a_record_reads_as_the_format_document_says() {
        let item = r#"{"id":"28035","pk":"28035","city_name":"Davidson","n":1.10,"_rid":"47UeAPmUTk0GEQAAAAAAAA==","_self":"dbs/x/","_etag":"\"000011bc-0000-0100-0000-5ef2227c0000\"","_attachments":"attachments/","_ts":1592926844,"_lsn":20591}"#;
        let [record] = records(item, &["/pk", "/_originalId"]).try_into().unwrap();
        assert_eq!(
            record.body,
            r#"{"id":"28035~000011bc-0000-0100-0000-5ef2227c0000","pk":"28035","city_name":"Davidson","n":1.10,"_originalId":"28035","_change":{"v":1,"op":"upsert","ts":1592926844,"lsn":20591,"etag":"\"000011bc-0000-0100-0000-5ef2227c0000\"","rid":"47UeAPmUTk0GEQAAAAAAAA==","via":"trigger","fidelity":"exact","at":"2026-11-20T15:00:00.123Z"}}"#
        );
        assert_eq!(record.key.to_json(), serde_json::json!(["28035", "28035"]));
        assert!(record.create_only && record.completes, "the latest-version feed does not say what happened");
    }

    #[test]
    fn a_tombstone_lands_in_its_documents_partition() {
        for metadata_key in
            [r#"{"tenant":"t1","zip":28035}"#, r#"{"tenant":"t1","address/zip":28035}"#, r#"["t1",28035]"#]
        {
            let item = format!(
                r#"{{"metadata":{{"operationType":"delete","lsn":9,"crts":30,"previousImageLSN":8,"id":"x","partitionKey":{metadata_key}}}}}"#
            );
            let [record] = records(&item, &["/tenant", "/address/zip", "/_originalId"]).try_into().unwrap();
            assert_eq!(record.key.to_json(), serde_json::json!(["t1", 28035, "x"]), "{metadata_key}");
            assert_eq!(
                record.body,
                format!(
                    r#"{{"id":"x~del-9-30","tenant":"t1","address":{{"zip":28035}},"_originalId":"x","_change":{{"v":1,"op":"delete","ts":30,"lsn":9,"prevLsn":8,"via":"trigger","fidelity":"exact","at":"{AT}"}}}}"#
                )
            );
            let version = Version::parse(&record.body).unwrap();
            assert_eq!((version.op, version.document), (Some(Op::Delete), None));
        }
    }

    #[test]
    fn a_member_lsn_of_the_users_own_is_kept_or_read_again() {
        let paths = paths(&["/pk"]);
        let context = RecordContext { via: Via::Trigger, at: AT, at_seconds: 0, paths: &paths, source: None };
        let read = |text: &str| {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            let mut changes = Vec::new();
            decode(raw, &mut changes).unwrap();
            let altered = may_be_altered(&changes[0], Delivery::DatesKept);
            let record = build(&changes[0], None, altered, context).unwrap();
            (altered, Version::parse(&record.body).unwrap().document.unwrap())
        };
        let system = r#""_rid":"x","_etag":"\"e\"","_ts":5"#;
        // The feed's own, at the end.
        let (altered, document) = read(&format!(r#"{{"id":"a","pk":"p",{system},"_lsn":9}}"#));
        assert_eq!((altered, document.as_str()), (false, r#"{"id":"a","pk":"p"}"#));
        // Both are there ...
        let (altered, document) = read(&format!(r#"{{"id":"a","pk":"p","_lsn":"mine",{system},"_lsn":9}}"#));
        assert_eq!((altered, document.as_str()), (false, r#"{"id":"a","pk":"p","_lsn":"mine"}"#));
        // ... or the host made one of them, with the feed's value.
        assert!(read(&format!(r#"{{"id":"a","_lsn":9,"pk":"p",{system}}}"#)).0);
    }

    #[test]
    fn a_history_whose_key_cannot_tell_documents_apart_is_refused() {
        let check = |changes: &[&str], source: &[&str]| check_layout(&paths(changes), &paths(source));
        for (changes, source) in [
            (&["/pk", "/_originalId"][..], &["/pk"][..]),
            (&["/pk"], &["/pk"]),
            (&["/_originalId", "/pk"], &["/pk"]),
            (&["/_originalId"], &["/id"]),
            (&["/id"], &["/id"]),
            (&["/tenant", "/_originalId"], &["/tenant", "/id"]),
            (&["/a", "/b/c", "/_originalId"], &["/a", "/b/c"]),
        ] {
            assert_eq!(check(changes, source), Ok(()), "{changes:?} {source:?}");
        }
        for (changes, source, problem) in [
            (&["/_originalId"][..], &["/pk"][..], "leaves out /pk"),
            (&["/id"], &["/pk"], "leaves out /pk"),
            (&["/a", "/_originalId"], &["/a", "/b"], "leaves out /b"),
            (&["/other"], &["/pk"], "/other is not part of the source's"),
            (&["/pk", "/other"], &["/pk"], "/other is not part of the source's"),
            (&["/ttl", "/_originalId"], &["/ttl"], "keyed by /ttl"),
            (&["/_originalId"], &["/_originalId"], "keyed by /_originalId"),
            (&["/pk", "/_change/x"], &["/pk", "/_change/x"], "keyed by /_change/x"),
        ] {
            assert!(check(changes, source).unwrap_err().contains(problem), "{changes:?} {source:?}");
        }
    }

    #[test]
    fn a_delete_without_any_partition_key_is_poison() {
        let raw: &RawValue =
            serde_json::from_str(r#"{"metadata":{"operationType":"delete","lsn":9,"id":"x"}}"#).unwrap();
        let mut changes = Vec::new();
        decode(raw, &mut changes).unwrap();
        let paths = paths(&["/pk"]);
        let context = RecordContext { via: Via::Trigger, at: AT, at_seconds: 0, paths: &paths, source: None };
        assert!(build(&changes[0], None, false, context).unwrap_err().reason.contains("partition key"));
    }

    #[test]
    fn a_version_before_and_a_payload_without_a_time_never_replace_a_record_that_knows_more() {
        let item = r#"{"current":{"id":"x","_etag":"\"2\"","_ts":2},"previous":{"id":"x","_etag":"\"1\"","_ts":1},"metadata":{"operationType":"replace","lsn":7}}"#;
        let whole = item.replace("\"lsn\":7", "\"lsn\":7,\"previousImageLSN\":3");
        assert!(!records(&whole, &["/id"])[1].create_only);
        let [healed, current] = records(item, &["/id"]).try_into().unwrap();
        assert_eq!((healed.id.as_str(), healed.create_only, healed.completes), ("x~1", true, false));
        assert_eq!((current.id.as_str(), current.create_only, current.completes), ("x~2", true, true));
        let [timeless] = records(r#"{"id":"x","a":1}"#, &["/id"]).try_into().unwrap();
        assert!(
            timeless.create_only && timeless.body.contains(r#""ts":1790000000,"tsFrom":"capture""#),
            "{}",
            timeless.body
        );
        assert_eq!(timeless.id, records(r#"{"id":"x","a":1}"#, &["/id"])[0].id);
        assert_ne!(timeless.id, records(r#"{"id":"x","a":2}"#, &["/id"])[0].id);
    }

    #[test]
    fn an_id_that_would_be_too_long_becomes_its_digest() {
        let id = "é".repeat(500);
        let [record] = records(&format!(r#"{{"id":"{id}","_etag":"\"{}\"","_ts":1}}"#, "e".repeat(36)), &["/id"])
            .try_into()
            .unwrap();
        assert_eq!(record.id.len(), 64);
        assert_eq!(Version::parse(&record.body).unwrap().id, id);
    }

    #[test]
    fn a_record_that_would_be_too_large_is_compressed_and_comes_back_exactly() {
        let text = format!(
            r#"{{"id":"x","pk":"p","big":"{}","n":1.10,"ttl":5,"_etag":"\"e\"","_ts":1}}"#,
            "lorem ipsum ".repeat(180_000)
        );
        let [record] = records(&text, &["/pk", "/_originalId"]).try_into().unwrap();
        assert!(record.compressed && record.body.len() < 100_000, "{}", record.body.len());
        assert_eq!(record.key.to_json(), serde_json::json!(["p", "x"]));
        let version = Version::parse(&record.body).unwrap();
        assert_eq!(version.document.unwrap(), text.replace(r#","_etag":"\"e\"","_ts":1"#, ""));
        let damaged = record.body.replace("\"size\":", "\"size\":1");
        assert!(Version::parse(&damaged).unwrap_err().problem.contains("checksum"));
    }

    #[test]
    fn a_copy_of_the_original_demo_is_read_as_what_it_is() {
        let legacy = r#"{"id":"1b2c","pk":"28035","seq":1777,"_lsn":20591,"_originalId":"28035","_rid":"r","_etag":"\"e\"","_ts":1592926405}"#;
        let version = Version::parse(legacy).unwrap();
        assert_eq!(
            (version.op, version.ts, version.lsn, version.id.as_str()),
            (None, 1_592_926_405, Some(20591), "28035")
        );
        assert_eq!(version.document.unwrap(), r#"{"id":"28035","pk":"28035","seq":1777}"#);
        assert!(Version::parse(r#"{"id":"x"}"#).is_err());
        assert!(
            Version::parse(r#"{"id":"x","_originalId":"x","_change":{"v":2,"op":"upsert","ts":1}}"#)
                .unwrap_err()
                .problem
                .contains("format 2")
        );
    }

    /// JSON text of any value, in spellings a parser would not write again.
    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?",
            any::<String>().prop_map(|s| serde_json::Value::from(s).to_string()),
            Just(r#""\u00e9\/\ud83d\ude00""#.to_owned()),
            Just(r#""2020-01-01T00:00:00.000Z""#.to_owned()),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|v| format!("[{}]", v.join(", "))),
                proptest::collection::vec((key(), inner), 0..4).prop_map(|m| format!(
                    "{{{}}}",
                    m.iter().map(|(k, v)| format!("{k} : {v}")).collect::<Vec<_>>().join(",")
                )),
            ]
        })
    }

    fn key() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => "\"[a-c]\"",
            1 => Just("\"\\u0061\"".to_owned()),
            1 => any::<String>().prop_map(|s| serde_json::Value::from(s).to_string()),
        ]
    }

    fn reserved_key() -> impl Strategy<Value = String> {
        prop_oneof![Just("\"ttl\"".to_owned()), Just("\"_change\"".to_owned()), Just("\"_originalId\"".to_owned())]
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_went_in(
            mut members in proptest::collection::vec((key(), value()), 0..6),
            reserved in proptest::collection::btree_map(0..4usize, (reserved_key(), value(), 0..8usize), 0..4),
            id in "[^\\x00]{1,20}",
            id_at in 0..6usize,
            system_at in 0..8usize,
        ) {
            // At most one of each reserved name: of duplicates the last wins, tested apart.
            let mut seen = std::collections::HashSet::new();
            for (key, value, at) in reserved.into_values() {
                if seen.insert(serde_json::from_str::<String>(&key).unwrap()) {
                    members.insert(at.min(members.len()), (key, value));
                }
            }
            let id_text = serde_json::Value::from(id.as_str()).to_string();
            members.retain(|(k, _)| serde_json::from_str::<String>(k).is_ok_and(|k| k != "id" && !SYSTEM.contains(&k.as_str()) && k != "_lsn"));
            members.insert(id_at.min(members.len()), ("\"id\"".into(), id_text));
            let text = |m: &[(String, String)]| format!("{{{}}}", m.iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>().join(","));
            let expected = text(&members);
            let mut delivered = members.clone();
            for (i, (k, v)) in [("_rid", "\"r\""), ("_etag", "\"\\\"e\\\"\""), ("_ts", "12"), ("_lsn", "3")].into_iter().enumerate() {
                delivered.insert((system_at + i).min(delivered.len()), (format!("\"{k}\""), v.to_owned()));
            }
            let item = text(&delivered);
            let record = records(&item, &["/a", "/_originalId"]).pop().unwrap();
            let version = Version::parse(&record.body).unwrap();
            prop_assert_eq!(version.document.as_deref(), Some(expected.as_str()));
            prop_assert_eq!((version.id.as_str(), version.ts, version.lsn), (id.as_str(), 12, Some(3)));
            // The record as Cosmos returns it, with system properties of its own.
            let stored = format!("{},\"_rid\":\"x\",\"_self\":\"y\",\"_etag\":\"\\\"z\\\"\",\"_attachments\":\"a\",\"_ts\":99}}", &record.body[..record.body.len() - 1]);
            prop_assert_eq!(Version::parse(&stored).unwrap(), version);
        }

        #[test]
        fn the_same_version_has_the_same_record_however_often_it_is_delivered(value in value()) {
            let item = format!(r#"{{"id":"x","v":{value},"_etag":"\"e\"","_ts":1,"_lsn":2}}"#);
            prop_assert_eq!(records(&item, &["/id"]), records(&item, &["/id"]));
        }
    }

    #[test]
    fn a_reserved_name_is_recognised_behind_its_escapes() {
        let record =
            records(r#"{"id":"x","\u0074tl":null,"\u005fts":9,"_etag":"\"e\"","_ts":1}"#, &["/pk"]).pop().unwrap();
        assert!(record.body.contains(r#","ttl":null,"via""#), "{}", record.body);
        assert_eq!(Version::parse(&record.body).unwrap().document.unwrap(), r#"{"id":"x","ttl":null}"#);
    }

    #[test]
    fn a_version_is_not_lost_for_a_system_property_that_is_none() {
        let item = r#"{"id":"x","a":1,"_rid":5,"_etag":"\"\ud800\"","_ts":1}"#;
        let record = records(item, &["/pk"]).pop().unwrap();
        let version = Version::parse(&record.body).unwrap();
        assert_eq!((version.rid, version.etag.as_deref()), (None, Some("\"\u{FFFD}\"")));
        assert_eq!(version.document.unwrap(), r#"{"id":"x","a":1}"#);
        // As it was written before.
        let stored = record.body.replace(r#""via":"#, r#""rid":5,"via":"#);
        assert_eq!(Version::parse(&stored).unwrap().rid, None);
    }

    #[test]
    fn of_duplicated_reserved_names_the_last_wins_and_others_are_kept() {
        let item = r#"{"id":"old","a":1,"a":2,"ttl":1,"id":"x","ttl":2,"_etag":"\"e\"","_ts":1}"#;
        let record = records(item, &["/pk"]).pop().unwrap();
        assert_eq!(Version::parse(&record.body).unwrap().document.unwrap(), r#"{"a":1,"a":2,"id":"x","ttl":2}"#);
    }
}
