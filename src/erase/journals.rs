//! Removes every mention of one item from the text of a restore's journal. The rest stays valid: its checksum is
//! calculated anew, unless it was wrong before. `journal_items` has the journals in the history, `journal_files` the
//! local ones.

use sha2::{Digest, Sha256};

use crate::{
    change::{key::ItemKey, record::hex},
    restore::plan_file::{EndLine, ItemLine, PlanTrailer},
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

/// Whose lines are taken out.
#[derive(Clone, Copy)]
pub(super) struct Leaving<'a> {
    /// The item, by each of its keys.
    pub(super) items: &'a [ItemKey],
    /// The digests of items of which another run has not taken out all lines yet.
    pub(super) pending: &'a [String],
}

impl<'a> From<&'a [ItemKey]> for Leaving<'a> {
    fn from(items: &'a [ItemKey]) -> Self {
        Self { items, pending: &[] }
    }
}

/// Reads a plan's text line by line: which lines stay, and its checksum before and after.
#[derive(Default)]
pub(super) struct JournalScan {
    before: Sha256,
    /// Without the lines that another run takes out: what it has written as the checksum.
    settled: Sha256,
    after: Sha256,
    /// Steps that stay.
    steps: usize,
    lines: usize,
    /// Lines of the item.
    pub(super) removed: u64,
    pub(super) end: Option<PlanTrailer>,
}

impl JournalScan {
    /// Whether the line stays.
    pub(super) fn line(&mut self, line: &str, leaving: Leaving<'_>) -> bool {
        if self.end.is_none()
            && let Ok(EndLine { end }) = serde_json::from_str(line)
        {
            self.end = Some(end);
            return true;
        }
        let Leaving { items, pending } = leaving;
        let (own, pending) = match serde_json::from_str::<ItemLine>(line) {
            Ok(line) => (line.is_about(items), line.has_digest(pending)),
            // Nobody knows whose line it is when it is cut off.
            Err(e) => (e.is_eof() && items.iter().any(|item| item.is_named_in(line.as_bytes())), false),
        };
        let stays = !own && !pending;
        self.removed += u64::from(own);
        if self.end.is_none() {
            let add = |hash: &mut Sha256| {
                hash.update(line.as_bytes());
                hash.update(b"\n");
            };
            add(&mut self.before);
            if !pending {
                add(&mut self.settled);
            }
            if stays {
                add(&mut self.after);
                // The first line is the head.
                self.steps += usize::from(self.lines > 0);
            }
            self.lines += 1;
        }
        stays
    }

    /// Reads several lines.
    pub(super) fn text(&mut self, text: &str, leaving: Leaving<'_>) {
        for line in text.lines() {
            self.line(line, leaving);
        }
    }

    /// The last line of what remains; `None` when the old one stays because there is none, or it was wrong already.
    pub(super) fn new_end(&self) -> Option<String> {
        let end = self.end.as_ref()?;
        let sum = |hash: &Sha256| hex(&hash.clone().finalize());
        let after = sum(&self.after);
        // Those without lines that are still there: a run writes the end first.
        let known = [&self.before, &self.settled].map(sum).contains(&end.sha256) || end.sha256 == after;
        let line = EndLine { end: PlanTrailer { steps: self.steps, sha256: after } };
        known.then(|| serde_json::to_string(&line).unwrap_or_default())
    }
}

/// The text without the lines that leave, with another last line if one is given.
pub(super) fn without(text: &str, leaving: Leaving<'_>, new_end: Option<&str>) -> String {
    let mut scan = JournalScan::default();
    let mut left = String::with_capacity(text.len());
    for line in text.lines() {
        let is_end = scan.end.is_none() && serde_json::from_str::<EndLine>(line).is_ok();
        if scan.line(line, leaving) {
            left.push_str(new_end.filter(|_| is_end).unwrap_or(line));
            left.push('\n');
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn item(id: &str, pk: serde_json::Value) -> [ItemKey; 1] {
        [ItemKey::parse_json(id, &pk).unwrap()]
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
            let mut scan = JournalScan::default();
            for line in text.lines() {
                scan.line(line, Leaving::from(&wanted[..]));
            }
            let rest = without(&text, Leaving::from(&wanted[..]), scan.new_end().as_deref());
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
        let mut scan = JournalScan::default();
        for line in &lines {
            scan.line(line, Leaving::from(&item("a", json!(["p"]))[..]));
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
                let mut scan = JournalScan::default();
                for line in parts.iter().flat_map(|part| part.lines()) {
                    scan.line(line, Leaving::from(&wanted[..]));
                }
                let end = scan.new_end();
                let last = parts.len() - 1;
                let order: Vec<usize> = std::iter::once(last).chain(0..last).collect();
                for place in order.into_iter().take(writes) {
                    parts[place] = without(&parts[place], Leaving::from(&wanted[..]), end.as_deref().filter(|_| place == last));
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
