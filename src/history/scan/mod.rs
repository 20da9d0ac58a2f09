//! Gathers what is known of the items in scope: their versions, and what the target has now. Piece by piece of the hash
//! space, several at a time, so that memory does not grow with the container and no version is read twice.

mod buffer;
mod containers;
mod live;

use std::{
    collections::{HashMap, HashSet},
    sync::{LazyLock, Mutex, PoisonError},
};

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use serde_json::value::RawValue;

use self::{
    buffer::ScanBuffer,
    live::{live_document, live_row, select_live},
};
pub use self::{
    containers::Containers,
    live::{Live, LiveDetail, LiveIndex, etag_of, live_index, look, look_at, look_at_source},
};
use super::{
    as_of::boundary,
    predicate::{self, evaluate::Predicate},
    reader::{Entry, IS_RECORD, scope},
    row::select,
};
use crate::{
    change::{
        Op,
        key::{ItemKey, PartitionKey},
        raw::RawDocument,
        time::PointInTime,
        version::{BadRecord, Version},
    },
    cosmos::{Failure, HashRange, Pages, Param, RETRY_TIMEOUT, Retry, RuLimiter, Walk},
};

/// Items looked up at the same time.
const CONCURRENCY: usize = 32;
/// Pieces of the hash space that are read at the same time.
const RANGES: u32 = 4;
/// Versions that a piece should have.
pub const PIECE_ROWS: usize = 4000;
/// Bytes of documents that a piece should keep.
const PIECE_BYTES: usize = 4 << 20;
/// Bytes of documents that a piece may keep; further ones are read again when they are needed.
const MAX_PIECE_BYTES: usize = 4 * PIECE_BYTES;
/// Up to so many items of a piece are looked up one by one.
const FEW: usize = 256;
/// When one version of so many is needed, documents are read along with the facts from then on: two point reads cost
/// about as much as a query over so many small documents, and are slower.
const TEXT_RATIO: usize = 25;

/// Whole records up to the moment. A copy of the original demo has no `_change`, and its own time is not known to the
/// service's index as ours is.
static WITH_TEXT: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT * FROM c WHERE {IS_RECORD} AND (NOT IS_DEFINED(c._change) OR c._change.ts <= @at)")
});

/// The other records.
const LATER: &str = "IS_DEFINED(c._change) AND (c._change.ts > @at OR NOT IS_NUMBER(c._change.ts))";

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
    /// Of which hash_range it was, and what is left of that; `None` for items that are found otherwise.
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

/// The versions that a predicate finds: by item and record, and whether the service could not see the document.
#[derive(Default)]
struct Matched {
    versions: HashMap<(ItemKey, String), bool>,
    bad: Vec<BadRecord>,
}

fn is_packed(row: &str) -> bool {
    RawDocument::parse(row).is_ok_and(|row| row.get("packed").is_some_and(|packed| packed.get() == "true"))
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
                    Some(Mutex::new(live_index(self.containers, self.pace).await?))
                }
                _ => None,
            };
            Ok::<_, Failure>(self.walks(index))
        };
        stream::once(first).try_flatten()
    }

    /// The items of a predicate's scope of which any version matches, whenever that was; and the records that are not
    /// understood, or whose documents cannot be decided about.
    ///
    /// # Errors
    /// When the service refuses the predicate, with its own message.
    pub async fn ever_matched(&self) -> Result<(HashSet<ItemKey>, Vec<BadRecord>), Failure> {
        let mut items = HashSet::new();
        let mut bad = Vec::new();
        for hash_range in self.hash_ranges {
            let matched = self.matched(*hash_range).await?;
            bad.extend(matched.bad);
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
                    Err(problem) => bad.push(BadRecord { record_id, problem }),
                }
            }
        }
        Ok((items, bad))
    }

    /// The versions that match the predicate, and those whose documents the service cannot see; none without one.
    async fn matched(&self, piece: HashRange) -> Result<Matched, Failure> {
        let mut matched = Matched::default();
        if let Scope::Where { predicate, params } = self.wanted {
            let sql =
                format!("{} AND {}", select(self.containers.source.key_paths()), predicate::of_records(predicate));
            let mut pages = self.containers.changes.query_hash_range(&sql, params, piece).await?;
            while let Some(page) = self.page(&mut pages).await? {
                for row in page {
                    match self.containers.entry(row.get()) {
                        Entry::Version(item, version) => {
                            matched.versions.insert((item, version.record_id), is_packed(row.get()));
                        }
                        Entry::Unkeyed(_) => {}
                        Entry::Bad(bad) => matched.bad.push(bad),
                    }
                }
            }
        }
        Ok(matched)
    }

    /// Whether a document that the service cannot see matches the predicate; else why that cannot be told.
    async fn decide_packed(&self, item: &ItemKey, record_id: &str) -> Result<Result<bool, String>, Failure> {
        let Scope::Where { predicate, params } = self.wanted else { return Ok(Ok(true)) };
        let value = |name: &str| params.iter().find(|param| param.name == name).map(|param| &param.value);
        let predicate = match Predicate::parse(predicate, value) {
            Ok(predicate) => predicate,
            Err(e) => return Ok(Err(format!("its document is kept compressed, and in --where {e}"))),
        };
        self.pace.wait().await;
        let text = match self.containers.document(item, record_id).await {
            Ok(text) => text,
            Err(f) if f.is_own() => return Ok(Err(f.message)),
            Err(f) => return Err(f),
        };
        Ok(serde_json::from_str(&text).map(|document| predicate.matches(&document)).map_err(|e| e.to_string()))
    }

    /// Leaves out what turns out not to match; of what cannot be decided, it is noted why.
    async fn decide_all(&self, found: &mut HashMap<ItemKey, ScannedItem>, matched: &Matched) -> Result<(), Failure> {
        let packed: Vec<(ItemKey, String)> = found
            .values()
            .filter_map(|f| {
                let version = boundary(&f.versions, self.at)?;
                let place = (f.item.clone(), version.record_id.clone());
                matched.versions.get(&place).copied().unwrap_or(false).then_some(place)
            })
            .collect();
        let decided: Vec<(ItemKey, Result<bool, String>)> = stream::iter(packed)
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
                Err(problem) => {
                    if let Some(found) = found.get_mut(&item) {
                        found.undecided = Some(problem);
                    }
                }
            }
        }
        Ok(())
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
            walk.had(load);
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
        let source = self.containers.source.key_paths();
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
        if with_text {
            let until = [Param::new("at", self.at.seconds())];
            let mut pages = self.containers.changes.query_hash_range(&WITH_TEXT, &until, piece).await?;
            while let Some(page) = self.page(&mut pages).await? {
                for record in page {
                    buffer.add(Entry::of(record.get(), self.containers.changes.key_paths(), source), in_scope);
                }
            }
            let later = format!("{} AND {LATER}", select(source));
            self.facts(&later, &until, piece, |entry| buffer.add(entry, in_scope)).await?;
        } else {
            let all = select(source);
            self.facts(&all, &[], piece, |entry| buffer.add(entry, in_scope)).await?;
        }
        buffer.settle(source.len());
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
            let all = select(self.containers.source.key_paths());
            let mut entries = Vec::new();
            self.facts(&all, &[], piece, |entry| match &entry {
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

    async fn page(&self, pages: &mut Pages) -> Result<Option<Vec<Box<RawValue>>>, Failure> {
        page(self.pace, pages).await
    }

    async fn facts(
        &self,
        sql: &str,
        params: &[Param],
        piece: HashRange,
        mut each: impl FnMut(Entry),
    ) -> Result<(), Failure> {
        let mut pages = self.containers.changes.query_hash_range(sql, params, piece).await?;
        while let Some(page) = self.page(&mut pages).await? {
            for row in page {
                each(self.containers.entry(row.get()));
            }
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
        let target = &self.containers.target;
        let mut sql = if with_text { "SELECT * FROM c".to_owned() } else { select_live(target.key_paths()) };
        if let Some((predicate, _)) = matching {
            // On lines of its own, so that a comment in it cannot swallow the parenthesis.
            sql.push_str(&format!(" WHERE (\n{predicate}\n)"));
        }
        let params = matching.map_or(&[][..], |(_, params)| params);
        let mut pages = target.query_hash_range(&sql, params, piece).await?;
        while let Some(page) = self.page(&mut pages).await? {
            for text in page {
                let (item, live) = if with_text {
                    live_document(text.get(), target.key_paths())
                } else {
                    live_row(text.get(), target.key_paths())
                }?;
                if !in_scope(&item) {
                    continue;
                }
                let kept = buffer.keep(with_text.then(|| text.get().to_owned()));
                buffer.lives += 1;
                buffer.entry(item).live = Some(Live { text: kept, ..live });
            }
        }
        Ok(())
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
                    found.live = look(self.containers, self.pace, &found.item, self.live == LiveDetail::Text).await?;
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
    let source = containers.source.key_paths();
    let changes = containers.changes.key_paths();
    let sql = format!("{} AND c._originalId = @id", select(source));
    let part = key.and_then(|key| scope(changes, source, key, Some(id)));
    let params = [Param::new("id", id)];
    let query = || async {
        let mut pages = containers.changes.query(&sql, &params, part.as_ref(), None).await?;
        let mut buffer = ScanBuffer::default();
        while let Some(page) = page(pace, &mut pages).await? {
            for row in page {
                buffer.add(containers.entry(row.get()), |_| true);
            }
        }
        Ok(buffer)
    };
    let mut buffer = Retry::for_at_most(RETRY_TIMEOUT).run(query).await?;
    buffer.settle(source.len());
    let under = |found: &ScannedItem| key.is_none_or(|key| found.item.partition_key.0.starts_with(&key.0));
    let mut found: Vec<ScannedItem> = buffer.found.into_values().filter(under).collect();
    found.sort_by_cached_key(|f| f.item.sort_key());
    Ok((found, buffer.bad))
}

/// The next page of a query, when the limit on request units allows it.
async fn page(pace: &RuLimiter, pages: &mut Pages) -> Result<Option<Vec<Box<RawValue>>>, Failure> {
    pace.wait().await;
    pages.next().await.transpose().map(|page| page.map(|p| p.documents))
}
