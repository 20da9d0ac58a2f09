//! Limits the rate at which documents are written.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Holds writes back to a number of documents per second.
pub(super) struct DocumentRate {
    start: tokio::time::Instant,
    rate: Option<f64>,
    sent: AtomicU64,
}

impl DocumentRate {
    pub(super) fn new(rate: Option<f64>) -> Self {
        Self { start: tokio::time::Instant::now(), rate, sent: AtomicU64::new(0) }
    }

    pub(super) async fn wait(&self) {
        let sent = self.sent.fetch_add(1, Ordering::Relaxed);
        if let Some(rate) = self.rate
            && let Ok(due) = Duration::try_from_secs_f64(sent as f64 / rate)
            && let Some(due) = self.start.checked_add(due)
        {
            tokio::time::sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pace_is_kept() {
        let pace = DocumentRate::new(Some(10.0));
        for _ in 0..21 {
            pace.wait().await;
        }
        assert_eq!(pace.start.elapsed().as_secs(), 2);
    }
}
