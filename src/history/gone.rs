//! Finds documents that are gone without a delete that says when: they were deleted while nothing captured deletes, as
//! when a reader lost its place and began anew. Nothing in the history shows that, and the version in force looks like
//! a document that still existed.
//!
//! It is known of a document only when its delete is looked for after it was seen to be gone: in what waits to be captured,
//! and then in the history again.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::try_join_all;

use super::{
    Account,
    containers::record,
    frontier::{Frontier, Waiting},
    histories::{Texts, histories},
    reading::{HistoryReader, LiveContainer},
    scan::ScannedItem,
};
use crate::{
    change::{raw::RawDocument, time::PointInTime, version::container_of},
    config::Names,
    cosmos::{Failure, RuLimiter},
};

/// How many documents are checked together.
const TOGETHER: usize = 16;

/// How long after its time to live has ended the delete of a document may still be on the way, in seconds: the service
/// removes it when it has request units to spare.
const MOST_LATE: i64 = 3600;

/// Looks for documents that are gone without a delete.
pub struct Gone<'a> {
    account: &'a dyn Account,
    names: &'a Names,
    changes: &'a dyn HistoryReader,
    source: &'a dyn LiveContainer,
    known: &'a Frontier,
    pace: &'a RuLimiter,
    /// Set when too much is waiting to be told apart; determined once.
    is_hopeless: AtomicBool,
}

impl<'a> Gone<'a> {
    /// Looks in this history, and at what is waiting for it. `known` is what was known before the documents were read.
    pub fn new(
        account: &'a dyn Account,
        names: &'a Names,
        (changes, source): (&'a dyn HistoryReader, &'a dyn LiveContainer),
        known: &'a Frontier,
        pace: &'a RuLimiter,
    ) -> Self {
        Self { account, names, changes, source, known, pace, is_hopeless: AtomicBool::new(false) }
    }

    /// Marks those of documents that were just read, with what is live of the source, that are gone and whose newest version
    /// is a document of at or before the moment.
    ///
    /// # Errors
    /// When source or history cannot be read.
    pub async fn mark(&self, found: &mut [ScannedItem], at: PointInTime) -> Result<(), Failure> {
        if !self.known.parts.iter().any(|part| part.sees_deletes) || self.is_hopeless.load(Ordering::Relaxed) {
            return Ok(());
        }
        let today = container_of(self.source.rid());
        let mut gone: Vec<&mut ScannedItem> = found.iter_mut().filter(|one| is_gone(one, at, today)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let frontier = self.account.frontier(self.names, Some(PointInTime::END), self.pace).await?;
        if frontier.parts.iter().all(|part| matches!(part.waiting, Waiting::Any)) {
            self.is_hopeless.store(true, Ordering::Relaxed);
        }
        gone.retain(|one| {
            let reach = frontier.reach(self.source, &one.item.partition_key);
            reach.sees_deletes && !reach.may_lack(&one.item, &one.versions)
        });
        if gone.is_empty() {
            return Ok(());
        }
        let lifetime = self.source.default_ttl().await;
        let now = self.account.now().await.timestamp();
        for together in gone.chunks_mut(TOGETHER) {
            let mut looks = Vec::with_capacity(TOGETHER);
            for one in together {
                looks.push(self.look_again(one, at, lifetime.map(|lifetime| (lifetime, now))));
            }
            try_join_all(looks).await?;
        }
        Ok(())
    }

    /// Reads the history of a document whose delete is not waiting. `lifetime` is that of the container's documents, if
    /// any, and the current time.
    async fn look_again(
        &self,
        found: &mut ScannedItem,
        at: PointInTime,
        lifetime: Option<(i64, i64)>,
    ) -> Result<(), Failure> {
        let key = &found.item.partition_key;
        let read = histories(self.changes, self.pace, &found.item.id, Some(key), Texts::None).await?;
        let Some(now) = read.items.into_iter().find(|item| item.key == found.item) else { return Ok(()) };
        if (now.versions.len(), now.unkeyed.len()) != (found.versions.len(), found.unkeyed.len()) {
            // It was captured in the meantime.
            (found.versions, found.unkeyed) = (now.versions, now.unkeyed);
            return Ok(());
        }
        found.is_lost = !self.has_expired_since(found, at, lifetime).await?;
        Ok(())
    }

    /// Whether its time to live ended after the moment and just recently: the service hides such a document at once,
    /// and reports later that it is gone. For one that ended long ago, it would have done so.
    async fn has_expired_since(
        &self,
        found: &ScannedItem,
        at: PointInTime,
        lifetime: Option<(i64, i64)>,
    ) -> Result<bool, Failure> {
        let (Some((default, now)), Some(version)) = (lifetime, found.document_at(PointInTime::END)) else {
            return Ok(false);
        };
        let whole = record(self.changes, &found.item, &version.record_id).await?;
        let own = whole.and_then(|version| RawDocument::parse(&version.document?).ok()?.get_i64("ttl"));
        let lifetime = own.unwrap_or(default);
        let end = version.ts.saturating_add(lifetime);
        Ok(lifetime > 0 && at.seconds() < end && end <= now && now - end <= MOST_LATE)
    }
}

/// Whether the document does not exist, its newest version is not a tombstone, and no delete of its id may belong to
/// it. Deletes in an earlier container do not count.
fn is_gone(found: &ScannedItem, at: PointInTime, today: Option<u64>) -> bool {
    let newest = found.document_at(PointInTime::END).filter(|_| found.live.is_none());
    newest.is_some_and(|version| {
        version.ts <= at.seconds()
            && !version.is_of_another(today)
            && !found.unkeyed.iter().any(|delete| delete.ts >= version.ts)
    })
}

#[cfg(test)]
#[cfg(feature = "local")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        change::key::{ItemKey, KeyPaths, PartitionKey},
        config::Settings,
        cosmos::Items as _,
        history::{live::look_at, memory::MemoryAccount},
    };

    const START: i64 = 1_700_000_000;

    /// A history in which each document has one version in a second of its own, and none is live.
    async fn account(names: &Names, documents: &[(&str, serde_json::Value)]) -> MemoryAccount {
        let paths = |path: &[&str]| KeyPaths::parse(path).unwrap();
        let account = MemoryAccount::new(names, paths(&["/pk"]), paths(&["/pk", "/_originalId"]));
        account.set_time(START + 100);
        for (place, (id, ttl)) in documents.iter().enumerate() {
            let ts = START + place as i64;
            let change = json!({"v": 1, "op": "create", "ts": ts, "lsn": place + 1, "key": ["p"], "ttl": ttl,
                                "etag": format!("\"{id}\""), "fidelity": "exact", "via": "trigger"});
            let record_id = format!("{id}~{place}");
            let record = json!({"id": record_id, "pk": "p", "_originalId": id, "_change": change});
            let key = PartitionKey::parse(&json!(["p", id]).to_string()).unwrap();
            account.changes.create(&key, &record_id, record.to_string().into_bytes()).await.unwrap();
        }
        account
    }

    async fn lost(account: &MemoryAccount, names: &Names, ids: &[&str], at: i64) -> Vec<bool> {
        let pace = RuLimiter::new(account.meter(), None);
        let containers = account.containers(names, None).await.unwrap();
        let mut found = Vec::new();
        for id in ids {
            let item = ItemKey { id: (*id).to_owned(), partition_key: PartitionKey::parse("p").unwrap() };
            let read =
                histories(&*containers.changes, &pace, id, Some(&item.partition_key), Texts::None).await.unwrap();
            let live = look_at(&*containers.target, &pace, &item, false).await.unwrap();
            let versions = read.items.into_iter().flat_map(|item| item.versions).collect();
            found.push(ScannedItem { versions, live, ..ScannedItem::new(item) });
        }
        let at = PointInTime::from_epoch(at);
        let known = account.frontier(names, Some(at), &pace).await.unwrap();
        let gone = Gone::new(account, names, (&*containers.changes, &*containers.source), &known, &pace);
        gone.mark(&mut found, at).await.unwrap();
        found.into_iter().map(|found| found.is_lost).collect()
    }

    #[tokio::test]
    async fn what_is_gone_without_a_delete_is_lost_unless_it_expired() {
        let names = Names::from_settings(&Settings::from_pairs([("COSMOS_DATABASE", "dev")]), None).unwrap();
        let documents = [
            ("here", json!(null)),
            ("expired-before", json!(1)),
            ("gone", json!(null)),
            ("expired", json!(90)),
            ("lives", json!(500)),
            ("later", json!(null)),
        ];
        let account = account(&names, &documents).await;
        let live = json!({"id": "here", "pk": "p"}).to_string().into_bytes();
        account.source.create(&PartitionKey::parse("p").unwrap(), "here", live).await.unwrap();
        let ids = documents.map(|(id, _)| id);
        account.set_frontier(PointInTime::END, true);
        assert_eq!(lost(&account, &names, &ids, START + 4).await, [false, true, true, false, true, false]);
        // Its delete cannot be on the way any more.
        account.set_time(START + 93 + MOST_LATE);
        assert!(!lost(&account, &names, &ids, START + 4).await[3]);
        account.set_time(START + 94 + MOST_LATE);
        assert!(lost(&account, &names, &ids, START + 4).await[3]);
        // Where deletes are not captured, a missing document is no surprise; and a waiting change may belong to any
        // document.
        account.set_frontier(PointInTime::END, false);
        assert_eq!(lost(&account, &names, &ids, START + 4).await, [false; 6]);
        account.set_frontier(PointInTime::from_epoch(START + 50), true);
        assert_eq!(lost(&account, &names, &ids, START + 4).await, [false; 6]);
    }
}
