//! Why a sink did not take a batch.

use std::{io, path::PathBuf};

use crate::{
    blob::BlobError,
    capture::CaptureError,
    cosmos::{Disposition, Failure},
};

/// Why a sink did not take a batch.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// It may, when tried again.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It will not, until somebody intervenes.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Its reader has gone away.
    #[error("the reader of standard output has gone")]
    Closed,
}

/// Why a sink could not take a batch this time.
#[derive(Debug, thiserror::Error)]
pub enum Busy {
    /// The history's account failed, or took too long.
    #[error(transparent)]
    Service(Failure),
    /// The history refuses nearly everything, or its dead letters could not be put away.
    #[error(transparent)]
    Capture(CaptureError),
    /// The blob container failed.
    #[error(transparent)]
    Blob(BlobError),
    /// The file could not be written. On a full disk, room can be made.
    #[error("cannot write to {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// The range's last segment has to be uploaded first.
    #[error("the segment before is not uploaded yet")]
    Segment,
}

/// Why a sink cannot take anything.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The history's account refuses the caller, or has no such container.
    #[error(transparent)]
    Service(Failure),
    /// The history's key does not tell documents apart.
    #[error(transparent)]
    Layout(CaptureError),
    /// The blob container refuses.
    #[error("--sink blob")]
    Blob(#[source] BlobError),
    /// All names that were tried for a segment are taken by others.
    #[error("--sink blob: {names} names of a segment are taken, such as {first}")]
    NamesTaken {
        /// How many were tried.
        names: u32,
        /// The first of them.
        first: String,
    },
    /// The file cannot be opened or made.
    #[error("--sink file:{}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    /// Events could not be compressed in memory; never seen in practice.
    #[error("cannot compress a segment")]
    Compress(#[source] io::Error),
}

impl Refused {
    /// The usual next step for a person, if there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Service(failure) => failure.hint(),
            Self::Layout(_) => Some("name another history with --changes, which `provision` makes"),
            Self::Blob(_) => Some("check the URL, and that the container exists"),
            Self::NamesTaken { .. } => Some("name another folder or container"),
            Self::File { .. } => Some("name a file in a folder that exists and is writable"),
            Self::Stdout(_) => Some("check where it leads"),
            Self::Compress(_) => Some("report this"),
        }
    }
}

impl From<BlobError> for SinkError {
    fn from(e: BlobError) -> Self {
        if e.is_transient() { Busy::Blob(e).into() } else { Refused::Blob(e).into() }
    }
}

impl From<CaptureError> for SinkError {
    fn from(e: CaptureError) -> Self {
        match e {
            CaptureError::Service(failure) => match failure.disposition {
                Disposition::Denied | Disposition::NotFound => Refused::Service(failure).into(),
                _ => Busy::Service(failure).into(),
            },
            e @ CaptureError::Layout(_) => Refused::Layout(e).into(),
            e @ (CaptureError::Refused { .. } | CaptureError::DeadLetters(_) | CaptureError::Projection(_)) => {
                Busy::Capture(e).into()
            }
        }
    }
}
