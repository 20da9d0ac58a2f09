//! The journal of a restore: its plan before the first write, its outcomes as they come. Kept as a local file and with
//! the history, so that a restore can be undone from another machine, and after a kill.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    apply::{Outcome, StepResult},
    plan::{Action, Chosen, Step},
    plan_file::{Head, Intake, Plan},
    price::write_ru,
};
use crate::{
    change::{
        edit::quote,
        key::{KeyValue, PartitionKey},
        record::{self, ORIGINAL_ID},
    },
    cosmos::{Container, Failure, Param, RETRY_TIMEOUT, Retry},
};

/// Bytes of plan text in one item of the history, a line more or less. Escapes included it stays below 64 KB, beyond
/// which a byte costs more (published prices).
const PART: usize = 48 * 1024;
/// Parts that are written at the same time.
const PARTS_IN_FLIGHT: usize = 8;
/// About how long an outcome is.
const OUTCOME: usize = 400;
/// Outcomes in one item of the history.
const GROUP: usize = 100;
/// Groups of outcomes that may wait to be written into the history.
const WAITING: usize = 4;

/// What a journal item in the history holds, under `_restore`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Entry {
    /// A part of the plan's text: whole lines.
    Part { text: String },
    /// The plan's head, once all parts are there. Without it nothing was restored.
    Plan {
        head: Box<Head>,
        parts: usize,
        writes: usize,
        /// When this use of the plan began, epoch seconds; journals of before it was noted had one use a plan.
        #[serde(default)]
        applied: Option<i64>,
    },
    /// Outcomes.
    Outcomes { outcomes: Vec<Outcome> },
}

/// A journal that is being written.
pub struct Journal {
    file: File,
    path: PathBuf,
    /// Where this run's outcomes begin in the file.
    begun: u64,
    group: Vec<Outcome>,
    sender: mpsc::Sender<Vec<Outcome>>,
    writer: JoinHandle<Result<(), Failure>>,
}

impl Journal {
    /// Writes the plan, to disk and into the history. Only then may anything be restored. `run` names this use of the
    /// plan: each has a journal of its own.
    ///
    /// # Errors
    /// When either cannot be written.
    pub async fn begin(plan: &Plan, run: &str, changes: &Container, folder: &Path) -> Result<Self, String> {
        let path = folder.join(format!("{run}.jsonl"));
        let (file, begun) = open(&path, plan).map_err(|e| format!("write journal {}: {e}", path.display()))?;
        let book = JournalItems { changes: changes.clone(), id: run.to_owned() };
        let wrong = |e: io::Error| format!("read the plan: {e}");
        let written: Vec<()> = stream::iter(parts(plan).enumerate())
            .map(|(number, text)| {
                let book = &book;
                async move {
                    let entry = Entry::Part { text: text.map_err(wrong)? };
                    book.put(&part_name(number), &entry).await.map_err(|e| e.to_string())
                }
            })
            .buffer_unordered(PARTS_IN_FLIGHT)
            .try_collect()
            .await?;
        let entry = Entry::Plan {
            head: Box::new(plan.head.clone()),
            parts: written.len(),
            writes: plan.totals.writes,
            applied: Some(crate::surroundings::now().timestamp()),
        };
        book.put(PLAN, &entry).await.map_err(|e| e.to_string())?;
        let (sender, mut groups) = mpsc::channel::<Vec<Outcome>>(WAITING);
        let writer = tokio::spawn(async move {
            while let Some(outcomes) = groups.recv().await {
                let name =
                    format!("outcomes-{}-{:08x}", crate::surroundings::now().timestamp_millis(), rand::random::<u32>());
                book.put(&name, &Entry::Outcomes { outcomes }).await?;
            }
            Ok(())
        });
        Ok(Self { file, path, begun, group: Vec::new(), sender, writer })
    }

    /// Where the local file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that steps are begun, on disk: what has neither this mark nor an outcome was not done by this run.
    pub fn intents(&self) -> io::Result<Intents> {
        Ok(Intents { file: self.file.try_clone()? })
    }

    /// Notes an outcome, on disk at once, in the history soon. False when the history does not take it any more:
    /// [`Journal::finish`] says why.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn note(&mut self, outcome: Outcome) -> io::Result<bool> {
        let mut line = serde_json::to_string(&outcome).unwrap_or_default();
        line.push('\n');
        self.file.write_all(line.as_bytes())?;
        self.group.push(outcome);
        if self.group.len() < GROUP {
            return Ok(true);
        }
        Ok(self.sender.send(std::mem::take(&mut self.group)).await.is_ok())
    }

    /// Writes what is waiting; everything is in the history when this returns.
    ///
    /// # Errors
    /// When the service refuses.
    pub async fn finish(self) -> Result<(), String> {
        // Best effort on top of what is in the page cache already.
        let _ = self.file.sync_all();
        if !self.group.is_empty() {
            let _ = self.sender.send(self.group).await;
        }
        drop(self.sender);
        match self.writer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(failure.to_string()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// What was noted so far in this run.
    pub fn noted(&self) -> Done {
        Done { path: self.path.clone(), begun: self.begun }
    }
}

/// Where steps are noted before they are done.
#[derive(Debug)]
pub struct Intents {
    file: File,
}

impl Intents {
    /// Notes that a step is begun.
    ///
    /// # Errors
    /// When the file cannot be written: then it must not be begun.
    pub fn note(&self, step: &Step) -> io::Result<()> {
        let begun = Outcome {
            id: step.id.clone(),
            pk: step.pk.clone(),
            action: step.action,
            fate: StepResult::Begun,
            before: step.live.clone(),
            before_record: None,
            after: None,
            message: None,
        };
        let mut line = serde_json::to_string(&begun).unwrap_or_default();
        line.push('\n');
        (&self.file).write_all(line.as_bytes())
    }
}

/// The plan's text in pieces of whole lines.
fn parts(plan: &Plan) -> impl Iterator<Item = io::Result<String>> + '_ {
    let mut lines = BufReader::new(plan.text()).lines();
    std::iter::from_fn(move || {
        let mut text = String::new();
        while text.len() < PART {
            match lines.next() {
                Some(Ok(line)) => {
                    text.push_str(&line);
                    text.push('\n');
                }
                Some(Err(e)) => return Some(Err(e)),
                None => break,
            }
        }
        (!text.is_empty()).then_some(Ok(text))
    })
}

/// Request units that the journal of a plan is expected to cost in the history.
pub fn forecast(plan: &Plan) -> f64 {
    let items = |bytes: usize, size: usize| (bytes / size) as f64 * write_ru(size) + write_ru(bytes % size);
    let size = usize::try_from(plan.size()).unwrap_or(usize::MAX);
    write_ru(1024) + items(size, PART) + items(plan.totals.writes * OUTCOME, GROUP * OUTCOME)
}

/// A run's outcomes in the local file.
#[derive(Debug, Clone)]
pub struct Done {
    path: PathBuf,
    begun: u64,
}

impl Done {
    /// The outcomes, in the order they came.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn outcomes(&self) -> io::Result<impl Iterator<Item = io::Result<Outcome>>> {
        let mut file = File::open(&self.path)?;
        file.seek(io::SeekFrom::Start(self.begun))?;
        let outcomes = BufReader::new(file).lines().map(|line| serde_json::from_str(&line?).map_err(io::Error::from));
        Ok(outcomes
            .filter(|outcome: &io::Result<Outcome>| !outcome.as_ref().is_ok_and(|o| o.fate == StepResult::Begun)))
    }
}

/// A restore's items in the history.
struct JournalItems {
    changes: Container,
    id: String,
}

impl JournalItems {
    fn place(&self, name: &str) -> (PartitionKey, String, String) {
        let group = group_id(&self.id);
        let id = format!("{group}~{name}");
        (key(&self.changes, &group, &id), group, id)
    }

    async fn put(&self, name: &str, entry: &Entry) -> Result<(), Failure> {
        let (key, group, id) = self.place(name);
        let entry = serde_json::to_string(entry).unwrap_or_default();
        let body = format!("{{\"id\":{},\"{ORIGINAL_ID}\":{},\"_restore\":{entry}}}", quote(&id), quote(&group));
        Retry::for_at_most(RETRY_TIMEOUT)
            .run(|| self.changes.upsert(&key, &id, body.clone().into_bytes()))
            .await
            .map(drop)
    }

    async fn get(&self, name: &str) -> Result<Option<Entry>, Failure> {
        #[derive(Deserialize)]
        struct Item {
            #[serde(rename = "_restore")]
            entry: Entry,
        }
        let (key, _, id) = self.place(name);
        let Some(text) = Retry::for_at_most(RETRY_TIMEOUT).run(|| self.changes.read(&key, &id)).await? else {
            return Ok(None);
        };
        serde_json::from_slice(&text).map(|item: Item| Some(item.entry)).map_err(|e| wrong(&format!("{id}: {e}")))
    }
}

/// Name of the item with the plan's head.
const PLAN: &str = "plan";

fn part_name(part: usize) -> String {
    format!("part-{part:05}")
}

fn wrong(problem: &str) -> Failure {
    Failure::invalid("read journal".into(), problem.to_owned())
}

/// All journal items of a restore share this, in the place of a document's id.
fn group_id(restore: &str) -> String {
    format!("restore~{restore}")
}

/// Whether a journal item is the one with the plan's head, without which there is no journal.
pub fn is_head(id: &str) -> bool {
    id.rsplit_once('~').is_some_and(|(_, name)| name == PLAN)
}

/// The partition key of a journal item in the history; `group` is what stands in the place of a document's id.
pub fn key(changes: &Container, group: &str, id: &str) -> PartitionKey {
    let part = |path: &Vec<String>| match path.as_slice() {
        [name] if name == ORIGINAL_ID => KeyValue::String(group.to_owned()),
        [name] if name == "id" => KeyValue::String(id.to_owned()),
        _ => KeyValue::Undefined,
    };
    PartitionKey(changes.key_paths().segments().iter().map(part).collect())
}

/// The local file, with the plan in it, and where what comes next begins.
fn open(path: &Path, plan: &Plan) -> io::Result<(File, u64)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    // A plan names documents: nobody else on the machine may read it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // What it leads to is somebody else's file, which would be cut off.
    if path.is_symlink() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is a symbolic link"));
    }
    let mut file = options.open(path)?;
    if file.metadata()?.len() < plan.size() {
        // New, or left by a run that was killed here: nothing had been restored then.
        file.set_len(0)?;
        io::copy(&mut plan.text().take(plan.size()), &mut file)?;
        file.sync_all()?;
    }
    let mut end = file.metadata()?.len();
    if !ends_a_line(path, end)? {
        // A run was killed within a line. It is not needed: the history and the documents tell what was done.
        file.write_all(b"\n")?;
        end += 1;
    }
    Ok((file, end))
}

fn ends_a_line(path: &Path, end: u64) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(io::SeekFrom::Start(end.saturating_sub(1)))?;
    let mut last = [0];
    Ok(file.read(&mut last)? == 0 || last == *b"\n")
}

/// A restore as its journal in the history tells it.
#[derive(Debug)]
pub struct Past {
    /// Which use of the plan.
    pub run: String,
    /// The plan, checked.
    pub plan: Plan,
    /// The outcome of each document, the last one it had.
    pub outcomes: BTreeMap<(String, String), Outcome>,
    /// Whether every step that was begun is in the outcomes, with its mark when nothing more is known of it.
    pub marks: bool,
}

impl Past {
    /// Adds what the local journal of the same run tells, when it is there: the outcomes that did not come into the
    /// history any more, and which steps were begun at all.
    pub fn complete(&mut self, folder: &Path) {
        let path = folder.join(format!("{}.jsonl", self.run));
        let Ok(file) = File::open(path) else { return };
        let mut ended = false;
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            if !ended {
                ended = line.starts_with("{\"_end\"");
                continue;
            }
            let Ok(outcome) = serde_json::from_str::<Outcome>(&line) else { continue };
            keep_last(&mut self.outcomes, outcome);
        }
        self.marks = ended;
    }
}

/// Reads the journal of a restore from the history; `None` when there is none.
///
/// # Errors
/// When the service refuses, or the plan is not whole.
pub async fn read(changes: &Container, restore: &str) -> Result<Option<Past>, Failure> {
    let book = JournalItems { changes: changes.clone(), id: restore.to_owned() };
    let parts = match book.get(PLAN).await? {
        None => return Ok(None),
        Some(Entry::Plan { parts, .. }) => parts,
        Some(_) => return Err(wrong("the plan's item is not one")),
    };
    let mut intake = Intake::new().map_err(|e| wrong(&e.to_string()))?;
    for part in 0..parts {
        let Some(Entry::Part { text }) = book.get(&part_name(part)).await? else {
            return Err(wrong(&format!("part {part} of {parts} of the plan is not there")));
        };
        for line in text.lines() {
            intake.line(line, None).map_err(|e| wrong(&format!("the plan {e}")))?;
        }
    }
    let plan = intake.finish().map_err(|e| wrong(&format!("the plan {e}")))?;
    let outcomes = outcomes(&outcome_groups(changes, restore).await?).map_err(|e| odd(&e))?;
    Ok(Some(Past { run: restore.to_owned(), plan, outcomes, marks: false }))
}

/// The items with a restore's outcomes, oldest first, not yet understood.
async fn outcome_groups(changes: &Container, restore: &str) -> Result<Vec<Box<RawValue>>, Failure> {
    #[derive(Deserialize)]
    struct Row {
        id: String,
    }
    let sql = "SELECT c.id, c._restore.outcomes AS outcomes FROM c \
               WHERE c._originalId = @id AND c._restore.kind = 'outcomes'";
    let group = group_id(restore);
    let params = [Param::new("id", group.as_str())];
    // They share a partition, unless the container is keyed by the record's id.
    let mut part = key(changes, &group, "");
    let ids = changes.key_paths().segments().iter().position(|path| path.as_slice() == ["id"]);
    part.0.truncate(ids.unwrap_or(part.0.len()));
    let mut pages = changes.query(sql, &params, Some(&part).filter(|part| !part.0.is_empty()), None).await?;
    let mut groups = Vec::new();
    while let Some(page) = pages.next().await {
        for group in page?.documents {
            let row: Row = serde_json::from_str(group.get()).map_err(|e| odd(&e))?;
            groups.push((row.id, group));
        }
    }
    groups.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(groups.into_iter().map(|(_, group)| group).collect())
}

/// The outcome of each document, the last one it had.
fn outcomes(groups: &[Box<RawValue>]) -> Result<BTreeMap<(String, String), Outcome>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Row {
        outcomes: Vec<Outcome>,
    }
    let rows = groups.iter().map(|group| serde_json::from_str::<Row>(group.get()));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(by_item(rows.into_iter().flat_map(|row| row.outcomes)))
}

fn odd(error: &serde_json::Error) -> Failure {
    wrong(&format!("an item is not understood: {error}"))
}

/// A restore of the history in a line.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its plan's head; `None`: of a format that this program does not know.
    pub head: Option<Head>,
    /// When this use of the plan began, epoch seconds, when it is noted.
    pub applied: Option<i64>,
    /// Documents that were to be written; `None`: the journal does not say so in a way that this program knows.
    pub planned: Option<u64>,
    /// Documents that were written; `None` as above.
    pub written: Option<usize>,
}

/// The restores of the history, oldest first.
///
/// # Errors
/// When the service refuses.
pub async fn list(changes: &Container) -> Result<Vec<Listed>, Failure> {
    #[derive(Deserialize)]
    struct Row {
        item: String,
        #[serde(default)]
        head: serde_json::Value,
        #[serde(default)]
        writes: serde_json::Value,
        #[serde(default)]
        applied: Option<i64>,
    }
    let sql = "SELECT c._originalId AS item, c._restore.head AS head, c._restore.writes AS writes, \
               c._restore.applied AS applied FROM c \
               WHERE STARTSWITH(c._originalId, 'restore~') AND c._restore.kind = 'plan'";
    let mut restores = Vec::new();
    for text in changes.query_all(sql, &[], None).await? {
        let row: Row = serde_json::from_str(text.get()).map_err(|e| odd(&e))?;
        let id = row.item.strip_prefix("restore~").unwrap_or(&row.item).to_owned();
        let head = serde_json::from_value(row.head).ok();
        // One that somebody else wrote must not hide the others.
        let outcomes = outcomes(&outcome_groups(changes, &id).await?).ok();
        let written = outcomes.map(|all| all.values().filter(|o| o.fate == StepResult::Done).count());
        restores.push(Listed { id, head, applied: row.applied, planned: row.writes.as_u64(), written });
    }
    restores.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(restores)
}

/// The step that takes an outcome back; `None` when this run wrote nothing: what was up to date already is somebody
/// else's.
pub fn inverse(outcome: &Outcome) -> Option<Step> {
    if outcome.fate != StepResult::Done {
        return None;
    }
    let version = |etag: &String| Chosen {
        record_id: record::id_of_version(&outcome.id, etag),
        op: None,
        ts: 0,
        lsn: None,
        via: None,
        archived: None,
    };
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
        saved: false,
        sha256: None,
        changed: Vec::new(),
        ru: 0.0,
        notes: Vec::new(),
    })
}

/// The outcome of each document, the last one it had.
fn by_item(outcomes: impl IntoIterator<Item = Outcome>) -> BTreeMap<(String, String), Outcome> {
    let mut last = BTreeMap::new();
    outcomes.into_iter().for_each(|outcome| keep_last(&mut last, outcome));
    last
}

fn keep_last(last: &mut BTreeMap<(String, String), Outcome>, outcome: Outcome) {
    let place = (outcome.id.clone(), outcome.pk.to_string());
    // What was written stays written, whatever a later run found; and a mark says less than any outcome.
    let keeps =
        last.get(&place).is_some_and(|known| known.fate == StepResult::Done || outcome.fate == StepResult::Begun);
    if !keeps {
        last.insert(place, outcome);
    }
}
