//! The counters of a running follower.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Counters of one process since it began.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Items read from the feed.
    pub changes: AtomicU64,
    /// Of these, passed on to the sinks: all that pass the filter.
    pub delivered: AtomicU64,
    /// Bytes of the pages read.
    pub bytes: AtomicU64,
    /// Attempts repeated after a transient failure, of reads, sinks and checkpoints.
    pub retries: AtomicU64,
    /// Items put into the dead-letter store.
    pub dead_letters: AtomicU64,
    /// Items for which the filter's expression could not be evaluated; they count as not matching.
    pub filter_errors: AtomicU64,
    /// Checkpoints saved.
    pub checkpoints: AtomicU64,
    /// Whether this process holds the name, rather than standing by.
    pub holding: AtomicBool,
    ranges: Mutex<BTreeMap<String, RangeState>>,
}

/// The last known state of a range.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RangeState {
    /// Time of the newest change delivered, epoch seconds.
    pub newest: Option<i64>,
    /// Changes that were left to read after the last page, by the distance of LSNs; `None` when unknown.
    pub left: Option<u64>,
    /// Whether the last poll found nothing new.
    pub caught_up: bool,
    /// Whether the last poll, or the last attempt to hand a page to a sink, failed.
    pub failing: bool,
    /// When the last poll or page was finished; initially, when its reader began.
    pub moved: Option<Instant>,
}

impl RangeState {
    /// Whether it fails, or has not moved for this long: a reader that hangs does not fail.
    pub fn is_stuck(&self, patience: Duration) -> bool {
        self.failing || self.moved.is_some_and(|moved| moved.elapsed() >= patience)
    }

    /// How far behind the range is, in seconds; 0 when it is caught up.
    pub fn lag(&self, now: i64) -> i64 {
        match self.newest {
            _ if self.caught_up => 0,
            Some(newest) => (now - newest).max(0),
            None => 0,
        }
    }
}

impl RangeState {
    /// Roughly how many changes are waiting; none when it is caught up. LSNs also count transactions and deletes that
    /// the latest-version feed does not deliver, so the number is rather too high.
    pub fn waiting(&self) -> Option<u64> {
        if self.caught_up { Some(0) } else { self.left }
    }
}

impl Metrics {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Reads a counter.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// Updates the figures of a range.
    pub fn range(&self, name: &str, change: impl FnOnce(&mut RangeState)) {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        match ranges.get_mut(name) {
            Some(state) => change(state),
            None => change(ranges.entry(name.to_owned()).or_default()),
        }
    }

    /// Forgets all ranges: they are about to be read anew, perhaps with other bounds.
    pub fn forget_ranges(&self) {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// All ranges, by name.
    pub fn ranges(&self) -> BTreeMap<String, RangeState> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
