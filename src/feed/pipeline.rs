//! What happens to a page: decoded, handed to every sink, and only then counted as done.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Event, Metrics,
    event::changes_of,
    follower::FollowError,
    sink::{Batch, Sink, SinkError},
};
use crate::{
    capture::Summary,
    change::key::KeyPaths,
    cosmos::FeedPage,
    dead_letters::{DeadLetter, DeadLetterStore},
};

/// Pauses between attempts to hand a batch to a sink that is busy: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// From pages to sinks.
#[derive(Debug)]
pub struct Pipeline {
    /// The follower's name, for dead letters and logs.
    pub name: String,
    /// Partition key paths of the source.
    pub paths: KeyPaths,
    /// Where changes go.
    pub sinks: Vec<Sink>,
    /// Where items go that are no changes.
    pub dead_letters: Arc<DeadLetterStore>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Pipeline {
    /// Opens the sinks; called when the name is held.
    ///
    /// # Errors
    /// When one cannot be used.
    pub(super) async fn begin(&self) -> Result<(), FollowError> {
        for sink in &self.sinks {
            sink.begin().await?;
        }
        Ok(())
    }

    /// Makes a page durable in all sinks, however long that takes. False when stopped before it was: the page is then
    /// to be read again.
    ///
    /// # Errors
    /// When a sink will never take it.
    pub(super) async fn deliver(
        &self,
        page: &FeedPage,
        range: &str,
        stop: &CancellationToken,
    ) -> Result<bool, FollowError> {
        let items = page.items()?;
        Metrics::add(&self.metrics.changes, items.len() as u64);
        Metrics::add(&self.metrics.bytes, page.bytes() as u64);
        let wants_events = self.sinks.iter().any(Sink::wants_events);
        let mut batch = Batch { items: Vec::with_capacity(items.len()), events: Vec::new(), range };
        let mut newest = None;
        for item in items {
            let event = match changes_of(item) {
                Ok(changes) => {
                    newest = newest.max(changes.last().and_then(|change| change.ts));
                    wants_events.then(|| Event::of(item, &self.paths)).transpose()
                }
                Err(reason) => Err(reason),
            };
            match event {
                Ok(event) => {
                    batch.items.push(item);
                    batch.events.extend(event);
                }
                Err(reason) => {
                    if !self.bury(item, &reason, range, stop).await? {
                        return Ok(false);
                    }
                }
            }
        }
        if !batch.items.is_empty() && !self.write(&batch, stop).await? {
            return Ok(false);
        }
        Metrics::add(&self.metrics.delivered, batch.items.len() as u64);
        self.metrics.range(range, |state| state.newest = newest.or(state.newest));
        Ok(true)
    }

    /// Hands a batch to all sinks at once, and again to those that were busy.
    async fn write(&self, batch: &Batch<'_>, stop: &CancellationToken) -> Result<bool, FollowError> {
        let mut left: Vec<&Sink> = self.sinks.iter().collect();
        let mut pause = PAUSES.0;
        loop {
            let results = join_all(left.iter().map(|sink| sink.write(batch))).await;
            let mut busy = Vec::new();
            for (sink, result) in left.into_iter().zip(results) {
                match result {
                    Ok(summary) => self.count(summary),
                    Err(SinkError::Busy(reason)) => {
                        warn!(follower = self.name, range = batch.range, sink = %sink, reason, "sink failed, trying again");
                        Metrics::add(&self.metrics.retries, 1);
                        busy.push(sink);
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            if busy.is_empty() {
                return Ok(true);
            }
            left = busy;
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(false);
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn count(&self, summary: Option<Summary>) {
        let Some(summary) = summary else { return };
        Metrics::add(&self.metrics.retries, summary.retries);
        Metrics::add(&self.metrics.dead_letters, summary.dead_letters as u64);
    }

    /// Puts an item away that is no change.
    async fn bury(
        &self,
        item: &serde_json::value::RawValue,
        reason: &str,
        range: &str,
        stop: &CancellationToken,
    ) -> Result<bool, FollowError> {
        let letter = DeadLetter {
            v: 1,
            at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            function: self.name.clone(),
            invocation: range.to_owned(),
            id: None,
            status: "-".into(),
            reason: reason.to_owned(),
            item: item.to_owned(),
        };
        let mut pause = PAUSES.0;
        while let Err(e) = self.dead_letters.put(&letter).await {
            warn!(follower = self.name, range, reason = %e, "dead-letter store failed, trying again");
            Metrics::add(&self.metrics.retries, 1);
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(false);
            }
            pause = (pause * 2).min(PAUSES.1);
        }
        Metrics::add(&self.metrics.dead_letters, 1);
        warn!(follower = self.name, range, reason, letter = letter.name(), "dead letter");
        Ok(true)
    }
}
