//! Limits request units per second.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::RuMeter;

/// Holds work back so that it stays below a number of request units per second, on average since it began.
#[derive(Debug, Clone)]
pub struct RuLimiter {
    limit: Option<f64>,
    meter: RuMeter,
    begun: Instant,
    before: f64,
    work: Arc<Work>,
}

/// The work that [`RuLimiter::begin`] has let begin.
#[derive(Debug, Default)]
struct Work {
    begun: AtomicU64,
    ended: AtomicU64,
    /// The usage before the first piece of work, which says nothing about what a piece costs.
    base: OnceLock<f64>,
}

/// A piece of work that ends when this is dropped.
#[derive(Debug)]
pub struct Underway(Arc<Work>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Relaxed);
    }
}

/// The assumed cost of a piece of work before any has ended, in request units.
const FIRST: f64 = 10.0;

/// How long work waits at most before it is calculated anew how long it has to: what has ended meanwhile tells more. The
/// first estimate may be many times too high.
const LOOK: Duration = Duration::from_millis(100);

impl RuLimiter {
    /// Begins now; `None` holds nothing back.
    pub fn new(meter: &RuMeter, limit: Option<f64>) -> Self {
        Self { limit, meter: meter.clone(), begun: Instant::now(), before: meter.total(), work: Arc::default() }
    }

    /// Request units since it began.
    pub fn used(&self) -> f64 {
        self.meter.total() - self.before
    }

    /// Waits until the usage fits the limit.
    pub async fn wait(&self) {
        let Some(limit) = self.limit else { return };
        tokio::time::sleep_until(self.due(self.used(), limit)).await;
    }

    /// Waits until a piece of work may begin, of which many are underway at the same time. What these will cost counts
    /// already, as much for each as those cost that have ended.
    pub async fn begin(&self) -> Underway {
        let before = self.work.begun.fetch_add(1, Relaxed);
        let this = Underway(self.work.clone());
        let base = *self.work.base.get_or_init(|| self.used());
        while let Some(limit) = self.limit {
            let (used, ended) = (self.used(), self.work.ended.load(Relaxed));
            let each = if ended == 0 { FIRST } else { (used - base) / ended as f64 };
            let due = self.due(used + each * before.saturating_sub(ended) as f64, limit);
            let now = Instant::now();
            if due <= now {
                break;
            }
            tokio::time::sleep_until(due.min(now + LOOK)).await;
        }
        this
    }

    /// When this usage fits the limit.
    fn due(&self, usage: f64, limit: f64) -> Instant {
        self.begun + Duration::from_secs_f64((usage / limit).clamp(0.0, 86_400.0))
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

    #[tokio::test(start_paused = true)]
    async fn what_is_underway_counts_before_it_is_charged() {
        let meter = RuMeter::default();
        let pace = RuLimiter::new(&meter, Some(100.0));
        let one = || async {
            let _underway = pace.begin().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            meter.add(20.0);
        };
        futures::future::join_all((0..200).map(|_| one())).await;
        let took = pace.begun.elapsed();
        assert!(
            took >= Duration::from_secs(38) && took < Duration::from_secs(45),
            "4,000 RU at 100 a second took {took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_used_before_and_an_expensive_first_piece_hold_the_others_back_no_longer_than_the_limit() {
        let meter = RuMeter::default();
        let pace = RuLimiter::new(&meter, Some(1000.0));
        // A journal is written before the first document.
        meter.add(600.0);
        let one = |number: u32| {
            let (pace, meter) = (&pace, &meter);
            async move {
                let _underway = pace.begin().await;
                tokio::time::sleep(Duration::from_millis(if number == 0 { 1 } else { 30 })).await;
                meter.add(if number == 0 { 700.0 } else { 16.0 });
            }
        };
        futures::StreamExt::for_each_concurrent(futures::stream::iter(0..300), 64, one).await;
        let took = pace.begun.elapsed();
        let due = Duration::from_secs_f64(meter.total() / 1000.0);
        assert!(took + Duration::from_secs(1) > due && took < due + Duration::from_secs(1), "{took:?}, not {due:?}");
    }
}
