//! Finds and erases the traces: in the history, among dead letters, in journals of restores and in archives.

use std::sync::Arc;

use futures::TryStreamExt as _;

use super::{
    EraseError, Request, TraceCounts,
    dead_letter_match::{is_about, may_be_about},
    journal_files, journal_items,
    journals::JournalMentions,
};
use crate::{
    archive,
    change::{
        Op,
        key::{ItemKey, PartitionKey},
        version::Version,
    },
    cosmos::{Failure, RETRY_TIMEOUT, Retry, RuLimiter, Status},
    history::{
        AnyContext, Containers,
        scan::{Scan, ScannedItem, Scope, facts_of_id},
        timeline::Timeline,
    },
};

/// The traces of a document.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// Ids and places of records; tombstones last, because they hide the others.
    records: Vec<(String, PartitionKey)>,
    /// Tombstones that may as well belong to another document.
    pub(super) shared: u64,
    /// The item by each key that journals may name it by.
    keys: Vec<ItemKey>,
    /// Names of letters.
    letters: Vec<String>,
    journals: JournalMentions,
    local: JournalMentions,
    archived: archive::erase::ArchivedEvents,
    pub(super) live: bool,
    /// Whether the newest version is not a tombstone: without a live document, its delete may be on the way.
    is_open: bool,
    /// Whether it is of a feed that delivers deletes, so that this one will come.
    pub(super) is_awaited: bool,
}

impl Traces {
    /// Counts everything; the live document only when it is to be erased.
    pub(super) fn count(&self, with_live: bool) -> u64 {
        let live = u64::from(self.live && with_live);
        let journals = self.journals.mentions + self.local.mentions;
        self.records.len() as u64 + self.letters.len() as u64 + journals + self.archived.events + live
    }

    pub(super) fn found(&self, with_live: bool) -> TraceCounts {
        TraceCounts {
            versions: self.records.len() as u64,
            dead_letters: self.letters.len() as u64,
            mentions: self.journals.mentions + self.local.mentions,
            journals: self.journals.journals + self.local.journals,
            events: self.archived.events,
            files: self.archived.files,
            anything: self.count(with_live) > 0,
        }
    }
}

/// Works on one document.
pub(super) struct Eraser<'a> {
    pub(super) cx: AnyContext<'a>,
    pub(super) request: Request,
    pub(super) containers: Containers,
    /// The item, and the places to look for its tombstones.
    pub(super) items: Arc<[ItemKey]>,
    pub(super) pace: RuLimiter,
}

impl Eraser<'_> {
    /// Finds every trace.
    pub(super) async fn look(&self) -> Result<Traces, EraseError> {
        let item = &self.request.item;
        let read = || self.containers.source.read(&item.partition_key, &item.id);
        // First, because a letter that is replayed meanwhile is a record afterwards.
        let letters = self.letters().await?;
        let records = self.records().await?;
        Ok(Traces {
            letters,
            journals: journal_items::in_history(&*self.containers.changes, &records.keys, false).await?,
            local: self.local(&records.keys, false).await?,
            archived: self.archived(false).await?,
            live: Retry::for_at_most(RETRY_TIMEOUT).run(read).await?.is_some(),
            ..records
        })
    }

    /// The traces in the history. A tombstone without a key stays while another document of the id exists: if it
    /// belongs to that one, a restore without it would recreate the document; and it says nothing about this one beyond
    /// the id.
    async fn records(&self) -> Result<Traces, Failure> {
        let scope = Scope::Items(self.items.to_vec());
        let scan = Scan::facts(&self.containers, &scope, &[], &self.pace);
        let pieces: Vec<_> = scan.pieces().try_collect().await?;
        let (mut records, mut is_open, mut is_awaited, mut shared) = (Vec::new(), false, false, 0);
        let mut keys = self.items.to_vec();
        for found in pieces.into_iter().flat_map(|piece| piece.found) {
            let own = Some(&found.item) == self.items.first();
            // Where tombstones without a key are looked for, there may be a document whose key has these values.
            if !own && found.versions.iter().any(is_of_its_key) {
                keys.retain(|key| *key != found.item);
                continue;
            }
            let mut unkeyed: Vec<&Version> = found.unkeyed.iter().filter(|_| own).collect();
            if !unkeyed.is_empty() && self.has_others().await? {
                shared += unkeyed.len() as u64;
                unkeyed.clear();
            }
            let newest = Timeline::of(&found.versions).versions().next_back();
            let last = newest.filter(|newest| own && !newest.op.is_some_and(Op::is_tombstone));
            is_open |= last.is_some();
            is_awaited |= last.is_some_and(Version::is_of_every_version);
            for version in found.versions.iter().chain(&found.copies).chain(unkeyed) {
                let gone = version.op.is_some_and(Op::is_tombstone);
                if (own || gone)
                    && let Some(key) = self.containers.record_key(&found.item, &version.record_id)
                {
                    records.push((gone, version.record_id.clone(), key));
                }
            }
        }
        records.sort_by_key(|(gone, ..)| *gone);
        let records = records.into_iter().map(|(_, id, key)| (id, key)).collect();
        Ok(Traces { records, shared, keys, is_open, is_awaited, ..Traces::default() })
    }

    /// Whether the history has another document with this id.
    async fn has_others(&self) -> Result<bool, Failure> {
        let (documents, _) = facts_of_id(&self.containers, &self.pace, &self.request.item.id, None).await?;
        let exists = |one: &ScannedItem| one.versions.iter().any(|version| !version.op.is_some_and(Op::is_tombstone));
        Ok(documents.iter().any(|one| Some(&one.item) != self.items.first() && exists(one)))
    }

    async fn letters(&self) -> Result<Vec<String>, EraseError> {
        let mut found = Vec::new();
        let container = format!("{}/{}", self.cx.names.database, self.cx.names.source);
        for name in self.request.dead_letters.list().await? {
            let letter = match self.request.dead_letters.get(&name).await {
                Ok(letter) => letter,
                // It was replayed in the meantime.
                Err(e) if e.is_gone() => continue,
                Err(e) => return Err(e.into()),
            };
            if is_about(&letter, &self.request.item, self.containers.source.key_paths(), &container) {
                found.push(name);
            }
        }
        for name in self.request.dead_letters.unfinished().await? {
            match self.request.dead_letters.bytes(&name).await {
                Ok(left) if may_be_about(&left, &self.request.item, self.containers.source.key_paths(), &container) => {
                    found.push(name);
                }
                Err(e) if !e.is_gone() => return Err(e.into()),
                _ => {}
            }
        }
        Ok(found)
    }

    async fn local(&self, keys: &[ItemKey], remove: bool) -> Result<JournalMentions, EraseError> {
        let (folder, items) = (self.request.journals.clone(), keys.to_vec());
        let found = tokio::task::spawn_blocking(move || journal_files::in_folder(&folder, &items, remove)).await;
        let found = found.map_err(std::io::Error::other).and_then(|found| found);
        found.map_err(|error| EraseError::Journals { folder: self.request.journals.clone(), error })
    }

    async fn archived(&self, remove: bool) -> Result<archive::erase::ArchivedEvents, EraseError> {
        let mut all = archive::erase::ArchivedEvents::default();
        // In an archive a tombstone has its own document's key.
        let ns = self.containers.source.namespace().map(str::to_owned);
        let item = Arc::new(archive::erase::Erased { items: vec![self.request.item.clone()], ns });
        for archive in &self.request.archives {
            let found = archive.mentions(&item, remove).await?;
            all.events += found.events;
            all.files += found.files;
        }
        Ok(all)
    }

    /// Erases the traces; returns whether there was a live document that was deleted.
    pub(super) async fn erase(&self, mut there: Traces) -> Result<(Traces, bool), EraseError> {
        let item = &self.request.item;
        let live = self.request.live && there.live;
        if live {
            self.go_on()?;
            let delete = || self.containers.source.delete(&item.partition_key, &item.id, None);
            deleted(Retry::for_at_most(RETRY_TIMEOUT).run(delete).await.map(drop))?;
        }
        // Before everything else: whoever replays one of them may store a record of it until the letter is gone.
        let mut letters = std::mem::take(&mut there.letters);
        self.delete_letters(&letters).await?;
        // A run that was killed may have deleted it just now.
        let is_deleted = live || (self.request.live && there.is_open);
        if is_deleted || !letters.is_empty() {
            self.settle(is_deleted).await;
            there = self.look().await?;
            // A replay that could not store its letter has put it back.
            self.delete_letters(&there.letters).await?;
            letters.append(&mut there.letters);
            letters.sort();
            letters.dedup();
        }
        there.letters = letters;
        for (id, key) in &there.records {
            self.go_on()?;
            self.pace.wait().await;
            let delete = || self.containers.changes.delete(key, id, None);
            deleted(Retry::for_at_most(RETRY_TIMEOUT).run(delete).await.map(drop))?;
        }
        self.go_on()?;
        if there.journals.mentions > 0 {
            journal_items::in_history(&*self.containers.changes, &there.keys, true).await?;
        }
        if there.local.mentions > 0 {
            self.local(&there.keys, true).await?;
        }
        if there.archived.events > 0 {
            self.archived(true).await?;
        }
        Ok((there, live))
    }

    async fn delete_letters(&self, names: &[String]) -> Result<(), EraseError> {
        for name in names {
            self.go_on()?;
            self.request.dead_letters.delete(name).await?;
        }
        Ok(())
    }

    /// Waits for capture to deliver the delete, and for a replay to end that has read one of the letters. Capture may
    /// also heal the version before the delete; both have to be there to be erased.
    async fn settle(&self, is_deleted: bool) {
        let wait = self.request.settle;
        if wait.is_zero() {
            return;
        }
        let what = if is_deleted { "capture to deliver the delete" } else { "a replay of its dead letters to end" };
        let text = format!("waiting    {} s for {what} (--settle)", wait.as_secs());
        self.cx.progress.note(&text);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.cx.stop.cancelled() => {}
        }
    }

    fn go_on(&self) -> Result<(), EraseError> {
        if self.cx.stop.is_cancelled() { Err(EraseError::Interrupted) } else { Ok(()) }
    }
}

/// Whether it shows that there is a document with the key under which it was found: a tombstone without a key lies under
/// any.
fn is_of_its_key(version: &Version) -> bool {
    version.key.is_some() || !version.op.is_some_and(Op::is_tombstone)
}

/// An item that is already gone counts as deleted.
fn deleted(result: Result<(), Failure>) -> Result<(), EraseError> {
    match result {
        Err(f) if f.status != Status::NO_ITEM => Err(EraseError::Delete { context: f.context, status: f.status }),
        _ => Ok(()),
    }
}
