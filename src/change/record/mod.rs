//! The record: one document version as an item of the `changes` container (docs/history-format.md).
//!
//! Built as text from the slices of the payload; no member of the document is parsed or written anew.

mod build;
mod compress;
mod identity;
mod ids;
pub mod layout;
mod marks;
mod members;
mod text;

use super::{
    Via,
    key::{KeyPaths, PartitionKey},
};

pub(super) use self::members::render;
pub use self::{
    build::build,
    compress::{compress, hex},
    identity::{Identity, identity, may_be_altered},
    ids::{id_of_place, id_of_version, source_key, version_id},
    layout::{LayoutError, check_layout, check_source_key},
    marks::{absent, partial, unsure},
    members::{document_text, own_text},
};

/// Version of the format, `_change.v`.
pub const FORMAT_VERSION: u32 = 1;

/// The member that holds everything about the change.
pub const CHANGE: &str = "_change";

/// The member that holds the document's id.
pub const ORIGINAL_ID: &str = "_originalId";

/// Members that the service adds to every item; they belong to the copy, not to the document.
pub const SYSTEM: [&str; 5] = ["_rid", "_self", "_etag", "_attachments", "_ts"];

/// The longest id that the service accepts, in bytes (Azure Cosmos DB service quotas, "Per-item limits").
pub const MAX_ID_BYTES: usize = 1023;

/// The largest item that the service accepts, in bytes of its JSON text, minus room for the system properties it adds.
pub const MAX_ITEM_BYTES: usize = 2 * 1024 * 1024 - 4 * 1024;

/// How faithful the stored text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordFidelity {
    /// The text that Cosmos stored.
    Exact,
    /// The text that the host delivered, in which date strings may have been rewritten.
    Normalized,
    /// The text that was looked up after the change: stored exactly so at some time, perhaps by a later change.
    Lookup,
    /// Some fields were left out or hashed on purpose; `_change.partial` names them.
    Partial,
    /// There is no text: the document is too large for a record, or was gone when it was looked up.
    Absent,
}

impl RecordFidelity {
    /// The fidelity with this name; `None` when there is none.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Exact, Self::Normalized, Self::Lookup, Self::Partial, Self::Absent]
            .into_iter()
            .find(|fidelity| fidelity.as_str() == name)
    }

    /// The name in a record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Normalized => "normalized",
            Self::Lookup => "lookup",
            Self::Partial => "partial",
            Self::Absent => "absent",
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
    /// Only create it: it does not know everything of its version, and must not replace a record that knows more.
    pub create_only: bool,
    /// When it is only created and a record exists: whether that one is completed with what this one knows
    /// ([`super::knowledge`]). Not for earlier versions, which nearly always have their own record already.
    pub completes: bool,
    /// Whether the document was put compressed into `_change`.
    pub compressed: bool,
}

/// The context that all records of a batch share.
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
    /// Partition key paths of the source, for `_change.key`; `None` when the source cannot be read.
    pub source: Option<&'a KeyPaths>,
}

/// A change that cannot become a record: poison, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unrecordable {
    /// Why.
    pub reason: String,
}

/// The text of a document read again from the source, exact by definition.
#[derive(Debug, Clone)]
pub struct Reread<'a>(pub &'a str);
