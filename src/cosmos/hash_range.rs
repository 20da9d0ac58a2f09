//! Parts of a partition key's hash space: how a scan is cut into pieces, and shared between machines.
//!
//! Every item has a place in the space, the hash of its partition key. A query can be bound to a range of it (the
//! service calls a bound an effective partition key), whatever the physical partitions are at that time.

use std::{fmt, ops::Range};

use azure_data_cosmos_driver::models::{
    EffectivePartitionKey, FeedRange, PartitionKeyDefinition, PartitionKeyKind, PartitionKeyVersion,
};
use serde::{Deserialize, Serialize};

use super::{Failure, change_feed::definition_of, container::wire_key};
use crate::change::key::{KeyPaths, PartitionKey};

/// Places in the space. A hash has more bits than that; nothing is cut any finer.
const PLACES: u64 = 1 << 62;

/// How a container maps partition keys to places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashSpace {
    /// 32-bit hash, written as a number: containers made without a version of the partition key definition.
    V1,
    /// 128-bit hash of the first (or only) component, first in what a place is written as.
    V2,
}

impl HashSpace {
    pub(super) fn of(definition: &PartitionKeyDefinition) -> Option<Self> {
        match (definition.kind(), definition.version()) {
            (PartitionKeyKind::Hash, PartitionKeyVersion::V1) => Some(Self::V1),
            (PartitionKeyKind::Hash | PartitionKeyKind::MultiHash, _) => Some(Self::V2),
            _ => None,
        }
    }

    /// The bound as the service writes it: hexadecimal, empty at the beginning, FF at the end.
    fn bound(self, place: u64) -> String {
        match (place, self) {
            (0, _) => String::new(),
            (PLACES.., _) => "FF".into(),
            // The two highest bits of such a hash are never set, so 2^62 places fill 00.. to 3F..
            (_, Self::V2) => format!("{place:016X}"),
            // A number is written as 05 and the double's bits with the sign turned; the hash fills 0 to 2^32.
            (_, Self::V1) => {
                let hash = place as f64 / PLACES as f64 * 4_294_967_296.0;
                format!("05{:016X}", hash.to_bits() ^ (1 << 63))
            }
        }
    }
}

/// A range of the space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashRange {
    from: u64,
    to: u64,
}

impl HashRange {
    /// The whole space.
    pub const WHOLE: Self = Self { from: 0, to: PLACES };

    /// Whether it contains no place.
    pub fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// Returns how many places are in it.
    pub fn width(self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// Splits it into `parts` ranges of nearly equal size that leave nothing out.
    pub fn cut(self, parts: u32) -> Vec<Self> {
        let bound = |i: u32| {
            let offset = u128::from(self.width()) * u128::from(i) / u128::from(parts.max(1));
            self.from + u64::try_from(offset).unwrap_or(self.width())
        };
        (0..parts.max(1)).map(|i| Self { from: bound(i), to: bound(i + 1) }).collect()
    }

    /// Splits off the first `width` places, at least one; returns them and the rest.
    pub fn split_at(self, width: u64) -> (Self, Self) {
        let middle = self.from.saturating_add(width.max(1)).min(self.to);
        (Self { from: self.from, to: middle }, Self { from: middle, to: self.to })
    }

    pub(super) fn feed_range(self, space: HashSpace) -> Result<FeedRange, Failure> {
        let bound = |place| EffectivePartitionKey::try_from(space.bound(place).as_str());
        let range = bound(self.from).and_then(|min| FeedRange::new(min, bound(self.to)?));
        range.map_err(|e| Failure::from_driver(&e, "feed range".into()))
    }
}

/// Where the items of a partition key lie, in a container as they are created today.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HashPlace(EffectivePartitionKey);

impl HashPlace {
    /// The place of a key, in a container with these key paths.
    ///
    /// # Errors
    /// When the key does not fit the paths.
    pub fn of(key: &PartitionKey, paths: &KeyPaths) -> Result<Self, Failure> {
        let range = FeedRange::for_partition(wire_key(key)?, &definition_of(paths));
        Ok(Self(range.min_inclusive().clone()))
    }

    /// The places of a range.
    ///
    /// # Errors
    /// When the client library does not accept its bounds.
    pub fn within(range: HashRange) -> Result<Range<Self>, Failure> {
        let range = range.feed_range(HashSpace::V2)?;
        Ok(Self(range.min_inclusive().clone())..Self(range.max_exclusive().clone()))
    }
}

/// Walks a range in pieces of about the requested size. The first piece shows how much there is; each one determines
/// the width of the next.
#[derive(Debug, Clone)]
pub struct RangeWalk {
    rest: HashRange,
    width: u64,
}

/// The first piece of a range, as a power of two of its width.
const PROBE_BITS: u32 = 12;
/// How much wider a piece may be than the one before: an empty one says little about the next.
const MAX_GROWTH: f64 = 16.0;

impl RangeWalk {
    /// Begins at the start of a range; takes it as one piece when it cannot be cut.
    pub fn new(hash_range: HashRange, in_pieces: bool) -> Self {
        let width = if in_pieces { hash_range.width() >> PROBE_BITS } else { hash_range.width() };
        Self { rest: hash_range, width }
    }

    /// The next piece; `None` at the end.
    pub fn next_piece(&mut self) -> Option<HashRange> {
        if self.rest.is_empty() {
            return None;
        }
        let (piece, rest) = self.rest.split_at(self.width);
        self.rest = rest;
        self.width = piece.width();
        Some(piece)
    }

    /// The range that is left after the last piece.
    pub fn rest(&self) -> HashRange {
        self.rest
    }

    /// Adapts the width of the next piece to the last one's load: 1 is just right, 2 is twice as much as intended.
    pub fn adapt(&mut self, load: f64) {
        let growth = if load > 0.0 { (1.0 / load).min(MAX_GROWTH) } else { MAX_GROWTH };
        // The conversion of a float beyond u64 saturates, and so does the width.
        self.width = (self.width as f64 * growth).max(1.0) as u64;
    }
}

/// One of several equal parts of the space: a machine's share of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    of: u32,
}

/// Most shares of a job.
const MAX_SHARES: u32 = 10_000;

impl Shard {
    /// Whether it is the share that also takes care of what belongs to no share.
    pub fn is_first(self) -> bool {
        self.index == 1
    }

    /// Returns its part of the hash space.
    pub fn span(self) -> HashRange {
        HashRange::WHOLE.cut(self.of).get(self.index as usize - 1).copied().unwrap_or(HashRange::WHOLE)
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |t: &str| t.parse::<u32>().ok().filter(|n| (1..=MAX_SHARES).contains(n));
        text.split_once('/')
            .and_then(|(index, of)| Some(Self { index: number(index)?, of: number(of)? }))
            .filter(|share| share.index <= share.of)
            .ok_or_else(|| format!("{text:?} is not i/n, such as 2/4 for the second of four equal parts"))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use azure_data_cosmos_driver::models::PartitionKeyValue;

    use super::*;

    /// Where the client library puts a key: the shares below must agree with it.
    fn place_of(key: &str, version: PartitionKeyVersion) -> EffectivePartitionKey {
        let definition = PartitionKeyDefinition::new(vec!["/pk".into()]).with_version(version);
        let range = FeedRange::for_partition(PartitionKeyValue::from(key.to_owned()).into(), &definition);
        range.min_inclusive().clone()
    }

    #[test]
    fn parts_are_equal_and_leave_nothing_out() {
        for (space, version) in [(HashSpace::V1, PartitionKeyVersion::V1), (HashSpace::V2, PartitionKeyVersion::V2)] {
            let ranges: Vec<FeedRange> =
                HashRange::WHOLE.cut(8).into_iter().map(|s| s.feed_range(space).unwrap()).collect();
            assert_eq!(ranges[0].min_inclusive(), &EffectivePartitionKey::MIN);
            assert_eq!(ranges[7].max_exclusive(), &EffectivePartitionKey::MAX);
            assert!(ranges.windows(2).all(|w| w[0].max_exclusive() == w[1].min_inclusive()));
            let mut counts = [0; 8];
            for i in 0..8000 {
                let place = place_of(&format!("key-{i}"), version);
                let inside = |r: &FeedRange| r.min_inclusive() <= &place && &place < r.max_exclusive();
                let found: Vec<usize> = (0..8).filter(|i| inside(&ranges[*i])).collect();
                assert_eq!(found.len(), 1, "{space:?} {}", place.to_hex());
                counts[found[0]] += 1;
            }
            // Equal shares of a uniform hash: 1,000 each, give or take.
            assert!(counts.iter().all(|n| (850..1150).contains(n)), "{space:?} {counts:?}");
        }
    }

    #[test]
    fn a_span_is_walked_piece_by_piece() {
        let mut rest = HashRange::WHOLE.cut(3)[1];
        let whole = rest.width();
        let mut sum = 0;
        for width in [0, 1, 1 << 40, 1 << 60, u64::MAX, 5] {
            let (piece, left) = rest.split_at(width);
            assert_eq!(piece.to, left.from);
            sum += piece.width();
            rest = left;
        }
        assert!(rest.is_empty());
        assert_eq!(sum, whole);
    }

    #[test]
    fn a_piece_becomes_as_wide_as_its_load_allows() {
        let mut walk = RangeWalk::new(HashRange { from: 0, to: 4096 * 100 }, true);
        let mut widths = Vec::new();
        for load in [1.0, 2.0, 0.5, 0.0, 1000.0] {
            widths.push(walk.next_piece().unwrap().width());
            walk.adapt(load);
        }
        assert_eq!(widths, [100, 100, 50, 100, 1600]);
        assert_eq!(walk.next_piece().unwrap().width(), 1);
        walk.adapt(0.0);
        let mut sum = walk.rest().width();
        while let Some(piece) = walk.next_piece() {
            sum -= piece.width();
            walk.adapt(0.0);
        }
        assert_eq!((sum, walk.rest().is_empty()), (0, true));
        let mut whole = RangeWalk::new(HashRange::WHOLE, false);
        assert_eq!((whole.next_piece(), whole.next_piece()), (Some(HashRange::WHOLE), None));
    }

    #[test]
    fn a_share_is_one_of_n() {
        assert_eq!("1/1".parse::<Shard>().unwrap().span(), HashRange::WHOLE);
        assert_eq!("2/4".parse::<Shard>().unwrap().span(), HashRange::WHOLE.cut(4)[1]);
        assert_eq!("4/4".parse::<Shard>().unwrap().to_string(), "4/4");
        for bad in ["", "1", "0/4", "5/4", "1/0", "a/b", "-1/2", "1/99999999", "1/2/3"] {
            assert!(bad.parse::<Shard>().unwrap_err().contains("i/n"), "{bad}");
        }
    }
}
