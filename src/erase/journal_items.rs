//! Removes every mention of one item from the journals in the history. Other runs may erase other items at the same
//! time, or may have been killed: every write is conditional, and the item with a journal's checksum says of which
//! items not all lines have been taken out yet.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::journals::{JournalMentions, JournalScan, Leaving, without};
use crate::{
    change::{
        key::ItemKey,
        record::{SYSTEM, layout::key_of_other},
    },
    cosmos::{Disposition, Failure, RETRY_TIMEOUT, Retry, Status},
    history::reading::{HistoryReader, Journals},
    restore::plan_file::ItemLine,
};

/// The digests of the items of which a run has not taken out all lines yet; only while it works, or after it was
/// killed.
const ERASING: &str = "erasing";
/// How often a write is tried again because somebody else was quicker.
const TRIES: u32 = 100;

/// The journals of the history that name the item, by one of its keys; with `remove` they are rewritten without it.
///
/// # Errors
/// When the service refuses, or an item of a journal cannot be parsed.
pub async fn in_history(
    changes: &dyn HistoryReader,
    items: &[ItemKey],
    remove: bool,
) -> Result<JournalMentions, Failure> {
    let mut groups: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    let mut pages = changes.journal_items(Journals::Index);
    while let Some(page) = pages.next().await {
        for item in page? {
            let (parts, outcomes) = groups.entry(item.group).or_default();
            match item.kind.as_deref() {
                Some("part") => parts.push(item.id),
                Some("outcomes") => outcomes.push(item.id),
                _ => {}
            }
        }
    }
    let mut all = JournalMentions::default();
    for (group, (mut parts, outcomes)) in groups {
        parts.sort();
        let book = JournalItems { changes, group: &group, items };
        let mut mentions = 0;
        if let Some((last, others)) = parts.split_last() {
            mentions += book.parts(last, others, remove).await?;
        }
        for id in &outcomes {
            mentions += book.outcomes(id, remove).await?;
        }
        all.add(mentions);
    }
    Ok(all)
}

fn wrong(problem: &str) -> Failure {
    Failure::invalid("read journal".into(), format!("an item is not understood: {problem}"))
}

/// The items of one journal.
struct JournalItems<'a> {
    changes: &'a dyn HistoryReader,
    group: &'a str,
    items: &'a [ItemKey],
}

/// An item of a journal, and the etag that it has.
struct Stored {
    etag: String,
    own: Map<String, Value>,
}

impl Stored {
    fn entry(&mut self, name: &str) -> Option<&mut Value> {
        self.own.get_mut("_restore").and_then(|entry| entry.get_mut(name))
    }

    fn text(&mut self) -> &str {
        self.entry("text").and_then(|text| text.as_str()).unwrap_or_default()
    }

    fn set_text(&mut self, new: String) {
        if let Some(text) = self.entry("text") {
            *text = new.into();
        }
    }

    fn erasing(&mut self) -> Vec<String> {
        let digests = self.entry(ERASING).and_then(|digests| digests.as_array());
        digests.map(|all| all.iter().filter_map(Value::as_str).map(String::from).collect()).unwrap_or_default()
    }

    fn set_erasing(&mut self, digests: Vec<String>) {
        let Some(Value::Object(entry)) = self.own.get_mut("_restore") else { return };
        if digests.is_empty() {
            entry.remove(ERASING);
        } else {
            entry.insert(ERASING.to_owned(), digests.into());
        }
    }
}

impl JournalItems<'_> {
    async fn read(&self, id: &str) -> Result<Option<Stored>, Failure> {
        let key = key_of_other(self.changes.key_paths(), self.group, id);
        let text = Retry::for_at_most(RETRY_TIMEOUT).run(|| self.changes.read(&key, id)).await?;
        let Some(text) = text else { return Ok(None) };
        let mut own: Map<String, Value> = serde_json::from_str(&text).map_err(|e| wrong(&e.to_string()))?;
        let etag = own.get("_etag").and_then(Value::as_str).unwrap_or_default().to_owned();
        own.retain(|name, _| !SYSTEM.contains(&name.as_str()));
        Ok(Some(Stored { etag, own }))
    }

    /// Returns false when somebody else has changed the item: it has to be read again.
    async fn write(&self, id: &str, stored: Stored) -> Result<bool, Failure> {
        let key = key_of_other(self.changes.key_paths(), self.group, id);
        let (body, etag) = (Value::Object(stored.own).to_string().into_bytes(), stored.etag);
        let written = || self.changes.replace(&key, id, body.clone(), &etag);
        is_written(Retry::for_at_most(RETRY_TIMEOUT).run(written).await)
    }

    /// Changes an item until nobody is quicker; `change` returns false when nothing is to be written.
    async fn change(&self, id: &str, mut change: impl FnMut(&mut Stored) -> bool) -> Result<(), Failure> {
        for _ in 0..TRIES {
            let Some(mut stored) = self.read(id).await? else { return Ok(()) };
            if !change(&mut stored) || self.write(id, stored).await? {
                return Ok(());
            }
        }
        Err(keeps_changing())
    }

    /// The plan's text, whose last part has its checksum.
    async fn parts(&self, last: &str, others: &[String], remove: bool) -> Result<u64, Failure> {
        let digests: Vec<String> = self.items.iter().map(ItemKey::digest).collect();
        for _ in 0..TRIES {
            // It is read first: whoever changes another part has changed this one before.
            let Some(mut end) = self.read(last).await? else { return Ok(0) };
            let pending = end.erasing();
            let leaving = Leaving { items: self.items, pending: &pending };
            let mut scan = JournalScan::default();
            // One part is in memory at a time.
            for id in others {
                if let Some(mut stored) = self.read(id).await? {
                    scan.text(stored.text(), leaving);
                }
            }
            scan.text(end.text(), leaving);
            let is_own = |digest: &String| digests.contains(digest);
            let mentions = scan.removed + u64::from(pending.iter().any(is_own));
            if mentions == 0 || !remove {
                return Ok(mentions);
            }
            let new_end = scan.new_end();
            let text = without(end.text(), leaving, new_end.as_deref());
            end.set_text(text);
            // The end first: if this is interrupted, the next run knows what is still to be taken out.
            let mut now = pending.clone();
            now.extend(digests.iter().filter(|digest| !pending.contains(digest)).cloned());
            end.set_erasing(if others.is_empty() { Vec::new() } else { now });
            if !self.write(last, end).await? {
                continue;
            }
            for id in others {
                self.change(id, |stored| {
                    let text = without(stored.text(), leaving, None);
                    let is_other = text != stored.text();
                    stored.set_text(text);
                    is_other
                })
                .await?;
            }
            let is_done = |digest: &String| is_own(digest) || pending.contains(digest);
            self.change(last, |stored| {
                let (before, mut left) = (stored.erasing(), stored.erasing());
                left.retain(|digest| !is_done(digest));
                let is_other = left.len() < before.len();
                stored.set_erasing(left);
                is_other
            })
            .await?;
            return Ok(mentions);
        }
        Err(keeps_changing())
    }

    async fn outcomes(&self, id: &str, remove: bool) -> Result<u64, Failure> {
        let mut mentions = 0;
        for _ in 0..TRIES {
            let Some(mut stored) = self.read(id).await? else { return Ok(mentions) };
            let Some(Value::Array(outcomes)) = stored.entry("outcomes") else { return Ok(mentions) };
            let all = outcomes.len();
            outcomes.retain(|one| !ItemLine::deserialize(one).is_ok_and(|line| line.is_about(self.items)));
            let (gone, left) = (all - outcomes.len(), outcomes.len());
            // When an answer was lost, they are gone already.
            mentions = mentions.max(gone as u64);
            if gone == 0 || !remove {
                return Ok(mentions);
            }
            let is_done = if left > 0 {
                self.write(id, stored).await?
            } else {
                let key = key_of_other(self.changes.key_paths(), self.group, id);
                let deleted = || self.changes.delete(&key, id, Some(&stored.etag));
                is_written(Retry::for_at_most(RETRY_TIMEOUT).run(deleted).await)?
            };
            if is_done {
                return Ok(mentions);
            }
        }
        Err(keeps_changing())
    }
}

/// Whether a conditional write took place; not when somebody else has changed or removed the item.
fn is_written<T>(result: Result<T, Failure>) -> Result<bool, Failure> {
    match result {
        Ok(_) => Ok(true),
        Err(f) if f.disposition == Disposition::PreconditionFailed || f.status == Status::NO_ITEM => Ok(false),
        Err(f) => Err(f),
    }
}

fn keeps_changing() -> Failure {
    Failure::invalid("rewrite journal".into(), "others keep changing it: run the command again".into())
}
