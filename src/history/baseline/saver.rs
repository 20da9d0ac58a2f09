//! Saves live documents in the history.

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Saving, now_at, record_of_live, version_of_live};
use crate::{
    change::{
        Op,
        key::ItemKey,
        record::{Record, partial},
        shape::Redactor,
        version::Version,
    },
    clock::Clock,
    cosmos::{Disposition, Failure, RETRY_TIMEOUT, Retry, RuLimiter, WriteAction, WriteJob, Writers},
    history::{Containers, live::read_live, scan::ScannedItem, writing::write_record},
};

/// Hands the records of live documents to the writers.
pub struct Saver<'a> {
    /// The containers.
    pub containers: &'a Containers,
    /// Request units a second.
    pub pace: &'a RuLimiter,
    /// Writers of the history.
    pub writers: &'a Writers,
    /// How many documents are read concurrently, when they were not read along.
    pub concurrency: usize,
    /// Reduces each document to the part that is stored; `None` stores all of it.
    pub shape: Option<&'a Redactor>,
    /// The time of this machine.
    pub clock: &'a dyn Clock,
}

/// The outcomes.
pub struct SaveOutcomes {
    /// Documents that cannot become records, and why.
    pub unusable: Vec<(ItemKey, String)>,
    /// How many have disappeared meanwhile.
    pub gone: u64,
    /// How many records that had nothing of their document have it now.
    pub completed: u64,
    /// Whether the writers have stopped; `Writers::finish` says why.
    pub stopped: bool,
}

impl Saver<'_> {
    /// Reads the texts that are not at hand, writes the records that do not exist, and completes those that have nothing
    /// of their document. A document that has disappeared
    /// meanwhile does not count as missing: capture delivers its delete.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub async fn save(&self, missing: Vec<ScannedItem>, op: fn(&ScannedItem) -> Op) -> Result<SaveOutcomes, Failure> {
        let mut saved = SaveOutcomes { unusable: Vec::new(), gone: 0, completed: 0, stopped: false };
        let mut texts = stream::iter(missing)
            .map(|found| async move {
                let op = op(&found);
                let is_absent = version_of_live(&found).is_some_and(Version::is_absent);
                let text = match self.text(&found).await {
                    Err(f) if f.disposition != Disposition::Poison => return Err(f),
                    text => text,
                };
                let now = now_at(&*self.containers.source, self.clock).await?;
                Ok::<_, Failure>((found.item, (op, is_absent), text, now))
            })
            .buffer_unordered(self.concurrency.max(1));
        while let Some((item, (op, is_absent), text, now)) = texts.try_next().await? {
            let record = match text {
                Ok(Some(text)) => self.record(&item, &text, op, now),
                Ok(None) => {
                    saved.gone += 1;
                    continue;
                }
                Err(f) => Err(f),
            };
            let record = match record {
                Ok(record) if is_absent => match self.complete(record).await {
                    Ok(()) => {
                        saved.completed += 1;
                        continue;
                    }
                    Err(f) if f.disposition != Disposition::Poison => return Err(f),
                    Err(f) => Err(f),
                },
                record => record,
            };
            match record {
                Ok(record) => {
                    let job = WriteJob {
                        item: ItemKey { id: record.id, partition_key: record.key },
                        // Its text has the time of capture, so that nobody else's is the same.
                        action: WriteAction::Create(record.body.into_bytes(), None),
                    };
                    if !self.writers.send(job).await {
                        saved.stopped = true;
                        return Ok(saved);
                    }
                }
                Err(f) => saved.unusable.push((item, f.message)),
            }
        }
        Ok(saved)
    }

    /// The record of a live document, or of the part that is stored.
    fn record(&self, item: &ItemKey, text: &str, op: Op, now: DateTime<Utc>) -> Result<Record, Failure> {
        let time = (self.clock, now);
        let place = (self.containers.source.namespace(), self.containers.changes.layout());
        let of = |text: &str| record_of_live(item, text, Saving::Missing(op), place, time);
        let Some(shape) = self.shape else { return of(text) };
        let wrong = |e: serde_json::Error| Failure::invalid("save live version".into(), e.to_string());
        let (part, note) = shape.shaped_with_note(text).map_err(wrong)?;
        Ok(partial(of(&part)?, &note))
    }

    /// Gives its text to a record that has nothing of its document, and takes over what that record knows. Capture may
    /// have replaced it meanwhile: then the better text stays.
    async fn complete(&self, record: Record) -> Result<(), Failure> {
        let record = Record { completes: true, ..record };
        self.pace.wait().await;
        Retry::for_at_most(RETRY_TIMEOUT).run(|| write_record(&*self.containers.changes, &record)).await.map(drop)
    }

    /// The live document as stored; `None` when it is gone.
    async fn text(&self, found: &ScannedItem) -> Result<Option<String>, Failure> {
        if let Some(text) = found.live.as_ref().and_then(|live| live.text.clone()) {
            return Ok(Some(text));
        }
        let assumed = found.live.as_ref().map(|live| live.etag.as_str());
        read_live(&*self.containers.source, self.pace, &found.item, assumed).await
    }
}
