//! Live documents that were already in force at the point in time, and that the history may lack.

use super::{Scan, ScannedItem, Scope, buffer::ScanBuffer};
use crate::{
    change::{
        key::ItemKey,
        time::PointInTime,
        version::{BadRecord, Version},
    },
    cosmos::{Failure, HashRange},
    history::{
        as_of::boundary,
        known::with_live,
        live::{Live, LiveIndex},
    },
};

impl ScannedItem {
    /// Whether the live document was in force at a moment, and the history does not have it.
    fn is_only_live(&self, at: PointInTime) -> bool {
        boundary(&with_live(&self.item.id, &self.versions, self.live.as_ref()), at).is_some_and(Version::is_live)
    }
}

impl ScannedItem {
    /// Whether the version in force is live, and the history has a part of it, or nothing.
    fn is_whole_while_live(&self, at: PointInTime) -> bool {
        let live = self.live.as_ref().map(|live| live.etag.as_str());
        live.is_some()
            && boundary(&self.versions, at)
                .is_some_and(|version| version.is_partial() && version.etag.as_deref() == live)
    }
}

impl Scan<'_> {
    /// The live documents of a part of the source that match the predicate, and were written at or before the moment.
    pub(super) async fn in_force_now(&self, piece: HashRange) -> Result<LiveIndex, Failure> {
        let mut index = LiveIndex::new();
        let documents = self.containers.source.documents_in(piece, false, self.predicate());
        let then = |live: &Live| live.ts.is_some_and(|ts| ts <= self.at.seconds());
        self.each(documents, |(item, live)| index.extend(then(&live).then_some((item, live)))).await?;
        Ok(index)
    }

    /// Of the items whose captured version matched, drops those whose live document was in force instead and does not
    /// match; and removes those that are found from the index. What the live document answers is not open, although the
    /// history has only a part of it.
    pub(super) fn settle_live(&self, buffer: &mut ScanBuffer, index: &mut LiveIndex) {
        buffer.found.retain(|item, found| {
            let matches_now = index.remove(item).is_some();
            if found.is_whole_while_live(self.at) {
                found.undecided = None;
                return matches_now;
            }
            matches_now || !found.is_only_live(self.at)
        });
    }

    /// The items whose live document was in force, and that the history does not have.
    pub(super) async fn only_live(&self, items: Vec<ItemKey>) -> Result<(Vec<ScannedItem>, Vec<BadRecord>), Failure> {
        let (mut found, bad) = self.looked_up(items).await?;
        found.retain(|found| found.is_only_live(self.at));
        Ok((found, bad))
    }

    /// Adds the items of a piece whose live document was in force, and that the history does not have. When pieces of
    /// the two containers do not correspond, that is done at the end.
    pub(super) async fn add_only_live(&self, piece: HashRange, buffer: &mut ScanBuffer) -> Result<(), Failure> {
        if !matches!(self.wanted, Scope::Then { .. }) || !self.containers.is_aligned() {
            return Ok(());
        }
        let mut index = self.in_force_now(piece).await?;
        buffer.lives = buffer.lives.max(index.len());
        self.settle_live(buffer, &mut index);
        let (found, bad) = self.only_live(index.into_keys().collect()).await?;
        buffer.add_bad(bad);
        buffer.found.extend(found.into_iter().map(|found| (found.item.clone(), found)));
        Ok(())
    }
}
