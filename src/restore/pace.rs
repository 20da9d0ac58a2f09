//! What a restore costs: a forecast from published prices, and a limit on request units a second.

use std::time::Duration;

use tokio::time::Instant;

use crate::cosmos::RuMeter;

/// Published charges of a write by document size in bytes, without index terms (Azure Cosmos DB, "Request units").
const WRITES: [(f64, f64); 4] = [(1024.0, 4.95), (8192.0, 7.04), (65_536.0, 22.7), (1_048_576.0, 625.0)];
/// Published charges of a point read.
const READS: [(f64, f64); 2] = [(1024.0, 1.0), (8192.0, 1.33)];

/// Request units of a write of so many bytes.
pub fn write_ru(bytes: usize) -> f64 {
    between(&WRITES, bytes as f64)
}

/// Request units of a point read of so many bytes.
pub fn read_ru(bytes: usize) -> f64 {
    between(&READS, bytes as f64)
}

/// On the line between the two nearest known points; below the first constant, beyond the last as steep as there.
fn between(points: &[(f64, f64)], at: f64) -> f64 {
    let Some(&(first, low)) = points.first() else { return 0.0 };
    if at <= first {
        return low;
    }
    let upper = points.iter().position(|(x, _)| at <= *x).unwrap_or(points.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (points[upper - 1], points[upper]);
    y0 + (y1 - y0) * (at - x0) / (x1 - x0)
}

/// Holds work back so that it stays below so many request units a second, on average since it began.
#[derive(Debug)]
pub struct Pace {
    limit: Option<f64>,
    meter: RuMeter,
    begun: Instant,
    before: f64,
}

impl Pace {
    /// Begins now; `None` holds nothing back.
    pub fn new(meter: &RuMeter, limit: Option<f64>) -> Self {
        Self { limit, meter: meter.clone(), begun: Instant::now(), before: meter.total() }
    }

    /// Request units since it began.
    pub fn used(&self) -> f64 {
        self.meter.total() - self.before
    }

    /// Waits until what was used fits the limit.
    pub async fn wait(&self) {
        let Some(limit) = self.limit else { return };
        let due = Duration::from_secs_f64((self.used() / limit).clamp(0.0, 86_400.0));
        tokio::time::sleep_until(self.begun + due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_follow_the_published_points() {
        for (bytes, ru) in [(1, 4.95), (1024, 4.95), (8192, 7.04), (65_536, 22.7), (1_048_576, 625.0)] {
            assert!((write_ru(bytes) - ru).abs() < 1e-9, "{bytes}");
        }
        assert!(write_ru(2_000_000) > 625.0 && write_ru(4608) > 4.95 && write_ru(4608) < 7.04);
        assert!((read_ru(8192) - 1.33).abs() < 1e-9);
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_held_back_to_the_limit_and_not_without_one() {
        let meter = RuMeter::default();
        meter.add(1000.0);
        let (paced, free) = (Pace::new(&meter, Some(100.0)), Pace::new(&meter, None));
        meter.add(250.0);
        free.wait().await;
        assert_eq!(free.begun.elapsed(), Duration::ZERO);
        paced.wait().await;
        assert!(paced.begun.elapsed() >= Duration::from_millis(2500), "{:?}", paced.begun.elapsed());
        assert!((paced.used() - 250.0).abs() < 1e-6);
    }
}
