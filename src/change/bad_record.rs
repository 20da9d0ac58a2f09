//! Records that cannot be understood, and why.

use std::{error::Error, io, sync::Arc};

use super::{Op, record};
use crate::causes::chain;

/// A record that cannot be understood; the source is why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("record {record_id:?}")]
pub struct BadRecord {
    /// The record's id, as far as it is known.
    pub record_id: String,
    /// The problem.
    #[source]
    pub problem: Arc<RecordProblem>,
}

impl BadRecord {
    /// The record of this id, and what is wrong with it.
    pub fn new(record_id: impl Into<String>, problem: RecordProblem) -> Self {
        Self { record_id: record_id.into(), problem: Arc::new(problem) }
    }
}

/// Two are the same when they say the same of the same record.
impl PartialEq for BadRecord {
    fn eq(&self, other: &Self) -> bool {
        self.record_id == other.record_id && chain(&self.problem) == chain(&other.problem)
    }
}

/// The problem with a record; displays as the text that follows its id.
#[derive(Debug, thiserror::Error)]
pub enum RecordProblem {
    /// It is not a JSON object.
    #[error("is not a JSON object")]
    NotAnObject(#[source] serde_json::Error),
    /// The row that a query returned for it is malformed.
    #[error("is not understood")]
    Row(#[source] serde_json::Error),
    /// It is neither a record of this program nor one of the original demo.
    #[error("is not a record: it has neither _change nor _originalId and _ts")]
    NoRecord,
    /// Its `_change` is malformed.
    #[error("its _change is not understood")]
    Change(#[source] serde_json::Error),
    /// Its format is newer than this program.
    #[error("is of format {0}, this program knows up to {known}", known = record::FORMAT_VERSION)]
    Format(u32),
    /// It records what happened to a collection, as if to a document.
    #[error("has the operation {0}, which no document has")]
    OfCollection(Op),
    /// It does not say which document it belongs to.
    #[error("has no _originalId")]
    NoDocumentId,
    /// The row that a query returned for it does not say which document it belongs to.
    #[error("has no _originalId: it is not a record of this program")]
    NotOurs,
    /// It does not say what happened.
    #[error("its _change has no op")]
    NoOp,
    /// It names an operation that this program does not know; the JSON.
    #[error("its _change.op is {0}, which this program does not know")]
    Op(String),
    /// It does not say when.
    #[error("has neither _change nor _ts")]
    NoTime,
    /// Its time is malformed; the JSON.
    #[error("its _change.ts is {0}, not whole seconds")]
    Time(String),
    /// Its compressed text cannot be restored.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// It is intact, but the caller could not use it.
    #[error(transparent)]
    Asked(Box<dyn Error + Send + Sync>),
}

/// Why a compressed text cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Its encoding is unknown.
    #[error("its body has the unknown encoding {0:?}")]
    Encoding(String),
    /// It claims more bytes than any document has.
    #[error("its body claims {0} bytes")]
    Size(usize),
    /// It is not base64.
    #[error("its body is not base64")]
    Base64(#[from] base64::DecodeError),
    /// It is not gzip, or truncated.
    #[error("its body cannot be expanded")]
    Gzip(#[from] io::Error),
    /// It does not match its checksum.
    #[error("its body does not match its checksum")]
    Checksum,
}
