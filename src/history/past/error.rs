//! Why the past of documents cannot be read.

use super::super::{NotShared, version::VersionError};
use crate::{
    change::key::{KeyPaths, PartitionKey},
    cosmos::{Disposition, Failure},
};

/// Why the past of documents cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The service refused.
    #[error("cannot use the account")]
    Cosmos(#[from] Failure),
    /// The service refused the operator's predicate, or could not run it.
    #[error("cannot run the predicate")]
    Predicate(#[source] Failure),
    /// The history cannot be read part by part.
    #[error("cannot read the history in parts")]
    Shard(#[from] NotShared),
    /// A key has more components than the container's.
    #[error("{key} has more components than the key of {container}, which is {paths}")]
    Key {
        /// The key.
        key: PartitionKey,
        /// The source container.
        container: String,
        /// Its paths.
        paths: KeyPaths,
    },
    /// Several documents share the id.
    #[error("{} documents have the id {id:?}", keys.len())]
    Ambiguous {
        /// The id.
        id: String,
        /// Their partition keys, and how many versions each has.
        keys: Vec<(PartitionKey, u64)>,
    },
    /// The history has no version of the document.
    #[error("no version of document {id:?} in {history}")]
    NotInHistory {
        /// The id.
        id: String,
        /// Database and history container.
        history: String,
    },
    /// The history has no version of any of the documents.
    #[error("no version of {0} documents")]
    NoneInHistory(u64),
    /// No document matched the predicate.
    #[error("no document {}", if *ever { "of the history matched at any time" } else { "matched at that time" })]
    NoMatch {
        /// Whether any version could have matched.
        ever: bool,
    },
    /// The document does not have the named version.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// A record was removed while it was being read.
    #[error("record {0:?} is not in the history any more")]
    RecordGone(String),
    /// There is no source container, so nothing is live.
    #[error("cannot open the source")]
    NoSource(#[source] Failure),
    /// The live document is not a JSON object.
    #[error("the live document is not understood: {0}")]
    NotJson(serde_json::Error),
    /// A row of the report cannot be parsed.
    #[error("a row of the report is not understood: {0}")]
    Row(serde_json::Error),
}

impl LookError {
    /// Whether other documents can be read all the same.
    pub(super) fn is_of_one_document(&self) -> bool {
        match self {
            Self::Cosmos(failure) => failure.disposition == Disposition::Poison,
            Self::RecordGone(_) | Self::NotJson(_) => true,
            _ => false,
        }
    }

    /// A refused query is nearly always the predicate's fault.
    pub(super) fn of_predicate(failure: Failure) -> Self {
        if failure.status.is_bad_request() { Self::Predicate(failure) } else { Self::Cosmos(failure) }
    }
}
