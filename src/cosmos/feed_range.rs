//! Parts of a container's hash space, as feeds, leases, and physical partitions have them.

use std::{collections::BTreeSet, fmt};

use azure_data_cosmos_driver::models::{EffectivePartitionKey, FeedRange as DriverFeedRange, PartitionKeyDefinition};

use super::{Failure, change_feed::definition_of, container::wire_key};
use crate::change::key::{KeyPaths, PartitionKey};

/// A part of the container's hash space, from `min` (included) to `max` (excluded).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRange(DriverFeedRange);

impl From<DriverFeedRange> for FeedRange {
    fn from(range: DriverFeedRange) -> Self {
        Self(range)
    }
}

impl FeedRange {
    /// All keys.
    pub fn full() -> Self {
        Self(DriverFeedRange::full())
    }

    /// Where the items of a partition key lie in a container with these key paths, as containers are made today.
    ///
    /// # Errors
    /// When the key does not fit.
    pub fn of(key: &PartitionKey, paths: &KeyPaths) -> Result<Self, Failure> {
        Self::of_key(key, &definition_of(paths))
    }

    /// Where the items of a partition key lie in a container with this key definition.
    pub(super) fn of_key(key: &PartitionKey, definition: &PartitionKeyDefinition) -> Result<Self, Failure> {
        let range = DriverFeedRange::for_partition(wire_key(key)?, definition);
        let (min, max) = (range.min_inclusive(), range.max_exclusive());
        // A single place is not a range of its own: its successor ends it.
        let max = if min < max { max.to_hex() } else { format!("{}01", min.to_hex()) };
        Self::parse(&min.to_hex(), &max).map_err(|e| Failure::invalid("partition key".into(), e))
    }

    /// Parses the bounds: hexadecimal text, as the service writes them.
    ///
    /// # Errors
    /// When a bound is not hexadecimal, or they are in the wrong order.
    pub fn parse(min: &str, max: &str) -> Result<Self, String> {
        let bound = |text: &str| {
            EffectivePartitionKey::try_from(text).map_err(|_| format!("{text:?} is not a bound of a feed range"))
        };
        DriverFeedRange::new(bound(min)?, bound(max)?)
            .map(Self)
            .map_err(|_| format!("the feed range {min}..{max} is upside down"))
    }

    pub(super) fn feed_range(&self) -> DriverFeedRange {
        self.0.clone()
    }

    /// The first key, hexadecimal; empty at the very beginning.
    pub fn min(&self) -> String {
        self.0.min_inclusive().to_hex()
    }

    /// The first key after it, hexadecimal.
    pub fn max(&self) -> String {
        self.0.max_exclusive().to_hex()
    }

    /// The intersection of both, if it is not empty.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let min = self.0.min_inclusive().max(other.0.min_inclusive());
        let max = self.0.max_exclusive().min(other.0.max_exclusive());
        if significant(&min.to_hex()) >= significant(&max.to_hex()) {
            return None;
        }
        DriverFeedRange::new(min.clone(), max.clone()).ok().map(Self)
    }

    /// Whether others have all of its keys together.
    pub fn is_covered_by<'a>(&self, others: impl Iterator<Item = &'a Self>) -> bool {
        let mut others: Vec<_> =
            others.filter_map(|other| self.intersection(other)).map(|part| part.bounds()).collect();
        others.sort_unstable();
        let (min, max) = self.bounds();
        others.into_iter().fold(min, |end, (from, to)| if from <= end { end.max(to) } else { end }) >= max
    }

    /// Its pieces between all bounds of the others, in order. Each of the others has all of a piece or nothing of it.
    pub fn cut_at<'a>(&self, others: impl Iterator<Item = &'a Self>) -> Vec<Self> {
        let parts = others.filter_map(|other| self.intersection(other));
        let cuts = parts.map(|part| part.bounds()).chain([self.bounds()]).flat_map(|(min, max)| [min, max]);
        let cuts: BTreeSet<String> = cuts.collect();
        cuts.iter().zip(cuts.iter().skip(1)).filter_map(|(min, max)| Self::parse(min, max).ok()).collect()
    }

    /// Both bounds, so that equal ones are equal texts: zero bytes at the end carry no meaning.
    fn bounds(&self) -> (String, String) {
        (significant(&self.min()).to_owned(), significant(&self.max()).to_owned())
    }
}

/// A bound without zero bytes at its end.
fn significant(bound: &str) -> &str {
    let bytes = bound.as_bytes().chunks(2).rposition(|byte| byte != b"00").map_or(0, |last| last + 1);
    bound.get(..bytes * 2).unwrap_or(bound)
}

/// Shown as in logs and metrics: `00-1F`.
impl fmt::Display for FeedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = self.bounds();
        let short = |bound: String| if bound.is_empty() { "00".to_owned() } else { bound };
        write!(f, "{}-{}", short(min), short(max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_meet_where_both_have_keys() {
        let span = |min: &str, max: &str| FeedRange::parse(min, max).unwrap();
        let met = |a: FeedRange, b: FeedRange| a.intersection(&b).map(|s| s.to_string());
        assert_eq!(met(span("", "20"), span("10", "FF")).as_deref(), Some("10-20"));
        assert_eq!(met(span("", "10"), span("10", "FF")), None);
        assert_eq!(met(span("", "FF"), span("", "1000")).as_deref(), Some("00-10"));
        assert_eq!(met(span("", "0800"), span("08", "FF")), None, "an empty part is none");
        assert!(FeedRange::parse("20", "10").unwrap_err().contains("upside down"));
        assert!(FeedRange::parse("x", "10").is_err());
        // Half a byte at the end: however it is read, it can be shown.
        let _ = FeedRange::parse("0", "ABC").map(|range| range.to_string());
    }

    #[test]
    fn a_range_is_covered_when_no_key_is_left_out_and_cut_where_the_others_begin_and_end() {
        let span = |(min, max): (&str, &str)| FeedRange::parse(min, max).unwrap();
        let all = span(("10", "20"));
        let is_covered = |others: &[(&str, &str)]| {
            let others: Vec<FeedRange> = others.iter().copied().map(span).collect();
            all.is_covered_by(others.iter())
        };
        assert!(is_covered(&[("", "FF")]) && is_covered(&[("18", "FF"), ("", "18")]));
        assert!(is_covered(&[("10", "1800"), ("18", "2000")]), "zero bytes at the end carry no meaning");
        assert!(is_covered(&[("", "14"), ("12", "13"), ("13", "FF")]));
        assert!(!is_covered(&[]) && !is_covered(&[("20", "FF")]));
        assert!(!is_covered(&[("10", "17"), ("18", "20")]) && !is_covered(&[("11", "20")]));

        let others = [("", "14"), ("1400", "18"), ("18", "1C"), ("30", "FF")].map(span);
        let pieces: Vec<String> = all.cut_at(others.iter()).iter().map(ToString::to_string).collect();
        assert_eq!(pieces, ["10-14", "14-18", "18-1C", "1C-20"]);
        assert_eq!(all.cut_at([].iter()), std::slice::from_ref(&all));
    }
}
