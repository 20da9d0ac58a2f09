//! Writes records to the history: many of one key in a transactional batch, those of different keys packed, and each by
//! itself where a batch fails or nothing can be packed.

use std::{collections::HashMap, hash::BuildHasher as _, pin::pin};

use futures::{StreamExt as _, stream};
use tracing::debug;

use super::{
    Capture,
    items::{NotStorable, Poison},
    store::PendingRecord,
};
use crate::{
    change::record::{self, Record},
    cosmos::{Disposition, Failure, Retry},
    history::{BATCH_BYTES, BATCH_RECORDS, History, HistoryWriter as _},
};

/// With packing, at least this many records of one key are worth a transactional batch of their own.
const WORTH_A_BATCH: usize = 25;

impl<H: History> Capture<H> {
    /// Writes records. Failures are reported at the end, so that it is also known what was stored.
    pub(super) async fn write_all(
        &self,
        writer: &H::Writer,
        pending: Vec<PendingRecord>,
        retry: &Retry,
    ) -> WriteOutcome {
        let mut units = into_units(pending);
        let mut single = Vec::new();
        if writer.packs() && units.len() > 1 {
            let (batches, few): (Vec<_>, Vec<_>) = units.into_iter().partition(|unit| unit.len() >= WORTH_A_BATCH);
            units = batches;
            single = few.into_iter().flatten().collect();
        }
        let batches = async {
            let mut all = WriteOutcome::default();
            let written = stream::iter(units).map(|unit| self.write_unit(writer, unit, retry));
            let mut written = pin!(written.buffer_unordered(self.limits.gate.most()));
            while let Some(outcome) = written.next().await {
                all.add(outcome);
                // A refused record would be refused again; one that timed out may still be stored.
                if all.failure.as_ref().is_some_and(|f| f.disposition != Disposition::Transient) {
                    break;
                }
            }
            all
        };
        let (mut all, packed) = tokio::join!(batches, self.write_packed(writer, single, retry));
        all.add(packed);
        all
    }

    /// Writes records of different keys, packed. Each is retried, and fails, by itself.
    async fn write_packed(&self, writer: &H::Writer, pending: Vec<PendingRecord>, retry: &Retry) -> WriteOutcome {
        let mut outcome = WriteOutcome::default();
        if pending.is_empty() {
            return outcome;
        }
        let send = |places: Vec<usize>| {
            let records = places.iter().map(|place| &pending[*place].record).collect();
            let sent = writer.write_many(records, &self.limits.gate);
            sent.map(move |outcomes| outcomes.into_iter().map(|(n, written)| (places[n], written)).collect()).boxed()
        };
        let results = retry.run_many(pending.len(), send).await;
        for (one, result) in pending.iter().zip(results) {
            match result {
                // It may fit after all when compressed.
                Err(f) if f.status.is_too_large() => self.write_one(writer, one, retry, &mut outcome).await,
                result => outcome.take(one, result),
            }
        }
        outcome
    }

    /// Writes one unit. A batch that fails for good is taken apart, so that one bad record cannot hold up the rest.
    async fn write_unit(&self, writer: &H::Writer, unit: Vec<PendingRecord>, retry: &Retry) -> WriteOutcome {
        let mut outcome = WriteOutcome::default();
        if unit.len() > 1 {
            let records: Vec<&Record> = unit.iter().map(|p| &p.record).collect();
            let bytes = records.iter().map(|record| record.body.len()).sum();
            let written = retry
                .run(|| async {
                    let _permission = self.limits.gate.enter(records.len(), bytes).await?;
                    writer.write_batch(&records).await
                })
                .await;
            match written {
                Ok(ru) => {
                    outcome.ru += ru;
                    outcome.bytes += bytes;
                    outcome.stored.extend(unit.iter().map(PendingRecord::mark));
                    return outcome;
                }
                Err(f) if may_be_one_record(&f) => {
                    debug!(function = self.function, records = unit.len(), reason = %f, "taking a failed batch apart");
                }
                Err(f) => {
                    outcome.failure = Some(f);
                    return outcome;
                }
            }
        }
        for one in &unit {
            self.write_one(writer, one, retry, &mut outcome).await;
            if outcome.failure.is_some() {
                break;
            }
        }
        outcome
    }

    async fn write_one(&self, writer: &H::Writer, one: &PendingRecord, retry: &Retry, outcome: &mut WriteOutcome) {
        let attempt = async |record: &Record| {
            retry
                .run(|| async {
                    let _permission = self.limits.gate.enter(1, record.body.len()).await?;
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
        if let Err(f) = &result
            && f.status.is_too_large()
            && let Some(absent) = record::absent(&one.record, writer.key_paths())
        {
            match attempt(&absent).await {
                Ok(ru) => outcome.ru += ru,
                Err(f) if may_be_one_record(&f) => {}
                // It has to exist before the dead letter does: once that exists, nothing is delivered again.
                Err(f) => return outcome.fail(Some(f)),
            }
        }
        outcome.take(one, result);
    }
}

/// Counts of records, by outcome.
#[derive(Default)]
pub(super) struct WriteOutcome {
    pub(super) ru: f64,
    pub(super) compressed: usize,
    pub(super) poison: Vec<Poison>,
    /// Stand-ins of those that are stored.
    pub(super) stored: Vec<u64>,
    /// Bytes of those that are stored.
    pub(super) bytes: usize,
    /// Why some are not stored although nothing is wrong with them.
    pub(super) failure: Option<Failure>,
}

impl WriteOutcome {
    fn add(&mut self, other: Self) {
        self.ru += other.ru;
        self.compressed += other.compressed;
        self.poison.extend(other.poison);
        self.stored.extend(other.stored);
        self.bytes += other.bytes;
        self.fail(other.failure);
    }

    /// Keeps the most telling failure: first those about the caller or the container, then a lack of request units,
    /// then a busy service.
    fn fail(&mut self, failure: Option<Failure>) {
        let says = |f: &Failure| match f.disposition {
            Disposition::Transient => u8::from(f.status.is_throttled()),
            _ => 2,
        };
        if failure.as_ref().map(says) > self.failure.as_ref().map(says) {
            self.failure = failure;
        }
    }

    fn take(&mut self, one: &PendingRecord, result: Result<f64, Failure>) {
        match result {
            Ok(ru) => {
                self.ru += ru;
                self.bytes += one.record.body.len();
                self.stored.push(one.mark());
            }
            Err(f) if may_be_one_record(&f) => {
                let id = Some(one.record.source_id.clone());
                self.poison.push(Poison { id, ..Poison::new(one.item, NotStorable::Refused(f)) });
            }
            Err(f) => self.fail(Some(f)),
        }
    }
}

/// Groups records that share a full partition key into transactional batches; all others travel alone.
fn into_units(pending: Vec<PendingRecord>) -> Vec<Vec<PendingRecord>> {
    let mut units: Vec<Vec<PendingRecord>> = Vec::with_capacity(pending.len());
    let state = std::hash::RandomState::new();
    // The open unit of each key, by the key's hash, and its size so far.
    let mut open: HashMap<u64, (usize, usize)> = HashMap::with_capacity(pending.len());
    for one in pending {
        // It nearly always exists, which would fail the batch.
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

/// Whether a failure may concern a single record rather than the caller, the container or the service.
fn may_be_one_record(failure: &Failure) -> bool {
    matches!(failure.disposition, Disposition::Poison | Disposition::Conflict | Disposition::PreconditionFailed)
}
