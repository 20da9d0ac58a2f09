//! Records on their way into the history: in transactional batches where they can be, each by itself where a batch
//! fails.

use std::{collections::HashMap, hash::BuildHasher as _};

use tracing::debug;

use super::{Capture, items::Poison, store::Pending};
use crate::{
    change::record::{self, Record},
    cosmos::{Disposition, Failure, Retry},
    history::{BATCH_BYTES, BATCH_RECORDS, History, HistoryWriter as _},
};

impl<H: History> Capture<H> {
    /// Writes one unit. A batch that fails for good is taken apart, so that one bad record cannot hold up the rest.
    pub(super) async fn write_unit(
        &self,
        writer: &H::Writer,
        unit: Vec<Pending>,
        retry: &Retry,
    ) -> Result<Outcome, Failure> {
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
}

#[derive(Default)]
pub(super) struct Outcome {
    pub(super) ru: f64,
    pub(super) compressed: usize,
    pub(super) poison: Vec<Poison>,
}

/// Records that share a full partition key travel in transactional batches, all others alone.
pub(super) fn into_units(pending: Vec<Pending>) -> Vec<Vec<Pending>> {
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

/// Whether a failure may concern a single record rather than the caller, the container or the service.
fn may_be_one_record(failure: &Failure) -> bool {
    matches!(failure.disposition, Disposition::Poison | Disposition::Conflict | Disposition::PreconditionFailed)
}
