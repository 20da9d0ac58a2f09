//! Reads a record back: the version it stands for, and the exact document that went in.

use std::io::Read as _;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

pub use super::bad_record::{BadRecord, BodyError, RecordProblem};
use super::{
    Op, VersionFidelity, VersionVia, Via,
    key::{KeyValue, PartitionKey},
    order::Position,
    raw::{Member, RawDocument, Reserved, present, string_of},
    record::{self, CHANGE, ORIGINAL_ID, RecordFidelity},
};

/// The longest text of a document. One of MongoDB has 16 MB, which may all be control characters of six letters each.
const MAX_DOCUMENT: usize = 128 << 20;

/// One version of one document.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Id of the record.
    pub record_id: String,
    /// Id of the document.
    pub id: String,
    /// The operation; `None` for a copy of the original demo, which did not say.
    pub op: Option<Op>,
    /// The time axis: the source's `_ts`, epoch seconds; for a legacy copy, the copy's own.
    pub ts: i64,
    /// Whether the payload had no time, so that `ts` is the time of capture.
    pub ts_from_capture: bool,
    /// The source's LSN.
    pub lsn: Option<i64>,
    /// LSN of the version before.
    pub prev_lsn: Option<i64>,
    /// The source's etag.
    pub etag: Option<String>,
    /// The source's resource id.
    pub rid: Option<String>,
    /// Identifies the document itself, taken from that id: a document that was deleted and recreated under its id is
    /// another one.
    pub life: Option<u64>,
    /// Identifies the source container itself, taken from that id: a container that was deleted and recreated under its
    /// name is another one.
    pub container: Option<u64>,
    /// Which entrance it came through.
    pub via: Option<VersionVia>,
    /// How faithful its text is.
    pub fidelity: Option<VersionFidelity>,
    /// When it was captured, RFC 3339.
    pub at: Option<String>,
    /// The same in epoch seconds.
    pub captured: Option<i64>,
    /// The source's key values in the record (`_change.key`); `None` in older records.
    pub key: Option<PartitionKey>,
    /// Whether the Functions host may have altered the document's id or key, so that nobody knows whose version this
    /// is.
    pub identity_unsure: bool,
    /// Whether the document is MongoDB's, with a text in Extended JSON.
    pub is_native: bool,
    /// The document's text; `None` for a tombstone.
    pub document: Option<String>,
}

/// The container that a resource id belongs to: its own, or its document's. An id begins with four bytes for the
/// database and four for the container (base64 with `-` for `/`).
pub fn container_of(rid: &str) -> Option<u64> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(rid.replace('-', "/")).ok()?;
    bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// How the resource ids of a container's documents may begin. The eight bytes end within a letter, so there are four
/// possibilities.
pub fn beginnings_of(container: u64) -> [String; 4] {
    const LETTERS: usize = 11;
    [0, 1, 2, 3].map(|next: u8| {
        let bytes = [&container.to_be_bytes()[..], &[next << 6]].concat();
        let mut id = base64::engine::general_purpose::STANDARD.encode(bytes).replace('/', "-");
        id.truncate(LETTERS);
        id
    })
}

/// The document that a resource id belongs to: its last eight bytes.
pub fn life_of(rid: &str) -> Option<u64> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(rid.replace('-', "/")).ok()?;
    (bytes.len() == 16).then(|| bytes.last_chunk().map(|bytes| u64::from_be_bytes(*bytes)))?
}

/// The value of `_change.identity` when the host may have altered the document's id or key values.
pub const IDENTITY_UNSURE: &str = "unsure";

/// The key values of a record's `_change.key`; `None` when it is not an array of 1 to 3 values.
pub fn key_of(raw: &RawValue) -> Option<PartitionKey> {
    let parts: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
    (1..=3).contains(&parts.len()).then(|| PartitionKey(parts.into_iter().map(KeyValue::from_raw).collect()))
}

/// Epoch seconds of a time of capture.
pub fn seconds_of(at: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(at).ok().map(|t| t.timestamp())
}

#[derive(Deserialize)]
struct ChangeObject<'a> {
    v: u32,
    op: Op,
    ts: i64,
    #[serde(borrow, rename = "tsFrom")]
    ts_from: Option<std::borrow::Cow<'a, str>>,
    lsn: Option<i64>,
    #[serde(rename = "prevLsn")]
    prev_lsn: Option<i64>,
    // Lenient: the service's own text is sound, but half a surrogate pair in a hand-made one must not hide the version.
    #[serde(borrow)]
    etag: Option<&'a RawValue>,
    #[serde(borrow)]
    rid: Option<&'a RawValue>,
    via: Option<VersionVia>,
    fidelity: Option<VersionFidelity>,
    at: Option<String>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    identity: Option<String>,
    #[serde(borrow)]
    ns: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    ttl: Option<&'a RawValue>,
    #[serde(borrow)]
    shadowed: Option<RawDocument<'a>>,
    #[serde(borrow)]
    places: Option<RawDocument<'a>>,
    #[serde(borrow)]
    body: Option<Body<'a>>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    encoding: std::borrow::Cow<'a, str>,
    size: usize,
    #[serde(borrow)]
    sha256: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    data: std::borrow::Cow<'a, str>,
}

impl Version {
    /// Whether the text may differ from the source's: the Functions host may have rewritten date strings in it.
    pub fn is_normalized(&self) -> bool {
        self.fidelity == Some(VersionFidelity::Known(RecordFidelity::Normalized))
    }

    /// Whether the text was looked up after the change, and may belong to a later one.
    pub fn is_looked_up(&self) -> bool {
        self.fidelity == Some(VersionFidelity::Known(RecordFidelity::Lookup))
    }

    /// Whether fields were left out or hashed on purpose, or the record has nothing of the document, so that it cannot
    /// stand for the whole document.
    pub fn is_partial(&self) -> bool {
        self.is_absent() || self.fidelity == Some(VersionFidelity::Known(RecordFidelity::Partial))
    }

    /// Whether its reader passed on only what matched a filter: it says nothing of the changes around it, but which
    /// version was before.
    pub fn is_filtered(&self) -> bool {
        self.via == Some(VersionVia::Known(Via::Filter))
    }

    /// Whether it came from a feed that delivers every version.
    pub fn is_of_every_version(&self) -> bool {
        self.op.is_some_and(Op::is_of_every_version)
    }

    /// Whether nothing of the document is there: it was too large for a record, or gone when it was looked up.
    pub fn is_absent(&self) -> bool {
        self.fidelity == Some(VersionFidelity::Known(RecordFidelity::Absent))
    }

    /// Why it cannot stand for the whole document, when [`is_partial`](Self::is_partial) says so.
    pub fn why_partial(&self) -> &'static str {
        if self.is_absent() && self.via == Some(VersionVia::Archive) {
            "the archive has nothing of that version: it was gone when MongoDB was asked for it, or came with a renamed collection that was not read by then"
        } else if self.is_absent() {
            "that version was too large for the history, which has nothing of it (a dead letter may), or gone when MongoDB was asked for it"
        } else {
            "the history holds only a part of that version (follow --fields or --redact)"
        }
    }

    /// Reads a record's text; records of the original demo (flat, without `_change`) are read, too.
    ///
    /// # Errors
    /// When the text is not a record, has a newer format, or its compressed body does not match its checksum.
    pub fn parse(text: &str) -> Result<Self, BadRecord> {
        let record = RawDocument::parse(text).map_err(|e| BadRecord::new("", RecordProblem::NotAnObject(e)))?;
        let record_id = record.get_str("id").unwrap_or_default().into_owned();
        let bad = |problem| BadRecord::new(record_id.clone(), problem);
        let Some(change) = record.get(CHANGE).filter(|c| c.get().starts_with('{')) else {
            return Self::legacy(&record, record_id.clone()).ok_or_else(|| bad(RecordProblem::NoRecord));
        };
        let change: ChangeObject<'_> = serde_json::from_str(change.get()).map_err(|e| bad(RecordProblem::Change(e)))?;
        if change.v > record::FORMAT_VERSION {
            return Err(bad(RecordProblem::Format(change.v)));
        }
        if change.op.is_of_collection() {
            return Err(bad(RecordProblem::OfCollection(change.op)));
        }
        let original = record.get(ORIGINAL_ID).ok_or_else(|| bad(RecordProblem::NoDocumentId))?;
        let absent = VersionFidelity::Known(RecordFidelity::Absent);
        // Its record has an id and a key, which are not a document.
        let document = if change.op.is_tombstone() || change.fidelity.as_ref() == Some(&absent) {
            None
        } else if let Some(body) = &change.body {
            Some(unpack(body).map_err(|e| bad(e.into()))?)
        } else {
            Some(rebuild(&record, original, &change))
        };
        let rid = change.rid.and_then(string_of);
        Ok(Self {
            id: super::raw::unescape(original.get()).into_owned(),
            op: Some(change.op),
            ts: change.ts,
            ts_from_capture: change.ts_from.as_deref() == Some("capture"),
            lsn: change.lsn,
            prev_lsn: change.prev_lsn,
            etag: change.etag.and_then(string_of),
            container: rid.as_deref().and_then(container_of),
            life: rid.as_deref().and_then(life_of),
            rid,
            via: change.via,
            fidelity: change.fidelity,
            captured: change.at.as_deref().and_then(seconds_of),
            at: change.at,
            key: change.key.and_then(key_of),
            identity_unsure: change.identity.as_deref() == Some(IDENTITY_UNSURE),
            is_native: change.ns.is_some(),
            document,
            record_id,
        })
    }

    /// A copy of the original demo: the document under a random id, with `_originalId` and `_lsn` added. Its time is
    /// the copy's `_ts`, which is later than the change itself; commands that show it say so.
    fn legacy(record: &RawDocument<'_>, record_id: String) -> Option<Self> {
        let ts = record.get_i64("_ts")?;
        let original = record.get(ORIGINAL_ID)?;
        let members: Vec<Member<'_>> = record
            .members()
            .iter()
            .filter(|m| !matches!(m.reserved(), Some(Reserved::System | Reserved::Lsn | Reserved::OriginalId)))
            .map(|m| if m.reserved() == Some(Reserved::Id) { m.with_value(original) } else { *m })
            .collect();
        Some(Self {
            id: super::raw::unescape(original.get()).into_owned(),
            op: None,
            ts,
            ts_from_capture: false,
            lsn: record.get_i64("_lsn"),
            prev_lsn: None,
            etag: None,
            rid: None,
            life: None,
            container: None,
            via: None,
            fidelity: None,
            at: None,
            captured: None,
            key: None,
            identity_unsure: false,
            is_native: false,
            document: Some(record::render(&members)),
            record_id,
        })
    }

    /// The live document as a version, with what is known of it although the history lacks it.
    pub fn live(id: &str, etag: &str, ts: i64, document: Option<String>) -> Self {
        Self {
            record_id: record::id_of_version(id, etag),
            id: id.to_owned(),
            op: Some(Op::Upsert),
            ts,
            ts_from_capture: false,
            lsn: None,
            prev_lsn: None,
            etag: Some(etag.to_owned()),
            rid: None,
            life: None,
            container: None,
            via: Some(VersionVia::Live),
            fidelity: None,
            at: None,
            captured: None,
            key: None,
            identity_unsure: false,
            is_native: false,
            document,
        }
    }

    /// Whether it is the live document, which the history lacks.
    pub fn is_live(&self) -> bool {
        self.via == Some(VersionVia::Live)
    }

    /// Whether it belongs to another container than this one; false when either is not known.
    pub fn is_of_another(&self, container: Option<u64>) -> bool {
        self.container.zip(container).is_some_and(|(own, other)| own != other)
    }

    /// Whether it belongs to another document than this version: the id was made again in between. False when either
    /// does not tell.
    pub fn is_of_another_life(&self, other: &Self) -> bool {
        self.life.zip(other.life).is_some_and(|(own, other)| own != other)
    }

    /// When it expires, epoch seconds: by its document's time to live, or by the container's `default`, of which -1
    /// stands for none. A container without any lets no document expire.
    pub fn expires(&self, default: Option<i64>) -> Option<i64> {
        let own = self.document.as_deref().and_then(|text| RawDocument::parse(text).ok()?.get_i64("ttl"));
        let seconds = own.unwrap_or(default?);
        (default.is_some() && seconds > 0).then(|| self.ts.saturating_add(seconds))
    }

    /// Where this version stands among the versions of its item, as far as time and LSN tell.
    pub fn position(&self) -> Position<'_> {
        Position { ts: self.ts, lsn: self.lsn, record_id: &self.record_id }
    }
}

/// The exact inverse of building a record: `id` and everything that was moved aside return to their places.
fn rebuild(record: &RawDocument<'_>, original: &RawValue, change: &ChangeObject<'_>) -> String {
    let mut members: Vec<(&str, &str)> = record
        .members()
        .iter()
        .filter(|m| !matches!(m.reserved(), Some(Reserved::System | Reserved::Change | Reserved::OriginalId)))
        .map(|m| (m.key.get(), if m.reserved() == Some(Reserved::Id) { original.get() } else { m.value.get() }))
        .collect();
    let shadowed = |name| change.shadowed.as_ref().and_then(|s| s.get(name));
    let place = |name| change.places.as_ref().and_then(|p| p.get_i64(name)).and_then(|i| usize::try_from(i).ok());
    let mut moved: Vec<(usize, &str, &str)> = [
        ("ttl", "\"ttl\"", change.ttl),
        (CHANGE, "\"_change\"", shadowed(CHANGE)),
        (ORIGINAL_ID, "\"_originalId\"", shadowed(ORIGINAL_ID)),
    ]
    .into_iter()
    .filter_map(|(name, key, value)| Some((place(name).unwrap_or(usize::MAX), key, value?.get())))
    .collect();
    moved.sort_by_key(|(place, _, _)| *place);
    for (place, key, value) in moved {
        members.insert(place.min(members.len()), (key, value));
    }
    let mut out = String::new();
    for (i, (key, value)) in members.iter().enumerate() {
        out.push(if i == 0 { '{' } else { ',' });
        out.push_str(key);
        out.push(':');
        out.push_str(value);
    }
    out.push_str(if members.is_empty() { "{}" } else { "}" });
    out
}

fn unpack(body: &Body<'_>) -> Result<String, BodyError> {
    if body.encoding != "gzip" {
        return Err(BodyError::Encoding(body.encoding.clone().into_owned()));
    }
    if body.size > MAX_DOCUMENT {
        return Err(BodyError::Size(body.size));
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(body.data.as_bytes())?;
    let mut text = String::new();
    // One byte more than claimed is enough to see that the claim is wrong, however far the text would expand.
    flate2::read::GzDecoder::new(bytes.as_slice()).take(body.size as u64 + 1).read_to_string(&mut text)?;
    if text.len() != body.size || record::hex(&Sha256::digest(text.as_bytes())) != body.sha256 {
        return Err(BodyError::Checksum);
    }
    Ok(text)
}

/// The place of a version in an archive, as plans write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivePlace {
    /// The file or blob, below the archive.
    pub file: String,
    /// Its line; 0 when the file is a single version.
    pub line: u64,
}
