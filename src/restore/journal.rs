//! The journal of a restore: its plan before the first write, its outcomes as they come. Kept as a local file and with
//! the history, so that a restore can be undone from another machine, and after a kill.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    apply::{Fate, Outcome},
    plan::{Action, Chosen, Plan, Step},
};
use crate::{
    change::{
        edit::quote,
        key::{KeyValue, PartitionKey},
        record::{self, ORIGINAL_ID},
    },
    cosmos::{Container, Failure, PATIENCE, Param, Retry},
};

/// Bytes of plan text in one item of the history: far below the service's 2 MB, escapes included.
const PART: usize = 256 * 1024;
/// Outcomes that are collected before they are written to the history.
const GROUP: usize = 100;

/// What a journal item in the history holds, under `_restore`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Entry {
    /// A part of the plan's text.
    Plan { part: usize, of: usize, text: String },
    /// Outcomes.
    Outcomes { outcomes: Vec<Outcome> },
}

/// A journal that is being written.
pub struct Journal {
    changes: Container,
    id: String,
    file: File,
    path: PathBuf,
    waiting: Vec<Outcome>,
}

impl Journal {
    /// Writes the plan, to disk and into the history. Only then may anything be restored.
    ///
    /// # Errors
    /// When either cannot be written.
    pub async fn begin(plan: &Plan, changes: &Container, folder: &Path) -> Result<Self, String> {
        let path = folder.join(format!("{}.jsonl", plan.id));
        let text = plan.to_file();
        let file = open(&path, &text).map_err(|e| format!("write journal {}: {e}", path.display()))?;
        let journal = Self { changes: changes.clone(), id: plan.id.clone(), file, path, waiting: Vec::new() };
        let parts = split(&text, PART);
        for (part, piece) in parts.iter().enumerate() {
            let entry = Entry::Plan { part, of: parts.len(), text: (*piece).to_owned() };
            journal.put(&format!("plan-{part:05}"), &entry).await.map_err(|e| e.to_string())?;
        }
        Ok(journal)
    }

    /// Where the local file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes an outcome, on disk at once.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note(&mut self, outcome: &Outcome) -> io::Result<()> {
        let mut line = serde_json::to_string(outcome).unwrap_or_default();
        line.push('\n');
        self.file.write_all(line.as_bytes())?;
        self.waiting.push(outcome.clone());
        Ok(())
    }

    /// Writes what is waiting into the history; all of it with `last`.
    ///
    /// # Errors
    /// When the service refuses.
    pub async fn flush(&mut self, last: bool) -> Result<(), Failure> {
        if last {
            // Best effort on top of what is in the page cache already.
            let _ = self.file.sync_all();
        }
        while self.waiting.len() >= GROUP || (last && !self.waiting.is_empty()) {
            let outcomes: Vec<Outcome> = self.waiting.drain(..self.waiting.len().min(GROUP)).collect();
            let name = format!("outcomes-{}-{:08x}", chrono::Utc::now().timestamp_millis(), rand::random::<u32>());
            self.put(&name, &Entry::Outcomes { outcomes }).await?;
        }
        Ok(())
    }

    async fn put(&self, name: &str, entry: &Entry) -> Result<(), Failure> {
        let group = group_id(&self.id);
        let id = format!("{group}~{name}");
        let entry = serde_json::to_string(entry).unwrap_or_default();
        let body = format!("{{\"id\":{},\"{ORIGINAL_ID}\":{},\"_restore\":{entry}}}", quote(&id), quote(&group));
        let key = key(&self.changes, &group, &id);
        Retry::for_at_most(PATIENCE).run(|| self.changes.upsert(&key, &id, body.clone().into_bytes())).await.map(drop)
    }
}

/// All journal items of a restore share this, in the place of a document's id.
fn group_id(restore: &str) -> String {
    format!("restore~{restore}")
}

fn key(changes: &Container, group: &str, id: &str) -> PartitionKey {
    let part = |path: &Vec<String>| match path.as_slice() {
        [name] if name == ORIGINAL_ID => KeyValue::String(group.to_owned()),
        [name] if name == "id" => KeyValue::String(id.to_owned()),
        _ => KeyValue::Undefined,
    };
    PartitionKey(changes.key_paths().segments().iter().map(part).collect())
}

fn open(path: &Path, first: &str) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = !path.exists();
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    // A plan names documents: nobody else on the machine may read it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    if new {
        file.write_all(first.as_bytes())?;
        file.sync_all()?;
    }
    Ok(file)
}

/// Pieces of at most `size` bytes, cut between characters.
fn split(text: &str, size: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while rest.len() > size {
        let mut at = size;
        while !rest.is_char_boundary(at) {
            at -= 1;
        }
        let (part, tail) = rest.split_at(at);
        parts.push(part);
        rest = tail;
    }
    parts.push(rest);
    parts
}

/// A restore as its journal in the history tells it.
#[derive(Debug, Clone)]
pub struct Past {
    /// The plan's file text, to be checked by [`Plan::from_file`].
    pub plan: String,
    /// The last outcome of each document.
    pub outcomes: Vec<Outcome>,
}

/// Reads the journal of a restore from the history; `None` when there is none.
///
/// # Errors
/// When the service refuses, or a part of the plan is missing.
pub async fn read(changes: &Container, restore: &str) -> Result<Option<Past>, Failure> {
    let params = [Param::new("id", group_id(restore))];
    let sql = "SELECT c.id, c._restore AS entry FROM c WHERE c._originalId = @id AND IS_DEFINED(c._restore)";
    let mut items: Vec<(String, Entry)> = Vec::new();
    for text in changes.query_all(sql, &params, None).await? {
        #[derive(Deserialize)]
        struct Row {
            id: String,
            entry: Entry,
        }
        let row: Row = serde_json::from_str(text.get())
            .map_err(|e| Failure::invalid("read journal".into(), format!("an item is not understood: {e}")))?;
        items.push((row.id, row.entry));
    }
    if items.is_empty() {
        return Ok(None);
    }
    items.sort_by(|a, b| a.0.cmp(&b.0));
    let mut plan = String::new();
    let (mut parts, mut of_all) = (0, 0);
    let mut outcomes: Vec<Outcome> = Vec::new();
    for (_, entry) in items {
        match entry {
            Entry::Plan { part, of, text } => {
                if part == parts {
                    plan.push_str(&text);
                    parts += 1;
                }
                of_all = of;
            }
            Entry::Outcomes { outcomes: more } => outcomes.extend(more),
        }
    }
    if parts == 0 || parts != of_all {
        return Err(Failure::invalid(
            "read journal".into(),
            format!("{parts} of {of_all} parts of the plan are there"),
        ));
    }
    Ok(Some(Past { plan, outcomes }))
}

/// The step that takes an outcome back; `None` when nothing was written.
pub fn inverse(outcome: &Outcome) -> Option<Step> {
    if !matches!(outcome.fate, Fate::Done | Fate::Already) {
        return None;
    }
    let version =
        |etag: &String| Chosen { record_id: record::id_of_version(&outcome.id, etag), op: None, ts: 0, lsn: None };
    let (action, version, live) = match (outcome.action, &outcome.before, &outcome.after) {
        (Action::Delete, Some(before), _) => (Action::Recreate, Some(version(before)), None),
        (_, Some(before), Some(after)) if before != after => {
            (Action::Restore, Some(version(before)), Some(after.clone()))
        }
        (_, None, Some(after)) => (Action::Delete, None, Some(after.clone())),
        _ => return None,
    };
    Some(Step {
        id: outcome.id.clone(),
        pk: outcome.pk.clone(),
        action,
        version,
        live,
        sha256: None,
        changed: Vec::new(),
        ru: 0.0,
        notes: Vec::new(),
    })
}

/// The outcome of each document, the last one it had.
pub fn by_item(outcomes: Vec<Outcome>) -> std::collections::BTreeMap<(String, String), Outcome> {
    let mut last = std::collections::BTreeMap::new();
    for outcome in outcomes {
        let place = (outcome.id.clone(), outcome.pk.to_string());
        // What was written stays written, whatever a later run found.
        let known: Option<&Outcome> = last.get(&place);
        if known.is_none_or(|k| k.fate != Fate::Done) {
            last.insert(place, outcome);
        }
    }
    last
}
