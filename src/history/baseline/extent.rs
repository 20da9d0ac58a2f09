//! How much of a document is saved that capture has not delivered. What capture leaves out on purpose must not come
//! into the history on another way.

use std::sync::Arc;

use crate::{
    change::shape::Redactor,
    config::ConfigError,
    cosmos::{Failure, RETRY_TIMEOUT, Retry},
    history::{Containers, reading::WhichEnd},
    projection::Projection,
};

/// How much of each document is saved.
#[derive(Debug, Clone)]
pub enum Extent {
    /// All of it. When the history has only a part of some documents, on purpose, nothing is saved.
    Whole,
    /// All of it, in any case.
    WholeAnyway,
    /// The part that the settings of capture keep.
    Part(Arc<Projection>),
}

/// Why documents are not saved to this extent.
#[derive(Debug, thiserror::Error)]
pub enum ExtentError {
    /// Capture leaves something out, and nobody said what.
    #[error("the history has only a part of some documents, on purpose, and no setting says what to leave out here")]
    Unsaid,
    /// Documents of MongoDB are saved with their bytes.
    #[error("nothing can be left out of MongoDB documents that are saved here: their bytes go along")]
    Bytes,
    /// The settings do not fit the container.
    #[error("the settings do not fit the container")]
    Setting(#[from] ConfigError),
    /// The history cannot be read.
    #[error("cannot read whether the history has parts of documents")]
    Cosmos(#[from] Failure),
}

impl Extent {
    /// The shape of the documents that are saved; `None` when they are whole.
    ///
    /// # Errors
    /// When it does not fit the containers, or the history cannot be read.
    pub async fn shape(&self, containers: &Containers) -> Result<Option<Arc<Redactor>>, ExtentError> {
        match self {
            Self::WholeAnyway => Ok(None),
            Self::Part(_) if containers.source.namespace().is_some() => Err(ExtentError::Bytes),
            Self::Part(projection) => Ok(Some(projection.shape(containers.source.key_paths())?)),
            Self::Whole => {
                let part =
                    Retry::for_at_most(RETRY_TIMEOUT).run(|| containers.changes.end(WhichEnd::NewestPart)).await?;
                if part.is_some() { Err(ExtentError::Unsaid) } else { Ok(None) }
            }
        }
    }
}
