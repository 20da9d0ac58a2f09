//! The request of a search.

use std::sync::Arc;

use super::Condition;
use crate::{
    change::{key::PartitionKey, time::PointInTime},
    cosmos::{Failure, Param, Shard},
    follow::NoAnswer,
    history::{NotShared, past::LookError},
};

/// Which writes to find.
#[derive(Debug)]
pub struct Request {
    /// Tells a bad version from a good one.
    pub when: Arc<Condition>,
    /// In which documents.
    pub which: SearchedDocuments,
    /// From this second on; `None` means from the beginning of the history.
    pub from: Option<PointInTime>,
    /// Up to this second; `None` means to the end of the history.
    pub to: Option<PointInTime>,
    /// Which writes are reported.
    pub manner: SearchMode,
    /// The path of a field that names who wrote a version.
    pub actor: Option<Vec<String>>,
    /// The part of the documents, when several machines share the work.
    pub shard: Option<Shard>,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
}

impl Request {
    /// Searches everything.
    pub fn all(when: Condition) -> Self {
        Self {
            when: Arc::new(when),
            which: SearchedDocuments::All,
            from: None,
            to: None,
            manner: SearchMode::Each,
            actor: None,
            shard: None,
            ru_limit: None,
        }
    }
}

/// Which documents.
#[derive(Debug, Clone)]
pub enum SearchedDocuments {
    /// All documents of the history.
    All,
    /// Those with a version that matches the operator's own SQL on `c`.
    Where {
        /// The predicate.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// A single one.
    One {
        /// Its id.
        id: String,
        /// Its partition key, or its first components; needed when several documents share the id.
        key: Option<PartitionKey>,
    },
}

/// Which writes are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchMode {
    /// The first write of each document.
    Each,
    /// The earliest write of all.
    First,
    /// The first write of each document, found by binary search: for a condition that becomes true once and stays true.
    FlipsOnce,
}

/// Why the search is impossible.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The service refused.
    #[error("cannot read the history")]
    Cosmos(#[from] Failure),
    /// The service refused the operator's predicate, or could not run it.
    #[error("cannot run the predicate")]
    Predicate(#[source] Failure),
    /// The items of these containers cannot be divided between machines.
    #[error("cannot share the history between machines")]
    Shard(#[from] NotShared),
    /// The named document is not known, or is ambiguous.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The expression uses an unknown name.
    #[error(transparent)]
    Undeclared(NoAnswer),
    /// The expression uses the version before, which a binary search cannot do.
    #[error("an expression on `previous` or `changed` is about single writes, so it does not become true once")]
    OnceWithPrevious,
}
