//! The counters that the parts of the trigger share.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A snapshot of the trigger's counters.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TriggerStats {
    /// Requests sent to the handler, including retries.
    pub invocations: u64,
    /// Documents (or changes) in acknowledged batches.
    pub delivered: u64,
    /// Invocations that failed.
    pub failures: u64,
    /// Invocations that were retries.
    pub retries: u64,
    /// Documents that were given up because their function has no retry policy, or has exhausted it.
    pub lost: u64,
    /// Restarts of the handler.
    pub restarts: u64,
    /// Leases in progress.
    pub leases: u64,
    /// An upper bound of the changes that the slowest lease of each function has not examined yet.
    pub pending: u64,
    /// Time from the last start of the handler to its first response.
    pub handler_ready: Option<Duration>,
    /// The most recent error.
    pub last_error: Option<String>,
}

/// Counters of a running trigger.
#[derive(Debug, Default)]
pub(super) struct TriggerCounters {
    invocations: AtomicU64,
    delivered: AtomicU64,
    failures: AtomicU64,
    retries: AtomicU64,
    lost: AtomicU64,
    restarts: AtomicU64,
    pid: AtomicU32,
    ready: Mutex<Option<Duration>>,
    error: Mutex<Option<String>>,
}

impl TriggerCounters {
    pub fn count_invocation(&self, is_retry: bool) {
        self.invocations.fetch_add(1, Ordering::Relaxed);
        self.retries.fetch_add(u64::from(is_retry), Ordering::Relaxed);
    }

    pub fn count_delivered(&self, documents: usize) {
        self.delivered.fetch_add(documents as u64, Ordering::Relaxed);
    }

    pub fn count_lost(&self, documents: usize) {
        self.lost.fetch_add(documents as u64, Ordering::Relaxed);
    }

    pub fn count_failure(&self, error: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failed(error);
    }

    pub fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub fn failed(&self, error: &str) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_owned());
    }

    pub fn set_pid(&self, pid: Option<u32>) {
        self.pid.store(pid.unwrap_or_default(), Ordering::Relaxed);
    }

    pub fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    pub fn set_ready(&self, after: Duration) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
    }

    /// Returns the counters; the caller fills in leases and pending.
    pub fn snapshot(&self) -> TriggerStats {
        TriggerStats {
            invocations: self.invocations.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            leases: 0,
            pending: 0,
            handler_ready: *self.ready.lock().unwrap_or_else(PoisonError::into_inner),
            last_error: self.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
