//! Finds documents that are gone without a delete that says when: they were deleted while nothing captured deletes, as
//! when a reader lost its place and began anew. Nothing in the history shows that, and the version in force looks like
//! a document that still existed.
//!
//! It is known of a document only when its delete is looked for after it was seen to be gone: in what waits to be
//! captured, and then in the history again.

mod why;

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::try_join_all;

pub use self::why::UnknownDelete;
use super::{
    Account,
    as_of::boundary,
    containers::record,
    frontier::{Frontier, Waiting},
    histories::{TextDetail, histories},
    known::place_of_live,
    live::{Live, look_at},
    reading::{HistoryReader, LiveContainer},
    scan::ScannedItem,
};
use crate::{
    change::{
        Op,
        time::PointInTime,
        version::{Version, container_of},
    },
    config::Names,
    cosmos::{Failure, RuLimiter},
};

/// How many documents are checked together.
const TOGETHER: usize = 16;

/// How long after its time to live has ended the delete of a document may still be on the way, in seconds: the service
/// removes it when it has request units to spare.
const MOST_LATE: i64 = 3600;

/// Documents, and what they are taken for unless it turns out otherwise.
type Suspects<'f> = Vec<(&'f mut ScannedItem, UnknownDelete)>;

/// Looks for documents that are gone without a delete.
pub struct DeleteSearch<'a> {
    account: &'a dyn Account,
    names: &'a Names,
    changes: &'a dyn HistoryReader,
    source: &'a dyn LiveContainer,
    known: &'a Frontier,
    pace: &'a RuLimiter,
    /// Whether the documents were read together with what another container has, so that the source has to be asked.
    is_elsewhere: bool,
    /// Set when too much is waiting to be told apart; determined once.
    is_hopeless: AtomicBool,
}

impl<'a> DeleteSearch<'a> {
    /// Looks in this history, and at what is waiting for it. `known` is from before the documents were read.
    pub fn new(
        account: &'a dyn Account,
        names: &'a Names,
        (changes, source): (&'a dyn HistoryReader, &'a dyn LiveContainer),
        known: &'a Frontier,
        pace: &'a RuLimiter,
    ) -> Self {
        let (is_elsewhere, is_hopeless) = (false, AtomicBool::new(false));
        Self { account, names, changes, source, known, pace, is_elsewhere, is_hopeless }
    }

    /// The same for the documents of another container, which says nothing about the source: the source is asked.
    #[must_use]
    pub fn elsewhere(self, is_elsewhere: bool) -> Self {
        Self { is_elsewhere, ..self }
    }

    /// Marks those of documents that were just read, with what is live of the source, that are gone and whose newest
    /// version is a document of at or before the moment; and those that had been deleted by then, but were made again
    /// while nobody captured.
    ///
    /// # Errors
    /// When source or history cannot be read.
    pub async fn mark(&self, found: &mut [ScannedItem], at: PointInTime) -> Result<(), Failure> {
        let today = container_of(self.source.rid());
        let reach = |one: &ScannedItem| self.known.reach(self.source, &one.item.partition_key);
        let is_asked = |one: &ScannedItem| {
            reach(one).sees_deletes || one.document_at(PointInTime::END).is_some_and(Version::is_of_every_version)
        };
        let may_be_lost = found.iter_mut().filter(|one| may_be_lost(one, at, today) && is_asked(one)).collect();
        let mut gone = self.gone(may_be_lost, at).await?;
        gone.retain_mut(|(one, why)| {
            let reach = reach(one);
            if *why == UnknownDelete::Overwritten && !reach.sees_deletes {
                return false;
            }
            one.lost = match reach.is_latest {
                _ if reach.sees_deletes => None,
                true => Some(UnknownDelete::Unseen),
                false => Some(UnknownDelete::Unread),
            };
            reach.sees_deletes
        });
        if gone.is_empty() {
            return Ok(());
        }
        if self.is_hopeless.load(Ordering::Relaxed) {
            gone.into_iter().for_each(|(one, _)| one.lost = Some(UnknownDelete::Unsearched));
            return Ok(());
        }
        let frontier = self.account.frontier(self.names, Some(PointInTime::END), self.pace).await?;
        if frontier.parts.iter().all(|part| matches!(part.waiting, Waiting::Any)) {
            self.is_hopeless.store(true, Ordering::Relaxed);
        }
        gone.retain_mut(|(one, why)| {
            let reach = frontier.reach(self.source, &one.item.partition_key);
            one.lost = (reach.sees_deletes && reach.may_lack_any()).then_some(UnknownDelete::Unsearched);
            let waits = reach.may_lack(&one.item, &one.versions);
            let is_gone = one.document_at(PointInTime::END).is_none();
            // What waits came after the hole, and what it happened to may have begun or ended in it.
            if one.lost.is_none()
                && waits
                && (self.may_be_unseen(one, at) || *why == UnknownDelete::LivesUnseen)
                && !reach.is_followed(&one.item, &one.versions)
            {
                one.lost = Some(if is_gone { UnknownDelete::MadeUnseen } else { UnknownDelete::Uncaptured });
            }
            reach.sees_deletes && !waits && *why != UnknownDelete::MadeUnseen
        });
        if gone.is_empty() {
            return Ok(());
        }
        let lifetime = self.source.default_ttl().await?;
        let now = self.account.time().await?.timestamp();
        for together in gone.chunks_mut(TOGETHER) {
            let mut looks = Vec::with_capacity(TOGETHER);
            for (one, why) in together {
                looks.push(self.look_again(one, *why, at, lifetime.map(|lifetime| (lifetime, now))));
            }
            try_join_all(looks).await?;
        }
        Ok(())
    }

    /// The same for documents whose versions come from an archive. An archive does not say how far it is complete, so a
    /// missing delete proves nothing. That a document was deleted after the moment is known from the history, or
    /// because its delete is waiting to be captured.
    ///
    /// # Errors
    /// When source or history cannot be read.
    pub async fn mark_archived(&self, found: &mut [ScannedItem], at: PointInTime) -> Result<(), Failure> {
        // The newest version in the archive is requested, not the state at a moment.
        if at == PointInTime::END {
            return Ok(());
        }
        let is_asked =
            |one: &ScannedItem| one.document_at(PointInTime::END).is_some_and(|newest| newest.op != Some(Op::Upsert));
        let may_be_lost = found.iter_mut().filter(|one| may_be_lost(one, at, None) && is_asked(one)).collect();
        let gone = self.gone(may_be_lost, PointInTime::END).await?;
        let mut gone: Vec<&mut ScannedItem> = gone.into_iter().map(|(one, _)| one).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let frontier = self.account.frontier(self.names, Some(PointInTime::END), self.pace).await?;
        gone.retain(|one| {
            let reach = frontier.reach(self.source, &one.item.partition_key);
            !(reach.sees_deletes && reach.covers(at) && reach.is_waited_for(&one.item))
        });
        for together in gone.chunks_mut(TOGETHER) {
            let mut looks = Vec::with_capacity(TOGETHER);
            for one in together {
                looks.push(self.look_into_history(one, at));
            }
            try_join_all(looks).await?;
        }
        Ok(())
    }

    async fn look_into_history(&self, found: &mut ScannedItem, at: PointInTime) -> Result<(), Failure> {
        let since = found.document_at(PointInTime::END).map_or(i64::MIN, |version| version.ts);
        let read =
            histories(self.changes, self.pace, &found.item.id, Some(&found.item.partition_key), TextDetail::None)
                .await?;
        let known = read.items.into_iter().find(|item| item.key == found.item);
        let versions = known.map(|item| item.versions).unwrap_or_default();
        let first = versions.iter().filter(|v| v.op.is_some_and(Op::is_tombstone) && v.ts >= since).map(|v| v.ts).min();
        found.lost = first.is_none_or(|ts| ts <= at.seconds()).then_some(UnknownDelete::Uncaptured);
        Ok(())
    }

    /// The documents that do not exist, or that are live as a version from after the moment that the history lacks.
    async fn gone<'f>(&self, found: Vec<&'f mut ScannedItem>, at: PointInTime) -> Result<Suspects<'f>, Failure> {
        let mut asked = Vec::new();
        if self.is_elsewhere {
            for together in found.chunks(TOGETHER) {
                let looks = together.iter().map(|one| look_at(self.source, self.pace, &one.item, None, false));
                asked.extend(try_join_all(looks).await?);
            }
        }
        let why = |one: &ScannedItem, live: Option<&Live>| match live {
            None if one.document_at(PointInTime::END).is_some() => Some(UnknownDelete::Uncaptured),
            None => self.may_be_unseen(one, at).then_some(UnknownDelete::MadeUnseen),
            Some(live) if live.ts.is_none() => {
                one.document_at(PointInTime::END).is_none().then_some(UnknownDelete::LivesUnseen)
            }
            Some(live) => {
                let is_later = live.ts.is_some_and(|ts| ts > at.seconds());
                let is_known = place_of_live(&one.item.id, &one.versions, &live.etag).is_some();
                (is_later && !is_known).then_some(UnknownDelete::Overwritten)
            }
        };
        let suspects = found.into_iter().enumerate().filter_map(|(n, one)| {
            let live = if self.is_elsewhere { asked.get(n)?.as_ref() } else { one.live.as_ref() };
            let why = why(one, live)?;
            Some((one, why))
        });
        Ok(suspects.collect())
    }

    /// Whether a change may be missing between the newest version of a document and a moment.
    fn may_be_unseen(&self, one: &ScannedItem, at: PointInTime) -> bool {
        let newest = boundary(&one.versions, PointInTime::END);
        newest.is_some_and(|version| self.known.blind_spots.hole_between(version.ts, at).is_some())
    }

    /// Reads the history of a document whose delete is not waiting. `lifetime` is that of the container's documents, if
    /// any, and the current time.
    async fn look_again(
        &self,
        found: &mut ScannedItem,
        why: UnknownDelete,
        at: PointInTime,
        lifetime: Option<(i64, i64)>,
    ) -> Result<(), Failure> {
        let key = &found.item.partition_key;
        let read = histories(self.changes, self.pace, &found.item.id, Some(key), TextDetail::None).await?;
        let Some(now) = read.items.into_iter().find(|item| item.key == found.item) else { return Ok(()) };
        if (now.versions.len(), now.unkeyed.len()) != (found.versions.len(), found.unkeyed.len()) {
            // It was captured in the meantime.
            (found.versions, found.unkeyed) = (now.versions, now.unkeyed);
            return Ok(());
        }
        let is_live = matches!(why, UnknownDelete::Overwritten | UnknownDelete::LivesUnseen);
        let is_lost = is_live || !self.has_expired_since(found, at, lifetime).await?;
        found.lost = is_lost.then_some(why);
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
        let end = whole.as_ref().unwrap_or(version).expires(Some(default));
        Ok(end.is_some_and(|end| at.seconds() < end && end <= now && now - end <= MOST_LATE))
    }
}

/// Whether the newest version is from the moment or before, and no delete of its id may belong to it. Deletes in an
/// earlier container do not count.
fn may_be_lost(found: &ScannedItem, at: PointInTime, today: Option<u64>) -> bool {
    boundary(&found.versions, PointInTime::END).is_some_and(|version| {
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
        history::memory::MemoryAccount,
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

    async fn lost(account: &MemoryAccount, names: &Names, ids: &[&str], at: i64) -> Vec<Option<UnknownDelete>> {
        let pace = RuLimiter::new(account.meter(), None);
        let containers = account.containers(names, None).await.unwrap();
        let mut found = Vec::new();
        for id in ids {
            let item = ItemKey { id: (*id).to_owned(), partition_key: PartitionKey::parse("p").unwrap() };
            let read =
                histories(&*containers.changes, &pace, id, Some(&item.partition_key), TextDetail::None).await.unwrap();
            let live = look_at(&*containers.target, &pace, &item, None, false).await.unwrap();
            let versions = read.items.into_iter().flat_map(|item| item.versions).collect();
            found.push(ScannedItem { versions, live, ..ScannedItem::new(item) });
        }
        let at = PointInTime::from_epoch(at);
        let known = account.frontier(names, Some(at), &pace).await.unwrap();
        let gone = DeleteSearch::new(account, names, (&*containers.changes, &*containers.source), &known, &pace);
        gone.mark(&mut found, at).await.unwrap();
        found.into_iter().map(|found| found.lost).collect()
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
        let is_lost = async || {
            let found = lost(&account, &names, &ids, START + 4).await;
            found.into_iter().map(|lost| lost == Some(UnknownDelete::Uncaptured)).collect::<Vec<_>>()
        };
        assert_eq!(is_lost().await, [false, true, true, false, true, false]);
        assert_eq!(lost(&account, &names, &ids, START + 4).await[0], Some(UnknownDelete::Overwritten));
        // Its delete cannot be on the way any more.
        account.set_time(START + 93 + MOST_LATE);
        assert!(!is_lost().await[3]);
        account.set_time(START + 94 + MOST_LATE);
        assert!(is_lost().await[3]);
        // Where deletes are no longer captured, a missing document is no surprise; and a waiting change may belong to
        // any document.
        let is_gone = [false, true, true, true, true, false];
        for (until, sees_deletes, why) in [
            (PointInTime::END, false, UnknownDelete::Unseen),
            (PointInTime::from_epoch(START + 50), true, UnknownDelete::Unsearched),
        ] {
            account.set_frontier(until, sees_deletes);
            assert_eq!(is_lost().await, [false; 6]);
            let mut expected = is_gone.map(|is_gone| is_gone.then_some(why));
            // Its live version may be waiting as well.
            expected[0] = (why == UnknownDelete::Unsearched).then_some(why);
            assert_eq!(lost(&account, &names, &ids, START + 4).await, expected);
        }
    }
}
