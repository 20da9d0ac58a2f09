//! Turns an event of a change stream into a change of this program's feed: from raw bytes to text, without a tree of
//! values.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bson::{RawBsonRef, RawDocument};
use serde_json::value::RawValue;

use super::position::{StreamPosition, Time, time};
use crate::{
    bson_text::{NotADocument, fingerprint, is_same_id, push_fingerprint, push_id, push_text},
    change::{
        Op,
        edit::{push_quoted, quote},
        pointer::escaped,
        record::id_of_place,
        streamed::{ChangeBuffer, Image, Span, Streamed},
    },
};

/// The members of an event that decide what becomes of it.
#[derive(Default)]
pub(super) struct StreamEvent<'a> {
    pub token: Option<&'a RawDocument>,
    operation: Option<&'a str>,
    pub time: Option<Time>,
    wall: Option<i64>,
    document: Option<&'a RawDocument>,
    before: Option<&'a RawDocument>,
    key: Option<&'a RawDocument>,
    namespace: Option<&'a RawDocument>,
    to: Option<&'a RawDocument>,
    update: Option<&'a RawDocument>,
    /// The number of this part, and of all parts, when the event is split.
    pub part: Option<(i32, i32)>,
}

/// How documents are passed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventOptions {
    /// Whether the documents' bytes are included; not when fields are to be left out.
    pub with_bytes: bool,
    /// Whether the server looked up the texts of updates when it read them.
    pub looks_up: bool,
}

/// An event that cannot become an item; the reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UnusableEvent(pub String);

fn odd(problem: NotADocument) -> UnusableEvent {
    UnusableEvent(problem.to_string())
}

/// Adds an item that stands for an event that cannot become one: it becomes a dead letter, with all its bytes.
pub(super) fn push_odd(page: &mut ChangeBuffer, event: &RawDocument, problem: &UnusableEvent) {
    page.push_item(|out| {
        out.push_str("{\"problem\":");
        push_quoted(out, &problem.0);
        out.push_str(",\"bson\":\"");
        push_bytes(out, event);
        out.push_str("\"}");
    });
}

impl<'a> StreamEvent<'a> {
    pub fn read(raw: &'a RawDocument) -> Result<Self, UnusableEvent> {
        let mut event = Self::default();
        for element in raw {
            let (name, value) = element.map_err(|e| UnusableEvent(e.to_string()))?;
            let document = value.as_document();
            match name.as_str() {
                "_id" => event.token = document,
                "operationType" => event.operation = value.as_str(),
                "clusterTime" => event.time = value.as_timestamp().map(time),
                "wallTime" => event.wall = value.as_datetime().map(|at| at.timestamp_millis().div_euclid(1000)),
                "fullDocument" => event.document = document,
                "fullDocumentBeforeChange" => event.before = document,
                "documentKey" => event.key = document,
                "ns" => event.namespace = document,
                "to" => event.to = document,
                "updateDescription" => event.update = document,
                "splitEvent" => {
                    let number = |name| document.and_then(|part| part.get_i32(name).ok());
                    event.part = number("fragment").zip(number("of"));
                }
                _ => {}
            }
        }
        Ok(event)
    }

    /// The operation; a stream that does not say delivers the newest text of each document.
    fn op(&self) -> Option<Op> {
        Some(match self.operation {
            None => Op::Upsert,
            Some("insert") => Op::Create,
            Some("update") => Op::Update,
            Some("replace") => Op::Replace,
            Some("delete") => Op::Delete,
            Some("drop") => Op::Drop,
            Some("rename") => Op::Rename,
            Some("dropDatabase") => Op::DropDatabase,
            Some("invalidate") => Op::Invalidate,
            // Changes to indexes and views do not concern any document.
            Some(_) => return None,
        })
    }

    pub fn is_end(&self) -> bool {
        self.operation == Some("invalidate")
    }

    /// The database and the name that a collection has from now on; the stream never delivered its documents under that
    /// name.
    pub fn renamed_to(&self) -> Option<(&'a str, &'a str)> {
        let to = self.to.filter(|_| self.operation == Some("rename"))?;
        to.get_str("db").ok().zip(to.get_str("coll").ok())
    }

    /// Adds the change, if the event is one. `position` numbers it.
    pub fn push(
        &self,
        page: &mut ChangeBuffer,
        manner: EventOptions,
        position: &mut StreamPosition,
    ) -> Result<bool, UnusableEvent> {
        let Some(op) = self.op() else { return Ok(false) };
        let number = self.time.map_or(0, |time| position.number(time));
        let version = page.write(|out| match self.time {
            // With zeros: when a second has more changes than an LSN can tell apart, this text orders them. Writing to
            // a String cannot fail.
            Some((seconds, increment)) => _ = write!(out, "{seconds}-{increment:07}-{number:05}"),
            None => out.push_str(&self.version_of_page(manner)),
        });
        let of_document = |page: &mut ChangeBuffer, document: &RawDocument| {
            let mut is_there = false;
            let id = page.write(|out| is_there = push_id(out, document.as_bytes()));
            is_there.then_some(id)
        };
        let named = self.key.or(self.document).and_then(|key| of_document(page, key));
        let own = match (self.document, self.key) {
            (Some(document), Some(key)) if !is_same_id(document.as_bytes(), key.as_bytes()) => {
                of_document(page, document)
            }
            _ => named,
        };
        let change = Streamed {
            op,
            ts: self.time.map(|(seconds, _)| i64::from(seconds)).or(self.wall),
            lsn: self.time.map(|time| lsn(time, number)),
            id: own.unwrap_or_default(),
            named,
            version,
            ns: page.write(|out| self.push_ns(out)),
            current: None,
            previous: None,
            changed: self.update.map(|update| page.write(|out| push_changed(out, update))),
            bson: None,
            looked_up: manner.looks_up && op == Op::Update,
        };
        if op.is_of_collection() || (self.document.is_none() && op != Op::Delete) {
            let item = self.bare(&page.read(&change))?;
            page.push_item(|out| out.push_str(&item));
            return Ok(true);
        }
        let change = Streamed {
            current: self.document.map(|document| push_image(page, document, manner)).transpose()?,
            previous: self.before.map(|before| push_image(page, before, manner)).transpose()?,
            bson: self.document.filter(|_| manner.with_bytes).map(|own| page.write(|out| push_bytes(out, own))),
            ..change
        };
        match own {
            Some(_) => page.push(change),
            None => push_whole(page, &change),
        }
        Ok(true)
    }

    /// An event that stands for itself: of a collection, or of a document whose text is not available. With the latter
    /// comes the change itself, for a history: there was such a version.
    fn bare(&self, change: &Streamed<&str>) -> Result<String, UnusableEvent> {
        let (id, ns) = (change.named.unwrap_or_default(), change.ns);
        let version = quote(&id_of_place(if id.is_empty() { ns } else { id }, change.version));
        let mut out = format!(
            "{{\"event\":{{\"op\":\"{}\",\"id\":{},\"ns\":{},\"version\":{version}",
            change.op,
            quote(id),
            quote(ns),
        );
        for (name, number) in [("ts", change.ts), ("lsn", change.lsn)] {
            if let Some(number) = number {
                // Writing to a String cannot fail.
                let _ = write!(out, ",\"{name}\":{number}");
            }
        }
        if let Some(to) = self.to {
            let mut name = String::new();
            push_namespace(&mut name, to);
            out.extend([",\"to\":", &quote(&name)]);
        }
        if let Some(changed) = change.changed {
            out.extend([",\"changed\":", changed]);
        }
        if let Some(before) = self.before {
            out.push_str(",\"previous\":");
            push_text(&mut out, before.as_bytes()).map_err(odd)?;
        }
        out.push('}');
        if !id.is_empty() && !change.op.is_of_collection() {
            let mut item = String::new();
            Streamed { looked_up: true, changed: None, ..*change }.push_item(&mut item);
            out.push(',');
            out.push_str(item.strip_prefix('{').unwrap_or_default());
            return Ok(out);
        }
        out.push('}');
        Ok(out)
    }

    fn push_ns(&self, out: &mut String) {
        if let Some(namespace) = self.namespace {
            push_namespace(out, namespace);
        }
    }

    /// Azure Cosmos DB for MongoDB gives no time. All changes of a page share one token, and a document appears only
    /// once in a page. Another server has a token for each change: the text alone would take a text that returns, and
    /// every delete but the first, for something that was delivered before. When fields are left out, nothing is
    /// derived from the whole document: somebody who knows most of it could guess the rest.
    fn version_of_page(&self, manner: EventOptions) -> String {
        let state = self.token.and_then(super::ru::place_of);
        let print = self.document.map(|document| fingerprint(document.as_bytes())).unwrap_or_default();
        let print = print.trim_matches('"').get(..16).unwrap_or_default();
        let place = state.unwrap_or_else(|| {
            let token = self.token.map(|token| fingerprint(token.as_bytes())).unwrap_or_default();
            format!("h-{}", token.trim_matches('"'))
        });
        if manner.with_bytes && !print.is_empty() { format!("{place}-{print}") } else { place }
    }
}

/// A number that rises with the stream, within the 53 bits of JSON's numbers: seconds since 2020, the operation within
/// the second and the change within the transaction.
pub(super) fn lsn((seconds, increment): Time, number: u32) -> i64 {
    const EPOCH: i64 = 1_600_000_000;
    const NUMBERS: u32 = 5;
    const INCREMENTS: u32 = 17;
    let most = |value: u32, bits: u32| i64::from(value.min((1 << bits) - 1));
    let seconds = (i64::from(seconds) - EPOCH).max(0);
    (seconds << (INCREMENTS + NUMBERS)) | (most(increment, INCREMENTS) << NUMBERS) | most(number, NUMBERS)
}

/// The paths that an update names as changed, as an array of JSON Pointers.
fn push_changed(out: &mut String, update: &RawDocument) {
    let mut paths = Vec::new();
    for name in ["updatedFields", "removedFields", "truncatedArrays"] {
        match update.get(name) {
            Ok(Some(RawBsonRef::Document(fields))) => {
                paths.extend(fields.iter().flatten().map(|(path, _)| path.as_str().to_owned()));
            }
            Ok(Some(RawBsonRef::Array(fields))) => {
                paths.extend(fields.into_iter().flatten().filter_map(|field| match field {
                    RawBsonRef::String(path) => Some(path.to_owned()),
                    RawBsonRef::Document(field) => field.get_str("field").ok().map(str::to_owned),
                    _ => None,
                }))
            }
            _ => {}
        }
    }
    // A dotted path; a dot within a name cannot be recognised.
    let pointer = |path: &String| quote(&format!("/{}", escaped(path).replace('.', "/")));
    out.extend(["[", &paths.iter().map(pointer).collect::<Vec<_>>().join(","), "]"]);
}

/// The item of a delete that no event reports: the document was in a collection when that ended.
///
/// # Errors
/// Never seen: the text is made of JSON.
pub fn delete_item(
    id: &str,
    (ns, version): (&str, &str),
    (ts, lsn): (Option<i64>, Option<i64>),
) -> serde_json::Result<Box<RawValue>> {
    let delete = Streamed {
        op: Op::Delete,
        ts,
        lsn,
        id,
        named: Some(id),
        version,
        ns,
        current: None,
        previous: None,
        changed: None,
        bson: None,
        looked_up: false,
    };
    let mut item = String::new();
    delete.push_item(&mut item);
    RawValue::from_string(item)
}

/// Adds a change as the item that is made of it.
fn push_whole(page: &mut ChangeBuffer, change: &Streamed<Span>) {
    let mut item = String::new();
    page.read(change).push_item(&mut item);
    page.push_item(|out| out.push_str(&item));
}

/// A document's text, with the fingerprint of its bytes as its etag.
pub(super) fn push_image(
    page: &mut ChangeBuffer,
    document: &RawDocument,
    manner: EventOptions,
) -> Result<Image<Span>, UnusableEvent> {
    let bytes = document.as_bytes();
    let mut done = Ok(());
    let text = page.write(|out| done = push_text(out, bytes));
    done.map_err(odd)?;
    Ok(Image { text, etag: manner.with_bytes.then(|| page.write(|out| push_fingerprint(out, bytes))) })
}

/// Appends a document's bytes, base64.
pub(super) fn push_bytes(out: &mut String, document: &RawDocument) {
    STANDARD.encode_string(document.as_bytes(), out);
}

fn push_namespace(out: &mut String, ns: &RawDocument) {
    let part = |name| ns.get_str(name).ok();
    out.push_str(part("db").unwrap_or_default());
    if let (Some(_), Some(collection)) = (part("db"), part("coll")) {
        out.extend([".", collection]);
    }
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, rawdoc};

    use super::*;

    fn version(event: &RawDocumentBuf, with_bytes: bool) -> String {
        StreamEvent::read(event).unwrap().version_of_page(EventOptions { with_bytes, looks_up: false })
    }

    #[test]
    fn where_there_is_no_time_a_text_that_comes_back_and_a_second_delete_are_versions_of_their_own() {
        let put = |token: &str, n: i32| rawdoc! { "_id": { "_data": token }, "fullDocument": { "_id": 1, "n": n } };
        let delete = |token: &str| rawdoc! { "_id": { "_data": token }, "operationType": "delete" };
        for with_bytes in [true, false] {
            let events = [put("a", 1), put("b", 2), put("c", 1), delete("d"), delete("e")];
            let mut versions: Vec<String> = events.iter().map(|event| version(event, with_bytes)).collect();
            // Delivered again, each has the same version.
            assert_eq!(versions, events.iter().map(|event| version(event, with_bytes)).collect::<Vec<_>>());
            versions.sort_unstable();
            versions.dedup();
            assert_eq!(versions.len(), events.len());
        }
        // Nothing about the document is revealed when a part of it is left out.
        assert_eq!(version(&put("a", 1), false), version(&put("a", 2), false));
    }
}
