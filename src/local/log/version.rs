//! The log's record of a write.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::local::keys::DocumentKey;

/// The estimated memory of a version besides its text: the entry, its key, and its places in the maps.
pub(super) const ENTRY_BYTES: usize = 256;

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::local) enum Operation {
    Create,
    Replace,
    Delete,
}

impl Operation {
    /// The word in the feed's `operationType`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
    }
}

/// A live document.
#[derive(Clone, Debug)]
pub(in crate::local) struct Document {
    pub lsn: u64,
    pub(super) place: u32,
    /// LSN and position of its creation.
    pub(super) born: (u64, u32),
    pub text: Bytes,
    pub etag: String,
    /// The time of the last write in seconds since the epoch.
    pub ts: u64,
    /// The document's own `ttl`.
    pub(super) ttl: Option<i64>,
    pub(super) due: Option<u64>,
    /// The partition key in the format of the request header.
    pub partition_key: Arc<str>,
}

/// One change as delivered by the all-versions mode.
#[derive(Clone, Debug)]
pub(in crate::local) struct Version {
    pub lsn: u64,
    pub operation: Operation,
    pub key: Arc<DocumentKey>,
    /// The document after the change; `None` after a delete.
    pub text: Option<Bytes>,
    pub previous: Option<Bytes>,
    pub previous_lsn: Option<u64>,
    /// Seconds since the epoch.
    pub ts: u64,
    pub expired: bool,
    pub partition_key: Arc<str>,
}

/// A version to record: the document's text as the emulator stored it, and where it lives.
#[derive(Debug)]
pub(in crate::local) struct Put {
    pub key: DocumentKey,
    pub text: Bytes,
    pub etag: String,
    pub ts: u64,
    pub ttl: Option<i64>,
    pub partition_key: Vec<Value>,
    /// The previous address, if a replacement changed the document's id.
    pub renamed_from: Option<DocumentKey>,
}

impl Put {
    /// Sets the document with the same partition key that this one replaces; a replacement may change the id.
    pub fn replaces(&mut self, id: &str) {
        if id != self.key.id {
            self.renamed_from = Some(DocumentKey { epk: self.key.epk.clone(), id: id.to_owned() });
        }
    }
}

pub(super) fn cost(version: &Version) -> usize {
    ENTRY_BYTES + version.text.as_ref().map_or(0, Bytes::len)
}
