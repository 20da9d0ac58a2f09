//! Figures about the writes that were found, in memory that does not grow with them.

use std::collections::{BTreeMap, HashMap};

/// Spans of time that a bar may cover, in seconds: from a second to a week.
const WIDTHS: [i64; 9] = [1, 10, 60, 600, 3600, 4 * 3600, 86_400, 7 * 86_400, 28 * 86_400];
/// How many bars are held.
const MOST_BARS: usize = 240;
/// How many names are counted one by one; the rest is counted together.
const MOST_NAMES: usize = 1000;

/// The number of writes over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    width: usize,
    bars: BTreeMap<i64, u64>,
}

impl Histogram {
    /// Counts a write in this second.
    pub fn add(&mut self, ts: i64) {
        self.put(ts, 1);
        while self.bars.len() > MOST_BARS && self.width + 1 < WIDTHS.len() {
            self.widen();
        }
    }

    fn put(&mut self, ts: i64, count: u64) {
        *self.bars.entry(ts.div_euclid(self.seconds())).or_default() += count;
    }

    fn widen(&mut self) {
        let old = self.seconds();
        self.width += 1;
        for (bar, count) in std::mem::take(&mut self.bars) {
            self.put(bar.saturating_mul(old), count);
        }
    }

    /// How many seconds a bar covers.
    pub fn seconds(&self) -> i64 {
        WIDTHS[self.width.min(WIDTHS.len() - 1)]
    }

    /// The bars from the first write to the last, at most this many if possible, including empty ones: the second at
    /// which each begins, and its count.
    pub fn bars(&self, most: usize) -> Vec<(i64, u64)> {
        let mut shown = self.clone();
        let span =
            |h: &Self| h.bars.first_key_value().zip(h.bars.last_key_value()).map(|(a, b)| b.0.saturating_sub(*a.0));
        while shown.width + 1 < WIDTHS.len() && span(&shown).is_some_and(|span| span >= most as i64) {
            shown.widen();
        }
        let Some((first, last)) = shown.bars.first_key_value().zip(shown.bars.last_key_value()) else {
            return Vec::new();
        };
        let seconds = shown.seconds();
        if last.0.saturating_sub(*first.0) >= most as i64 {
            // Years lie between them: only bars with a write.
            return shown.bars.iter().map(|(bar, count)| (bar.saturating_mul(seconds), *count)).collect();
        }
        (*first.0..=*last.0)
            .map(|bar| (bar.saturating_mul(seconds), shown.bars.get(&bar).copied().unwrap_or_default()))
            .collect()
    }
}

/// How often each name occurred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameCounts {
    names: HashMap<String, u64>,
    /// The total of the names that there was no room for.
    pub others: u64,
}

impl NameCounts {
    /// Counts a name.
    pub fn add(&mut self, name: &str) {
        let has_room = self.names.len() < MOST_NAMES;
        match self.names.get_mut(name) {
            Some(count) => *count += 1,
            None if has_room => drop(self.names.insert(name.to_owned(), 1)),
            None => self.others += 1,
        }
    }

    /// The most frequent names, and the number of all names.
    pub fn top(&self, most: usize) -> (Vec<(&str, u64)>, usize) {
        let mut names: Vec<(&str, u64)> = self.names.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        names.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let all = names.len();
        names.truncate(most);
        (names, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_widen_until_they_are_few_and_no_write_is_lost() {
        let mut histogram = Histogram::default();
        for ts in 0..100_000 {
            histogram.add(1_700_000_000 + ts * 7);
        }
        let bars = histogram.bars(60);
        assert!((10..=60).contains(&bars.len()), "{}", bars.len());
        assert_eq!(bars.iter().map(|(_, count)| count).sum::<u64>(), 100_000);
        assert!(bars.windows(2).all(|pair| pair[1].0 - pair[0].0 == bars[1].0 - bars[0].0));
        // A burst is shown second by second.
        let mut burst = Histogram::default();
        [100, 100, 103].into_iter().for_each(|ts| burst.add(ts));
        assert_eq!((burst.bars(60), burst.seconds()), (vec![(100, 2), (101, 0), (102, 0), (103, 1)], 1));
        // Extreme times must not do any harm.
        [i64::MIN, 0, i64::MAX].into_iter().for_each(|ts| burst.add(ts));
        assert_eq!(burst.bars(60).iter().map(|(_, count)| count).sum::<u64>(), 6);
        assert_eq!(Histogram::default().bars(60), []);
    }

    #[test]
    fn the_most_frequent_names_come_first_and_too_many_are_counted_together() {
        let mut counts = NameCounts::default();
        ["/b", "/a", "/c", "/c"].into_iter().for_each(|name| counts.add(name));
        assert_eq!(counts.top(2), (vec![("/c", 2), ("/a", 1)], 3));
        (0..2000).for_each(|n| counts.add(&format!("/{n}")));
        assert_eq!((counts.top(1).1, counts.others), (MOST_NAMES, 1003));
    }
}
