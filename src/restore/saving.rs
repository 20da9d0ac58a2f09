//! Saves what a step is about to replace, and determines the facts that this needs.

use super::apply::Applier;
use crate::{
    change::{key::ItemKey, raw::RawDocument, version::Version},
    cosmos::{Disposition, Failure, RETRY_TIMEOUT, Retry},
    history::{
        baseline::{Saving, now_at, record_of_live},
        writing::write_record,
    },
};

impl Applier<'_> {
    /// Whether a live document was written before applying began.
    pub(super) fn is_older(&self, live: &str) -> bool {
        let ts = RawDocument::parse(live).ok().and_then(|document| document.get_i64("_ts"));
        self.begun.zip(ts).is_some_and(|(begun, ts)| ts < begun)
    }

    /// Makes sure that the live document is in the history, exactly, before it is overwritten. Returns its record's id.
    pub(super) async fn save(&self, item: &ItemKey, live: &str) -> Result<String, Failure> {
        let changes = &self.containers.changes;
        let place = (self.containers.source.namespace(), changes.layout());
        let time = (self.clock, now_at(&*self.containers.source, self.clock).await?);
        let record = record_of_live(item, live, Saving::Before(None), place, time)?;
        let retry = Retry::for_at_most(RETRY_TIMEOUT);
        // Capture may have stored it, with an LSN that is not known here: that record stays ...
        match retry.run(|| changes.create(&record.key, &record.id, record.body.clone().into_bytes())).await {
            Ok(_) => return Ok(record.id),
            Err(f) if f.disposition == Disposition::Conflict => {}
            Err(f) if f.status.is_too_large() => {
                let problem = "it is too large for the history, which could not give it back: it stays as it is";
                return Err(Failure { message: problem.into(), ..f });
            }
            Err(f) => return Err(f),
        }
        let stored = retry.run(|| changes.read(&record.key, &record.id)).await?;
        let known = stored
            .and_then(|text| Version::parse(&text).ok())
            .filter(|known| known.is_normalized() || known.is_partial());
        // ... unless its text is not complete: then it gets this text, and keeps its place among the versions.
        if let Some(known) = known {
            let record = record_of_live(item, live, Saving::Before(Some(&known)), place, time)?;
            retry.run(|| write_record(&**changes, &record)).await?;
        }
        Ok(record.id)
    }
}
