//! The account's clock.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::clock::{Clock as _, SystemClock};

/// The account's clock: that of the machine, which tests may move forward for the time to live; or a simulated one.
#[derive(Debug, Default)]
pub(in crate::local) struct Clock {
    ahead: AtomicU64,
    /// When the simulation began, and what its time was then.
    simulated: OnceLock<(tokio::time::Instant, u64)>,
}

impl Clock {
    /// One whose time is the runtime's, and `now` at this moment.
    pub fn simulated(now: u64) -> Self {
        Self { ahead: AtomicU64::new(0), simulated: OnceLock::from((tokio::time::Instant::now(), now)) }
    }

    pub fn is_simulated(&self) -> bool {
        self.simulated.get().is_some()
    }

    /// Seconds since the epoch.
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
