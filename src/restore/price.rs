//! Estimates what a restore will cost, from published prices.

/// Published charges by document size in KB: of a point read, and of a write without index terms (Azure Cosmos DB,
/// "Understand request unit consumption",
/// <https://learn.microsoft.com/azure/cosmos-db/understand-request-unit-consumption>).
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

/// RU of an index term. Assumed: no figure is published.
const INDEX_TERM: f64 = 0.2;
/// Index terms of a record under the policy of `provision`: those of `_change`, the key, and what the service always
/// indexes. Counted in records (scripts/bench-ru.sh).
const RECORD_TERMS: usize = 14;
/// A replace costs as much as this many creates, because the terms of the old text leave the index. The service's
/// capacity calculator has 10.67 RU for the update of a small document, and 5.71 for its creation
/// (<https://blog.maximerouiller.com/post/calculating-cosmos-db-request-units-ru-for-crud-and-queries/>).
const REPLACE: f64 = 10.67 / 5.71;
/// The bytes that a record adds to its document: `_change`, `_originalId`, the longer id. 266 were counted on a record
/// of latest mode; all-versions mode adds a few members.
const RECORD_OVERHEAD: usize = 300;

/// The size of the record of a document of `bytes` bytes.
pub fn record_bytes(bytes: usize) -> usize {
    bytes + RECORD_OVERHEAD
}

/// Request units of an item of `bytes` bytes in the history, with this many index paths beyond those of `provision`.
pub fn history_item_ru(bytes: usize, index_paths: usize) -> f64 {
    create_ru(bytes, RECORD_TERMS + index_paths)
}

/// Request units of the creation, or of the delete, of an item of `bytes` bytes with `values` indexed values.
pub fn create_ru(bytes: usize, values: usize) -> f64 {
    let write = between(&CHARGES.map(|(kb, _, write)| (kb * 1024.0, write)), bytes as f64);
    write + INDEX_TERM * values as f64
}

/// Request units of the replacement of an item by one of `bytes` bytes with `values` indexed values.
pub fn replace_ru(bytes: usize, values: usize) -> f64 {
    REPLACE * create_ru(bytes, values)
}

/// The values of a document that a container indexes unless its policy excludes some: a comma precedes each value but
/// the first of its object or array, and an object or array that is not empty is not a value itself.
pub fn values_in(text: &str) -> usize {
    let (mut values, mut is_text, mut is_escaped) = (1, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b',' if !is_text => values += 1,
            _ => {}
        }
    }
    values
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
        let write_ru = |bytes| create_ru(bytes, 0);
        for (bytes, ru) in [(1, 4.95), (1024, 4.95), (8192, 7.04), (65_536, 22.67), (1_048_576, 625.0)] {
            assert!((write_ru(bytes) - ru).abs() < 1e-9, "{bytes}");
        }
        assert!(write_ru(2_000_000) > 625.0 && write_ru(5120) > 6.67 && write_ru(5120) < 7.04);
        assert!((read_ru(8192) - 1.33).abs() < 1e-9);
    }

    /// Four values: the document's two, and what the service adds and indexes (`_ts`, `_rid`).
    #[test]
    fn a_small_document_costs_what_the_capacity_calculator_says() {
        assert!((create_ru(32, 4) - 5.71).abs() < 0.1);
        assert!((replace_ru(32, 4) - 10.67).abs() < 0.2);
    }

    #[test]
    fn the_values_of_a_document_are_its_leaves() {
        for (text, values) in [
            (r#"{"id":"a"}"#, 1),
            (r#"{"id":"a,b","n":1}"#, 2),
            (r#"{"id":"\",\\","n":[1,2,{"x":null}],"o":{"p":{"q":1,"r":[]}}}"#, 6),
        ] {
            assert_eq!(values_in(text), values, "{text}");
        }
    }
}
