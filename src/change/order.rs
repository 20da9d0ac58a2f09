//! The order of the versions of one item: one function, used wherever versions are compared.

use std::cmp::Ordering;

/// Where a version stands among the versions of its item. `ts` has whole seconds, so several versions tie; then the
/// source's `lsn` decides, and finally the record's id, so that the order is total. A version without an LSN precedes
/// those that have one in the same second: it came from a hand-made payload or a legacy copy, and nothing says that it
/// was later.
///
/// `ts` has whole seconds, so several versions tie; the source's `lsn` then decides, and the record's id last, so
/// that the order is total. A version without an LSN stands before those that have one in the same second: it came
/// from a hand-made payload or a legacy copy, and nothing says it was later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position<'a> {
    /// The source's `_ts`, epoch seconds.
    pub ts: i64,
    /// The source's LSN.
    pub lsn: Option<i64>,
    /// The record's id.
    pub record_id: &'a str,
}

impl Ord for Position<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.ts.cmp(&other.ts).then(self.lsn.cmp(&other.lsn)).then_with(|| self.record_id.cmp(other.record_id))
    }
}

impl PartialOrd for Position<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position() -> impl Strategy<Value = (i64, Option<i64>, String)> {
        // Narrow ranges, so that ties happen all the time.
        (0..4i64, proptest::option::of(0..4i64), "[ab]{1,2}")
    }

    proptest! {
        #[test]
        fn the_order_is_total_and_time_comes_first(mut all in proptest::collection::vec(position(), 0..30)) {
            let compare = |a: &(i64, Option<i64>, String), b: &(i64, Option<i64>, String)| {
                Position { ts: a.0, lsn: a.1, record_id: &a.2 }.cmp(&Position { ts: b.0, lsn: b.1, record_id: &b.2 })
            };
            all.sort_by(compare);
            for pair in all.windows(2) {
                prop_assert!(pair[0].0 <= pair[1].0);
                if pair[0].0 == pair[1].0 {
                    prop_assert!(pair[0].1 <= pair[1].1);
                }
                // Antisymmetry: equal only when they are the same.
                prop_assert_eq!(compare(&pair[0], &pair[1]) == Ordering::Equal, pair[0] == pair[1]);
            }
        }
    }
}
