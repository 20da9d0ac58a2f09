//! Reads documents again from the source when the delivered text may have been altered.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tracing::warn;

use super::{Capture, items::DecodedBatch, limits::permit, summary::Summary};
use crate::{
    change::{Change, raw::RawDocument, record::Identity, shape::Redactor},
    config::Fidelity,
    cosmos::{Disposition, Failure, Retry},
    history::{History, SourceReader as _},
};

impl<H: History> Capture<H> {
    /// Reads again what the host may have altered; `None` where the payload's own text is to be used.
    pub(super) async fn reread(
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
                // A document that cannot be shaped is not stored as a whole: the payload's own part of it is.
                (Again::Same(text), Some(shape)) => shape.shaped(&text).ok(),
                (Again::Same(text), None) => Some(text),
                // The delivered text is all there is.
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

    /// Reads one document again; more than once when a replica may be behind or a refusal may pass.
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
}

/// Pauses before a document is looked for again that a replica did not have, or that was refused.
const LOOKS: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(150), Duration::from_millis(400)];

/// A document that was read again.
enum Again {
    /// It is the version that was delivered.
    Same(String),
    /// It is a later version.
    MovedOn,
    /// It is an older version or one of the same second, or it is not there (any more): a replica may be behind.
    Behind,
    /// The caller may not read it.
    Refused(Failure),
}

/// How a text that was read again relates to the version that was delivered.
fn of_version(text: String, change: &Change<'_>) -> Again {
    let Ok(document) = RawDocument::parse(&text) else { return Again::MovedOn };
    let etag = document.get_str("_etag");
    if etag.is_some() && etag == change.etag() {
        return Again::Same(text);
    }
    // Within one second nothing tells which is the later.
    if document.get_i64("_ts") > change.ts { Again::MovedOn } else { Again::Behind }
}
