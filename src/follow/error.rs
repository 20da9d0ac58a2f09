//! Why a follower ends before it is done.

use tokio::task::JoinError;

use super::{BadRange, CheckpointError, NoAnswer, sink::SinkError};
use crate::{
    blob::BlobError,
    change::shape::ShapeError,
    cosmos::{Disposition, Failure},
    dead_letters::DeadLetterError,
};

/// Why a follower did not begin, or ended before it was done.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] Failure),
    /// A sink refuses.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The checkpoint cannot be kept.
    #[error(transparent)]
    Store(#[from] CheckpointError),
    /// A container cannot be opened.
    #[error("cannot open a container")]
    Open(#[source] Failure),
    /// The filter needs the document before, which the latest-version feed does not have.
    #[error("the filter asks for the document before, which the latest-version feed does not have")]
    NoPrevious,
    /// A history belongs to one collection.
    #[error("a history is of one collection, and the whole database or deployment is followed")]
    OneCollection,
    /// The history belongs to another collection.
    #[error("the history is of {other}, not of {own}")]
    OtherCollection {
        /// The collection whose versions are there.
        other: String,
        /// The collection that is followed.
        own: String,
    },
    /// Another follower writes this history from another container.
    #[error("the history {history} is written from {other}, by the follower {follower:?}")]
    OtherSource {
        /// Database and container of the history.
        history: String,
        /// Database and container that the other one reads.
        other: String,
        /// The other one's name.
        follower: String,
        /// The id of its checkpoint.
        checkpoint: String,
    },
    /// A field is to be hashed, and there is no key.
    #[error("hashes of fields need a key")]
    NoRedactKey,
    /// These fields cannot be left out or hashed.
    #[error("cannot redact")]
    Redact(#[source] ShapeError),
    /// The dead-letter store cannot be opened.
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
    /// A blob container cannot be opened.
    #[error("cannot open the blob container {container}")]
    Blob {
        /// The container, without a signature.
        container: String,
        /// The problem with it.
        #[source]
        error: BlobError,
    },
    /// The filter uses an unknown name.
    #[error(transparent)]
    Filter(NoAnswer),
    /// It was stopped before the start of every range was saved: the next run begins anew.
    #[error("stopped before the start was saved")]
    Interrupted,
    /// A position in the checkpoint is malformed.
    #[error("the checkpoint is damaged")]
    Range(#[from] BadRange),
    /// A reader ended in a way that it never should.
    #[error("a reader ended")]
    Reader(#[source] JoinError),
}

impl FollowError {
    /// Whether it may pass by itself.
    pub(super) fn is_transient(&self) -> bool {
        let (Self::Source(failure) | Self::Store(CheckpointError::Service(failure))) = self else { return false };
        failure.disposition == Disposition::Transient
    }
}
