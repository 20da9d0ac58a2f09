//! What a caller asks for.

use std::sync::Arc;

use super::Condition;
use crate::{
    change::{key::PartitionKey, time::PointInTime},
    cosmos::{Failure, Param, Shard},
    follow::NoAnswer,
    history::{NotShared, past::LookError},
};

/// Which writes are looked for.
#[derive(Debug)]
pub struct Request {
    /// What tells a bad version from a good one.
    pub when: Arc<Condition>,
    /// In which documents.
    pub which: Which,
    /// From this second on; `None`: since the history began.
    pub from: Option<PointInTime>,
    /// Up to this second; `None`: to the end of the history.
    pub to: Option<PointInTime>,
    /// How much is told.
    pub manner: Manner,
    /// The path of a field that names who wrote a version.
    pub actor: Option<Vec<String>>,
    /// The part of the documents, when several machines share the work.
    pub shard: Option<Shard>,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
}

impl Request {
    /// Looks through everything.
    pub fn all(when: Condition) -> Self {
        Self {
            when: Arc::new(when),
            which: Which::All,
            from: None,
            to: None,
            manner: Manner::Each,
            actor: None,
            shard: None,
            ru_limit: None,
        }
    }
}

/// Which documents.
#[derive(Debug, Clone)]
pub enum Which {
    /// All of the history.
    All,
    /// Those of which any version matches the caller's own SQL on `c`.
    Where {
        /// The predicate.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// One.
    One {
        /// Its id.
        id: String,
        /// Its partition key, of which the first components are enough; needed when several documents have the id.
        key: Option<PartitionKey>,
    },
}

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// The first write of each document.
    Each,
    /// The earliest write of all.
    First,
    /// The first write of each document, found by halving: for a condition that becomes true once and stays so.
    FlipsOnce,
}

/// Why nothing can be looked for.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The service refused.
    #[error("cannot read the history")]
    Cosmos(#[from] Failure),
    /// The service refused the caller's predicate, or could not run it.
    #[error("cannot run the predicate")]
    Predicate(#[source] Failure),
    /// Machines cannot share the items of these containers.
    #[error("cannot share the history between machines")]
    Shard(#[from] NotShared),
    /// The document that is named is not known, or not the only one.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The expression names what there is not.
    #[error(transparent)]
    Undeclared(NoAnswer),
    /// The expression asks about the version before, which tells nothing of any later one.
    #[error("an expression on `previous` or `changed` is about single writes, so it does not become true once")]
    OnceWithPrevious,
}
