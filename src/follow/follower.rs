//! The follower: acquires the name, fixes where each range starts, runs the readers, saves their positions.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::try_join_all;
use serde::Serialize;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    BadRange, Checkpoint, CheckpointStore, Earlier, Fence, FollowError, Metrics, Pipeline, RangePosition, UnnotedHole,
    options::Options,
    reader::{Positions, RangeReader},
    store::HeldName,
};
use crate::{
    clock::Clock,
    cosmos::{FeedMode, FeedRange, FeedSource, FeedStart, RETRY_TIMEOUT, Retry},
};

/// Pages in memory, whatever the number of ranges: at most 4 MB each on the wire.
const PAGES: usize = 8;
/// The pause between checkpoints of a busy follower; a quiet one saves each at once.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often to check whether partitions were split, so that their children are read in parallel.
const LOOK_FOR_SPLITS: Duration = Duration::from_secs(60);
/// How long pages in flight may take after a stop; what takes longer is delivered again.
const DRAIN: Duration = Duration::from_secs(25);

/// Pauses after the service was out of reach: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How a follower ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Nothing was left to read.
    CaughtUp,
    /// It was asked to stop.
    Stopped,
    /// It was asked to stop before its containers were open.
    NotStarted,
}

/// How one term of holding the name ended.
enum Term {
    Ended(Ended),
    /// Partitions were split: continue with a reader for each.
    Split,
}

/// See the module's description.
#[derive(Debug)]
pub struct Follower {
    /// The source.
    pub source: Arc<dyn FeedSource>,
    /// How.
    pub options: Arc<Options>,
    /// Where its checkpoint is.
    pub store: CheckpointStore,
    /// The way of a page to the sinks.
    pub pipeline: Arc<Pipeline>,
    /// The state of its history; `None` takes it for one that nothing was written to before.
    pub earlier: Option<Earlier>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The time of this machine.
    pub clock: Arc<dyn Clock>,
}

impl Follower {
    /// Follows until stopped, or until caught up if that is asked for. Losing the name does no harm: it stands by, and
    /// acquires the name again when it is free.
    ///
    /// # Errors
    /// When it cannot go on until somebody intervenes: a refusal, or a checkpoint that belongs to something else.
    pub async fn run(&self, stop: &CancellationToken) -> Result<Ended, FollowError> {
        let source = self.source.place();
        let options = &self.options;
        let wanted = Checkpoint {
            history: self.pipeline.history(),
            ..Checkpoint::fresh(&options.name, &source, self.source.rid(), options.mode, options.part, self.clock.now())
        };
        if !self.pipeline.look(stop).await? {
            return Ok(Ended::Stopped);
        }
        let mut pause = PAUSES.0;
        let mut failing_since: Option<Instant> = None;
        loop {
            let begun = Instant::now();
            let failure = match self.term(&wanted, stop).await {
                Ok(ended) => return Ok(ended),
                Err(FollowError::Interrupted) => return Ok(Ended::Stopped),
                Err(FollowError::Store(e)) if e.is_lost() => {
                    warn!(follower = options.name, "{e}; standing by");
                    (pause, failing_since) = (PAUSES.0, None);
                    continue;
                }
                Err(e) => e,
            };
            if begun.elapsed() > RETRY_TIMEOUT {
                // It had been working in between.
                (pause, failing_since) = (PAUSES.0, None);
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            if !failure.is_transient() || (options.until_caught_up && since.elapsed() > RETRY_TIMEOUT) {
                return Err(failure);
            }
            warn!(follower = options.name, reason = %failure, "out of reach, trying again");
            Metrics::add(&self.metrics.retries, 1);
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(Ended::Stopped);
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Acquires the name, follows while it is held, and gives it back unless it was lost.
    async fn term(&self, wanted: &Checkpoint, stop: &CancellationToken) -> Result<Ended, FollowError> {
        let options = &self.options;
        let acquired = self.store.acquire(wanted, &options.holder, options.lease, &self.clock, stop).await?;
        let Some(mut held) = acquired else { return Ok(Ended::Stopped) };
        self.metrics.holding.store(true, Ordering::Relaxed);
        let ended = self.hold(&mut held, stop).await;
        self.metrics.holding.store(false, Ordering::Relaxed);
        self.metrics.forget_ranges();
        if ended.is_err() && !is_lost(&ended) && held.checkpoint.holder.is_some() {
            // Given back at once, so that a stand-by need not wait.
            let ranges = held.checkpoint.ranges.clone();
            if let Err(again) = held.save(ranges, true).await {
                warn!(follower = options.name, reason = %again, "could not give the name back");
            }
        }
        ended
    }

    /// Reads while the name is held.
    async fn hold(&self, held: &mut HeldName, stop: &CancellationToken) -> Result<Ended, FollowError> {
        self.pipeline.begin().await?;
        let (is_new, earlier) = (held.checkpoint.ranges.is_empty(), self.earlier());
        if let Some(earlier) = earlier.filter(|_| is_new || held.checkpoint.lacking == Some(UnnotedHole::Perhaps)) {
            // Saved with the start: when this ends before the note is written, the next holder writes it.
            held.checkpoint.lacking = earlier.lacks(&*self.source).await?;
        }
        if let Some(earlier) = earlier {
            earlier.settle(&*self.source, &self.options.name, true).await?;
        }
        if is_new {
            self.fix_starts(held, stop).await?;
        } else {
            info!(follower = self.options.name, ranges = held.checkpoint.ranges.len(), "going on from the checkpoint");
        }
        if let Some(earlier) = earlier.filter(|_| held.checkpoint.lacking.is_some()) {
            let start = is_new.then_some(self.options.start);
            earlier.note_began(&*self.source, &mut held.checkpoint, start).await?;
            held.save(held.checkpoint.ranges.clone(), false).await?;
        }
        loop {
            match self.read(held, stop).await? {
                Term::Ended(ended) => {
                    if let Some(earlier) = earlier.filter(|_| ended == Ended::CaughtUp) {
                        earlier.try_to_settle(&*self.source, &self.options.name).await;
                    }
                    return Ok(ended);
                }
                Term::Split => info!(follower = self.options.name, "partitions were split; reading each by itself"),
            }
        }
    }

    /// The state of its history, when that matters: latest-version mode proves nothing about what is missing.
    fn earlier(&self) -> Option<&Earlier> {
        let is_whole = self.options.mode == FeedMode::AllVersions && self.pipeline.history().is_some();
        self.earlier.as_ref().filter(|_| is_whole)
    }

    /// Fixes where each range starts and saves all of that at once, before anything is acknowledged.
    ///
    /// `Now` is the moment of a range's first poll, so each is polled. What such a poll delivers (it may be something
    /// already) goes to the sinks before its token is saved.
    async fn fix_starts(&self, held: &mut HeldName, stop: &CancellationToken) -> Result<(), FollowError> {
        let retry = Retry::for_at_most(self.options.lease);
        let own = self.options.part.map(|share| self.source.share(share)).transpose()?;
        let range_of = |ranges: &[FeedRange]| match &own {
            Some(own) => ranges.iter().filter_map(|range| range.intersection(own)).collect(),
            None => ranges.to_vec(),
        };
        loop {
            let partitions = retry.run(|| self.source.ranges()).await?;
            let fixed = range_of(&partitions).into_iter().map(|span| self.fix_start(span, &held.fence, stop));
            let positions = try_join_all(fixed).await?;
            // A range that was split meanwhile may only have been polled in part.
            if retry.run(|| self.source.ranges()).await? == partitions {
                held.save(positions, false).await?;
                Metrics::add(&self.metrics.checkpoints, 1);
                info!(
                    follower = self.options.name,
                    ranges = held.checkpoint.ranges.len(),
                    "start of every range saved"
                );
                return Ok(());
            }
        }
    }

    async fn fix_start(
        &self,
        span: FeedRange,
        fence: &Fence,
        stop: &CancellationToken,
    ) -> Result<RangePosition, FollowError> {
        let retry = Retry::for_at_most(self.options.lease);
        let (mode, start) = (self.options.mode, self.options.start);
        let (token, page) = retry
            .run(|| async {
                let mut feed = self.source.open(&span, mode, start, None).await?;
                let page = if start == FeedStart::Now { Some(feed.next().await?) } else { None };
                Ok((feed.position()?, page))
            })
            .await?;
        if let Some(page) = page {
            let range = span.to_string();
            // The token behind the page is saved, so no sink may hold anything of it back.
            if !self.pipeline.deliver(&page, page.changes()?, &range, fence, stop).await?
                || !self.pipeline.flush(&range, true, fence, stop).await?
            {
                return Err(FollowError::Interrupted);
            }
        }
        Ok(RangePosition::new(&span, token))
    }

    /// Runs a reader for each range until the term ends.
    async fn read(&self, held: &mut HeldName, stop: &CancellationToken) -> Result<Term, FollowError> {
        self.pipeline.begin().await?;
        let retry = Retry::for_at_most(self.options.lease);
        let partitions = retry.run(|| self.source.ranges()).await?;
        let ranges = held.checkpoint.refined(&partitions)?;
        let own = self.options.part.map(|share| self.source.share(share)).transpose()?;
        for partition in &partitions {
            let own = own.as_ref().map_or_else(|| Some(partition.clone()), |own| partition.intersection(own));
            if let Some(left_out) = own.filter(|own| !own.is_covered_by(ranges.iter().map(|(range, _)| range))) {
                return Err(BadRange::left_out(&left_out).into());
            }
        }
        let positions = ranges.iter().map(|(span, token)| RangePosition::new(span, token.clone())).collect();
        let progress = Arc::new(Positions::new(positions));
        let pages = Arc::new(Semaphore::new(PAGES));
        let halt = stop.child_token();
        self.metrics.forget_ranges();
        let mut readers = JoinSet::new();
        for (index, (span, token)) in ranges.into_iter().enumerate() {
            let reader = RangeReader {
                index,
                span,
                token,
                source: self.source.clone(),
                options: self.options.clone(),
                pipeline: self.pipeline.clone(),
                progress: progress.clone(),
                fence: held.fence.clone(),
                pages: pages.clone(),
                stop: halt.clone(),
            };
            readers.spawn(reader.run());
        }
        let mut outcome = self.keep(held, &progress, &mut readers, stop).await;
        halt.cancel();
        if is_lost(&outcome) {
            held.fence.end();
        }
        self.drain(held, &progress, &mut readers, &mut outcome).await;
        if !is_lost(&outcome) {
            let release = !matches!(outcome, Ok(Term::Split));
            match held.save(progress.take(), release).await {
                Ok(()) => Metrics::add(&self.metrics.checkpoints, 1),
                Err(e) if outcome.is_ok() => return Err(e.into()),
                // The first failure is the one to report.
                Err(_) => {}
            }
        }
        outcome
    }

    /// Waits until the readers have ended: pages that are with the sinks may be finished, and their tokens are saved.
    /// That may take longer than the lease, which is renewed meanwhile.
    async fn drain(
        &self,
        held: &mut HeldName,
        progress: &Positions,
        readers: &mut JoinSet<Result<(), FollowError>>,
        outcome: &mut Result<Term, FollowError>,
    ) {
        let over = Instant::now() + DRAIN;
        let mut renew = Instant::now() + self.options.lease / 3;
        loop {
            tokio::select! {
                ended = readers.join_next() => match ended.map(flatten) {
                    None => return,
                    Some(Err(e)) if outcome.is_ok() => *outcome = Err(e),
                    Some(_) => {}
                },
                () = tokio::time::sleep_until(renew), if !is_lost(outcome) => {
                    if let Err(e) = held.save(progress.take(), false).await {
                        *outcome = Err(e.into());
                    }
                    renew = Instant::now() + self.options.lease / 3;
                }
                () = tokio::time::sleep_until(over) => {
                    warn!(follower = self.options.name, "pages in flight took too long; they will be delivered again");
                    readers.shutdown().await;
                    return;
                }
            }
            if is_lost(outcome) {
                held.fence.end();
            }
        }
    }

    /// Saves checkpoints while the readers run, and with them the lease.
    async fn keep(
        &self,
        held: &mut HeldName,
        progress: &Positions,
        readers: &mut JoinSet<Result<(), FollowError>>,
        stop: &CancellationToken,
    ) -> Result<Term, FollowError> {
        let mut saved = Instant::now();
        let mut looked = Instant::now();
        let count = readers.len();
        loop {
            // The next event that is due.
            let renew = saved + self.options.lease / 3;
            let due = if progress.is_unsaved() { renew.min(saved + SAVE_EVERY) } else { renew };
            tokio::select! {
                () = stop.cancelled() => return Ok(Term::Ended(Ended::Stopped)),
                ended = readers.join_next() => match ended {
                    None => return Ok(Term::Ended(Ended::CaughtUp)),
                    Some(ended) => flatten(ended)?,
                },
                () = progress.moved() => if saved.elapsed() < SAVE_EVERY { continue },
                () = tokio::time::sleep_until(due) => {}
            }
            if progress.is_unsaved() || saved.elapsed() >= self.options.lease / 3 {
                match held.save(progress.take(), false).await {
                    Ok(()) => Metrics::add(&self.metrics.checkpoints, 1),
                    Err(e) => return Err(e.into()),
                }
                saved = Instant::now();
            }
            if looked.elapsed() >= LOOK_FOR_SPLITS && !self.options.until_caught_up {
                looked = Instant::now();
                if let Some(earlier) = self.earlier() {
                    earlier.try_to_settle(&*self.source, &self.options.name).await;
                }
                // A service that does not answer is the readers' concern.
                if let Ok(partitions) = self.source.ranges().await
                    && held.checkpoint.refined(&partitions).is_ok_and(|ranges| ranges.len() > count)
                {
                    return Ok(Term::Split);
                }
            }
        }
    }
}

/// Whether somebody else holds, or may hold, the name.
fn is_lost<T>(outcome: &Result<T, FollowError>) -> bool {
    matches!(outcome, Err(FollowError::Store(e)) if e.is_lost())
}

/// How a reader's task ended.
fn flatten(ended: Result<Result<(), FollowError>, tokio::task::JoinError>) -> Result<(), FollowError> {
    ended.unwrap_or_else(|e| Err(FollowError::Reader(e)))
}
