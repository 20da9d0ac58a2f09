//! The use case: a batch of changes in; every one of them durable, in `changes` or in the dead-letter store, out.
//!
//! docs/understand/promises.md has what is promised. In short: `Ok` only when nothing is left to lose; anything that
//! may pass is retried within a deadline; one record that can never be stored does not hold up the others.
//!
//! # Examples
//!
//! ```no_run
//! use cosmos_rewind::{capture::Capture, history::CosmosHistory};
//!
//! # async fn example(capture: Capture<CosmosHistory>) -> Result<(), Box<dyn std::error::Error>> {
//! let payload = r#"[{"id":"order-1","pk":"customer-7","_etag":"\"1\"","_ts":1700000000}]"#;
//! let items = cosmos_rewind::change::decode::items(payload)?;
//! let summary = capture.run(&items, "invocation-1").await?;
//! println!("{} records", summary.records);
//! # Ok(())
//! # }
//! ```

mod items;
mod letters;
mod limits;
mod recent;
pub mod replay;
mod reread;
mod store;
mod summary;
mod write;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use serde_json::value::RawValue;
use tracing::warn;

use self::{
    items::Poison,
    letters::{DeadLetterSource, check_refusals},
    store::PayloadProgress,
};
use crate::{
    change::{
        Via,
        fidelity::Delivery,
        record::{self, LayoutError},
        shape::Redactor,
    },
    clock::Clock,
    config::{ConfigError, Fidelity},
    cosmos::{Disposition, Failure, Retry},
    dead_letters::{DeadLetterError, DeadLetterStore},
    history::{History, HistoryWriter as _, SourceReader as _},
    projection::Projection,
};

pub use self::{limits::CaptureLimits, recent::Recent, summary::Summary};

/// Captures the changes of one source container into one history.
#[derive(Debug)]
pub struct Capture<H> {
    /// Name of the function, for dead letters and logs.
    pub function: String,
    /// The two containers.
    pub history: H,
    /// The clock of this machine.
    pub clock: Arc<dyn Clock>,
    /// Where poison goes.
    pub dead_letters: Arc<DeadLetterStore>,
    /// Whether altered documents are read again.
    pub fidelity: Fidelity,
    /// How the host alters documents on their way here.
    pub delivery: Delivery,
    /// Whether the warning was logged that the host alters ids and partition keys.
    pub identity_told: AtomicBool,
    /// Shared limits.
    pub limits: CaptureLimits,
    /// Which entrance the changes come through.
    pub via: Via,
    /// Recent writes.
    pub recent: Recent,
    /// Writes of payloads that could not be finished, so that they are not repeated when these are redelivered.
    pub unfinished: Recent,
    /// Set when documents arrive with fields left out: the JSON text of `_change.partial`.
    pub partial: Option<String>,
    /// Set when documents arrive complete and only a part of them is stored.
    pub projection: Option<Projection>,
}

/// Why a batch was not acknowledged. Delivering it again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The service failed, refused, or took too long.
    #[error("store batch")]
    Service(#[source] Failure),
    /// Poison was found and the dead-letter store failed; acknowledging the batch could lose it.
    #[error(transparent)]
    DeadLetters(DeadLetterError),
    /// The container refuses nearly everything; the documents are not at fault.
    #[error(
        "store batch: {alike} of {records} records are refused alike, so it is the container's fault and not theirs"
    )]
    Refused {
        /// How many records are refused with the same status.
        alike: usize,
        /// How many records of the batch were sent.
        records: usize,
        /// The service's answer to one of them.
        #[source]
        failure: Failure,
    },
    /// The history's key does not tell documents apart, so nothing may be stored.
    #[error("the history cannot be used")]
    Layout(#[from] LayoutError),
    /// The shape does not fit the source container, so nothing may be stored.
    #[error(transparent)]
    Projection(ConfigError),
}

/// A payload of which everything but the poison is stored.
struct Attempt {
    summary: Summary,
    poison: Vec<Poison>,
    /// Reduces documents to the part that is stored, when that is not all of them.
    shape: Option<Arc<Redactor>>,
}

impl<H: History> Capture<H> {
    /// Makes every item of a payload durable. `invocation` only appears in dead letters.
    ///
    /// # Errors
    /// When acknowledging the batch could lose anything; nothing that was stored needs to be undone.
    pub async fn run(&self, items: &[&RawValue], invocation: &str) -> Result<Summary, CaptureError> {
        let start = Instant::now();
        let Attempt { mut summary, poison, shape } = self.attempt(items).await?;
        let letters = DeadLetterSource { items, note: shape.as_ref().map(|shape| shape.note()) };
        self.dead_letter(letters, &poison, invocation).await.map_err(CaptureError::DeadLetters)?;
        summary.elapsed = start.elapsed();
        Ok(summary)
    }

    /// Stores what can be stored of a payload and returns what cannot. Puts nothing away.
    async fn attempt(&self, items: &[&RawValue]) -> Result<Attempt, CaptureError> {
        let retry = Retry::answering_within(self.limits.deadline);
        retry.telling(|reason| self.tell(reason), self.attempt_with(items, &retry)).await
    }

    /// Says in the log why something takes long: the deadline may be an hour away.
    fn tell(&self, reason: &str) {
        warn!(function = self.function, reason, "the history does not take everything yet, trying again");
    }

    async fn attempt_with(&self, items: &[&RawValue], retry: &Retry) -> Result<Attempt, CaptureError> {
        let mut shape = self.fitting(items, retry).await?;
        let mut taken = self.take(items, shape.as_deref(), retry).await;
        let stale = match &taken {
            Err(f) => f.disposition == Disposition::Stale,
            // The service does not always say that the key has changed: refusals are looked into.
            Ok(progress) if progress.poison.iter().any(Poison::may_be_the_containers) => {
                self.is_outdated(retry).await?
            }
            Ok(_) => false,
        };
        if stale {
            // The container was made again with another key: look at it again, once. The whole payload is repeated,
            // because what was written before may have gone with the old container.
            self.forget().await;
            shape = self.fits(items, retry).await?;
            taken = self.take(items, shape.as_deref(), retry).await;
        }
        let PayloadProgress { mut summary, poison, newest, .. } = taken.map_err(CaptureError::Service)?;
        check_refusals(&poison, summary.records)?;
        summary.items = items.len();
        summary.dead_letters = poison.len();
        summary.retries = retry.count();
        // A source whose clock is ahead of ours is not behind.
        summary.lag = newest.map(|ts| u64::try_from(self.clock.now().timestamp() - ts).unwrap_or(0));
        Ok(Attempt { summary, poison, shape })
    }

    /// Returns the reduction of documents, once the containers are known to fit. A refusal comes before any write, so
    /// no write would reveal that a container was made again: the service is asked.
    async fn fitting(&self, items: &[&RawValue], retry: &Retry) -> Result<Option<Arc<Redactor>>, CaptureError> {
        match self.fits(items, retry).await {
            Err(CaptureError::Layout(_) | CaptureError::Projection(_)) if self.is_outdated(retry).await? => {
                self.forget().await;
                self.fits(items, retry).await
            }
            fits => fits,
        }
    }

    /// The same, by what is known of the containers.
    async fn fits(&self, items: &[&RawValue], retry: &Retry) -> Result<Option<Arc<Redactor>>, CaptureError> {
        let shape = self.shape(retry).await?;
        if !items.is_empty() {
            self.check_layout(retry).await?;
        }
        Ok(shape)
    }

    /// Whether a container was made again since it was opened.
    async fn is_outdated(&self, retry: &Retry) -> Result<bool, CaptureError> {
        let is_current = retry.run(|| self.history.is_current()).await.map_err(CaptureError::Service)?;
        Ok(!is_current)
    }

    /// Forgets the containers, and what was written to them.
    async fn forget(&self) {
        self.history.forget().await;
        self.recent.forget();
        self.unfinished.forget();
    }

    /// Looks at the containers, and stores nothing.
    ///
    /// # Errors
    /// Those of [`run`](Self::run) that every payload would meet, and when there is no source.
    pub async fn look(&self) -> Result<(), CaptureError> {
        let retry = Retry::answering_within(self.limits.deadline);
        let looked = async {
            self.shape(&retry).await?;
            self.check_layout(&retry).await?;
            match retry.run(|| self.history.source()).await {
                Err(f) if f.disposition == Disposition::NotFound => Err(CaptureError::Service(f)),
                _ => Ok(()),
            }
        };
        retry.telling(|reason| self.tell(reason), looked).await
    }

    /// Whether the history can keep the source's documents apart. When the source may not be read, nobody can tell.
    async fn check_layout(&self, retry: &Retry) -> Result<(), CaptureError> {
        let writer = retry.run(|| self.history.writer()).await.map_err(CaptureError::Service)?;
        let source = match retry.run(|| self.history.source()).await {
            Ok(source) => source,
            Err(f) if matches!(f.disposition, Disposition::Denied | Disposition::NotFound) => return Ok(()),
            Err(f) => return Err(CaptureError::Service(f)),
        };
        Ok(record::check_layout(writer.key_paths(), source.key_paths())?)
    }

    /// Reduces documents to the part that is stored, when that is not all of them.
    async fn shape(&self, retry: &Retry) -> Result<Option<Arc<Redactor>>, CaptureError> {
        let Some(projection) = &self.projection else { return Ok(None) };
        // Opened once. Without the source's key, nothing may be removed from a document.
        let source = retry.run(|| self.history.source()).await.map_err(CaptureError::Service)?;
        projection.shape(source.key_paths()).map(Some).map_err(CaptureError::Projection)
    }
}
