//! Writes the text of a record: the document's own members, and `_change`.

use std::fmt::Write as _;

use super::{CHANGE, FORMAT_VERSION, ORIGINAL_ID, Record, RecordContext, RecordFidelity, compress::Packed};
use crate::change::{
    Change,
    edit::push_quoted,
    key::{KeyPaths, KeyValue, PartitionKey},
    raw::{Member, Reserved},
};

/// The text of `_change`.
pub(super) fn change_object(
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
    if let Some(native) = &change.native {
        out.push_str(",\"ns\":");
        push_quoted(&mut out, &native.ns);
        // A record that would be too large keeps only the text; the bytes can be made from it.
        if let (Some(bson), None) = (&native.bson, packed) {
            out.extend([",\"bson\":\"", bson, "\""]);
        }
    }
    if let Some(packed) = packed {
        push_packed(&mut out, packed);
    }
    out.push('}');
    out
}

/// The source's key values, so that whose version a record is does not depend on the layout of the changes container.
pub(super) fn push_key(out: &mut String, key: &PartitionKey) {
    out.push_str(",\"key\":[");
    for (i, part) in key.0.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match part {
            KeyValue::String(text) => push_quoted(out, text),
            other => out.push_str(&other.to_json().to_string()),
        }
    }
    out.push(']');
}

pub(super) fn push_packed(out: &mut String, packed: &Packed) {
    out.push_str(&format!(
        ",\"body\":{{\"encoding\":\"gzip\",\"size\":{},\"sha256\":\"{}\",\"data\":\"{}\"}}",
        packed.size, packed.sha256, packed.data
    ));
}

/// `ttl`, and whatever the document has under our own names, with the position of each.
pub(super) fn push_moved(out: &mut String, members: &[Member<'_>]) {
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
    // The usual case, a ttl after everything else, needs no position.
    if !matches!(moved.as_slice(), [(i, "ttl", _)] if i + 1 == members.len()) {
        let places: Vec<String> = moved.iter().map(|(i, name, _)| format!("\"{name}\":{i}")).collect();
        push_pair(out, "places", &format!("{{{}}}", places.join(",")));
    }
}

/// A record without the document's own members: its id, its key members, and `_change`.
pub(super) fn bare(record: &Record, original_id: &str, paths: &KeyPaths, metadata: &str) -> String {
    let mut keys = serde_json::Map::new();
    for (path, value) in paths.segments().iter().zip(&record.key.0) {
        if matches!(path.as_slice(), [name] if name == "id" || name == ORIGINAL_ID) || *value == KeyValue::Undefined {
            continue;
        }
        insert_at(&mut keys, path, value.to_json());
    }
    let mut body = String::with_capacity(metadata.len() + 256);
    body.push_str("{\"id\":");
    push_quoted(&mut body, &record.id);
    for (name, value) in &keys {
        body.push(',');
        push_quoted(&mut body, name);
        body.push(':');
        body.push_str(&value.to_string());
    }
    push_tail(&mut body, original_id, metadata);
    body
}

pub(super) fn insert_at(
    object: &mut serde_json::Map<String, serde_json::Value>,
    path: &[String],
    value: serde_json::Value,
) {
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

pub(super) fn push_tail(body: &mut String, original_id: &str, metadata: &str) {
    push_pair(body, ORIGINAL_ID, original_id);
    push_pair(body, CHANGE, metadata);
    body.push('}');
}

pub(super) fn push_pair(out: &mut String, name: &str, value: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    out.push_str(value);
}

pub(super) fn push_member(out: &mut String, key: &str, value: &str) {
    out.push_str(key);
    out.push(':');
    out.push_str(value);
}
