//! The request, the report and the errors of an account of the past.

use std::collections::BTreeMap;

use crate::{
    change::{
        shape::{Redact, ShapeError},
        time::PointInTime,
    },
    config::{Names, Secret},
    cosmos::{Failure, Param},
    frontier::waiting::WaitError,
    local::LocalError,
};

/// The container that lists the documents whose state is unknown.
pub const UNKNOWN: &str = "_unknown";
/// The estimated memory of a document besides its text, in bytes.
pub(super) const OVERHEAD: u64 = 600;

/// The moment and the containers to show.
#[derive(Debug, Clone)]
pub struct PastRequest {
    /// The moment.
    pub at: PointInTime,
    /// The sources, with their histories.
    pub sources: Vec<Names>,
    /// Only documents that matched this predicate at the moment; `c` is the document.
    pub predicate: Option<String>,
    /// The values of the predicate's parameters.
    pub params: Vec<Param>,
    /// TCP port on 127.0.0.1; 0 takes any free one.
    pub port: u16,
    /// Whether the copy may be changed.
    pub writable: bool,
    /// Whether queries run on the documents loaded so far, labelled as partial, instead of waiting for all of them.
    pub partial: bool,
    /// The limit for loaded documents, in bytes.
    pub max_memory: u64,
    /// Fields that are left out or hashed.
    pub mask: Vec<Redact>,
    /// The key for hashing.
    pub mask_key: Secret,
    /// Whether to wait until capture has passed the moment.
    pub wait: bool,
    /// The number of documents read concurrently.
    pub concurrency: usize,
    /// The limit in request units per second, on average.
    pub ru_limit: Option<f64>,
}

/// Why the past cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The captured account cannot be used.
    #[error("cannot use the account")]
    Cosmos(#[from] Failure),
    /// The account of the past failed.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A field that documents need cannot be masked.
    #[error("--mask")]
    Mask(#[source] ShapeError),
    /// There are too many documents, or they are too large.
    #[error("about {} MB are needed, {} MB are allowed", needed.div_ceil(1 << 20), most >> 20)]
    TooLarge {
        /// The bytes that are needed, as far as known.
        needed: u64,
        /// The bytes that are allowed.
        most: u64,
    },
    /// The wait for capture was interrupted.
    #[error("stopped while waiting for capture")]
    Stopped,
}

impl From<WaitError> for PastError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Cosmos(failure) => Self::Cosmos(failure),
            WaitError::Stopped => Self::Stopped,
        }
    }
}

/// The result of loading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The number of documents.
    pub documents: u64,
    /// Documents and records whose state is unknown; `_unknown` lists them.
    pub unknown: u64,
    /// The size of the documents in bytes.
    pub bytes: u64,
    /// Whether a history ends before the moment.
    pub beyond: bool,
    /// Documents with each caveat, by the caveat's name.
    pub caveats: BTreeMap<&'static str, u64>,
}

impl Loaded {
    /// Whether the state of every document at the moment is known.
    pub fn is_complete(&self) -> bool {
        self.unknown == 0 && !self.beyond
    }
}
