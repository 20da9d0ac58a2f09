//! Turns pieces of a payload into records, one for each version, and tracks how far a payload has come.

use std::{
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    sync::{Arc, atomic::Ordering},
};

use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::warn;

use super::{
    Capture,
    items::{DecodedBatch, Poison, shape_all},
    summary::Summary,
};
use crate::{
    change::{
        Change, TextOrigin, knowledge,
        record::{self, Identity, Record, RecordContext, Reread},
        shape::Redactor,
    },
    cosmos::{Disposition, Failure, Retry},
    history::{History, HistoryWriter as _, SourceReader as _},
};

/// How far a payload has come.
#[derive(Default)]
pub(super) struct PayloadProgress {
    pub(super) summary: Summary,
    /// Indexed by the items of the payload.
    pub(super) poison: Vec<Poison>,
    /// Time of the newest change.
    pub(super) newest: Option<i64>,
    /// Fingerprints of the records of earlier pieces.
    seen: HashSet<u64>,
    /// Stand-ins of the records that are stored.
    stored: Vec<u64>,
    /// Written bytes.
    written: usize,
    /// Whether this is the last piece.
    last: bool,
}

/// A record on its way, with the payload item it came from.
pub(super) struct PendingRecord {
    pub(super) record: Record,
    pub(super) item: usize,
    pub(super) healed: bool,
    pub(super) normalized: bool,
    pub(super) unsure: bool,
    /// Stands for the record's key and id.
    fingerprint: u64,
}

impl PendingRecord {
    /// Stands for the record and all that it knows: a record that knows more is different.
    pub(super) fn mark(&self) -> u64 {
        let record = &self.record;
        let mut hasher = DefaultHasher::new();
        (self.fingerprint, record.create_only, record.completes, record.compressed, record.body.len())
            .hash(&mut hasher);
        hasher.finish()
    }

    /// Adds what another record of the same version knows.
    fn learn(&mut self, other: Self) {
        if !other.record.create_only {
            *self = other;
        } else if self.record.create_only
            // We made both records.
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
    /// Stores a payload, one piece after another.
    pub(super) async fn take(
        &self,
        items: &[&RawValue],
        shape: Option<&Redactor>,
        retry: &Retry,
    ) -> Result<PayloadProgress, Failure> {
        let (mut progress, begun) = (PayloadProgress::default(), Instant::now());
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
                let stored = self.store(&taken, shape, retry, &mut progress).await;
                poison.extend(stored.map_err(|failure| self.keep_unfinished(failure, items, &mut progress, begun))?);
            }
            progress.newest = progress.newest.max(taken.changes.iter().filter_map(|change| change.ts).max());
            // One letter per item, however much is wrong with it.
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
        if !self.unfinished.is_empty() {
            self.unfinished.remove(&progress.stored);
        }
        Ok(progress)
    }

    /// Remembers the stored part of a payload that could not be finished, and says how many request units the rest
    /// needs when these are what it lacks.
    fn keep_unfinished(
        &self,
        mut failure: Failure,
        items: &[&RawValue],
        progress: &mut PayloadProgress,
        begun: Instant,
    ) -> Failure {
        let stored = progress.stored.len();
        self.unfinished.add(progress.stored.drain(..));
        if failure.disposition != Disposition::Transient {
            return failure;
        }
        let (ru, bytes) = (progress.summary.ru, progress.written);
        let need = if bytes > 0 && failure.status.is_throttled() {
            let needed = ru * items.iter().map(|item| item.get().len()).sum::<usize>() as f64 / bytes as f64;
            let seconds = begun.elapsed().as_secs_f64().max(0.001);
            format!("; all of them need about {needed:.0} RU, and the container gave {:.0} RU/s", ru / seconds)
        } else {
            String::new()
        };
        failure.message = format!(
            "{} ({stored} of {} records are stored and are not written again{need})",
            failure.message,
            items.len()
        );
        failure
    }

    async fn store(
        &self,
        taken: &DecodedBatch<'_>,
        shape: Option<&Redactor>,
        retry: &Retry,
        progress: &mut PayloadProgress,
    ) -> Result<Vec<Poison>, Failure> {
        let mut poison = Vec::new();
        self.check_source(taken, retry).await?;
        let writer = retry.run(|| self.history.writer()).await?;
        let of_change = |change| record::identity(change, self.delivery, writer.key_paths());
        let identities: Vec<Identity> = taken.changes.iter().map(of_change).collect();
        let rereads = self.reread(taken, &identities, shape, retry, &mut progress.summary).await?;
        let partial = shape.map(Redactor::note).or(self.partial.as_deref());
        let (now, at) = (self.clock.now(), self.clock.stamp());
        let source = self.source_paths(retry).await?;
        let context = RecordContext {
            via: self.via,
            at: &at,
            at_seconds: now.timestamp(),
            paths: writer.key_paths(),
            source: source.as_ref().map(|source| source.key_paths()),
        };

        let mut pending: Vec<PendingRecord> = Vec::with_capacity(taken.changes.len());
        let mut places: HashMap<u64, usize> = HashMap::with_capacity(taken.changes.len());
        for (index, ((change, item), reread)) in taken.changes.iter().zip(&taken.origins).zip(rereads).enumerate() {
            let altered = reread.is_none() && taken.may_be_altered(index, self.delivery);
            let unsure = reread.is_none() && identities[index] != Identity::Sure;
            // A version that was captured under an altered key has its altered id there, too: with the right id beside
            // the wrong key it would become a second record.
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
                        Some(note) if !change.op.is_tombstone() && !change.lacks_text() => {
                            record::partial(record, change.partial.unwrap_or(note))
                        }
                        _ => record,
                    };
                    let record = if unsure { record::unsure(record) } else { record };
                    let fingerprint = self.recent.fingerprint(&record);
                    let one = PendingRecord {
                        record,
                        item: *item,
                        healed: change.healed,
                        normalized: altered,
                        unsure,
                        fingerprint,
                    };
                    // The same version twice in one payload: the record that knows more stays.
                    let place = *places.entry(fingerprint).or_insert(pending.len());
                    match pending.get_mut(place) {
                        Some(known) if known.record.id == one.record.id && known.record.key == one.record.key => {
                            known.learn(one);
                        }
                        // New, or a fingerprint collision: writing both is right in either case.
                        _ => pending.push(one),
                    }
                }
                Err(e) => {
                    poison.push(Poison { id: Some(change.id.to_string()), ..Poison::new(*item, e) });
                }
            }
        }
        pending.retain(|p| !(p.healed && (self.recent.has(p.fingerprint) || progress.seen.contains(&p.fingerprint))));
        // Only envelopes deliver earlier versions again. What no later batch can ask for is not remembered.
        let plain = taken.changes.iter().all(|change| change.text_origin == TextOrigin::Feed);
        let known = pending.iter().filter(|p| !plain && !p.normalized);
        let fingerprints: Vec<u64> = known.map(|p| p.fingerprint).collect();
        // Written again when an earlier piece had it, which changes nothing, but counted once.
        let new: Vec<&PendingRecord> = pending.iter().filter(|p| !progress.seen.contains(&p.fingerprint)).collect();
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

        if !self.unfinished.is_empty() {
            let before: Vec<PendingRecord> = pending.extract_if(.., |one| self.unfinished.has(one.mark())).collect();
            progress.stored.extend(before.iter().map(PendingRecord::mark));
        }
        let outcome = self.write_all(writer.as_ref(), pending, retry).await;
        summary.ru += outcome.ru;
        summary.compressed += outcome.compressed;
        summary.records = summary.records.saturating_sub(outcome.poison.len());
        poison.extend(outcome.poison);
        progress.stored.extend(outcome.stored);
        progress.written += outcome.bytes;
        if let Some(failure) = outcome.failure {
            return Err(failure);
        }
        // Poison makes it uncertain which records are durable, so none is remembered.
        if poison.is_empty() {
            self.recent.add(fingerprints);
        }
        Ok(poison)
    }

    /// Makes sure that the source whose key goes into the records is the one that delivers: nothing that is written to
    /// the history reveals that the source was made again.
    async fn check_source(&self, taken: &DecodedBatch<'_>, retry: &Retry) -> Result<(), Failure> {
        let Some(rid) = taken.changes.iter().find_map(|change| change.document.get_str("_rid")) else { return Ok(()) };
        if retry.run(|| self.history.is_of_newer_source(&rid)).await? {
            return Err(Failure::stale("read the source".into(), "the source container was made again".into()));
        }
        Ok(())
    }

    /// The source, for its key paths; `None` when it may not be read or is gone. What it delivered is stored all the
    /// same.
    async fn source_paths(&self, retry: &Retry) -> Result<Option<Arc<H::Source>>, Failure> {
        match retry.run(|| self.history.source()).await {
            Ok(source) => Ok(Some(source)),
            Err(f) if matches!(f.disposition, Disposition::Denied | Disposition::NotFound) => Ok(None),
            Err(f) => Err(f),
        }
    }
}

/// Returns how many of the items make a piece of about `bytes` bytes: at least one.
fn piece_of(items: &[&RawValue], bytes: usize) -> usize {
    let mut sum = 0;
    let fits = |item: &&&RawValue| {
        sum += item.get().len();
        sum <= bytes
    };
    items.iter().take_while(fits).count().max(1)
}
