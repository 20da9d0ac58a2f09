//! Writes that depend on what exists: items that are left alone, or replaced only when they are older.

use std::sync::atomic::AtomicU64;

use serde::Deserialize;

use super::Shared;
use crate::{
    change::{diff, key::ItemKey, record::own_text},
    cosmos::{Disposition, Failure, Retry, Status},
};

/// How often an item that keeps changing is read again.
const LOOKS: u32 = 5;

impl Shared {
    /// Leaves an existing item alone, unless it exists because this very write succeeded and its answer was lost.
    pub(super) async fn create(
        &self,
        retry: &Retry,
        item: &ItemKey,
        body: &[u8],
        since: Option<i64>,
    ) -> Result<&AtomicU64, Failure> {
        let (key, id) = (&item.partition_key, item.id.as_str());
        let conflict = match retry.run(|| self.container.create(key, id, body.to_vec())).await {
            Ok(_) => return Ok(&self.created),
            Err(f) if f.disposition == Disposition::Conflict => f,
            Err(f) => return Err(f),
        };
        let may_be_ours = retry.may_be_done(&conflict);
        // Where that cannot be read, looking is always right.
        let may_be_anothers = retry.run(|| self.container.has_unique_keys()).await.unwrap_or(true);
        if !may_be_ours && !may_be_anothers {
            return Ok(&self.skipped);
        }
        match retry.run(|| self.container.read(key, id)).await? {
            Some(live) if may_be_ours && is_of(&live, body) && !is_older(&live, since) => Ok(&self.created),
            None if may_be_anothers => {
                Err(Failure { message: "another document has its values of a unique key".into(), ..conflict })
            }
            _ => Ok(&self.skipped),
        }
    }

    /// Reads the item first, and again when it changed in between.
    pub(super) async fn replace_older(
        &self,
        retry: &Retry,
        item: &ItemKey,
        body: &[u8],
        moment: i64,
    ) -> Result<&AtomicU64, Failure> {
        let (key, id) = (&item.partition_key, item.id.as_str());
        // How the write is counted when the last attempt was carried out and its answer lost.
        let mut ours = None;
        for attempt in 1.. {
            let live = retry.run(|| self.container.read(key, id)).await?;
            let result = match live.as_deref() {
                None => retry.run(|| self.container.create(key, id, body.to_vec())).await.map(|_| &self.created),
                Some(live) => {
                    let facts: Facts<'_> = serde_json::from_str(live).map_err(|e| {
                        Failure::invalid("read item".into(), format!("its _ts and _etag are not understood: {e}"))
                    })?;
                    if facts.ts >= moment {
                        let ours = ours.filter(|_| is_of(live, body));
                        return Ok(ours.unwrap_or(&self.skipped));
                    }
                    retry
                        .run(|| self.container.replace(key, id, body.to_vec(), &facts.etag))
                        .await
                        .map(|_| &self.updated)
                }
            };
            match result {
                // Somebody was quicker.
                Err(f)
                    if attempt < LOOKS
                        && (matches!(f.disposition, Disposition::Conflict | Disposition::PreconditionFailed)
                            || f.status == Status::NO_ITEM) =>
                {
                    let counter = if live.is_some() { &self.updated } else { &self.created };
                    ours = retry.may_be_done(&f).then_some(counter);
                }
                other => return other,
            }
        }
        Ok(&self.skipped)
    }
}

/// Whether an item has the text that was sent.
fn is_of(live: &str, sent: &[u8]) -> bool {
    let sent = std::str::from_utf8(sent).ok().and_then(|sent| own_text(sent).ok());
    own_text(live).ok().zip(sent).is_some_and(|(live, sent)| diff::same(&live, &sent))
}

/// Whether an item was last written before this moment.
fn is_older(live: &str, moment: Option<i64>) -> bool {
    let facts = serde_json::from_str::<Facts<'_>>(live).ok();
    moment.zip(facts).is_some_and(|(moment, facts)| facts.ts < moment)
}

/// The properties that decide whether a live item is older.
#[derive(Deserialize)]
struct Facts<'a> {
    #[serde(rename = "_ts")]
    ts: i64,
    #[serde(rename = "_etag", borrow)]
    etag: std::borrow::Cow<'a, str>,
}
