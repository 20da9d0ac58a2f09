//! Estimates what a restore will cost, from published prices.

/// Published charges by document size in KB: of a point read, and of a write without index terms (Azure Cosmos DB,
/// "Understand request unit consumption", <https://learn.microsoft.com/azure/cosmos-db/understand-request-unit-consumption>).
const CHARGES: [(f64, f64, f64); 12] = [
    (1.0, 1.0, 4.95),
    (2.0, 1.04, 6.29),
    (4.0, 1.14, 6.67),
    (8.0, 1.33, 7.04),
    (16.0, 1.67, 9.52),
    (32.0, 2.19, 11.23),
    (64.0, 4.76, 22.67),
    (128.0, 9.95, 48.19),
    (256.0, 20.28, 98.29),
    (512.0, 40.95, 184.57),
    (1024.0, 145.9, 625.0),
    (2048.0, 291.8, 1250.0),
];

/// Request units of a write of `bytes` bytes.
pub fn write_ru(bytes: usize) -> f64 {
    between(&CHARGES.map(|(kb, _, write)| (kb * 1024.0, write)), bytes as f64)
}

/// Request units of a point read of `bytes` bytes.
pub fn read_ru(bytes: usize) -> f64 {
    between(&CHARGES.map(|(kb, read, _)| (kb * 1024.0, read)), bytes as f64)
}

/// Interpolates between the two nearest known points; constant below the first, and as steep as the last segment beyond
/// the last.
fn between(points: &[(f64, f64)], at: f64) -> f64 {
    let Some(&(first, low)) = points.first() else { return 0.0 };
    if at <= first {
        return low;
    }
    let upper = points.iter().position(|(x, _)| at <= *x).unwrap_or(points.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (points[upper - 1], points[upper]);
    y0 + (y1 - y0) * (at - x0) / (x1 - x0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_follow_the_published_points() {
        for (bytes, ru) in [(1, 4.95), (1024, 4.95), (8192, 7.04), (65_536, 22.67), (1_048_576, 625.0)] {
            assert!((write_ru(bytes) - ru).abs() < 1e-9, "{bytes}");
        }
        assert!(write_ru(2_000_000) > 625.0 && write_ru(5120) > 6.67 && write_ru(5120) < 7.04);
        assert!((read_ru(8192) - 1.33).abs() < 1e-9);
    }
}
