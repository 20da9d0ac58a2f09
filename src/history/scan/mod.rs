//! Gathers the facts about the items in scope: their versions, and what the target has now. It works through the
//! hash space piece by piece, several at a time, so that memory does not grow with the container and no version is read
//! twice.

mod buffer;
mod lookup;
mod matching;
mod scope;
mod uncaptured;
mod whole;

pub use self::{lookup::facts_of_id, scope::Scope, whole::text_of};

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};

use self::buffer::ScanBuffer;
use super::{
    as_of::boundary,
    containers::{Containers, RANGES, page},
    entry::Entry,
    gone::UnknownDelete,
    histories::{TextDetail, sort},
    live::{Live, LiveDetail, LiveIndex, live_index},
};
use crate::{
    change::{
        Op,
        key::ItemKey,
        time::PointInTime,
        version::{BadRecord, Version},
    },
    cosmos::{Failure, HashRange, PageStream, Param, RETRY_TIMEOUT, RangeWalk, Retry, RuLimiter},
    history::predicate::asked::Undecided,
};

/// How many items are looked up concurrently.
const CONCURRENCY: usize = 32;
/// How many versions a piece should have.
pub const PIECE_ROWS: usize = 4000;
/// How many bytes of documents a piece should keep.
const PIECE_BYTES: usize = 4 << 20;
/// How many bytes of documents a piece may keep; further ones are read again when they are needed.
const MAX_PIECE_BYTES: usize = 4 * PIECE_BYTES;
/// Up to this many items of a piece are looked up one by one.
const FEW: usize = 256;
/// When one version in this many is needed, documents are read along with the facts from then on: two point reads cost
/// about as much as a query over that many small documents, and are slower.
const TEXT_RATIO: usize = 25;

/// Which documents' texts are read along with the facts, as far as they fit into a piece.
#[derive(Clone, Copy)]
pub enum ScanTexts<'a> {
    /// None.
    No,
    /// Of the version in force at the moment, when this function says that it will be needed.
    InForce(&'a (dyn Fn(&ScannedItem) -> bool + Sync)),
    /// Of all versions; what does not fit into its piece, [`text_of`] reads again. The versions are then ordered. Of
    /// items that are selected by the time in which they were written, only the versions of that time.
    All,
}

/// An item with everything that is known about it.
#[derive(Debug, Clone)]
pub struct ScannedItem {
    /// Which item.
    pub item: ItemKey,
    /// All its versions, in any order unless all texts are requested: then oldest first. Texts may be present, as
    /// [`ScanTexts`] says.
    pub versions: Vec<Version>,
    /// The live document, if it was requested; `None` when there is none.
    pub live: Option<Live>,
    /// Deletes of documents with this id for which the history does not name the partition key: records from before
    /// `_change.key`, in a history that is not keyed by the source's paths.
    pub unkeyed: Vec<Version>,
    /// Records that hold one of the versions a second time, when these are in order.
    pub copies: Vec<Version>,
    /// Why no delete says when it went, as far as [`super::gone`] was asked.
    pub lost: Option<UnknownDelete>,
    /// Why it is unknown whether the version in force matches the predicate, so that the item may not be in scope.
    pub undecided: Option<Arc<Undecided>>,
}

impl ScannedItem {
    /// The version in force at a moment, when that is a document.
    pub fn document_at(&self, at: PointInTime) -> Option<&Version> {
        boundary(&self.versions, at).filter(|version| !version.op.is_some_and(Op::is_tombstone))
    }

    /// An item about which nothing is known yet.
    pub fn new(item: ItemKey) -> Self {
        let (versions, unkeyed, copies) = (Vec::new(), Vec::new(), Vec::new());
        Self { item, versions, live: None, unkeyed, copies, lost: None, undecided: None }
    }
}

/// One scan of the items in scope.
pub struct Scan<'a> {
    /// The containers.
    pub containers: &'a Containers,
    /// Which items.
    pub wanted: &'a Scope,
    /// The point in time.
    pub at: PointInTime,
    /// Where they are searched; [`Containers::hash_ranges`].
    pub hash_ranges: &'a [HashRange],
    /// How much of the live documents is read.
    pub live: LiveDetail,
    /// How many versions a piece should have; [`PIECE_ROWS`].
    pub piece_rows: usize,
    /// Request units a second.
    pub pace: &'a RuLimiter,
    /// Which texts are read along.
    pub texts: ScanTexts<'a>,
}

/// The items of a piece.
#[derive(Debug)]
pub struct Piece {
    /// Sorted by id and key.
    pub found: Vec<ScannedItem>,
    /// The number of its hash range and the rest of that range; `None` for items that are selected otherwise.
    pub walked: Option<(usize, HashRange)>,
    /// Records that cannot be parsed: set aside, for the caller to name.
    pub bad: Vec<BadRecord>,
}

impl Piece {
    fn new(mut found: Vec<ScannedItem>, walked: Option<(usize, HashRange)>, bad: Vec<BadRecord>) -> Self {
        found.sort_by_cached_key(|f| f.item.sort_key());
        Self { found, walked, bad }
    }
}

impl<'a> Scan<'a> {
    /// A scan of the facts of all versions of the items: no texts, and nothing of what is live.
    pub fn facts(
        containers: &'a Containers,
        wanted: &'a Scope,
        hash_ranges: &'a [HashRange],
        pace: &'a RuLimiter,
    ) -> Self {
        Self {
            containers,
            wanted,
            at: PointInTime::END,
            hash_ranges,
            live: LiveDetail::No,
            piece_rows: PIECE_ROWS,
            pace,
            texts: ScanTexts::No,
        }
    }

    /// The items, a piece at a time, each in order of id and key. Nothing is written.
    ///
    /// An item of a predicate's scope is one whose version in force matches, not one that matched at some time.
    pub fn pieces(&'a self) -> impl Stream<Item = Result<Piece, Failure>> + 'a {
        let first = async move {
            // When pieces of the two containers do not correspond, the target is read as a whole beforehand.
            let index = match self.wanted {
                Scope::All if self.live != LiveDetail::No && !self.containers.is_aligned() => {
                    Some(Mutex::new(live_index(&*self.containers.target, self.pace).await?))
                }
                Scope::Then { .. } if !self.containers.is_aligned() => {
                    Some(Mutex::new(self.in_force_now(HashRange::WHOLE).await?))
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
            let size = if self.has_all_texts() { CONCURRENCY } else { FEW };
            let chunks: Vec<Vec<ItemKey>> = unique.chunks(size).map(<[ItemKey]>::to_vec).collect();
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
        // For documents without a known version: what is left in the index.
        let left = stream::once(async move {
            let index = index.as_ref().as_ref()?;
            let left = std::mem::take(&mut *index.lock().unwrap_or_else(PoisonError::into_inner));
            if matches!(self.wanted, Scope::Then { .. }) {
                let found = self.only_live(left.into_keys().collect()).await;
                return Some(found.map(|(found, bad)| Piece::new(found, None, bad)));
            }
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
        let walk = RangeWalk::new(hash_range, in_pieces);
        let begin = (walk, self.has_all_texts(), index);
        stream::try_unfold(begin, move |(mut walk, mut with_text, index)| async move {
            let Some(piece) = walk.next_piece() else { return Ok(None) };
            // A piece that fails is read again from its beginning: nothing of it has been passed on.
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
                if matches!(self.wanted, Scope::Then { .. }) {
                    self.settle_live(&mut buffer, &mut index);
                } else {
                    buffer.found.values_mut().for_each(|found| found.live = index.remove(&found.item));
                }
            }
            let rows = buffer.rows.max(buffer.lives);
            let load = (rows as f64 / self.piece_rows as f64).max(buffer.bytes as f64 / PIECE_BYTES as f64);
            walk.adapt(load);
            if rows > 0
                && let ScanTexts::InForce(needs_text) = self.texts
            {
                let needed = buffer.found.values().filter(|f| needs_text(f)).count();
                with_text = needed * TEXT_RATIO >= rows;
            }
            if buffer.seen > 0 {
                // Each item of a period is looked up, and its version before that period read, unless everything is.
                with_text = buffer.found.len() * TEXT_RATIO >= buffer.seen;
            }
            if self.has_all_texts() {
                buffer.found.values_mut().for_each(|found| found.copies = sort(&mut found.versions));
            }
            let piece = Piece::new(buffer.found.into_values().collect(), Some((number, walk.rest())), buffer.bad);
            Ok(Some((piece, (walk, with_text, index))))
        })
    }

    /// Whether the texts of all versions are requested.
    fn has_all_texts(&self) -> bool {
        matches!(self.texts, ScanTexts::All)
    }

    fn buffer(&self) -> ScanBuffer {
        ScanBuffer { keeps_all: self.has_all_texts(), ..ScanBuffer::default() }
    }

    async fn piece(
        &self,
        piece: HashRange,
        with_text: bool,
        index: Option<&Mutex<LiveIndex>>,
    ) -> Result<ScanBuffer, Failure> {
        match self.wanted {
            Scope::Live { predicate, params } => return self.live_piece(piece, with_text, predicate, params).await,
            Scope::Written { from, to } => return self.written_piece(piece, with_text, *from, *to).await,
            Scope::Ever { .. } => return self.ever_piece(piece).await,
            _ => {}
        }
        let mut buffer = self.buffer();
        let components = self.containers.source.key_paths().len();
        let mut matched = self.matched(piece).await?;
        buffer.bad.append(&mut matched.bad);
        let is_where = matches!(self.wanted, Scope::Where { .. } | Scope::Then { .. });
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
            self.add_only_live(piece, &mut buffer).await?;
            return Ok(buffer);
        }
        let in_scope = |item: &ItemKey| !is_where || candidates.contains(item);
        let changes = &self.containers.changes;
        if with_text && self.has_all_texts() {
            self.whole_piece(piece, &mut buffer, in_scope).await?;
        } else if with_text {
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
            self.add_only_live(piece, &mut buffer).await?;
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
        let mut buffer = self.buffer();
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
        let looked_up: Vec<(ScannedItem, Vec<BadRecord>)> = stream::iter(items)
            .map(|item| self.versions_of(item, TextDetail::None))
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        for (known, bad) in looked_up {
            buffer.rows += known.versions.len();
            buffer.bad.extend(bad);
            let found = buffer.entry(known.item);
            (found.versions, found.unkeyed) = (known.versions, known.unkeyed);
        }
        Ok(buffer)
    }

    /// Passes on what a stream finds, page by page.
    async fn each<T>(&self, mut pages: PageStream<'_, T>, mut each: impl FnMut(T)) -> Result<(), Failure> {
        while let Some(page) = page(self.pace, &mut pages).await? {
            page.into_iter().for_each(&mut each);
        }
        Ok(())
    }

    /// The live documents of a piece, including those without a known version.
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
}
