//! Writes a record without losing anything that is already known.

use crate::{
    causes::chain,
    change::{knowledge, raw::RawDocument, record::Record},
    cosmos::{Disposition, Failure, Items, Status},
};

/// Writes one record, as [`HistoryWriter::write`](super::HistoryWriter::write) promises; returns the RU charged.
///
/// # Errors
/// When the service refuses. Nothing is retried.
pub async fn write_record(history: &dyn Items, record: &Record) -> Result<f64, Failure> {
    let body = record.body.clone().into_bytes();
    if !record.create_only {
        return history.upsert(&record.key, &record.id, body).await.map(|written| written.charge);
    }
    let written = history.create(&record.key, &record.id, body).await;
    settle(history, record, written.map(|written| written.charge)).await
}

/// Completes a packed write of a record: one that only adds to an existing record has found it.
///
/// # Errors
/// As [`write_record`].
pub(super) async fn settle(
    history: &dyn Items,
    record: &Record,
    written: Result<f64, Failure>,
) -> Result<f64, Failure> {
    match written {
        Err(f) if record.create_only && f.disposition == Disposition::Conflict && record.completes => {
            complete(history, record).await
        }
        Err(f) if record.create_only && f.disposition == Disposition::Conflict => Ok(0.0),
        other => other,
    }
}

/// Completes the existing record with what this one knows, on the condition that nobody else did meanwhile.
async fn complete(history: &dyn Items, record: &Record) -> Result<f64, Failure> {
    const LOOKS: u32 = 5;
    let wrong = |e: String| Failure::invalid("complete record".into(), e);
    let mut last = None;
    for _ in 0..LOOKS {
        let stored = history.read(&record.key, &record.id).await?;
        let written = match stored {
            Some(stored) => {
                let Some(body) = knowledge::completed(&stored, &record.body).map_err(|e| wrong(chain(&e)))? else {
                    return Ok(0.0);
                };
                let etag =
                    RawDocument::parse(&stored).ok().and_then(|stored| Some(stored.get_str("_etag")?.into_owned()));
                let etag = etag.ok_or_else(|| wrong("the stored record has no _etag".into()))?;
                history.replace(&record.key, &record.id, body.into_bytes(), &etag).await
            }
            None => history.create(&record.key, &record.id, record.body.clone().into_bytes()).await,
        };
        match written {
            Ok(written) => return Ok(written.charge),
            // Somebody was quicker; or it was pruned.
            Err(f)
                if matches!(f.disposition, Disposition::PreconditionFailed | Disposition::Conflict)
                    || f.status == Status::NO_ITEM =>
            {
                last = Some(f);
            }
            Err(f) => return Err(f),
        }
    }
    // It changes too fast to be completed now; it will be when it is delivered again.
    let reason = last.map_or_else(String::new, |f| f.to_string());
    Err(Failure::from_status("complete record".into(), Status::new(449, 0), &reason, None))
}
