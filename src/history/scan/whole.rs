//! A piece with the texts of all versions, and the items with a version written in a period.

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
    cosmos::{Failure, HashRange, PageStream},
    history::{Containers, entry::Entry, live::LiveDetail, reading::Detail},
};

/// The text of a version: what the scan read along, or otherwise read now; `None` for a delete.
///
/// # Errors
/// When the record cannot be read, or is no longer in the history; [`Failure::is_own`] distinguishes a problem of the
/// record from one of the account.
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
        // Up to the end means everything: no record comes after it.
        self.each(changes.records_in(piece, PointInTime::END), |entry| buffer.add(entry, &in_scope)).await?;
        self.facts_of_bad(changes.facts_in(piece, None), buffer, in_scope).await
    }

    /// One whose document cannot be read is still a version: if there is one, the facts are read as well.
    async fn facts_of_bad(
        &self,
        facts: PageStream<'_, Entry>,
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

    /// The items of a piece with a version written in this period, with all their versions.
    pub(super) async fn written_piece(
        &self,
        piece: HashRange,
        with_text: bool,
        from: PointInTime,
        to: PointInTime,
    ) -> Result<ScanBuffer, Failure> {
        let mut buffer = self.buffer();
        let changes = &self.containers.changes;
        let components = self.containers.source.key_paths().len();
        let is_new = |version: &Version| !(from.seconds()..=to.seconds()).contains(&version.ts);
        if with_text && self.has_all_texts() {
            // Most of what is here was written then, or this is the first look at how much there is.
            self.whole_piece(piece, &mut buffer, |_| true).await?;
            buffer.settle(components);
            buffer.seen = buffer.rows;
            buffer.found.retain(|_, found| !found.versions.iter().all(is_new));
            self.live_of_few(piece, &mut buffer).await?;
            return Ok(buffer);
        }
        let written = |detail| changes.written_in(piece, from, to, detail);
        if self.has_all_texts() {
            self.each(written(Detail::Whole), |entry| buffer.add(entry, |_| true)).await?;
            self.facts_of_bad(written(Detail::Facts), &mut buffer, |_| true).await?;
        } else {
            self.each(written(Detail::Facts), |entry| buffer.add(entry, |_| true)).await?;
        }
        if buffer.found.len() <= FEW && !buffer.has_unkeyed() {
            let items: Vec<ItemKey> = buffer.found.keys().cloned().collect();
            let texts = self.texts_of_each(items.len());
            let facts: Vec<(ScannedItem, Vec<BadRecord>)> = stream::iter(items)
                .map(|item| self.versions_of(item, texts))
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
            let mut seen = 0;
            let facts = self.each(changes.facts_in(piece, None), |entry| {
                seen += 1;
                match &entry {
                    // What lies in that period is already known.
                    Entry::Version(_, version) | Entry::Unkeyed(version) if !is_new(version) => {}
                    Entry::Bad(bad) => buffer.add_bad([bad.clone()]),
                    _ => buffer.add(entry, |item| candidates.contains(item)),
                }
            });
            facts.await?;
            buffer.seen = seen;
            buffer.settle(components);
            buffer.found.retain(|_, found| !found.versions.iter().all(is_new));
        }
        self.live_of_few(piece, &mut buffer).await?;
        Ok(buffer)
    }

    /// The items of a piece with any version that matches, with all their versions.
    pub(super) async fn ever_piece(&self, piece: HashRange) -> Result<ScanBuffer, Failure> {
        let (items, bad) = self.ever_matched_in(piece).await?;
        let mut buffer = self.buffer();
        if items.len() <= FEW || !self.containers.is_cut_by_item() {
            let (found, odd) = self.looked_up(items.into_iter().collect()).await?;
            buffer.rows = found.iter().map(|found| found.versions.len()).sum();
            buffer.add_bad(odd);
            buffer.found = found.into_iter().map(|found| (found.item.clone(), found)).collect();
        } else {
            if self.has_all_texts() {
                self.whole_piece(piece, &mut buffer, |item| items.contains(item)).await?;
            } else {
                let facts = self.containers.changes.facts_in(piece, None);
                self.each(facts, |entry| buffer.add(entry, |item| items.contains(item))).await?;
            }
            buffer.settle(self.containers.source.key_paths().len());
            buffer.found.retain(|item, _| items.contains(item));
            self.live_of_few(piece, &mut buffer).await?;
        }
        buffer.add_bad(bad);
        Ok(buffer)
    }

    async fn live_of_few(&self, piece: HashRange, buffer: &mut ScanBuffer) -> Result<(), Failure> {
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
