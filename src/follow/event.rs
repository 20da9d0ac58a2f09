//! One change as an event, for every sink but the history.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::change::{
    Change, Native, Op,
    decode::{NotAChange, decode},
    diff,
    key::{KeyPaths, KeyValue, PartitionKey},
    record,
    shape::Redactor,
    streamed::{Image, Streamed},
};

/// A change, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// The operation.
    pub op: Op,
    /// The document's id.
    pub id: Cow<'a, str>,
    /// Its partition key in the source container.
    pub pk: PartitionKey,
    /// The source's `_ts`, epoch seconds.
    pub ts: Option<i64>,
    /// The source's LSN.
    pub lsn: Option<i64>,
    /// Id of the version, the same however often it is delivered; the id of its record in `changes`.
    pub version: String,
    /// The document's text without system properties; `None` for a tombstone.
    pub doc: Option<Cow<'a, str>>,
    /// The document before, if the feed delivers it.
    pub previous: Option<Cow<'a, str>>,
    /// Paths that differ between the two (JSON Pointers), when both are known.
    pub changed: Option<Vec<String>>,
    /// The JSON text of `_change.partial`, when fields of the documents were left out or hashed.
    pub partial: Option<Cow<'a, str>>,
    /// For a MongoDB document: the fingerprint of its bytes, in double quotes.
    pub etag: Option<Cow<'a, str>>,
    /// The members that only MongoDB changes have.
    pub native: Option<Native<'a>>,
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

/// An event that came as one, and the change of a document that it stands for.
pub(super) type BareEvent<'a> = (Event<'a>, Option<Box<RawValue>>);

impl<'a> Event<'a> {
    /// Makes the event of a feed item.
    ///
    /// # Errors
    /// When the item is not a change, or a tombstone that does not say whose.
    pub fn of(item: &'a RawValue, paths: &KeyPaths) -> Result<Self, EventError> {
        Self::of_changes(&changes_of(item)?, paths)
    }

    /// The same for a decoded item: its change, and possibly the version before it.
    ///
    /// # Errors
    /// When there is no change, or a tombstone that does not say whose.
    pub(super) fn of_changes(changes: &[Change<'a>], paths: &KeyPaths) -> Result<Self, EventError> {
        let change = changes.last().ok_or(EventError::Empty)?;
        let previous = changes.iter().find(|c| c.healed).and_then(record::document_text).map(Cow::Owned);
        let doc = record::document_text(change).map(Cow::Owned);
        let changed =
            changed(change.native.as_ref().and_then(|native| native.changed), previous.as_deref(), doc.as_deref());
        let native = change.native.as_ref().map(|native| Native { changed: None, ..native.clone() });
        Ok(Self {
            op: change.op,
            id: change.id.clone(),
            pk: record::source_key(change, paths)?,
            ts: change.ts,
            lsn: change.lsn,
            version: record::version_id(change),
            doc,
            previous,
            changed,
            partial: change.partial.map(Cow::Borrowed),
            etag: native.as_ref().and(change.etag()),
            native,
        })
    }

    /// The same for a change in parts, which are not looked at again.
    pub(super) fn of_streamed(change: &Streamed<&'a str>) -> Self {
        // Where fields are left out, nothing tells which version the document before was.
        let previous = change.previous.filter(|image| image.etag.is_some());
        let own = change.current.or(change.previous.filter(|_| change.op.is_tombstone()));
        let text = |image: Image<&'a str>| image.text;
        let (doc, previous) = (change.current.filter(|_| !change.op.is_tombstone()).map(text), previous.map(text));
        Self {
            op: change.op,
            id: Cow::Borrowed(change.id),
            pk: PartitionKey(vec![KeyValue::String(change.id.to_owned())]),
            ts: change.ts,
            lsn: change.lsn,
            version: record::id_of_place(change.id, change.version),
            doc: doc.map(Cow::Borrowed),
            previous: previous.map(Cow::Borrowed),
            changed: changed(change.changed, previous, doc),
            partial: None,
            etag: own.and_then(|image| image.etag).map(Cow::Borrowed),
            native: Some(Native { changed: None, ..change.native() }),
        }
    }

    /// Something that happened to a collection, or to a document whose text is not known: an item that already is an
    /// event. `None` when the item is something else. Of a document the change comes with it, for a history: there was
    /// such a version.
    ///
    /// # Errors
    /// When it is malformed.
    pub(super) fn bare(item: &'a RawValue) -> Result<Option<BareEvent<'a>>, EventError> {
        /// The beginning of such an item.
        const MARK: &str = "{\"event\":";
        #[derive(Deserialize)]
        struct Item<'a> {
            #[serde(borrow)]
            event: Bare<'a>,
            #[serde(borrow)]
            metadata: Option<&'a RawValue>,
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
        let malformed = |e: serde_json::Error| NotAChange { reason: e.to_string() };
        let Item { event, metadata } = serde_json::from_str(item.get()).map_err(malformed)?;
        let change = metadata.map(|metadata| RawValue::from_string(format!("{{\"metadata\":{metadata}}}")));
        let change = change.transpose().map_err(malformed)?;
        let native = Native {
            to: event.to.map(Cow::Owned),
            ns: event.ns,
            looked_up: !event.op.is_of_collection(),
            ..Native::default()
        };
        let event = Self {
            op: event.op,
            pk: PartitionKey(vec![KeyValue::String(event.id.clone().into_owned())]),
            id: event.id,
            ts: event.ts,
            lsn: event.lsn,
            version: event.version.into_owned(),
            doc: None,
            previous: event.previous.map(|text| Cow::Borrowed(text.get())),
            changed: event.changed,
            partial: None,
            etag: None,
            native: Some(native),
        };
        Ok(Some((event, change)))
    }

    /// The same, with texts of its own.
    pub(super) fn into_owned(self) -> Event<'static> {
        let owned = |text: Option<Cow<'a, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        Event {
            op: self.op,
            id: Cow::Owned(self.id.into_owned()),
            pk: self.pk,
            ts: self.ts,
            lsn: self.lsn,
            version: self.version,
            doc: owned(self.doc),
            previous: owned(self.previous),
            changed: self.changed,
            partial: owned(self.partial),
            etag: owned(self.etag),
            native: self.native.as_ref().map(Native::of),
        }
    }

    /// An event of [`Event::bare`], reduced to what may be shown.
    ///
    /// # Errors
    /// When the text of the document before is not JSON.
    pub(super) fn shaped(self, shape: &Redactor) -> Result<Self, serde_json::Error> {
        if self.op.is_of_collection() {
            return Ok(self);
        }
        let previous = self.previous.as_deref().map(|text| shape.shaped(text)).transpose()?.map(Cow::Owned);
        let changed = self.changed.map(|paths| shape.told(paths));
        Ok(Self { previous, changed, partial: Some(shape.note().to_owned().into()), ..self })
    }
}

/// The paths that an update names itself, since its texts may be from other moments; otherwise those that differ.
fn changed(told: Option<&str>, previous: Option<&str>, doc: Option<&str>) -> Option<Vec<String>> {
    match (told.and_then(|told| serde_json::from_str(told).ok()), previous, doc) {
        (Some(told), ..) => Some(told),
        (None, Some(before), Some(after)) => {
            Some(diff::between(before, after).iter().map(diff::Difference::pointer).collect())
        }
        _ => None,
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
    use proptest::prelude::*;

    use super::*;
    use crate::change::edit::quote;

    fn event(text: &str) -> Event<'_> {
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

    proptest! {
        /// A change in parts and the item that is made of it are the same event.
        #[test]
        fn an_event_of_parts_is_the_event_of_the_item(
            (id, ns, etag) in (".{1,12}", ".{0,9}", any::<bool>()),
            op in prop::sample::select(vec![Op::Create, Op::Update, Op::Replace, Op::Upsert, Op::Baseline, Op::Delete]),
            (ts, lsn) in (any::<Option<i64>>(), any::<Option<i64>>()),
            (after, before) in (".{0,9}", proptest::option::of(".{0,9}")),
            changed in proptest::option::of(prop::collection::vec("/[a-c~.]{0,4}", 0..3)),
            (bson, looked_up) in (proptest::option::of("[A-Za-z0-9+/]{8}"), any::<bool>()),
        ) {
            let document = |text: &String| format!("{{\"id\":{},\"_id\":1,\"~_ts\":{}}}", quote(&id), quote(text));
            let (after, before) = (document(&after), before.as_ref().map(document));
            let changed = changed.map(|paths| serde_json::to_string(&paths).unwrap());
            let image = |text| Image { text, etag: etag.then_some("\"e\"") };
            let change = Streamed {
                op,
                ts,
                lsn,
                id: id.as_str(),
                named: Some(id.as_str()),
                version: "17-0000001-00000",
                ns: ns.as_str(),
                current: (op != Op::Delete).then(|| image(after.as_str())),
                previous: before.as_deref().map(image),
                changed: changed.as_deref(),
                bson: bson.as_deref(),
                looked_up,
            };
            let mut text = String::new();
            change.push_item(&mut text);
            let item = RawValue::from_string(text).unwrap();
            let (whole, parts) = (Event::of(&item, &KeyPaths::id()).unwrap(), Event::of_streamed(&change));
            prop_assert_eq!(whole.to_line(), parts.to_line());
            prop_assert_eq!(whole, parts);
        }
    }
}
