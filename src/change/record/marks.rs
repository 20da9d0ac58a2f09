//! Marks records as knowing less than their version does.

use super::{CHANGE, ORIGINAL_ID, Record, RecordFidelity, members::render, text::bare};
use crate::change::{
    edit,
    key::KeyPaths,
    raw::{Member, RawDocument},
};

/// Marks the record as a part of the document; `note` is the JSON text of `_change.partial`. It knows less than a
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
        edit::set(&record.body, &[CHANGE.to_owned()], &metadata).ok()
    };
    // A record that we made always has its `_change`.
    let body = marked().unwrap_or_else(|| record.body.clone());
    Record { body, create_only: true, ..record }
}

/// The record without its document, which is too large for the service. It keeps the fact that there was such a
/// version; otherwise the one before would pass for the one in force. It never replaces a record with a document.
pub fn absent(record: &Record, paths: &KeyPaths) -> Option<Record> {
    let fidelity = format!("\"{}\"", RecordFidelity::Absent.as_str());
    let stored = RawDocument::parse(&record.body).ok()?;
    let change = RawDocument::parse(stored.get(CHANGE)?.get()).ok()?;
    let of_document =
        |member: &Member<'_>| ["ttl", "shadowed", "places", "bson", "body", "fidelity"].iter().any(|n| member.is(n));
    let kept: Vec<Member<'_>> = change.members().iter().filter(|member| !of_document(member)).copied().collect();
    let mut metadata = render(&kept);
    metadata.pop();
    metadata.push_str(&format!(",\"fidelity\":{fidelity}}}"));
    let body = bare(record, stored.get(ORIGINAL_ID)?.get(), paths, &metadata);
    Some(Record { body, compressed: false, create_only: true, ..record.clone() })
}

/// Marks the record as one whose id or partition key may not be its document's.
pub fn unsure(record: Record) -> Record {
    match edit::set(&record.body, &[CHANGE.to_owned(), "identity".to_owned()], "\"unsure\"") {
        // A record whose identity is certain lies elsewhere; this one, redelivered, must not replace anything.
        Ok(body) => Record { body, create_only: true, ..record },
        // A record that we made is an object with a `_change`.
        Err(_) => record,
    }
}
