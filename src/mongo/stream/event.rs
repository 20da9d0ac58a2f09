//! Turns an event of a change stream into an item of this program's feed: from raw bytes to text, without a tree of
//! values.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bson::{RawBsonRef, RawDocument};
use serde_json::value::RawValue;

use super::position::{Position, Time, time};
use crate::{
    bson_text::{NotADocument, fingerprint, id_text, push_text},
    change::{Op, edit::quote, pointer::escaped},
};

/// The members of an event that decide what becomes of it.
#[derive(Default)]
pub(super) struct Event<'a> {
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
pub(super) struct Manner {
    /// Whether the documents' bytes are included; not when fields are to be left out.
    pub with_bytes: bool,
    /// Whether the server looked up the texts of updates when it read them.
    pub looks_up: bool,
}

/// An event that cannot become an item; the reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Odd(pub String);

fn odd(problem: NotADocument) -> Odd {
    Odd(problem.to_string())
}

/// Appends an item that stands for an event that cannot become one: it becomes a dead letter, with all its bytes.
pub(super) fn push_odd(out: &mut String, event: &RawDocument, problem: &Odd) {
    out.push_str("{\"problem\":");
    out.push_str(&quote(&problem.0));
    push_bytes(out, event);
    out.push('}');
}

impl<'a> Event<'a> {
    pub fn read(raw: &'a RawDocument) -> Result<Self, Odd> {
        let mut event = Self::default();
        for element in raw {
            let (name, value) = element.map_err(|e| Odd(e.to_string()))?;
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

    /// What happened; a stream that does not say delivers the newest text of each document.
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

    /// Appends the item, if the event is one. `position` numbers it.
    pub fn push(&self, out: &mut String, manner: Manner, position: &mut Position) -> Result<bool, Odd> {
        let Some(op) = self.op() else { return Ok(false) };
        let number = self.time.map_or(0, |time| position.number(time));
        let ts = self.time.map(|(seconds, _)| i64::from(seconds)).or(self.wall);
        let lsn = self.time.map(|time| lsn(time, number));
        let id = self.key.or(self.document).and_then(|key| key.get("_id").ok().flatten());
        let is_bare = op.is_of_collection() || (self.document.is_none() && op != Op::Delete);
        let facts =
            Facts { op, ts, lsn, id: id.map(id_text), ns: self.ns(), looked_up: manner.looks_up && op == Op::Update };
        let version = match self.time {
            // With zeros: when a second has more changes than an LSN can tell apart, this text orders them.
            Some((seconds, increment)) => format!("{seconds}-{increment:07}-{number:05}"),
            None => self.version_of_page(manner),
        };
        if is_bare {
            self.push_bare(out, &facts, &version)?;
            return Ok(true);
        }
        out.push('{');
        if let Some(document) = self.document {
            out.push_str("\"current\":");
            push_image(out, document, manner)?;
            out.push(',');
        }
        if let Some(before) = self.before {
            out.push_str("\"previous\":");
            push_image(out, before, manner)?;
            out.push(',');
        }
        facts.push(out, &version);
        self.push_changed(out);
        if let (Some(document), true) = (self.document, manner.with_bytes) {
            push_bytes(out, document);
        }
        out.push_str("}}");
        Ok(true)
    }

    /// An event that stands for itself: of a collection, or of a document whose text is not available.
    fn push_bare(&self, out: &mut String, facts: &Facts, version: &str) -> Result<(), Odd> {
        let id = facts.id.as_deref().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "{{\"event\":{{\"op\":\"{}\",\"id\":{},\"ns\":{},\"version\":{}",
            facts.op,
            quote(id),
            quote(&facts.ns),
            quote(&format!("{}~{version}", if id.is_empty() { &facts.ns } else { id }))
        );
        push_number(out, "ts", facts.ts);
        push_number(out, "lsn", facts.lsn);
        if let Some(to) = self.to {
            let _ = write!(out, ",\"to\":{}", quote(&namespace(to)));
        }
        self.push_changed(out);
        if let Some(before) = self.before {
            out.push_str(",\"previous\":");
            push_text(out, before.as_bytes()).map_err(odd)?;
        }
        out.push_str("}}");
        Ok(())
    }

    /// The paths that an update names as changed, as JSON Pointers.
    fn push_changed(&self, out: &mut String) {
        let Some(update) = self.update else { return };
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
        let _ = write!(out, ",\"changed\":[{}]", paths.iter().map(pointer).collect::<Vec<_>>().join(","));
    }

    fn ns(&self) -> String {
        self.namespace.map(namespace).unwrap_or_default()
    }

    /// Azure Cosmos DB for MongoDB gives no time. All changes of a page share one token, and a document appears only
    /// once in a page. Another server has a token for each change: the text alone would take a text that returns, and
    /// every delete but the first, for something that was delivered before. When fields are left out, nothing is
    /// derived from the whole document: somebody who knows most of it could guess the rest.
    fn version_of_page(&self, manner: Manner) -> String {
        let state = self.token.and_then(super::ru::state_of);
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

/// What an item says beside its documents.
pub(super) struct Facts {
    pub op: Op,
    pub ts: Option<i64>,
    pub lsn: Option<i64>,
    pub id: Option<String>,
    pub ns: String,
    pub looked_up: bool,
}

impl Facts {
    /// Appends the metadata, leaving the object open.
    pub fn push(&self, out: &mut String, version: &str) {
        let _ = write!(out, "\"metadata\":{{\"operationType\":\"{}\",\"version\":{}", self.op, quote(version));
        let _ = write!(out, ",\"ns\":{}", quote(&self.ns));
        push_number(out, "crts", self.ts);
        push_number(out, "lsn", self.lsn);
        if let Some(id) = &self.id {
            let id = quote(id);
            let _ = write!(out, ",\"id\":{id},\"partitionKey\":{{\"id\":{id}}}");
        }
        if self.looked_up {
            out.push_str(",\"lookedUp\":true");
        }
    }
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
    let facts = Facts { op: Op::Delete, ts, lsn, id: Some(id.to_owned()), ns: ns.to_owned(), looked_up: false };
    let mut item = String::from("{");
    facts.push(&mut item, version);
    item.push_str("}}");
    RawValue::from_string(item)
}

fn push_number(out: &mut String, name: &str, number: Option<i64>) {
    if let Some(number) = number {
        let _ = write!(out, ",\"{name}\":{number}");
    }
}

/// A document's text, with the fingerprint of its bytes as its etag.
pub(super) fn push_image(out: &mut String, document: &RawDocument, manner: Manner) -> Result<(), Odd> {
    push_text(out, document.as_bytes()).map_err(odd)?;
    if manner.with_bytes {
        out.pop();
        let _ = write!(out, ",\"_etag\":{}}}", quote(&fingerprint(document.as_bytes())));
    }
    Ok(())
}

pub(super) fn push_bytes(out: &mut String, document: &RawDocument) {
    out.push_str(",\"bson\":\"");
    STANDARD.encode_string(document.as_bytes(), out);
    out.push('"');
}

fn namespace(ns: &RawDocument) -> String {
    let part = |name| ns.get_str(name).ok();
    match (part("db"), part("coll")) {
        (Some(database), Some(collection)) => format!("{database}.{collection}"),
        (database, _) => database.unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, rawdoc};

    use super::*;

    fn version(event: &RawDocumentBuf, with_bytes: bool) -> String {
        Event::read(event).unwrap().version_of_page(Manner { with_bytes, looks_up: false })
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
