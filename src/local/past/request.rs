//! The request, the report and the errors of the past as an account.

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
/// The memory that a document takes beside its text, in bytes.
pub(super) const OVERHEAD: u64 = 600;

/// Which moment, of which containers.
#[derive(Debug, Clone)]
pub struct PastRequest {
    /// The moment.
    pub at: PointInTime,
    /// The sources, with their histories.
    pub sources: Vec<Names>,
    /// Only documents that matched this predicate on `c` at the moment.
    pub predicate: Option<String>,
    /// Values of its parameters.
    pub params: Vec<Param>,
    /// TCP port on 127.0.0.1; 0 takes any free one.
    pub port: u16,
    /// A copy that may be changed.
    pub writable: bool,
    /// Whether queries run on what is loaded so far, labelled as such, instead of waiting for everything.
    pub partial: bool,
    /// How many bytes of documents may be loaded.
    pub max_memory: u64,
    /// Values that are left out or hashed.
    pub mask: Vec<Redact>,
    /// The key of hashes.
    pub mask_key: Secret,
    /// Whether to wait until capture has passed the moment.
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
    /// A value that documents need cannot be masked.
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

/// What was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Documents.
    pub documents: u64,
    /// Documents and records whose state is unknown; `_unknown` lists them.
    pub unknown: u64,
    /// Bytes of the documents.
    pub bytes: u64,
    /// Whether a history ends before the moment.
    pub beyond: bool,
    /// Documents with each caveat, by the caveat's name.
    pub caveats: BTreeMap<&'static str, u64>,
}

impl Loaded {
    /// Whether every document is known to be what it was at the moment.
    pub fn is_complete(&self) -> bool {
        self.unknown == 0 && !self.beyond
    }
}
