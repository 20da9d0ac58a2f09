//! The parts of an event, as `follow` wrote it, that an archive's reader needs.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Damage, NoDocument, Problem, place};
#[cfg(feature = "mongodb")]
use crate::bson_text;
use crate::{
    change::{Native, Op, key::PartitionKey, record::RecordFidelity},
    follow::Event,
};

/// The parts of an event that decide where it belongs.
#[derive(Deserialize)]
pub(super) struct EventHead<'a> {
    pub(super) op: Op,
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) pk: &'a RawValue,
    pub(super) ts: Option<i64>,
    pub(super) lsn: Option<i64>,
    #[serde(borrow)]
    pub(super) version: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) doc: Option<&'a RawValue>,
    #[serde(borrow, default)]
    previous: Option<&'a RawValue>,
    #[serde(default)]
    changed: Option<Vec<String>>,
    #[serde(borrow, default)]
    pub(super) partial: Option<&'a RawValue>,
    /// For a MongoDB document: the fingerprint of its bytes.
    #[serde(borrow, default)]
    pub(super) etag: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) ns: Option<Cow<'a, str>>,
    /// The new name of a renamed collection.
    #[serde(borrow, default)]
    pub(super) to: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    bson: Option<Cow<'a, str>>,
    #[serde(default, rename = "lookedUp")]
    pub(super) looked_up: bool,
}

impl<'a> EventHead<'a> {
    pub(super) fn read(file: &str, line: u64, text: &'a [u8]) -> Result<Self, Damage> {
        let wrong = |problem| Damage::new(place(file, line), problem);
        let head: Self = serde_json::from_slice(text)
            .map_err(|e| wrong(Problem::NotAnEvent { what: kind_of(&e), column: e.column() }))?;
        let is_whole = head.doc.is_some() || head.is_bare() || head.lacks_text();
        if !is_whole && !head.op.is_tombstone() && head.partial.is_none() {
            return Err(wrong(Problem::NoDocument));
        }
        Ok(head)
    }

    /// Whether it is a MongoDB event without a document: one of a collection, or one that does not name its document.
    pub(super) fn is_bare(&self) -> bool {
        self.op.is_of_collection() || (self.lacks_text() && self.id.is_empty())
    }

    /// Whether MongoDB did not have the document's text any more: there was such a version, and nobody knows it.
    pub(super) fn lacks_text(&self) -> bool {
        self.ns.is_some() && self.doc.is_none() && !self.op.is_tombstone() && !self.op.is_of_collection()
    }

    /// How faithful its text is.
    pub(super) fn fidelity(&self) -> RecordFidelity {
        match (self.lacks_text(), self.partial.is_some(), self.looked_up) {
            (true, ..) => RecordFidelity::Absent,
            (false, true, _) => RecordFidelity::Partial,
            (false, false, true) => RecordFidelity::Lookup,
            (false, false, false) => RecordFidelity::Exact,
        }
    }

    /// Whether it belongs to another collection.
    pub(super) fn is_of_other(&self, ns: Option<&str>) -> bool {
        matches!((ns, self.ns.as_deref()), (Some(wanted), Some(own)) if wanted != own)
    }

    /// Whether its document is not the one that was written.
    pub(super) fn is_altered(&self) -> bool {
        let whole = self.doc.filter(|_| self.ns.is_some() && self.partial.is_none());
        is_altered(whole.map(RawValue::get), self.etag.as_deref())
    }

    /// Its time; events without one cannot be ordered.
    pub(super) fn time(&self, file: &str, line: u64) -> Result<i64, Damage> {
        self.ts.ok_or_else(|| Damage::new(place(file, line), Problem::NoTime))
    }

    /// The document's partition key: a key of one component is written as its value, a hierarchical one as an array.
    pub(super) fn key(&self) -> Result<PartitionKey, NoDocument> {
        let text = self.pk.get();
        let key =
            if text.starts_with('[') { PartitionKey::parse(text) } else { PartitionKey::parse(&format!("[{text}]")) };
        key.map_err(NoDocument::Key)
    }

    /// The whole event.
    pub(super) fn event(&self) -> Result<Event<'static>, NoDocument> {
        let text = |raw: Option<&RawValue>| raw.map(|raw| raw.get().to_owned().into());
        Ok(Event {
            op: self.op,
            id: self.id.clone().into_owned().into(),
            pk: self.key()?,
            ts: self.ts,
            lsn: self.lsn,
            version: self.version.clone().into_owned(),
            doc: text(self.doc),
            previous: text(self.previous),
            changed: self.changed.clone(),
            partial: text(self.partial),
            etag: self.etag.as_deref().map(|etag| etag.to_owned().into()),
            native: self.ns.as_deref().map(|ns| Native {
                ns: ns.to_owned().into(),
                to: None,
                version: "".into(),
                bson: self.bson.as_deref().map(|bson| bson.to_owned().into()),
                looked_up: self.looked_up,
                changed: None,
            }),
        })
    }
}

/// The same for the whole event.
pub(super) fn is_event_altered(event: &Event<'_>) -> bool {
    let whole = event.doc.as_deref().filter(|_| event.native.is_some() && event.partial.is_none());
    is_altered(whole, event.etag.as_deref())
}

/// Whether the bytes of a MongoDB document do not have the fingerprint that was written with them.
#[cfg(feature = "mongodb")]
fn is_altered(doc: Option<&str>, etag: Option<&str>) -> bool {
    let (Some(doc), Some(etag)) = (doc, etag) else { return false };
    bson_text::bytes_of(doc).map_or(true, |bytes| bson_text::fingerprint(&bytes) != etag)
}

/// A program without that feature cannot read them.
#[cfg(not(feature = "mongodb"))]
fn is_altered(_: Option<&str>, _: Option<&str>) -> bool {
    false
}

/// Names the fault of a text without quoting it, as serde's own message may.
fn kind_of(e: &serde_json::Error) -> &'static str {
    match e.classify() {
        serde_json::error::Category::Eof => "it is cut off",
        serde_json::error::Category::Syntax => "it is not valid JSON",
        _ => "its members are others",
    }
}
