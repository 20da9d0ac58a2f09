//! One change as an event, for every sink but the history.

use std::{borrow::Cow, fmt::Write as _};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::change::{
    Change, Native, Op,
    decode::{NotAChange, decode},
    diff,
    edit::quote,
    key::{KeyPaths, KeyValue, PartitionKey},
    raw::without_line_ends,
    record,
    shape::Redactor,
};

/// The usual size of a line without its documents.
const LINE_OVERHEAD: usize = 512;

/// A change, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened.
    pub op: Op,
    /// The document's id.
    pub id: String,
    /// Its partition key in the source container.
    pub pk: PartitionKey,
    /// The source's `_ts`, epoch seconds.
    pub ts: Option<i64>,
    /// The source's LSN.
    pub lsn: Option<i64>,
    /// Id of the version, the same however often it is delivered; the id of its record in `changes`.
    pub version: String,
    /// The document's text without system properties; `None` for a tombstone.
    pub doc: Option<String>,
    /// The document before, if the feed delivers it.
    pub previous: Option<String>,
    /// Paths that differ between the two (JSON Pointers), when both are known.
    pub changed: Option<Vec<String>>,
    /// What was left out of the documents or hashed, if anything was: the JSON text of `_change.partial`.
    pub partial: Option<String>,
    /// For a MongoDB document: the fingerprint of its bytes, in double quotes.
    pub etag: Option<String>,
    /// What MongoDB adds.
    pub native: Option<Native<'static>>,
}

/// Why a feed item is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// It is not a change.
    #[error(transparent)]
    NotAChange(#[from] NotAChange),
    /// It holds none.
    #[error("the item holds no change")]
    Empty,
    /// It does not say which document it belongs to.
    #[error(transparent)]
    Key(#[from] record::Unrecordable),
}

impl Event {
    /// Makes the event of a feed item.
    ///
    /// # Errors
    /// When the item is not a change, or a tombstone that does not say whose.
    pub fn of(item: &RawValue, paths: &KeyPaths) -> Result<Self, EventError> {
        Self::of_changes(&changes_of(item)?, paths)
    }

    /// The same for a decoded item: its change, and possibly the version before it.
    ///
    /// # Errors
    /// When there is no change, or a tombstone that does not say whose.
    pub(super) fn of_changes(changes: &[Change<'_>], paths: &KeyPaths) -> Result<Self, EventError> {
        let change = changes.last().ok_or(EventError::Empty)?;
        let previous = changes.iter().find(|c| c.healed).and_then(record::document_text);
        let doc = record::document_text(change);
        // The paths that an update names itself: the texts may be from other moments.
        let told = change.native.as_ref().and_then(|native| serde_json::from_str(native.changed?).ok());
        let changed = match (&previous, &doc) {
            _ if told.is_some() => told,
            (Some(before), Some(after)) => {
                Some(diff::between(before, after).iter().map(diff::Difference::pointer).collect())
            }
            _ => None,
        };
        let native = change.native.as_ref().map(Native::of);
        Ok(Self {
            op: change.op,
            id: change.id.to_string(),
            pk: record::source_key(change, paths)?,
            ts: change.ts,
            lsn: change.lsn,
            version: record::version_id(change),
            doc,
            previous,
            changed,
            partial: None,
            etag: native.as_ref().and(change.etag()).map(Cow::into_owned),
            native,
        })
    }

    /// Something that happened to a collection, or to a document whose text is not known: an item that already is an
    /// event. `None` when the item is something else.
    ///
    /// # Errors
    /// When it is malformed.
    pub(super) fn bare(item: &RawValue) -> Result<Option<Self>, EventError> {
        /// The beginning of such an item.
        const MARK: &str = "{\"event\":";
        #[derive(Deserialize)]
        struct Item<'a> {
            #[serde(borrow)]
            event: Bare<'a>,
        }
        #[derive(Deserialize)]
        struct Bare<'a> {
            op: Op,
            #[serde(borrow)]
            id: Cow<'a, str>,
            #[serde(borrow)]
            ns: Cow<'a, str>,
            ts: Option<i64>,
            lsn: Option<i64>,
            #[serde(borrow)]
            version: Cow<'a, str>,
            changed: Option<Vec<String>>,
            #[serde(borrow)]
            previous: Option<&'a RawValue>,
            to: Option<String>,
        }
        if !item.get().starts_with(MARK) {
            return Ok(None);
        }
        let Item { event } = serde_json::from_str(item.get()).map_err(|e| NotAChange { reason: e.to_string() })?;
        let native = Native {
            to: event.to.map(Cow::Owned),
            ns: event.ns.into_owned().into(),
            looked_up: !event.op.is_of_collection(),
            ..Native::default()
        };
        Ok(Some(Self {
            op: event.op,
            pk: PartitionKey(vec![KeyValue::String(event.id.clone().into_owned())]),
            id: event.id.into_owned(),
            ts: event.ts,
            lsn: event.lsn,
            version: event.version.into_owned(),
            doc: None,
            previous: event.previous.map(|text| text.get().to_owned()),
            changed: event.changed,
            partial: None,
            etag: None,
            native: Some(native),
        }))
    }

    /// An event of [`Event::bare`], reduced to what may be shown.
    ///
    /// # Errors
    /// When the text of the document before is not JSON.
    pub(super) fn shaped(self, shape: &Redactor) -> Result<Self, serde_json::Error> {
        if self.op.is_of_collection() {
            return Ok(self);
        }
        let previous = self.previous.as_deref().map(|text| shape.shaped(text)).transpose()?;
        let changed = self.changed.map(|paths| shape.told(paths));
        Ok(Self { previous, changed, partial: Some(shape.note().to_owned()), ..self })
    }

    /// The event as one JSON object on one line, without a line end. Unknown members are null; `partial` only appears
    /// when something was left out.
    pub fn to_line(&self) -> String {
        let texts = [&self.doc, &self.previous, &self.partial].into_iter().flatten().map(String::len);
        let bytes = self.native.as_ref().and_then(|native| native.bson.as_ref()).map_or(0, |bson| bson.len());
        let mut line = String::with_capacity(texts.sum::<usize>() + bytes + LINE_OVERHEAD);
        self.push_line(&mut line);
        line
    }

    /// Appends the same line to a text.
    pub fn push_line(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = write!(out, "{{\"op\":\"{}\",\"id\":{},\"pk\":", self.op, quote(&self.id));
        out.push_str(&key_text(&self.pk));
        push_number(out, ",\"ts\":", self.ts);
        push_number(out, ",\"lsn\":", self.lsn);
        out.extend([",\"version\":", &quote(&self.version)]);
        push_known(out, ",\"doc\":", self.doc.as_deref());
        push_known(out, ",\"previous\":", self.previous.as_deref());
        out.push_str(",\"changed\":");
        match &self.changed {
            Some(paths) => {
                out.push('[');
                for (place, path) in paths.iter().enumerate() {
                    out.extend([if place > 0 { "," } else { "" }, &quote(path)]);
                }
                out.push(']');
            }
            None => out.push_str("null"),
        }
        if let Some(note) = &self.partial {
            out.extend([",\"partial\":", note]);
        }
        if let Some(native) = &self.native {
            self.push_native(native, out);
        }
        out.push('}');
    }

    fn push_native(&self, native: &Native<'_>, out: &mut String) {
        out.extend([",\"ns\":", &quote(&native.ns)]);
        if let Some(etag) = &self.etag {
            out.extend([",\"etag\":", &quote(etag)]);
        }
        if let Some(bson) = &native.bson {
            // Base64 needs no escapes.
            out.extend([",\"bson\":\"", bson, "\""]);
        }
        if let Some(to) = &native.to {
            out.extend([",\"to\":", &quote(to)]);
        }
        if native.looked_up {
            out.push_str(",\"lookedUp\":true");
        }
    }
}

fn push_number(out: &mut String, name: &str, number: Option<i64>) {
    out.push_str(name);
    let _ = match number {
        Some(number) => write!(out, "{number}"),
        None => out.write_str("null"),
    };
}

fn push_known(out: &mut String, name: &str, text: Option<&str>) {
    out.push_str(name);
    out.push_str(&text.map_or("null".into(), without_line_ends));
}

pub(super) fn key_text(key: &PartitionKey) -> String {
    match key.0.as_slice() {
        [one] => one.to_json().to_string(),
        _ => key.to_json().to_string(),
    }
}

/// Decodes an item into its changes.
pub(super) fn changes_of(item: &RawValue) -> Result<Vec<Change<'_>>, NotAChange> {
    let mut changes = Vec::with_capacity(2);
    decode(item, &mut changes)?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        Event::of(serde_json::from_str(text).unwrap(), &KeyPaths::parse(&["/pk"]).unwrap()).unwrap()
    }

    #[test]
    fn an_event_has_both_documents_and_the_paths_between_them() {
        let line = event(
            "{\"current\":{\"id\":\"x\",\"pk\":\"p\",\"n\":1.50,\n\"_etag\":\"\\\"2\\\"\",\"_ts\":20},
            \"previous\":{\"id\":\"x\",\"pk\":\"p\",\"n\":1.25,\"_etag\":\"\\\"1\\\"\",\"_ts\":10},
            \"metadata\":{\"operationType\":\"replace\",\"lsn\":7,\"crts\":20,\"previousImageLSN\":5}}",
        )
        .to_line();
        assert_eq!(
            line,
            r#"{"op":"replace","id":"x","pk":"p","ts":20,"lsn":7,"version":"x~2","doc":{"id":"x","pk":"p","n":1.50},"previous":{"id":"x","pk":"p","n":1.25},"changed":["/n"]}"#
        );
    }

    #[test]
    fn a_delete_without_images_is_named_by_its_metadata() {
        let line = event(
            r#"{"current":{},"metadata":{"operationType":"delete","lsn":9,"crts":30,"id":"x","partitionKey":{"pk":7}}}"#,
        )
        .to_line();
        assert_eq!(
            line,
            r#"{"op":"delete","id":"x","pk":7,"ts":30,"lsn":9,"version":"x~del-9-30","doc":null,"previous":null,"changed":null}"#
        );
    }

    #[test]
    fn a_latest_version_item_is_an_upsert_without_the_feed_s_own_member() {
        let text =
            r#"{"current":{"id":"x","pk":null,"_etag":"\"2\"","_ts":20,"_lsn":7},"metadata":{"lsn":7,"crts":20}}"#;
        let event = event(text);
        assert_eq!((event.op, event.doc.as_deref()), (Op::Upsert, Some(r#"{"id":"x","pk":null}"#)));
        assert_eq!(event.changed, None);
    }
}
