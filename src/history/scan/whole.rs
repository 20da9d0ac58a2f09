//! A piece with the texts of all versions, and the items of which a version was written in some time.

use std::{borrow::Cow, collections::HashSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{CONCURRENCY, FEW, Scan, ScannedItem, buffer::ScanBuffer};
use crate::{
    change::{
        Op,
        key::ItemKey,
        time::PointInTime,
        version::{BadRecord, Version},
    },
    cosmos::{Failure, Found, HashRange},
    history::{Containers, entry::Entry, histories::Texts, live::LiveDetail, reading::Detail},
};

/// The text of a version: what the scan read along, or else read now; `None` of a delete.
///
/// # Errors
/// When the record cannot be read, or is not in the history any more; [`Failure::is_own`] tells what is wrong with the
/// record from what is wrong with the account.
pub async fn text_of<'v>(
    containers: &Containers,
    item: &ItemKey,
    version: &'v Version,
) -> Result<Option<Cow<'v, str>>, Failure> {
    if version.op.is_some_and(Op::is_tombstone) {
        return Ok(None);
    }
    match &version.document {
        Some(text) => Ok(Some(Cow::Borrowed(text))),
        None => containers.document(item, &version.record_id).await.map(|text| Some(Cow::Owned(text))),
    }
}

impl Scan<'_> {
    /// All records of a piece, with their texts.
    pub(super) async fn whole_piece(
        &self,
        piece: HashRange,
        buffer: &mut ScanBuffer,
        in_scope: impl Fn(&ItemKey) -> bool,
    ) -> Result<(), Failure> {
        let changes = &self.containers.changes;
        // Up to the end is everything: no record is after it.
        self.each(changes.records_in(piece, PointInTime::END), |entry| buffer.add(entry, &in_scope)).await?;
        self.facts_of_bad(changes.facts_in(piece, None), buffer, in_scope).await
    }

    /// One whose document cannot be read is a version all the same: where there is one, the facts are read as well.
    async fn facts_of_bad(
        &self,
        facts: Found<'_, Entry>,
        buffer: &mut ScanBuffer,
        in_scope: impl Fn(&ItemKey) -> bool,
    ) -> Result<(), Failure> {
        if buffer.bad.is_empty() {
            return Ok(());
        }
        let known: HashSet<String> =
            buffer.found.values().flat_map(|found| &found.versions).map(|v| v.record_id.clone()).collect();
        let facts = self.each(facts, |entry| match &entry {
            Entry::Version(_, version) if !known.contains(&version.record_id) => buffer.add(entry, &in_scope),
            _ => {}
        });
        facts.await
    }

    /// The items of a piece of which a version was written in this time, with all their versions.
    pub(super) async fn written_piece(
        &self,
        piece: HashRange,
        with_text: bool,
        from: PointInTime,
        to: PointInTime,
    ) -> Result<ScanBuffer, Failure> {
        let mut buffer = self.buffer();
        let changes = &self.containers.changes;
        let written = |detail| changes.written_in(piece, from, to, detail);
        if with_text && self.has_all_texts() {
            self.each(written(Detail::Whole), |entry| buffer.add(entry, |_| true)).await?;
            self.facts_of_bad(written(Detail::Facts), &mut buffer, |_| true).await?;
        } else {
            self.each(written(Detail::Facts), |entry| buffer.add(entry, |_| true)).await?;
        }
        // What is of that time is known already.
        let is_new = |version: &Version| !(from.seconds()..=to.seconds()).contains(&version.ts);
        if buffer.found.len() <= FEW && !buffer.has_unkeyed() {
            let items: Vec<ItemKey> = buffer.found.keys().cloned().collect();
            let facts: Vec<(ScannedItem, Vec<BadRecord>)> = stream::iter(items)
                .map(|item| self.versions_of(item, Texts::None))
                .buffer_unordered(CONCURRENCY)
                .try_collect()
                .await?;
            for (known, bad) in facts {
                buffer.add_bad(bad);
                let item = known.item;
                known.versions.into_iter().filter(is_new).for_each(|v| buffer.version(item.clone(), v));
                buffer.entry(item).unkeyed = known.unkeyed;
            }
        } else {
            let candidates: HashSet<ItemKey> = buffer.found.keys().cloned().collect();
            let facts = self.each(changes.facts_in(piece, None), |entry| match &entry {
                Entry::Version(_, version) | Entry::Unkeyed(version) if !is_new(version) => {}
                Entry::Bad(bad) => buffer.add_bad([bad.clone()]),
                _ => buffer.add(entry, |item| candidates.contains(item)),
            });
            facts.await?;
            buffer.settle(self.containers.source.key_paths().len());
            buffer.found.retain(|_, found| !found.versions.iter().all(is_new));
        }
        self.live_of_written(piece, &mut buffer).await?;
        Ok(buffer)
    }

    async fn live_of_written(&self, piece: HashRange, buffer: &mut ScanBuffer) -> Result<(), Failure> {
        if self.live == LiveDetail::No {
            return Ok(());
        }
        if buffer.found.len() > FEW && self.containers.is_aligned() {
            let candidates: HashSet<ItemKey> = buffer.found.keys().cloned().collect();
            let with_text = self.live == LiveDetail::Text;
            return self.live_in(piece, with_text, None, buffer, |item| candidates.contains(item)).await;
        }
        let found: Vec<ScannedItem> = stream::iter(std::mem::take(&mut buffer.found).into_values())
            .map(|mut found| async move { self.look_at_live(&mut found).await.map(|()| found) })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        buffer.found = found.into_iter().map(|found| (found.item.clone(), found)).collect();
        Ok(())
    }
}
