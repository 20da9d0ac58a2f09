//! What is asked for, what comes of it, and what can go wrong.

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

/// The container that says of which documents nobody knows what they were.
pub const UNKNOWN: &str = "_unknown";
/// What a document costs here beside its text, in bytes.
pub(super) const OVERHEAD: u64 = 600;

/// Which moment, of which containers.
#[derive(Debug, Clone)]
pub struct PastRequest {
    /// The moment.
    pub at: PointInTime,
    /// The sources, with their histories.
    pub sources: Vec<Names>,
    /// Only documents that matched this condition on `c` at the moment.
    pub predicate: Option<String>,
    /// Values of its parameters.
    pub params: Vec<Param>,
    /// TCP port on 127.0.0.1; 0 takes any free one.
    pub port: u16,
    /// A copy that may be changed.
    pub writable: bool,
    /// Queries run on what is loaded, labelled, instead of waiting for all.
    pub partial: bool,
    /// Bytes of documents that may be loaded.
    pub max_memory: u64,
    /// Values that are left out or hashed.
    pub mask: Vec<Redact>,
    /// The key of hashes.
    pub mask_key: Secret,
    /// Waits until capture has passed the moment.
    pub wait: bool,
    /// Documents read at the same time.
    pub concurrency: usize,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
}

/// Why the past cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The account that is captured cannot be used.
    #[error("cannot use the account")]
    Cosmos(#[from] Failure),
    /// The account of the past does not work.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A value to mask is one that a document cannot be without.
    #[error("--mask")]
    Mask(#[source] ShapeError),
    /// The documents are too many, or too large.
    #[error("about {} MB are needed, {} MB are allowed", needed.div_ceil(1 << 20), most >> 20)]
    TooLarge {
        /// Bytes that are needed, as far as it is known.
        needed: u64,
        /// Bytes that are allowed.
        most: u64,
    },
    /// Waiting for capture was ended.
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

/// What was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Documents.
    pub documents: u64,
    /// Documents and records of which nobody knows what they were; `_unknown` lists them.
    pub unknown: u64,
    /// Bytes of the documents.
    pub bytes: u64,
    /// Whether a history ends before the moment.
    pub beyond: bool,
}

impl Loaded {
    /// Whether every document is what it was at the moment.
    pub fn is_complete(&self) -> bool {
        self.unknown == 0 && !self.beyond
    }
}
