//! The reader of one range: polls, delivers, advances its token.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Fence, FollowError, Metrics, Options, Pipeline, RangePosition};
use crate::cosmos::{Disposition, Failure, Feed, FeedPage, FeedRange, FeedSource, RETRY_TIMEOUT};

/// Pauses between attempts to read after a failure: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The positions of all ranges, advanced by their readers and saved by the follower.
#[derive(Debug)]
pub(super) struct Positions {
    positions: Mutex<(Vec<RangePosition>, bool)>,
    moved: Notify,
}

impl Positions {
    pub fn new(positions: Vec<RangePosition>) -> Self {
        Self { positions: Mutex::new((positions, false)), moved: Notify::new() }
    }

    /// Advances a range: everything before its token is durable in all sinks.
    fn advance(&self, index: usize, token: String) {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = positions.0.get_mut(index).filter(|position| position.token != token) {
            position.token = token;
            positions.1 = true;
            self.moved.notify_one();
        }
    }

    /// The current positions, which count as saved from here on.
    pub fn take(&self) -> Vec<RangePosition> {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions.1 = false;
        positions.0.clone()
    }

    /// Whether any position has changed since the last [`take`](Self::take).
    pub fn is_unsaved(&self) -> bool {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Returns when a position has changed.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }
}

/// See the module's description.
pub(super) struct RangeReader {
    pub index: usize,
    pub span: FeedRange,
    /// Its position: what the checkpoint has, or will have soon.
    pub token: String,
    pub source: Arc<dyn FeedSource>,
    pub options: Arc<Options>,
    pub pipeline: Arc<Pipeline>,
    pub progress: Arc<Positions>,
    pub fence: Arc<Fence>,
    /// Pages in memory, of all readers together.
    pub pages: Arc<Semaphore>,
    pub stop: CancellationToken,
}

impl RangeReader {
    /// Reads until stopped, or until nothing is left if that is asked for.
    pub async fn run(mut self) -> Result<(), FollowError> {
        let range = self.span.to_string();
        self.pipeline.metrics.range(&range, |state| state.moved = Some(Instant::now()));
        self.read(&range).await?;
        // Everything that sinks still hold back, now.
        self.acknowledge(&range, true).await
    }

    /// Advances the range to where it was read, unless a sink holds something of it back.
    async fn acknowledge(&self, range: &str, now: bool) -> Result<(), FollowError> {
        if self.pipeline.flush(range, now, &self.fence, &self.stop).await? {
            self.progress.advance(self.index, self.token.clone());
        }
        Ok(())
    }

    async fn read(&mut self, range: &str) -> Result<(), FollowError> {
        let mut feed: Option<Box<dyn Feed>> = None;
        let mut pause = PAUSES.0;
        let mut failing_since: Option<Instant> = None;
        // Empty pages in a row.
        let mut empty = 0;
        loop {
            let Some(permit) = self.stop.run_until_cancelled(self.pages.acquire()).await else { return Ok(()) };
            // If it is cancelled in the middle of a page, the feed is dropped with the page: nothing of it was
            // acknowledged.
            let stop = self.stop.clone();
            let Some(page) = stop.run_until_cancelled(self.next(&mut feed)).await else { return Ok(()) };
            let page = match page {
                Ok(page) => page,
                Err(failure) => {
                    drop(permit);
                    // Opened again, it begins with its first part.
                    (feed, empty) = (None, 0);
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    let hopeless = self.options.until_caught_up && since.elapsed() > RETRY_TIMEOUT;
                    if failure.disposition != Disposition::Transient || hopeless {
                        return Err(failure.into());
                    }
                    warn!(follower = self.pipeline.name, range, reason = %failure, "reading failed, trying again");
                    Metrics::add(&self.pipeline.metrics.retries, 1);
                    self.pipeline.metrics.range(range, |state| state.failing = true);
                    let wait = failure.retry_after.unwrap_or(pause).mul_f64(crate::chance::jitter());
                    if self.stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                        return Ok(());
                    }
                    pause = (pause * 2).min(PAUSES.1);
                    continue;
                }
            };
            (pause, failing_since) = (PAUSES.0, None);
            let Some(reader) = &feed else { continue };
            let token = reader.position()?;
            let waits = reader.waits();
            let items = page.changes()?;
            let nothing = items.is_empty();
            empty = if nothing { empty + 1 } else { 0 };
            let is_round = nothing && reader.is_round(empty)?;
            self.pipeline.metrics.range(range, |state| {
                (state.caught_up, state.failing, state.moved) = (is_round, false, Some(Instant::now()));
            });
            if !nothing && !self.pipeline.deliver(&page, items, range, &self.fence, &self.stop).await? {
                return Ok(());
            }
            self.token = token;
            drop((page, permit));
            self.acknowledge(range, false).await?;
            if nothing {
                let is_behind = self.options.until_caught_up && !self.is_caught_up(&mut feed).await;
                if self.options.until_caught_up && !is_behind {
                    if is_round {
                        return Ok(());
                    }
                    // The next part of this range, at once.
                    continue;
                }
                if (!waits || is_behind)
                    && self.stop.run_until_cancelled(tokio::time::sleep(self.options.poll)).await.is_none()
                {
                    return Ok(());
                }
            }
        }
    }

    /// Whether the source says that nothing is left. A source that cannot be asked counts as having more.
    async fn is_caught_up(&self, feed: &mut Option<Box<dyn Feed>>) -> bool {
        match feed {
            Some(reader) => reader.is_caught_up().await.unwrap_or(false),
            None => false,
        }
    }

    /// The next page, from the open feed or from one opened at the range's position.
    async fn next(&self, feed: &mut Option<Box<dyn Feed>>) -> Result<FeedPage, Failure> {
        let reader = match feed {
            Some(reader) => reader,
            None => feed
                .insert(self.source.open(&self.span, self.options.mode, self.options.start, Some(&self.token)).await?),
        };
        reader.next().await
    }
}
