//! The items of a journal in the history.

use serde::{Deserialize, Serialize};

use crate::{
    change::{
        edit::quote,
        key::PartitionKey,
        record::{ORIGINAL_ID, layout::key_of_other},
    },
    cosmos::{Failure, RETRY_TIMEOUT, Retry},
    history::reading::HistoryReader,
    restore::{apply::Outcome, plan_file::PlanHead},
};

/// The content of a journal item in the history, under `_restore`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum JournalEntry {
    /// A part of the plan's text: whole lines.
    Part {
        text: String,
        /// In the last part: the digests of documents whose lines `erase` is taking out of all parts. The checksum is
        /// that of the text without them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        erasing: Vec<String>,
    },
    /// The plan's head, written once all parts are there. Without it nothing was restored; nor with no parts, for one
    /// of several containers.
    Plan {
        head: Box<PlanHead>,
        parts: usize,
        writes: usize,
        /// When this use of the plan began, epoch seconds; older journals do not say, and had one use per plan.
        #[serde(default)]
        applied: Option<i64>,
    },
    /// Outcomes.
    Outcomes { outcomes: Vec<Outcome> },
}

/// A restore's items in the history.
pub(super) struct JournalItems<'a> {
    pub(super) changes: &'a dyn HistoryReader,
    pub(super) id: &'a str,
}

impl JournalItems<'_> {
    fn place(&self, name: &str) -> (PartitionKey, String, String) {
        let group = group_id(self.id);
        let id = format!("{group}~{name}");
        (key_of_other(self.changes.key_paths(), &group, &id), group, id)
    }

    pub(super) async fn put(&self, name: &str, entry: &JournalEntry) -> Result<(), Failure> {
        let (key, group, id) = self.place(name);
        let entry = serde_json::to_string(entry).unwrap_or_default();
        let body = format!("{{\"id\":{},\"{ORIGINAL_ID}\":{},\"_restore\":{entry}}}", quote(&id), quote(&group));
        Retry::for_at_most(RETRY_TIMEOUT)
            .run(|| self.changes.upsert(&key, &id, body.clone().into_bytes()))
            .await
            .map(drop)
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<JournalEntry>, Failure> {
        #[derive(Deserialize)]
        struct Item {
            #[serde(rename = "_restore")]
            entry: JournalEntry,
        }
        let (key, _, id) = self.place(name);
        let Some(text) = Retry::for_at_most(RETRY_TIMEOUT).run(|| self.changes.read(&key, &id)).await? else {
            return Ok(None);
        };
        serde_json::from_str(&text).map(|item: Item| Some(item.entry)).map_err(|e| wrong(&format!("{id}: {e}")))
    }
}

/// Name of the item with the plan's head.
pub(super) const PLAN: &str = "plan";

pub(super) fn part_name(part: usize) -> String {
    format!("part-{part:05}")
}

pub(super) fn wrong(problem: &str) -> Failure {
    Failure::invalid("read journal".into(), problem.to_owned())
}

/// All journal items of a restore share this in place of a document's id.
pub(super) fn group_id(restore: &str) -> String {
    format!("restore~{restore}")
}

/// Whether a journal item is the one with the plan's head, without which there is no journal.
pub fn is_head(id: &str) -> bool {
    id.rsplit_once('~').is_some_and(|(_, name)| name == PLAN)
}
