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
        version::{BadRecord, RecordProblem},
    },
    cosmos::{Failure, HashRange, Param},
    history::{
        as_of::boundary,
        entry::Entry,
        predicate::evaluate::{Predicate, Undecided},
        reading::Match,
    },
};

/// The versions that a predicate finds, by item and record, and whether the service could not see the document.
#[derive(Default)]
pub(super) struct Matched {
    pub(super) versions: HashMap<(ItemKey, String), bool>,
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
        let matched = self.matched(piece).await?;
        let (mut items, mut bad) = (HashSet::new(), matched.bad);
        for ((item, record_id), packed) in matched.versions {
            if !packed || items.contains(&item) {
                items.insert(item);
                continue;
            }
            match self.decide_packed(&item, &record_id).await? {
                Ok(true) => {
                    items.insert(item);
                }
                Ok(false) => {}
                Err(why) => bad.push(BadRecord::new(record_id, RecordProblem::Asked(why.into()))),
            }
        }
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

    /// The versions that match the predicate, and those whose documents the service cannot see; none without one.
    pub(super) async fn matched(&self, piece: HashRange) -> Result<Matched, Failure> {
        let mut matched = Matched::default();
        if let Some((predicate, params)) = self.predicate() {
            let found = self.containers.changes.matching(piece, predicate, params);
            self.each(found, |Match { entry, undecided }| match entry {
                Entry::Version(item, version) => {
                    matched.versions.insert((item, version.record_id), undecided);
                }
                Entry::Unkeyed(_) => {}
                Entry::Bad(bad) => matched.bad.push(bad),
            })
            .await?;
        }
        Ok(matched)
    }

    /// Whether a document that the service cannot see matches the predicate; otherwise why that is unknown.
    async fn decide_packed(&self, item: &ItemKey, record_id: &str) -> Result<Result<bool, Undecided>, Failure> {
        let Some((predicate, params)) = self.predicate() else { return Ok(Ok(true)) };
        let predicate = match Predicate::of_packed(predicate, params) {
            Ok(predicate) => predicate,
            Err(why) => return Ok(Err(why)),
        };
        self.pace.wait().await;
        let text = match self.containers.document(item, record_id).await {
            Ok(text) => text,
            Err(f) if f.is_own() => return Ok(Err(Undecided::Record(f))),
            Err(f) => return Err(f),
        };
        Ok(predicate.matches_text(&text))
    }

    /// Drops what turns out not to match; notes why something cannot be evaluated.
    pub(super) async fn decide_all(
        &self,
        found: &mut HashMap<ItemKey, ScannedItem>,
        matched: &Matched,
    ) -> Result<(), Failure> {
        let packed: Vec<(ItemKey, String)> = found
            .values()
            .filter_map(|f| {
                let version = boundary(&f.versions, self.at)?;
                let place = (f.item.clone(), version.record_id.clone());
                matched.versions.get(&place).copied().unwrap_or(false).then_some(place)
            })
            .collect();
        let decided: Vec<(ItemKey, Result<bool, Undecided>)> = stream::iter(packed)
            .map(|(item, record_id)| async move {
                let decided = self.decide_packed(&item, &record_id).await?;
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
