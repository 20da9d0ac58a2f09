//! The use case: a batch of changes in; every one of them durable, in `changes` or in the dead-letter store, out.
//!
//! docs/understand/promises.md has what is promised. In short: `Ok` only when nothing is left to lose; anything that may pass
//! is retried within a deadline; one record that can never be stored does not hold up the others.

mod items;
mod recent;
pub mod replay;

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::{
    change::{
        Change, Via,
        fidelity::Delivery,
        knowledge,
        raw::RawDocument,
        record::{self, Identity, Record, RecordContext, Reread},
        shape::Redactor,
    },
    config::{ConfigError, Fidelity},
    cosmos::{Disposition, Failure, Retry, Status},
    dead_letters::{DeadLetter, DeadLetterError, DeadLetterStore},
    history::{BATCH_BYTES, BATCH_RECORDS, History, HistoryWriter, SourceReader},
    projection::Projection,
};
use items::{DecodedBatch, Poison, shape_all};
pub use recent::Recent;

/// Limits shared by all functions and leases of a process.
#[derive(Debug, Clone)]
pub struct Limits {
    writes: Arc<Semaphore>,
    /// Room for what is being written, in pieces of [`ROOM_PIECE`].
    room: Arc<Semaphore>,
    rereads: Arc<Semaphore>,
    max_writes: usize,
    max_rereads: usize,
    deadline: Duration,
    piece: usize,
}

impl Limits {
    /// At most so many writes and re-reads in flight, and so long a time for the retries of one batch.
    pub fn new(max_writes: usize, max_rereads: usize, deadline: Duration) -> Self {
        Self {
            writes: Arc::new(Semaphore::new(max_writes)),
            room: Arc::new(Semaphore::new(WRITE_ROOM / ROOM_PIECE)),
            rereads: Arc::new(Semaphore::new(max_rereads)),
            max_writes,
            max_rereads,
            deadline,
            piece: PIECE_BYTES,
        }
    }

    /// The same with pieces of another size, in bytes of items: of what is more, the records of one piece are made and
    /// written before those of the next.
    #[must_use]
    pub fn in_pieces_of(self, bytes: usize) -> Self {
        Self { piece: bytes, ..self }
    }

    /// Acquires permission to write so many bytes; released on drop.
    async fn write(&self, bytes: usize) -> Result<impl Sized + '_, Failure> {
        let room = bytes.min(WRITE_ROOM).div_ceil(ROOM_PIECE);
        // The room first, and always in this order: whoever waits for the other holds nothing that is waited for.
        let room = self.room.acquire_many(u32::try_from(room).unwrap_or(1)).await;
        Ok((room.map_err(|_| closed())?, permit(&self.writes).await?))
    }
}

/// Bytes of records that are being written at the same time, two full transactional batches: while it writes them, the
/// client library holds them several times. A body of 64 MB would be in memory seven times otherwise.
const WRITE_ROOM: usize = 2 * BATCH_BYTES;
const ROOM_PIECE: usize = 1024;

/// Bytes of items whose records are held at the same time. Nearly every payload is less; of a larger one, all records
/// would be as much memory again as its text.
const PIECE_BYTES: usize = 4 << 20;

/// Captures the changes of one source container into one history.
#[derive(Debug)]
pub struct Capture<H> {
    /// Name of the function, for dead letters and logs.
    pub function: String,
    /// The two containers.
    pub history: H,
    /// Where poison goes.
    pub dead_letters: Arc<DeadLetterStore>,
    /// Whether altered documents are read again.
    pub fidelity: Fidelity,
    /// What the way here does to documents.
    pub delivery: Delivery,
    /// Whether it was said that the host alters ids and partition keys.
    pub identity_told: AtomicBool,
    /// Shared limits.
    pub limits: Limits,
    /// Which entrance the changes come through.
    pub via: Via,
    /// What was written lately.
    pub recent: Recent,
    /// Set when documents arrive without some of their fields: the JSON text of `_change.partial`.
    pub partial: Option<String>,
    /// Set when documents arrive whole and only a part of them is to be stored.
    pub projection: Option<Projection>,
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Items in the payload.
    pub items: usize,
    /// Records made durable in `changes`, duplicates within the payload counted once.
    pub records: usize,
    /// Of these: versions before, taken from a `previous` image because they were not known to be stored.
    pub healed: usize,
    /// Of these: stored as delivered although the host may have altered them.
    pub normalized: usize,
    /// Of these: under an id or a partition key that the host may have altered.
    pub unsure: usize,
    /// Of these: too large as they were, stored compressed.
    pub compressed: usize,
    /// Documents read again from the source.
    pub rereads: usize,
    /// Items put into the dead-letter store.
    pub dead_letters: usize,
    /// Transient failures that were retried.
    pub retries: u64,
    /// Request units used.
    pub ru: f64,
    /// Time taken.
    pub elapsed: Duration,
    /// Age of the newest change when the batch was done: how far capture is behind, whole seconds. `None` when no change
    /// says its time.
    pub lag: Option<u64>,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} items, {} records, {} re-reads, {} normalized, {} dead letters, {} retries, {:.1} RU, {} ms",
            self.items,
            self.records,
            self.rereads,
            self.normalized,
            self.dead_letters,
            self.retries,
            self.ru,
            self.elapsed.as_millis()
        )
    }
}

/// Why a batch was not acknowledged. Delivering it again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The service failed, refused, or took too long.
    #[error("store batch: {0}")]
    Service(Failure),
    /// Poison was found and the dead-letter store failed, so it may be lost if the batch were acknowledged.
    #[error(transparent)]
    DeadLetters(DeadLetterError),
    /// The container refuses nearly everything, which is not the documents' fault.
    #[error("store batch: {0}")]
    Refused(String),
    /// The history is keyed so that documents cannot be told apart in it, so nothing may be stored.
    #[error("{0}")]
    Layout(String),
    /// What is to be kept of documents does not fit the source container, so nothing of them may be stored.
    #[error(transparent)]
    Projection(ConfigError),
}

/// How far a payload has come.
#[derive(Default)]
struct Progress {
    summary: Summary,
    /// By the items of the payload, one for each.
    poison: Vec<Poison>,
    /// Time of the newest change.
    newest: Option<i64>,
    /// Marks of the records of the pieces before.
    seen: HashSet<u64>,
    /// Whether no piece follows this one.
    last: bool,
}

/// A record on its way, with the payload item it came from.
struct Pending {
    record: Record,
    item: usize,
    healed: bool,
    normalized: bool,
    unsure: bool,
    /// Stands for the record's key and id.
    mark: u64,
}

impl Pending {
    /// Takes what another record of the same version knows beside.
    fn learn(&mut self, other: Self) {
        if !other.record.create_only {
            *self = other;
        } else if self.record.create_only
            // Both are records of our own making.
            && let Ok(Some(body)) = knowledge::completed(&self.record.body, &other.record.body)
        {
            let better = self.normalized && !other.normalized;
            let both = |what: fn(&Self) -> bool| what(self) && what(&other);
            let (healed, normalized, unsure) = (both(|p| p.healed), both(|p| p.normalized), both(|p| p.unsure));
            let mut record = if better { other.record } else { self.record.clone() };
            (record.create_only, record.completes) = (!knowledge::is_everything(&body), !healed);
            record.body = body;
            *self = Self { record, healed, normalized, unsure, ..*self };
        }
    }
}

impl<H: History> Capture<H> {
    /// Makes every item of a payload durable. `invocation` is only named in dead letters.
    ///
    /// # Errors
    /// When anything may be lost if the batch were acknowledged; nothing of it needs to be undone.
    pub async fn run(&self, items: &[&RawValue], invocation: &str) -> Result<Summary, CaptureError> {
        let start = Instant::now();
        let retry = Retry::answering_within(self.limits.deadline);

        let shape = self.shape(&retry).await?;
        if !items.is_empty() {
            self.check_layout(&retry).await?;
        }
        let mut taken = self.take(items, shape.as_deref(), &retry).await;
        let stale = match &taken {
            Err(f) => f.disposition == Disposition::Stale,
            // The service does not always say that the key is another one: refusals are looked into.
            Ok(progress) if progress.poison.iter().any(Poison::may_be_the_containers) => {
                !retry.run(|| self.history.is_current()).await.map_err(CaptureError::Service)?
            }
            Ok(_) => false,
        };
        if stale {
            // The container was made again with another key: look at it afresh, once. All of the payload, as what was
            // written before may have gone with the old one.
            self.history.forget().await;
            self.recent.forget();
            self.check_layout(&retry).await?;
            taken = self.take(items, shape.as_deref(), &retry).await;
        }
        let Progress { mut summary, poison, newest, .. } = taken.map_err(CaptureError::Service)?;
        check_refusals(&poison, summary.records)?;
        let letters = DeadLetterSource { items, note: shape.as_ref().map(|shape| shape.note()) };
        self.dead_letter(letters, &poison, invocation).await.map_err(CaptureError::DeadLetters)?;

        summary.items = items.len();
        summary.dead_letters = poison.len();
        summary.retries = retry.count();
        summary.elapsed = start.elapsed();
        // A source whose clock is ahead of this one is not behind.
        summary.lag = newest.map(|ts| u64::try_from(crate::surroundings::now().timestamp() - ts).unwrap_or(0));
        Ok(summary)
    }

    /// Stores a payload, one piece after the other.
    async fn take(&self, items: &[&RawValue], shape: Option<&Redactor>, retry: &Retry) -> Result<Progress, Failure> {
        let mut progress = Progress::default();
        let mut first = 0;
        while first < items.len() {
            let piece = &items[first..first + piece_of(&items[first..], self.limits.piece)];
            progress.last = first + piece.len() == items.len();
            let mut poison = Vec::new();
            let mut shaped = shape.map(|shape| shape_all(piece, shape, self.delivery, &mut poison));
            let taken = match &shaped {
                Some(shaped) => DecodedBatch::of_shaped(shaped, &mut poison),
                None => DecodedBatch::of(piece, &mut poison),
            };
            if !taken.changes.is_empty() {
                poison.extend(self.store(&taken, shape, retry, &mut progress).await?);
            }
            progress.newest = progress.newest.max(taken.changes.iter().filter_map(|change| change.ts).max());
            // One letter for an item, whatever and however much is wrong with it.
            let mut known = HashSet::new();
            for mut one in poison {
                if known.insert(one.item) {
                    one.shaped = shaped.as_mut().and_then(|shaped| shaped[one.item].take()).map(|shaped| shaped.item);
                    one.item += first;
                    progress.poison.push(one);
                }
            }
            first += piece.len();
        }
        Ok(progress)
    }

    /// Looks at the containers, and stores nothing.
    ///
    /// # Errors
    /// As those of [`run`](Self::run) that every payload would meet.
    pub async fn look(&self) -> Result<(), CaptureError> {
        let retry = Retry::answering_within(self.limits.deadline);
        self.shape(&retry).await?;
        self.check_layout(&retry).await
    }

    /// Whether the history can keep the source's documents apart. Where the source may not be looked at, nobody can tell.
    async fn check_layout(&self, retry: &Retry) -> Result<(), CaptureError> {
        let writer = retry.run(|| self.history.writer()).await.map_err(CaptureError::Service)?;
        let source = match retry.run(|| self.history.source()).await {
            Ok(source) => source,
            Err(f) if matches!(f.disposition, Disposition::Denied | Disposition::NotFound) => return Ok(()),
            Err(f) => return Err(CaptureError::Service(f)),
        };
        record::check_layout(writer.key_paths(), source.key_paths())
            .map_err(|problem| CaptureError::Layout(format!("the history cannot be used: {problem}")))
    }

    /// What of a document is stored, where that is not all of it.
    async fn shape(&self, retry: &Retry) -> Result<Option<Arc<Redactor>>, CaptureError> {
        let Some(projection) = &self.projection else { return Ok(None) };
        // Opened once; without its key nothing may be taken out of a document.
        let source = retry.run(|| self.history.source()).await.map_err(CaptureError::Service)?;
        projection.shape(source.key_paths()).map(Some).map_err(CaptureError::Projection)
    }

    async fn store(
        &self,
        taken: &DecodedBatch<'_>,
        shape: Option<&Redactor>,
        retry: &Retry,
        progress: &mut Progress,
    ) -> Result<Vec<Poison>, Failure> {
        let mut poison = Vec::new();
        let writer = retry.run(|| self.history.writer()).await?;
        let of_change = |change| record::identity(change, self.delivery, writer.key_paths());
        let identities: Vec<Identity> = taken.changes.iter().map(of_change).collect();
        let rereads = self.reread(taken, &identities, shape, retry, &mut progress.summary).await?;
        let partial = shape.map(Redactor::note).or(self.partial.as_deref());
        let now = crate::surroundings::now();
        let at = now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let source = self.source_paths(retry).await?;
        let context = RecordContext {
            via: self.via,
            at: &at,
            at_seconds: now.timestamp(),
            paths: writer.key_paths(),
            source: source.as_ref().map(|source| source.key_paths()),
        };

        let mut pending: Vec<Pending> = Vec::with_capacity(taken.changes.len());
        let mut places: HashMap<u64, usize> = HashMap::with_capacity(taken.changes.len());
        for (index, ((change, item), reread)) in taken.changes.iter().zip(&taken.origins).zip(rereads).enumerate() {
            let altered = reread.is_none() && taken.may_be_altered(index, self.delivery);
            let unsure = reread.is_none() && identities[index] != Identity::Sure;
            // A version that was captured under an altered key has its altered id there, too: with the right one beside
            // the wrong key it would be a second record of it.
            let as_before;
            let change = if change.healed && identities[index] == Identity::KeyUnsure {
                as_before = Change { id: change.document.get_str("id").unwrap_or_default(), ..change.clone() };
                &as_before
            } else {
                change
            };
            match record::build(change, reread.as_deref().map(Reread), altered, context) {
                Ok(record) => {
                    let record = match partial {
                        Some(note) if !change.op.is_tombstone() => record::partial(record, note),
                        _ => record,
                    };
                    let record = if unsure { record::unsure(record) } else { record };
                    let mark = self.recent.mark(&record);
                    let one = Pending { record, item: *item, healed: change.healed, normalized: altered, unsure, mark };
                    // The same version twice in one payload: the one that knows more stays.
                    let place = *places.entry(mark).or_insert(pending.len());
                    match pending.get_mut(place) {
                        Some(known) if known.record.id == one.record.id && known.record.key == one.record.key => {
                            known.learn(one);
                        }
                        // New; or a fingerprint collision: writing both is right too.
                        _ => pending.push(one),
                    }
                }
                Err(e) => {
                    poison.push(Poison { id: Some(change.id.to_string()), ..Poison::new(*item, e.reason) });
                }
            }
        }
        pending.retain(|p| !(p.healed && (self.recent.has(p.mark) || progress.seen.contains(&p.mark))));
        // Only envelopes bring the version before again: what no later batch can ask for is not remembered.
        let plain = taken.changes.iter().all(|change| change.shape == crate::change::Shape::Feed);
        let known = pending.iter().filter(|p| !plain && !p.normalized);
        let marks: Vec<u64> = known.map(|p| p.mark).collect();
        // Written again where an earlier piece had it, which changes nothing, but counted once.
        let new: Vec<&Pending> = pending.iter().filter(|p| !progress.seen.contains(&p.mark)).collect();
        let summary = &mut progress.summary;
        summary.healed += new.iter().filter(|p| p.healed).count();
        summary.normalized += new.iter().filter(|p| p.normalized).count();
        let unsure = new.iter().filter(|p| p.unsure).count();
        summary.unsure += unsure;
        summary.compressed += new.iter().filter(|p| p.record.compressed).count();
        summary.records += new.len();
        if unsure > 0 && !self.identity_told.swap(true, Ordering::Relaxed) {
            warn!(
                function = self.function,
                records = unsure,
                "the host may have altered ids or partition keys; their records say that they are unsure. \
                 Set extensions.cosmosDB.serializerSettings.dateParseHandling to \"None\" in host.json; said once"
            );
        }
        if !progress.last {
            progress.seen.extend(places.into_keys());
        }

        let outcomes: Vec<Outcome> = stream::iter(into_units(pending))
            .map(|unit| self.write_unit(writer.as_ref(), unit, retry))
            .buffer_unordered(self.limits.max_writes)
            .try_collect()
            .await?;
        for outcome in outcomes {
            summary.ru += outcome.ru;
            summary.compressed += outcome.compressed;
            summary.records = summary.records.saturating_sub(outcome.poison.len());
            poison.extend(outcome.poison);
        }
        // Poison makes it uncertain which ones are durable: then none is remembered.
        if poison.is_empty() {
            self.recent.add(marks);
        }
        Ok(poison)
    }

    /// The source, for its key paths; `None` when it may not be asked or is gone: what it delivered is stored all the same.
    async fn source_paths(&self, retry: &Retry) -> Result<Option<Arc<H::Source>>, Failure> {
        match retry.run(|| self.history.source()).await {
            Ok(source) => Ok(Some(source)),
            Err(f) if matches!(f.disposition, Disposition::Denied | Disposition::NotFound) => Ok(None),
            Err(f) => Err(f),
        }
    }

    /// Reads again what the host may have altered; `None` where the payload's own text is to be used.
    async fn reread(
        &self,
        taken: &DecodedBatch<'_>,
        identities: &[Identity],
        shape: Option<&Redactor>,
        retry: &Retry,
        summary: &mut Summary,
    ) -> Result<Vec<Option<String>>, Failure> {
        let changes = &taken.changes;
        let mut texts: Vec<Option<String>> = vec![None; changes.len()];
        if self.fidelity != Fidelity::Exact {
            return Ok(texts);
        }
        let wants = |i: &usize| {
            let change = &changes[*i];
            let altered = taken.may_be_altered(*i, self.delivery) || identities[*i] != Identity::Sure;
            altered && !change.healed && !change.op.is_tombstone() && change.etag().is_some()
        };
        let wanted: Vec<usize> = (0..changes.len()).filter(wants).collect();
        if wanted.is_empty() {
            return Ok(texts);
        }
        let source = match retry.run(|| self.history.source()).await {
            Ok(source) => source,
            Err(f) if matches!(f.disposition, Disposition::Denied | Disposition::NotFound) => {
                warn!(function = self.function, reason = %f, documents = wanted.len(), "cannot read the source again; storing payloads as delivered");
                return Ok(texts);
            }
            Err(f) => return Err(f),
        };
        summary.rereads += wanted.len();
        let results: Vec<(usize, Again)> = stream::iter(wanted)
            .map(|i| {
                let (change, identity, source) = (&changes[i], identities[i], &source);
                async move { Ok::<_, Failure>((i, self.reread_one(source.as_ref(), change, identity, retry).await?)) }
            })
            .buffer_unordered(self.limits.max_rereads)
            .try_collect()
            .await?;
        let (mut behind, mut refused, mut reason) = (0, 0, None);
        for (i, again) in results {
            texts[i] = match (again, shape) {
                // One that cannot be shaped is not stored whole: the payload's own part of it is.
                (Again::Same(text), Some(shape)) => shape.shaped(&text).ok(),
                (Again::Same(text), None) => Some(text),
                // What was delivered is all there is.
                (Again::MovedOn, _) => None,
                (Again::Behind, _) => {
                    behind += 1;
                    None
                }
                (Again::Refused(failure), _) => {
                    refused += 1;
                    reason = Some(failure);
                    None
                }
            };
        }
        if behind > 0 {
            warn!(
                function = self.function,
                documents = behind,
                "read again, the source has no version that is surely later; storing payloads as delivered"
            );
        }
        if let Some(reason) = reason {
            warn!(function = self.function, documents = refused, %reason, "the source refuses to be read again; storing payloads as delivered");
        }
        Ok(texts)
    }

    /// Reads one document again. Where a replica may be behind, or a refusal may pass, more than once.
    async fn reread_one(
        &self,
        source: &H::Source,
        change: &Change<'_>,
        identity: Identity,
        retry: &Retry,
    ) -> Result<Again, Failure> {
        let key = source.key_paths().extract(&change.document);
        let rid = change.document.get_str("_rid").unwrap_or_default();
        let read = async || {
            retry
                .run(|| async {
                    let _permit = permit(&self.limits.rereads).await?;
                    match identity {
                        Identity::Sure => source.read(&key, &change.id).await,
                        Identity::IdUnsure => source.find(&rid, Some(&key)).await,
                        Identity::KeyUnsure => source.find(&rid, None).await,
                    }
                })
                .await
        };
        let mut looks = LOOKS.iter();
        loop {
            let again = match read().await {
                Ok(Some(text)) => of_version(text, change),
                Ok(None) => Again::Behind,
                Err(f) if matches!(f.disposition, Disposition::Transient | Disposition::Stale) => return Err(f),
                Err(f) => Again::Refused(f),
            };
            match again {
                Again::Same(_) | Again::MovedOn => return Ok(again),
                Again::Behind | Again::Refused(_) => match looks.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return Ok(again),
                },
            }
        }
    }

    /// Writes one unit. A batch that fails for good is taken apart, so that one bad record cannot hold up the rest.
    async fn write_unit(&self, writer: &H::Writer, unit: Vec<Pending>, retry: &Retry) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::default();
        if unit.len() > 1 {
            let records: Vec<&Record> = unit.iter().map(|p| &p.record).collect();
            let bytes = records.iter().map(|record| record.body.len()).sum();
            let written = retry
                .run(|| async {
                    let _permit = self.limits.write(bytes).await?;
                    writer.write_batch(&records).await
                })
                .await;
            match written {
                Ok(ru) => {
                    outcome.ru += ru;
                    return Ok(outcome);
                }
                Err(f) if may_be_one_record(&f) => {
                    debug!(function = self.function, records = unit.len(), reason = %f, "taking a failed batch apart");
                }
                Err(f) => return Err(f),
            }
        }
        for one in &unit {
            self.write_one(writer, one, retry, &mut outcome).await?;
        }
        Ok(outcome)
    }

    async fn write_one(
        &self,
        writer: &H::Writer,
        one: &Pending,
        retry: &Retry,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let attempt = async |record: &Record| {
            retry
                .run(|| async {
                    let _permit = self.limits.write(record.body.len()).await?;
                    writer.write(record).await
                })
                .await
        };
        let mut result = attempt(&one.record).await;
        if let Err(f) = &result
            && f.status.is_too_large()
            && let Some(packed) = record::compress(&one.record, writer.key_paths())
        {
            outcome.compressed += 1;
            result = attempt(&packed).await;
        }
        match result {
            Ok(ru) => outcome.ru += ru,
            Err(f) if may_be_one_record(&f) => {
                let (id, reason) = (Some(one.record.source_id.clone()), f.to_string());
                outcome.poison.push(Poison { id, status: f.status, ..Poison::new(one.item, reason) });
            }
            Err(f) => return Err(f),
        }
        Ok(())
    }

    /// Puts poison away.
    async fn dead_letter(
        &self,
        letters: DeadLetterSource<'_>,
        poison: &[Poison],
        invocation: &str,
    ) -> Result<(), DeadLetterError> {
        // Each letter has a name of its own; twice the same item is one letter, whoever is last.
        let puts: Vec<_> = poison.iter().map(|one| self.bury_one(letters, one, invocation)).collect();
        stream::iter(puts).buffer_unordered(LETTERS).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn bury_one(
        &self,
        letters: DeadLetterSource<'_>,
        one: &Poison,
        invocation: &str,
    ) -> Result<(), DeadLetterError> {
        let (item, partial) = letters.of(one);
        let letter = DeadLetter {
            v: 1,
            at: crate::surroundings::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            function: self.function.clone(),
            invocation: invocation.to_owned(),
            id: one.id.clone(),
            status: one.status.to_string(),
            reason: one.reason.clone(),
            partial: partial.or(self.partial.as_deref()).map(str::to_owned),
            item: item.to_owned(),
        };
        self.dead_letters.put(&letter).await?;
        warn!(
            function = self.function,
            invocation,
            id = letter.id,
            status = letter.status,
            reason = letter.reason,
            letter = letter.name(),
            "dead letter"
        );
        Ok(())
    }
}

/// DeadLetterSource that are put away at the same time.
const LETTERS: usize = 16;

/// What dead letters of a batch hold.
#[derive(Clone, Copy)]
struct DeadLetterSource<'a> {
    items: &'a [&'a RawValue],
    note: Option<&'a str>,
}

impl<'a> DeadLetterSource<'a> {
    /// The item as far as it is kept, and what `_change.partial` says then. One that could not be understood is kept as
    /// it was delivered, or nobody could find out why.
    fn of(self, poison: &'a Poison) -> (&'a RawValue, Option<&'a str>) {
        match &poison.shaped {
            Some(shaped) => (shaped, self.note),
            None => (self.items[poison.item], None),
        }
    }
}

#[derive(Default)]
struct Outcome {
    ru: f64,
    compressed: usize,
    poison: Vec<Poison>,
}

/// How many of the items are a piece of about so many bytes: at least one.
fn piece_of(items: &[&RawValue], bytes: usize) -> usize {
    let mut sum = 0;
    let fits = |item: &&&RawValue| {
        sum += item.get().len();
        sum <= bytes
    };
    items.iter().take_while(fits).count().max(1)
}

/// Records that share a full partition key travel in transactional batches, all others alone.
fn into_units(pending: Vec<Pending>) -> Vec<Vec<Pending>> {
    let mut units: Vec<Vec<Pending>> = Vec::with_capacity(pending.len());
    let state = std::hash::RandomState::new();
    // The unit that is still open for a key, by the key's hash, and its bytes so far.
    let mut open: HashMap<u64, (usize, usize)> = HashMap::with_capacity(pending.len());
    for one in pending {
        // It nearly always exists: it would fail the batch.
        if one.record.create_only && !one.record.completes {
            units.push(vec![one]);
            continue;
        }
        let size = one.record.body.len() + 64;
        let place = state.hash_one(&one.record.key);
        match open.get_mut(&place) {
            Some((unit, bytes))
                if units[*unit].len() < BATCH_RECORDS
                    && *bytes + size <= BATCH_BYTES
                    && units[*unit][0].record.key == one.record.key =>
            {
                *bytes += size;
                units[*unit].push(one);
            }
            _ => {
                open.insert(place, (units.len(), size));
                units.push(vec![one]);
            }
        }
    }
    units
}

/// The rule of what is the container's fault: of the records of a payload so many at least, and nine in ten, are refused
/// with one status that says nothing about the record itself.
const REFUSED_AT_LEAST: usize = 5;

/// Buries nothing of a payload of which nearly all is refused alike: whatever it is, the next payloads would follow, and
/// their letters would be the only history.
fn check_refusals(poison: &[Poison], stored: usize) -> Result<(), CaptureError> {
    let mut refused: HashMap<Status, Vec<&Poison>> = HashMap::new();
    for one in poison.iter().filter(|one| one.may_be_the_containers()) {
        refused.entry(one.status).or_default().push(one);
    }
    let Some(alike) = refused.into_values().max_by_key(Vec::len) else { return Ok(()) };
    if alike.len() < REFUSED_AT_LEAST || alike.len() * 10 < (alike.len() + stored) * 9 {
        return Ok(());
    }
    let reason = alike.first().map_or("", |one| one.reason.as_str());
    Err(CaptureError::Refused(format!(
        "{} of {} records are refused alike, so it is the container's fault and not theirs: {reason}",
        alike.len(),
        alike.len() + stored
    )))
}

/// Whether a failure may concern a single record rather than the caller, the container or the service.
fn may_be_one_record(failure: &Failure) -> bool {
    matches!(failure.disposition, Disposition::Poison | Disposition::Conflict | Disposition::PreconditionFailed)
}

/// Pauses before a document is looked at again that a replica did not have, or that was refused.
const LOOKS: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(150), Duration::from_millis(400)];

/// A document that was read again.
enum Again {
    /// It is the version that was delivered.
    Same(String),
    /// It is a later one.
    MovedOn,
    /// It is an older one or one of the same second, or is not there (any more): a replica may be behind.
    Behind,
    /// It may not be read.
    Refused(Failure),
}

/// What a text that was read again is to the version that was delivered.
fn of_version(text: String, change: &Change<'_>) -> Again {
    let Ok(document) = RawDocument::parse(&text) else { return Again::MovedOn };
    let etag = document.get_str("_etag");
    if etag.is_some() && etag == change.etag() {
        return Again::Same(text);
    }
    // Of one second nothing tells which is the later.
    if document.get_i64("_ts") > change.ts { Again::MovedOn } else { Again::Behind }
}

async fn permit(limit: &Semaphore) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
    limit.acquire().await.map_err(|_| closed())
}

/// A limit is never closed; should it be, the batch is delivered again.
fn closed() -> Failure {
    Failure::from_status("write".into(), Status::new(503, 0), "shutting down", None)
}
