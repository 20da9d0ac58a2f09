//! Removes every mention of one item from the journals of restores: those in the history here, local files in
//! `journal_files`. The rest of a journal stays valid: its checksum is calculated anew, unless it was wrong before.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{
    change::{
        key::{ItemKey, PartitionKey},
        record::{SYSTEM, hex, layout::key_of_other},
    },
    cosmos::{Failure, RETRY_TIMEOUT, Retry, Status},
    history::reading::{HistoryReader, Journals},
    restore::plan_file::{End, EndLine},
};

/// The mentions of an item in journals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalMentions {
    /// Journals that name it.
    pub journals: u64,
    /// Lines and outcomes that name it.
    pub mentions: u64,
}

impl JournalMentions {
    pub(super) fn add(&mut self, mentions: u64) {
        self.journals += u64::from(mentions > 0);
        self.mentions += mentions;
    }
}

/// Whether a step or an outcome concerns the item, by one of its keys.
fn is_about(id: &str, pk: &serde_json::Value, items: &[ItemKey]) -> bool {
    let mut same_id = items.iter().filter(|item| item.id == id).peekable();
    same_id.peek().is_some()
        && PartitionKey::parse(&pk.to_string()).is_ok_and(|key| same_id.any(|item| item.partition_key == key))
}

/// Reads a plan's text line by line: which lines stay, and its checksum before and after.
#[derive(Default)]
pub(super) struct Scan {
    before: Sha256,
    after: Sha256,
    /// Steps that stay.
    steps: usize,
    lines: usize,
    pub(super) removed: u64,
    pub(super) end: Option<End>,
}

impl Scan {
    /// Whether the line stays.
    pub(super) fn line(&mut self, line: &str, items: &[ItemKey]) -> bool {
        #[derive(Deserialize)]
        struct Named {
            id: String,
            pk: serde_json::Value,
        }
        if self.end.is_none()
            && let Ok(EndLine { end }) = serde_json::from_str(line)
        {
            self.end = Some(end);
            return true;
        }
        let stays = match serde_json::from_str::<Named>(line) {
            Ok(named) => !is_about(&named.id, &named.pk, items),
            // Nobody knows whose line it is when it is cut off.
            Err(e) => !(e.is_eof() && items.iter().any(|item| item.is_named_in(line.as_bytes()))),
        };
        self.removed += u64::from(!stays);
        if self.end.is_none() {
            let add = |hash: &mut Sha256| {
                hash.update(line.as_bytes());
                hash.update(b"\n");
            };
            add(&mut self.before);
            if stays {
                add(&mut self.after);
                // The first line is the head.
                self.steps += usize::from(self.lines > 0);
            }
            self.lines += 1;
        }
        stays
    }

    /// The last line of what remains; `None` when the old one stays because there is none, or it was wrong already.
    pub(super) fn new_end(&self) -> Option<String> {
        let end = self.end.as_ref()?;
        let sum = |hash: &Sha256| hex(&hash.clone().finalize());
        let (before, after) = (sum(&self.before), sum(&self.after));
        // The second one: an earlier run was killed after it had written the end.
        let known = end.sha256 == before || end.sha256 == after;
        let line = EndLine { end: End { steps: self.steps, sha256: after } };
        known.then(|| serde_json::to_string(&line).unwrap_or_default())
    }
}

/// The text without the lines about the item, with another last line if one is given.
fn without(text: &str, items: &[ItemKey], new_end: Option<&str>) -> String {
    let mut scan = Scan::default();
    let mut left = String::with_capacity(text.len());
    for line in text.lines() {
        let is_end = scan.end.is_none() && serde_json::from_str::<EndLine>(line).is_ok();
        if scan.line(line, items) {
            left.push_str(new_end.filter(|_| is_end).unwrap_or(line));
            left.push('\n');
        }
    }
    left
}

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
        let book = JournalItems { changes, group: &group };
        all.add(book.parts(&parts, items, remove).await? + book.outcomes(&outcomes, items, remove).await?);
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
}

impl JournalItems<'_> {
    async fn read(&self, id: &str) -> Result<Option<serde_json::Map<String, serde_json::Value>>, Failure> {
        let key = key_of_other(self.changes.key_paths(), self.group, id);
        let bytes = Retry::for_at_most(RETRY_TIMEOUT).run(|| self.changes.read(&key, id)).await?;
        bytes.map(|bytes| serde_json::from_str(&bytes).map_err(|e| wrong(&e.to_string()))).transpose()
    }

    async fn write(&self, id: &str, item: &serde_json::Map<String, serde_json::Value>) -> Result<(), Failure> {
        let key = key_of_other(self.changes.key_paths(), self.group, id);
        let mut own = item.clone();
        own.retain(|name, _| !SYSTEM.contains(&name.as_str()));
        let body = serde_json::Value::Object(own).to_string().into_bytes();
        Retry::for_at_most(RETRY_TIMEOUT).run(|| self.changes.upsert(&key, id, body.clone())).await.map(drop)
    }

    async fn text(&self, id: &str) -> Result<String, Failure> {
        let item = self.read(id).await?.unwrap_or_default();
        let text = item.get("_restore").and_then(|entry| entry.get("text")).and_then(serde_json::Value::as_str);
        Ok(text.unwrap_or_default().to_owned())
    }

    /// The plan's text. One part is in memory at a time.
    async fn parts(&self, ids: &[String], items: &[ItemKey], remove: bool) -> Result<u64, Failure> {
        let mut scan = Scan::default();
        let mut named = Vec::new();
        for id in ids {
            let before = scan.removed;
            for line in self.text(id).await?.lines() {
                scan.line(line, items);
            }
            if scan.removed > before {
                named.push(id);
            }
        }
        if scan.removed > 0 && remove {
            let end = scan.new_end();
            // The end first: if this is interrupted, the rest still leads to the same checksum.
            if let Some(last) = ids.last().filter(|_| end.is_some()) {
                self.rewrite(last, items, end.as_deref()).await?;
            }
            for id in named {
                if end.is_none() || Some(id) != ids.last() {
                    self.rewrite(id, items, None).await?;
                }
            }
        }
        Ok(scan.removed)
    }

    async fn rewrite(&self, id: &str, items: &[ItemKey], end: Option<&str>) -> Result<(), Failure> {
        let Some(mut stored) = self.read(id).await? else { return Ok(()) };
        if let Some(text) = stored.get_mut("_restore").and_then(|entry| entry.get_mut("text"))
            && let Some(old) = text.as_str()
        {
            *text = without(old, items, end).into();
        }
        self.write(id, &stored).await
    }

    async fn outcomes(&self, ids: &[String], items: &[ItemKey], remove: bool) -> Result<u64, Failure> {
        let mut mentions = 0;
        for id in ids {
            let Some(mut stored) = self.read(id).await? else { continue };
            let Some(outcomes) = stored
                .get_mut("_restore")
                .and_then(|entry| entry.get_mut("outcomes"))
                .and_then(serde_json::Value::as_array_mut)
            else {
                continue;
            };
            let all = outcomes.len();
            outcomes.retain(|outcome| !outcome["id"].as_str().is_some_and(|id| is_about(id, &outcome["pk"], items)));
            let (gone, left) = (all - outcomes.len(), outcomes.len());
            mentions += gone as u64;
            if gone == 0 || !remove {
                continue;
            }
            if left > 0 {
                self.write(id, &stored).await?;
                continue;
            }
            let key = key_of_other(self.changes.key_paths(), self.group, id);
            match Retry::for_at_most(RETRY_TIMEOUT).run(|| self.changes.delete(&key, id, None)).await {
                Err(f) if f.status == Status::NO_ITEM => {}
                other => drop(other?),
            }
        }
        Ok(mentions)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn item(id: &str, pk: serde_json::Value) -> [ItemKey; 1] {
        [ItemKey { id: id.into(), partition_key: PartitionKey::parse(&pk.to_string()).unwrap() }]
    }

    fn sum(lines: &[String]) -> String {
        hex(&Sha256::digest(lines.iter().map(|l| format!("{l}\n")).collect::<String>().as_bytes()))
    }

    fn plan(steps: &[(&str, serde_json::Value)]) -> Vec<String> {
        let mut lines = vec![json!({"_plan": {"id": "a"}}).to_string()];
        lines.extend(steps.iter().map(|(id, pk)| json!({"id": id, "pk": pk, "action": "restore"}).to_string()));
        let end = json!({"_end": {"steps": steps.len(), "sha256": sum(&lines)}}).to_string();
        lines.push(end);
        lines
    }

    #[test]
    fn only_the_item_itself_is_taken_out() {
        let steps =
            [("a", json!(["p"])), ("a", json!(["q"])), ("b", json!(["p"])), ("a", json!([7.0])), ("a", json!([]))];
        let text = plan(&steps).join("\n");
        for (wanted, left) in [(item("a", json!(["p"])), 4), (item("a", json!([7])), 4), (item("c", json!(["p"])), 5)] {
            let mut scan = Scan::default();
            for line in text.lines() {
                scan.line(line, &wanted);
            }
            let rest = without(&text, &wanted, scan.new_end().as_deref());
            let lines: Vec<String> = rest.lines().map(String::from).collect();
            assert_eq!(lines.len(), left + 2, "{wanted:?}");
            let end: EndLine = serde_json::from_str(&lines[left + 1]).unwrap();
            assert_eq!((end.end.steps, end.end.sha256), (left, sum(&lines[..=left])), "{wanted:?}");
        }
    }

    #[test]
    fn a_checksum_that_was_wrong_stays_wrong() {
        let mut lines = plan(&[("a", json!(["p"])), ("b", json!(["p"]))]);
        lines[2] = lines[2].replace("restore", "delete");
        let mut scan = Scan::default();
        for line in &lines {
            scan.line(line, &item("a", json!(["p"])));
        }
        assert_eq!(scan.new_end(), None);
    }

    proptest! {
        /// Whatever was rewritten before a kill, the next run arrives at the same journal.
        #[test]
        fn a_rewrite_that_was_interrupted_is_finished(
            names in proptest::collection::vec("[ab]", 1..12), cuts in proptest::collection::vec(1..4usize, 1..6), done in 0..6usize,
        ) {
            let steps: Vec<(&str, serde_json::Value)> = names.iter().map(|n| (n.as_str(), json!(["p"]))).collect();
            let lines = plan(&steps);
            let wanted = item("a", json!(["p"]));
            // Parts of a few lines each, in the order of rewriting: the last one first.
            let mut parts: Vec<String> = Vec::new();
            let (mut rest, mut sizes) = (&lines[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (part, left) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
                parts.push(part.join("\n") + "\n");
                rest = left;
            }
            let run = |parts: &mut Vec<String>, writes: usize| {
                let mut scan = Scan::default();
                for line in parts.iter().flat_map(|part| part.lines()) {
                    scan.line(line, &wanted);
                }
                let end = scan.new_end();
                let last = parts.len() - 1;
                let order: Vec<usize> = std::iter::once(last).chain(0..last).collect();
                for place in order.into_iter().take(writes) {
                    parts[place] = without(&parts[place], &wanted, end.as_deref().filter(|_| place == last));
                }
            };
            let mut expected = parts.clone();
            run(&mut expected, usize::MAX);
            let mut interrupted = parts;
            run(&mut interrupted, done);
            run(&mut interrupted, usize::MAX);
            prop_assert_eq!(&interrupted, &expected);
            let left: Vec<String> = expected.concat().lines().map(String::from).collect();
            let end: EndLine = serde_json::from_str(left.last().unwrap()).unwrap();
            prop_assert_eq!(end.end.sha256, sum(&left[..left.len() - 1]));
            prop_assert!(!expected.concat().contains("\"a\",\"pk\""));
        }
    }
}
