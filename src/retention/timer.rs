//! Prunes as a timer function of the app: a part of the history at each tick, so that no invocation takes too long.

use std::{collections::VecDeque, time::Duration};

use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    policy::Policy,
    pruning::{Passed, Pruning, Sums, UnknownPlace, check},
};
use crate::{
    causes::chain,
    change::key::ItemKey,
    config::Names,
    cosmos::{Cosmos, Failure, HashRange, Observer, RuLimiter, Shard},
    history::{Account, Containers, NotShared},
};

/// The number of parts in a round: the clock is checked at least this often.
const PARTS: u32 = 64;

/// The work of each tick.
pub struct PruneTimer {
    /// The account.
    pub cosmos: Cosmos,
    /// Its containers.
    pub names: Names,
    /// The instants to keep.
    pub policy: Policy,
    /// Whether anything is deleted.
    pub dry_run: bool,
    /// The part of the history, when several apps share it.
    pub share: Option<Shard>,
    /// Request units a second, on average.
    pub ru_limit: Option<f64>,
    /// Deletes in flight.
    pub concurrency: usize,
    /// How long a tick may take: when a function exceeds functionTimeout, the whole handler is killed, with every batch
    /// in flight.
    pub budget: Duration,
    /// The rest of this round.
    pub todo: Mutex<VecDeque<HashRange>>,
}

/// Why a tick did not finish; the next one resumes there.
#[derive(Debug, thiserror::Error)]
pub enum TickError {
    /// The containers cannot be opened.
    #[error(transparent)]
    Cosmos(#[from] Failure),
    /// The place of a record does not follow from its document's key.
    #[error(transparent)]
    Keys(#[from] UnknownPlace),
    /// The history cannot be divided between apps.
    #[error(transparent)]
    Shard(#[from] NotShared),
    /// The service refused during the work.
    #[error("{failure}; {line}")]
    Unfinished {
        /// The service's answer.
        failure: Failure,
        /// The report of the finished part.
        line: String,
    },
}

impl PruneTimer {
    /// One tick: resumes where the last one stopped, as far as the time allows. Returns a line for the log.
    ///
    /// # Errors
    /// When the history cannot be read, or a delete is refused; the next tick resumes there.
    pub async fn tick(&self, stop: CancellationToken) -> Result<String, TickError> {
        let Ok(mut todo) = self.todo.try_lock() else { return Ok("the last tick is not done yet".into()) };
        let begun = Instant::now();
        let containers = Account::containers(&self.cosmos, &self.names, None).await?;
        check(&containers)?;
        if todo.is_empty() {
            todo.extend(self.round(&containers)?);
        }
        let kept = self.policy.at(self.cosmos.time().await?.timestamp());
        let before = self.cosmos.meter().total();
        let pace = RuLimiter::new(self.cosmos.meter(), self.ru_limit);
        let until = stop.child_token();
        let timer = tokio::spawn({
            let (until, budget) = (until.clone(), self.budget);
            async move {
                tokio::time::sleep_until(begun + budget).await;
                until.cancel();
            }
        });
        let observer: Observer = std::sync::Arc::new(|record: &ItemKey, failure: Option<&Failure>| {
            if let Some(failure) = failure {
                warn!(record = record.id, reason = %failure, "version not removed");
            }
        });
        let job = Pruning {
            account: &self.cosmos,
            containers: &containers,
            pace: &pace,
            kept: &kept,
            concurrency: self.concurrency,
            observer: &observer,
            stop: &until,
            give_up: &stop,
        };
        let mut sums = Sums::default();
        let mut fatal = None;
        while fatal.is_none()
            && !until.is_cancelled()
            && let Some(part) = todo.pop_front()
        {
            match job.pass(&[part], !self.dry_run, |_| ()).await {
                Ok(Passed { sums: more, fatal: refused, left, bad }) => {
                    for one in bad {
                        warn!(record = one.record_id, reason = chain(&one.problem), "record not understood, it stays");
                    }
                    sums.add(more);
                    fatal = refused;
                    left.into_iter().for_each(|rest| todo.push_front(rest));
                }
                Err(failure) => {
                    todo.push_front(part);
                    fatal = Some(failure);
                }
            }
        }
        let whole = todo.is_empty() && fatal.is_none();
        // Journals belong to no document's key: one app takes care of them.
        if whole && self.share.is_none_or(Shard::is_first) {
            match job.journals(!self.dry_run, &mut sums).await {
                Ok(refused) => fatal = refused,
                Err(failure) => fatal = Some(failure),
            }
        }
        timer.abort();
        let line = format!(
            "{}{} of {} versions of {} documents removed, {} failed, {} journals, {:.1} RU, {} s; {}",
            if self.dry_run { "dry run: " } else { "" },
            sums.removed,
            sums.versions,
            sums.items,
            sums.failed,
            sums.journals,
            self.cosmos.meter().total() - before,
            begun.elapsed().as_secs(),
            if whole {
                "the whole history was looked at".to_owned()
            } else {
                format!("{} of {PARTS} parts are left", todo.len())
            }
        );
        match fatal {
            Some(failure) => Err(TickError::Unfinished { failure, line }),
            None => Ok(line),
        }
    }

    /// All parts, beginning anywhere, so that an app that is often restarted still covers the whole history.
    fn round(&self, containers: &Containers) -> Result<VecDeque<HashRange>, NotShared> {
        let hash_ranges = containers.hash_ranges(self.share)?;
        let mut parts: VecDeque<HashRange> = match hash_ranges.as_slice() {
            // It cannot be divided.
            [whole] => [*whole].into(),
            several => several.iter().flat_map(|s| s.cut((PARTS / several.len() as u32).max(1))).collect(),
        };
        let first = rand::random_range(0..parts.len());
        parts.rotate_left(first);
        Ok(parts)
    }
}
