//! The pure domain: changes, item keys, version order and the record format. Neither axum nor azure types appear here.

mod bad_record;
pub mod canonical;
mod decimal;
pub mod decode;
pub mod diff;
pub mod edit;
pub mod extended;
pub mod fidelity;
pub mod fields;
pub mod key;
pub mod knowledge;
pub mod merge;
pub mod order;
pub mod plain;
pub mod pointer;
mod provenance;
pub mod raw;
pub mod record;
pub mod shape;
pub mod streamed;
pub mod time;
pub mod version;

use std::{borrow::Cow, fmt};

use serde_json::value::RawValue;

pub use self::provenance::{VersionFidelity, VersionVia};
use self::raw::RawDocument;

/// The operation on a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Created or replaced; the latest-version feed does not say which.
    Upsert,
    /// Created.
    Create,
    /// Replaced.
    Replace,
    /// Changed in part; only MongoDB distinguishes that from a replacement.
    Update,
    /// Deleted by a client.
    Delete,
    /// Deleted by the service because its time to live had passed.
    Expire,
    /// Existed before capture began.
    Baseline,
    /// Its collection was dropped. This one and the next happen to a collection: they are events, never records.
    Drop,
    /// Its collection was renamed.
    Rename,
    /// Its database was dropped.
    #[serde(rename = "dropDatabase")]
    DropDatabase,
    /// The change stream has ended with the collection.
    Invalidate,
}

impl Op {
    /// Whether the document is gone after this change.
    pub fn is_tombstone(self) -> bool {
        matches!(self, Self::Delete | Self::Expire)
    }

    /// Whether only a feed that delivers every version reports it.
    pub fn is_of_every_version(self) -> bool {
        matches!(self, Self::Create | Self::Replace | Self::Update | Self::Delete | Self::Expire)
    }

    /// Whether it happened to a collection rather than a document.
    pub fn is_of_collection(self) -> bool {
        matches!(self, Self::Drop | Self::Rename | Self::DropDatabase | Self::Invalidate)
    }

    /// Whether it removes all documents of a collection: the stream reports it without a delete for each of them.
    pub fn ends_collection(self) -> bool {
        matches!(self, Self::Drop | Self::Rename)
    }

    /// The name in a record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upsert => "upsert",
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Expire => "expire",
            Self::Baseline => "baseline",
            Self::Drop => "drop",
            Self::Rename => "rename",
            Self::DropDatabase => "dropDatabase",
            Self::Invalidate => "invalidate",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which entrance a change came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// The Functions host.
    Trigger,
    /// Our own change feed reader.
    Follow,
    /// The same with a filter: a change that is there says nothing about the others.
    Filter,
    /// A baseline run.
    Backfill,
    /// Written before a restore, so that nothing unsaved is overwritten.
    Restore,
}

impl Via {
    /// The entrance with this name; `None` when there is none.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Trigger, Self::Follow, Self::Filter, Self::Backfill, Self::Restore]
            .into_iter()
            .find(|via| via.as_str() == name)
    }

    /// The name in a record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Follow => "follow",
            Self::Filter => "filter",
            Self::Backfill => "backfill",
            Self::Restore => "restore",
        }
    }
}

/// Where a document's text comes from, which decides what `_lsn` in it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextOrigin {
    /// An item of the latest-version feed: `_lsn` was added by the feed.
    Feed,
    /// A document as stored (an envelope's image, a point read): `_lsn`, if any, is the user's own.
    Stored,
}

/// One change of one document, as slices of the payload.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// The operation.
    pub op: Op,
    /// The document's id.
    pub id: Cow<'a, str>,
    /// The document after the change; for a tombstone whatever the feed still knows of it.
    pub document: RawDocument<'a>,
    /// The document's text, empty for a tombstone without an image, and where nobody knows it.
    pub text: &'a str,
    /// How to read `document`.
    pub text_origin: TextOrigin,
    /// The source's `_ts` (epoch seconds), or the commit time of a delete.
    pub ts: Option<i64>,
    /// The source's LSN, which orders versions within one second.
    pub lsn: Option<i64>,
    /// The LSN of the previous version, when the feed names it.
    pub prev_lsn: Option<i64>,
    /// The partition key in a delete's metadata; when it is there, the id comes from the metadata, too.
    pub metadata_key: Option<&'a RawValue>,
    /// Whether this is not the change itself but the version before it, taken from the envelope's `previous` image.
    pub healed: bool,
    /// The members that only MongoDB changes have.
    pub native: Option<Native<'a>>,
    /// The content of `_change.partial`, when more of this document was left out than of others.
    pub partial: Option<&'a str>,
}

/// The members that only changes of MongoDB documents have.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Native<'a> {
    /// Database and collection, separated by a dot.
    pub ns: Cow<'a, str>,
    /// The new name of a collection that was renamed.
    pub to: Option<Cow<'a, str>>,
    /// The version, which distinguishes it from the others of its document: its place in the stream. Empty when
    /// that is not known; then its etag does.
    pub version: Cow<'a, str>,
    /// The document's own bytes, base64.
    pub bson: Option<Cow<'a, str>>,
    /// Whether the text was looked up after the change, and may belong to a later one.
    pub looked_up: bool,
    /// The paths that the change itself names (a JSON array of JSON Pointers), if any.
    pub changed: Option<&'a str>,
}

impl Native<'_> {
    /// An owned copy without the paths, which only an event needs.
    pub fn of(other: &Self) -> Native<'static> {
        let owned = |text: &Cow<'_, str>| Cow::Owned(text.clone().into_owned());
        Native {
            ns: owned(&other.ns),
            to: other.to.as_ref().map(owned),
            version: owned(&other.version),
            bson: other.bson.as_ref().map(owned),
            looked_up: other.looked_up,
            changed: None,
        }
    }
}

impl<'a> Change<'a> {
    /// Whether it is the image from before a MongoDB change, which says neither when it was written nor which version
    /// it was.
    pub fn is_image_alone(&self) -> bool {
        self.healed && self.native.is_some()
    }

    /// Whether the document was there after the change, and nobody knows its text.
    pub fn lacks_text(&self) -> bool {
        !self.op.is_tombstone() && self.text.is_empty()
    }

    /// The document's etag with its quotes, as JSON text.
    pub fn etag_text(&self) -> Option<&'a str> {
        self.document.get("_etag").map(RawValue::get).filter(|t| t.starts_with('"') && t.len() > 2)
    }

    /// The document's etag.
    pub fn etag(&self) -> Option<Cow<'a, str>> {
        self.etag_text().map(raw::unescape)
    }
}
