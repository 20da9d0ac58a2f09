//! What a restore will cost: a forecast from published prices.

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
}
