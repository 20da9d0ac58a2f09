//! Finds the versions that an operator's predicate matches, and evaluates here what the service cannot see.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{CONCURRENCY, Scan, ScannedItem, Scope};
use crate::{
    change::{
        key::ItemKey,
        shape::LeftOut,
        version::{BadRecord, RecordProblem},
    },
    cosmos::{Failure, HashRange, Param},
    history::{
        as_of::boundary,
        entry::Entry,
        predicate::{asked::Undecided, evaluate::Predicate, partly},
        reading::{Match, Part},
    },
};

/// How much of a version's document the service has seen when it evaluated the predicate.
#[derive(Clone)]
pub(super) enum Seen {
    /// All of it: the version matches.
    Whole,
    /// Nothing.
    Packed,
    /// All but this, which the predicate is about.
    Part(Arc<LeftOut>),
}

/// The versions that a predicate finds, by item and record.
#[derive(Default)]
pub(super) struct Matched {
    pub(super) versions: HashMap<(ItemKey, String), Seen>,
    pub(super) bad: Vec<BadRecord>,
}

impl Scan<'_> {
    /// The items of a predicate's scope with any version that matches, whenever that was; and the records that cannot
    /// be parsed, or whose documents cannot be evaluated.
    ///
    /// # Errors
    /// When the service refuses the predicate, with its own message.
    pub async fn ever_matched(&self) -> Result<(HashSet<ItemKey>, Vec<BadRecord>), Failure> {
        let (mut items, mut bad) = (HashSet::new(), Vec::new());
        for hash_range in self.hash_ranges {
            let (found, odd) = self.ever_matched_in(*hash_range).await?;
            items.extend(found);
            bad.extend(odd);
        }
        Ok((items, bad))
    }

    /// The same for a part of the hash space.
    pub(super) async fn ever_matched_in(
        &self,
        piece: HashRange,
    ) -> Result<(HashSet<ItemKey>, Vec<BadRecord>), Failure> {
        let Matched { versions, mut bad } = self.matched(piece).await?;
        let (whole, open): (Vec<_>, Vec<_>) = versions.into_iter().partition(|(_, seen)| matches!(seen, Seen::Whole));
        let mut items: HashSet<ItemKey> = whole.into_iter().map(|((item, _), _)| item).collect();
        let mut undecided = Vec::new();
        for ((item, record_id), seen) in open {
            if items.contains(&item) {
                continue;
            }
            match self.decide(&item, &record_id, &seen).await? {
                Ok(true) => {
                    items.insert(item);
                }
                Ok(false) => {}
                Err(why) => undecided.push((item, BadRecord::new(record_id, RecordProblem::Asked(why.into())))),
            }
        }
        // Another version of the item has matched since: it does not matter whether this one does.
        bad.extend(undecided.into_iter().filter(|(item, _)| !items.contains(item)).map(|(_, bad)| bad));
        Ok((items, bad))
    }

    pub(super) fn predicate(&self) -> Option<(&str, &[Param])> {
        match self.wanted {
            Scope::Where { predicate, params }
            | Scope::Then { predicate, params }
            | Scope::Ever { predicate, params } => Some((predicate, params)),
            _ => None,
        }
    }

    /// The versions that match the predicate, and those whose documents the service cannot see, or not what it is
    /// about; none without one.
    pub(super) async fn matched(&self, piece: HashRange) -> Result<Matched, Failure> {
        let mut matched = Matched::default();
        let Some((predicate, params)) = self.predicate() else { return Ok(matched) };
        let changes = &self.containers.changes;
        self.each(changes.matching(piece, predicate, params), |Match { entry, undecided }| match entry {
            Entry::Version(item, version) => {
                let seen = if undecided { Seen::Packed } else { Seen::Whole };
                matched.versions.insert((item, version.record_id), seen);
            }
            Entry::Unkeyed(_) => {}
            Entry::Bad(bad) => matched.bad.push(bad),
        })
        .await?;
        let paths = partly::open_paths(predicate, self.containers.source.key_paths().segments());
        if paths.is_empty() {
            return Ok(matched);
        }
        self.each(changes.parts(piece), |Part { entry, left_out }| {
            // One that is not understood is named where all records are read.
            if let Entry::Version(item, version) = entry
                && paths.iter().any(|path| self.hides(&left_out, path))
            {
                matched.versions.insert((item, version.record_id), Seen::Part(Arc::new(left_out)));
            }
        })
        .await?;
        Ok(matched)
    }

    fn hides(&self, left_out: &LeftOut, path: &[String]) -> bool {
        partly::hides(left_out, self.containers.source.key_paths().segments(), path)
    }

    /// Whether a document that the service has not seen as a whole matches the predicate; otherwise why that is
    /// unknown.
    async fn decide(&self, item: &ItemKey, record_id: &str, seen: &Seen) -> Result<Result<bool, Undecided>, Failure> {
        let Some((predicate, params)) = self.predicate() else { return Ok(Ok(true)) };
        let predicate = match (Predicate::of(predicate, params), seen) {
            (Ok(predicate), _) => predicate,
            (Err(_), Seen::Part(_)) => return Ok(Err(Undecided::Part)),
            (Err(why), _) => return Ok(Err(Undecided::Predicate(why))),
        };
        self.pace.wait().await;
        let (version, text) = match self.containers.version(item, record_id).await {
            Ok(found) => found,
            Err(f) if f.is_own() => return Ok(Err(Undecided::Record(f))),
            Err(f) => return Err(f),
        };
        Ok(match seen {
            Seen::Whole | Seen::Packed => predicate.matches_version(&version, &text).map_err(Undecided::from),
            Seen::Part(left_out) => predicate.matches_part_of(&version, &text, &|path| self.hides(left_out, path)),
        })
    }

    /// Drops what turns out not to match; notes why something cannot be evaluated.
    pub(super) async fn decide_all(
        &self,
        found: &mut HashMap<ItemKey, ScannedItem>,
        matched: &Matched,
    ) -> Result<(), Failure> {
        let open: Vec<(ItemKey, String, Seen)> = found
            .values()
            .filter_map(|f| {
                let version = boundary(&f.versions, self.at)?;
                let place = (f.item.clone(), version.record_id.clone());
                let seen = matched.versions.get(&place).filter(|seen| !matches!(seen, Seen::Whole))?.clone();
                Some((place.0, place.1, seen))
            })
            .collect();
        let decided: Vec<(ItemKey, Result<bool, Undecided>)> = stream::iter(open)
            .map(|(item, record_id, seen)| async move {
                let decided = self.decide(&item, &record_id, &seen).await?;
                Ok::<_, Failure>((item, decided))
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        for (item, decided) in decided {
            match decided {
                Ok(true) => {}
                Ok(false) => {
                    found.remove(&item);
                }
                Err(why) => {
                    if let Some(found) = found.get_mut(&item) {
                        found.undecided = Some(Arc::new(why));
                    }
                }
            }
        }
        Ok(())
    }
}
