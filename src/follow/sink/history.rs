//! The history as a sink.

#[cfg(feature = "mongodb")]
use super::gone::Collection;
use super::{Batch, SinkError};
use crate::{
    capture::{Capture, Summary},
    history::CosmosHistory,
};

/// The history, and what it has of a collection that may be dropped.
#[derive(Debug)]
pub struct HistorySink {
    capture: Capture<CosmosHistory>,
    #[cfg(feature = "mongodb")]
    collection: Option<Collection>,
}

impl HistorySink {
    /// The history that this sink writes.
    pub fn new(capture: Capture<CosmosHistory>) -> Self {
        Self {
            capture,
            #[cfg(feature = "mongodb")]
            collection: None,
        }
    }

    /// The same for a collection's changes: when the collection goes, its documents go.
    #[cfg(feature = "mongodb")]
    #[must_use]
    pub fn of_collection(self, collection: Option<Collection>) -> Self {
        Self { collection, ..self }
    }

    /// The container that the history is in.
    pub fn name(&self) -> String {
        self.capture.history.name()
    }

    /// Checks whether the history can take anything.
    pub(super) async fn look(&self) -> Result<(), SinkError> {
        Ok(self.capture.look().await?)
    }

    /// Makes a batch durable. Of bare events, which have no place in a history, only the end of the collection matters.
    pub(super) async fn write(&self, batch: &Batch<'_>) -> Result<Option<Summary>, SinkError> {
        #[cfg(feature = "mongodb")]
        if let Some(collection) = &self.collection {
            collection.note_unread(batch).await?;
        }
        let written = match batch.items.is_empty() {
            true => None,
            false => Some(self.capture.run(&batch.items, batch.range).await?),
        };
        #[cfg(feature = "mongodb")]
        if let Some(collection) = &self.collection {
            for event in batch.events.iter().filter(|event| collection.ends_with(event)) {
                collection.delete_all(event, &self.capture, batch.range).await?;
            }
        }
        Ok(written)
    }
}
