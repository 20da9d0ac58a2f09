//! Limits request units per second.

use std::time::Duration;

use tokio::time::Instant;

use super::RuMeter;

/// Holds work back so that it stays below a number of request units per second, on average since it began.
#[derive(Debug, Clone)]
pub struct RuLimiter {
    limit: Option<f64>,
    meter: RuMeter,
    begun: Instant,
    before: f64,
}

impl RuLimiter {
    /// Begins now; `None` holds nothing back.
    pub fn new(meter: &RuMeter, limit: Option<f64>) -> Self {
        Self { limit, meter: meter.clone(), begun: Instant::now(), before: meter.total() }
    }

    /// Request units since it began.
    pub fn used(&self) -> f64 {
        self.meter.total() - self.before
    }

    /// Waits until the usage fits the limit.
    pub async fn wait(&self) {
        let Some(limit) = self.limit else { return };
        let due = Duration::from_secs_f64((self.used() / limit).clamp(0.0, 86_400.0));
        tokio::time::sleep_until(self.begun + due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_held_back_to_the_limit_and_not_without_one() {
        let meter = RuMeter::default();
        meter.add(1000.0);
        let (paced, free) = (RuLimiter::new(&meter, Some(100.0)), RuLimiter::new(&meter, None));
        meter.add(250.0);
        free.wait().await;
        assert_eq!(free.begun.elapsed(), Duration::ZERO);
        paced.wait().await;
        assert!(paced.begun.elapsed() >= Duration::from_millis(2500), "{:?}", paced.begun.elapsed());
        assert!((paced.used() - 250.0).abs() < 1e-6);
    }
}
