//! Gathers what is known of the items in scope: their versions, and what the target has now. Piece by piece of the hash
//! space, several at a time, so that memory does not grow with the container and no version is read twice.

mod buffer;
mod matching;

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};

use self::buffer::ScanBuffer;
use super::{
    as_of::boundary,
    containers::{Containers, RANGES, page},
    entry::Entry,
    histories::{Texts, histories},
    live::{Live, LiveDetail, LiveIndex, live_index, look_at},
};
use crate::{
    change::{
        Op,
        key::{ItemKey, PartitionKey},
        time::PointInTime,
        version::{BadRecord, Version},
    },
    cosmos::{Failure, Found, HashRange, Param, RETRY_TIMEOUT, Retry, RuLimiter, Walk},
};

/// Items looked up at the same time.
const CONCURRENCY: usize = 32;
/// Versions that a piece should have.
pub const PIECE_ROWS: usize = 4000;
/// Bytes of documents that a piece should keep.
const PIECE_BYTES: usize = 4 << 20;
/// Bytes of documents that a piece may keep; further ones are read again when they are needed.
const MAX_PIECE_BYTES: usize = 4 * PIECE_BYTES;
/// Up to this many items of a piece are looked up one by one.
const FEW: usize = 256;
/// When one version in this many is needed, documents are read along with the facts from then on: two point reads cost
/// about as much as a query over that many small documents, and are slower.
const TEXT_RATIO: usize = 25;

/// Which items.
#[derive(Debug, Clone)]
pub enum Scope {
    /// These.
    Items(Vec<ItemKey>),
    /// Those whose version at the point in time matches a predicate on `c`.
    Where {
        /// The caller's own SQL.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// Those whose live document matches a predicate on `c` now.
    Live {
        /// The caller's own SQL.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// All items of the history and of the target.
    All,
}

/// An item with all that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScannedItem {
    /// Which item.
    pub item: ItemKey,
    /// All its versions, in any order. The text of the one in force at the moment may be there.
    pub versions: Vec<Version>,
    /// What the target has now, when that was asked for; `None` when there is no such document.
    pub live: Option<Live>,
    /// Deletes of documents with this id of which the history does not say under which partition key: records of
    /// before `_change.key`, in a history that is not keyed by the source's paths.
    pub unkeyed: Vec<Version>,
    /// Why it cannot be told whether the version in force matches the predicate, so that it may not be in scope.
    pub undecided: Option<String>,
}

impl ScannedItem {
    /// The version in force at a moment, when that is a document.
    pub fn document_at(&self, at: PointInTime) -> Option<&Version> {
        boundary(&self.versions, at).filter(|version| !version.op.is_some_and(Op::is_tombstone))
    }

    /// An item of which nothing is known yet.
    pub fn new(item: ItemKey) -> Self {
        Self { item, versions: Vec::new(), live: None, unkeyed: Vec::new(), undecided: None }
    }
}

/// One reading of the items in scope.
pub struct Scan<'a> {
    /// The containers.
    pub containers: &'a Containers,
    /// Which items.
    pub wanted: &'a Scope,
    /// The point in time.
    pub at: PointInTime,
    /// Where they are looked for; [`Containers::hash_ranges`].
    pub hash_ranges: &'a [HashRange],
    /// What of the live documents is read.
    pub live: LiveDetail,
    /// Versions that a piece should have; [`PIECE_ROWS`].
    pub piece_rows: usize,
    /// Request units a second.
    pub pace: &'a RuLimiter,
    /// Whether the text of the version in force will be needed.
    pub needs_text: &'a (dyn Fn(&ScannedItem) -> bool + Sync),
}

/// The items of a piece.
#[derive(Debug)]
pub struct Piece {
    /// In order of id and key.
    pub found: Vec<ScannedItem>,
    /// The number of its hash range and what is left of that range; `None` for items that are found otherwise.
    pub walked: Option<(usize, HashRange)>,
    /// Records that are not understood: set aside, for whoever reads this to name.
    pub bad: Vec<BadRecord>,
}

impl Piece {
    fn new(mut found: Vec<ScannedItem>, walked: Option<(usize, HashRange)>, bad: Vec<BadRecord>) -> Self {
        found.sort_by_cached_key(|f| f.item.sort_key());
        Self { found, walked, bad }
    }
}

impl<'a> Scan<'a> {
    /// The items, a piece at a time, each in order of id and key. Nothing is written.
    ///
    /// An item of a predicate's scope is one whose version in force matches, not one that matched at some time.
    pub fn pieces(&'a self) -> impl Stream<Item = Result<Piece, Failure>> + 'a {
        let first = async move {
            // Where pieces of the two containers do not correspond, the target is read as a whole beforehand.
            let index = match self.wanted {
                Scope::All if self.live != LiveDetail::No && !self.containers.is_aligned() => {
                    Some(Mutex::new(live_index(&*self.containers.target, self.pace).await?))
                }
                _ => None,
            };
            Ok::<_, Failure>(self.walks(index))
        };
        stream::once(first).try_flatten()
    }

    fn walks(&'a self, index: Option<Mutex<LiveIndex>>) -> impl Stream<Item = Result<Piece, Failure>> + 'a {
        if let Scope::Items(items) = self.wanted {
            let mut seen = HashSet::new();
            let unique: Vec<ItemKey> = items.iter().filter(|i| seen.insert(*i)).cloned().collect();
            let chunks: Vec<Vec<ItemKey>> = unique.chunks(FEW).map(<[ItemKey]>::to_vec).collect();
            return stream::iter(chunks)
                .then(|chunk| self.looked_up(chunk))
                .map_ok(|(found, bad)| Piece::new(found, None, bad))
                .boxed();
        }
        let index = std::sync::Arc::new(index);
        let walk = {
            let index = index.clone();
            move |(number, hash_range): (usize, &HashRange)| {
                Box::pin(self.hash_range(number, *hash_range, index.clone()))
            }
        };
        // Of the documents that no version is known of, what is left in the index.
        let left = stream::once(async move {
            let index = index.as_ref().as_ref()?;
            let left = std::mem::take(&mut *index.lock().unwrap_or_else(PoisonError::into_inner));
            let found = left.into_iter().map(|(item, live)| ScannedItem { live: Some(live), ..ScannedItem::new(item) });
            Some(Ok(Piece::new(found.collect(), None, Vec::new())))
        });
        stream::iter(self.hash_ranges.iter().enumerate())
            .flat_map_unordered(RANGES as usize, walk)
            .chain(left.filter_map(std::future::ready))
            .boxed()
    }

    fn hash_range(
        &'a self,
        number: usize,
        hash_range: HashRange,
        index: std::sync::Arc<Option<Mutex<LiveIndex>>>,
    ) -> impl Stream<Item = Result<Piece, Failure>> + 'a {
        let in_pieces = match self.wanted {
            Scope::Live { .. } => self.containers.target.hash_space().is_some(),
            _ => self.containers.is_cut_by_item(),
        };
        let walk = Walk::new(hash_range, in_pieces);
        stream::try_unfold((walk, false, index), move |(mut walk, mut with_text, index)| async move {
            let Some(piece) = walk.next_piece() else { return Ok(None) };
            // A piece is read again from its beginning when it fails: nothing of it has been passed on.
            let retry = Retry::for_at_most(RETRY_TIMEOUT);
            let read = |with_text| {
                let index = index.as_ref().as_ref();
                retry.run(move || self.piece(piece, with_text, index))
            };
            let mut buffer = match read(with_text).await {
                // A record that cannot be read: as a fact it can be named, and the others are there.
                Err(f) if with_text && f.is_own() => read(false).await?,
                other => other?,
            };
            if let Some(index) = index.as_ref() {
                let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
                for found in buffer.found.values_mut() {
                    found.live = index.remove(&found.item);
                }
            }
            let rows = buffer.rows.max(buffer.lives);
            let load = (rows as f64 / self.piece_rows as f64).max(buffer.bytes as f64 / PIECE_BYTES as f64);
            walk.adapt(load);
            if rows > 0 {
                let needed = buffer.found.values().filter(|f| (self.needs_text)(f)).count();
                with_text = needed * TEXT_RATIO >= rows;
            }
            let piece = Piece::new(buffer.found.into_values().collect(), Some((number, walk.rest())), buffer.bad);
            Ok(Some((piece, (walk, with_text, index))))
        })
    }

    async fn piece(
        &self,
        piece: HashRange,
        with_text: bool,
        index: Option<&Mutex<LiveIndex>>,
    ) -> Result<ScanBuffer, Failure> {
        if let Scope::Live { predicate, params } = self.wanted {
            return self.live_piece(piece, with_text, predicate, params).await;
        }
        let mut buffer = ScanBuffer::default();
        let components = self.containers.source.key_paths().len();
        let mut matched = self.matched(piece).await?;
        buffer.bad.append(&mut matched.bad);
        let is_where = matches!(self.wanted, Scope::Where { .. });
        let candidates: HashSet<ItemKey> = matched.versions.keys().map(|(item, _)| item.clone()).collect();
        let in_force = |found: &ScannedItem| {
            boundary(&found.versions, self.at)
                .is_some_and(|v| matched.versions.contains_key(&(found.item.clone(), v.record_id.clone())))
        };
        if is_where && (candidates.len() <= FEW || !self.containers.is_aligned()) {
            buffer.rows = matched.versions.len();
            let (found, bad) = self.looked_up_if(candidates, in_force).await?;
            buffer.bad.extend(bad);
            buffer.found = found.into_iter().map(|f| (f.item.clone(), f)).collect();
            self.decide_all(&mut buffer.found, &matched).await?;
            return Ok(buffer);
        }
        let in_scope = |item: &ItemKey| !is_where || candidates.contains(item);
        let changes = &self.containers.changes;
        if with_text {
            self.each(changes.records_in(piece, self.at), |entry| buffer.add(entry, in_scope)).await?;
            self.each(changes.facts_in(piece, Some(self.at)), |entry| buffer.add(entry, in_scope)).await?;
        } else {
            self.each(changes.facts_in(piece, None), |entry| buffer.add(entry, in_scope)).await?;
        }
        buffer.settle(components);
        if index.is_none() && self.live != LiveDetail::No {
            let with_text = with_text && self.live == LiveDetail::Text;
            self.live_in(piece, with_text, None, &mut buffer, in_scope).await?;
        }
        if is_where {
            buffer.found.retain(|_, found| in_force(found));
            self.decide_all(&mut buffer.found, &matched).await?;
        }
        Ok(buffer)
    }

    /// The live documents that match, and what the history has of them.
    async fn live_piece(
        &self,
        piece: HashRange,
        with_text: bool,
        predicate: &str,
        params: &[Param],
    ) -> Result<ScanBuffer, Failure> {
        let mut buffer = ScanBuffer::default();
        self.live_in(piece, with_text, Some((predicate, params)), &mut buffer, |_| true).await?;
        if buffer.found.len() > FEW && self.containers.is_aligned() {
            let mut entries = Vec::new();
            self.each(self.containers.changes.facts_in(piece, None), |entry| match &entry {
                Entry::Version(item, _) if !buffer.found.contains_key(item) => {}
                _ => entries.push(entry),
            })
            .await?;
            entries.into_iter().for_each(|entry| buffer.add(entry, |_| true));
            buffer.settle(self.containers.source.key_paths().len());
            return Ok(buffer);
        }
        let items: Vec<ItemKey> = buffer.found.keys().cloned().collect();
        let looked_up: Vec<(ScannedItem, Vec<BadRecord>)> =
            stream::iter(items).map(|item| self.facts_of(item)).buffer_unordered(CONCURRENCY).try_collect().await?;
        for (known, bad) in looked_up {
            buffer.rows += known.versions.len();
            buffer.bad.extend(bad);
            let found = buffer.entry(known.item);
            (found.versions, found.unkeyed) = (known.versions, known.unkeyed);
        }
        Ok(buffer)
    }

    /// Hands over what a reading finds, page by page.
    async fn each<T>(&self, mut pages: Found<'_, T>, mut each: impl FnMut(T)) -> Result<(), Failure> {
        while let Some(page) = page(self.pace, &mut pages).await? {
            page.into_iter().for_each(&mut each);
        }
        Ok(())
    }

    /// The live documents of a piece: with those that no version is known of.
    async fn live_in(
        &self,
        piece: HashRange,
        with_text: bool,
        matching: Option<(&str, &[Param])>,
        buffer: &mut ScanBuffer,
        in_scope: impl Fn(&ItemKey) -> bool,
    ) -> Result<(), Failure> {
        let documents = self.containers.target.documents_in(piece, with_text, matching);
        self.each(documents, |(item, live)| {
            if !in_scope(&item) {
                return;
            }
            let kept = buffer.keep(live.text);
            buffer.lives += 1;
            buffer.entry(item).live = Some(Live { text: kept, ..live });
        })
        .await
    }

    async fn looked_up(&self, items: Vec<ItemKey>) -> Result<(Vec<ScannedItem>, Vec<BadRecord>), Failure> {
        self.looked_up_if(items, |_| true).await
    }

    /// Items looked up one by one; the live documents only of those that are wanted.
    async fn looked_up_if(
        &self,
        items: impl IntoIterator<Item = ItemKey>,
        wanted: impl Fn(&ScannedItem) -> bool,
    ) -> Result<(Vec<ScannedItem>, Vec<BadRecord>), Failure> {
        let wanted = &wanted;
        let found: Vec<(Option<ScannedItem>, Vec<BadRecord>)> = stream::iter(items)
            .map(|item| async move {
                let (mut found, bad) = self.facts_of(item).await?;
                if !wanted(&found) {
                    return Ok((None, bad));
                }
                if self.live != LiveDetail::No {
                    let with_text = self.live == LiveDetail::Text;
                    found.live = look_at(&*self.containers.target, self.pace, &found.item, with_text).await?;
                }
                Ok::<_, Failure>((Some(found), bad))
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        let (found, bad): (Vec<Option<ScannedItem>>, Vec<Vec<BadRecord>>) = found.into_iter().unzip();
        Ok((found.into_iter().flatten().collect(), bad.into_iter().flatten().collect()))
    }

    /// All versions of one item, without their documents.
    async fn facts_of(&self, item: ItemKey) -> Result<(ScannedItem, Vec<BadRecord>), Failure> {
        let (mut items, bad) = facts_of_id(self.containers, self.pace, &item.id, Some(&item.partition_key)).await?;
        let at = items.iter().position(|found| found.item == item);
        Ok((at.map_or_else(|| ScannedItem::new(item), |at| items.swap_remove(at)), bad))
    }
}

/// What the history has of the documents with an id, without their texts; of those under a key, or the first components
/// of one, when it is given.
///
/// # Errors
/// When the service refuses.
pub async fn facts_of_id(
    containers: &Containers,
    pace: &RuLimiter,
    id: &str,
    key: Option<&PartitionKey>,
) -> Result<(Vec<ScannedItem>, Vec<BadRecord>), Failure> {
    let read = histories(&*containers.changes, pace, id, key, Texts::None).await?;
    let mut found: Vec<ScannedItem> = read
        .items
        .into_iter()
        .map(|item| ScannedItem { versions: item.versions, unkeyed: item.unkeyed, ..ScannedItem::new(item.key) })
        .collect();
    found.sort_by_cached_key(|f| f.item.sort_key());
    Ok((found, read.bad))
}
