//! The account's clock.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::clock::{Clock as _, SystemClock};

/// The account's clock: the machine's, which tests may move forward to expire documents, or a simulated one.
#[derive(Debug, Default)]
pub(in crate::local) struct Clock {
    ahead: AtomicU64,
    /// The instant at which the simulation began, and its time at that instant.
    simulated: OnceLock<(tokio::time::Instant, u64)>,
}

impl Clock {
    /// Returns a simulated clock that reads `now` at this instant and follows the runtime's clock.
    pub fn simulated(now: u64) -> Self {
        Self { ahead: AtomicU64::new(0), simulated: OnceLock::from((tokio::time::Instant::now(), now)) }
    }

    pub fn is_simulated(&self) -> bool {
        self.simulated.get().is_some()
    }

    /// Returns the time in seconds since the epoch.
    pub fn now(&self) -> u64 {
        let now = match self.simulated.get() {
            Some((begun, then)) => then + begun.elapsed().as_secs(),
            None => u64::try_from(SystemClock.now().timestamp()).unwrap_or_default(),
        };
        now + self.ahead.load(Ordering::Relaxed)
    }

    pub fn advance(&self, by: Duration) {
        self.ahead.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}
