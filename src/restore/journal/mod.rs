//! The journal of a restore: its plan before the first write, its outcomes as they arrive. It is kept in a local file
//! and with the history, so that a restore can be undone from another machine, and after a kill.

mod items;
mod past;

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeSeq as _},
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

use self::items::{JournalEntry, JournalItems, PLAN, part_name};
pub use self::{
    items::is_head,
    past::{ListedRestore, Past, inverse, list, read},
};
use super::{
    apply::{Outcome, StepResult},
    plan::Step,
    plan_file::{Plan, PlanHead},
    price::history_item_ru,
};
use crate::clock::Clock;
use crate::{cosmos::Failure, follow::Locked, history::reading::HistoryReader};

/// Bytes of plan text in one item of the history, give or take a line. With escapes it stays below 64 KB, beyond which
/// a byte costs more (published prices).
const PART: usize = 48 * 1024;
/// Parts that are written concurrently.
const PARTS_IN_FLIGHT: usize = 8;
/// The approximate length of an outcome.
const OUTCOME: usize = 400;
/// Outcomes in one item of the history.
const GROUP: usize = 100;
/// Groups of outcomes that may wait to be written to the history.
const WAITING: usize = 4;

/// Why a journal cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The local file.
    #[error("write journal {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The plan that is written into it.
    #[error("read the plan")]
    Plan(#[source] io::Error),
    /// The history refuses it.
    #[error(transparent)]
    History(Failure),
    /// The task that writes to the history ended unexpectedly.
    #[error(transparent)]
    Writer(JoinError),
}

/// A journal that is being written. Its file is locked: `erase` replaces journals as a whole, and what is added
/// afterwards would be lost.
pub struct Journal {
    file: Locked,
    path: PathBuf,
    /// Where this run's outcomes begin in the file.
    begun: u64,
    group: Vec<Outcome>,
    /// Outcomes that the file did not accept, of the steps in progress when it failed.
    unwritten: Vec<Outcome>,
    sender: mpsc::Sender<Vec<Outcome>>,
    writer: JoinHandle<Result<(), Failure>>,
}

impl Journal {
    /// Writes the plan to disk and to the history. Only then may anything be restored. `run` names this use of the
    /// plan: each has a journal of its own.
    ///
    /// # Errors
    /// When either cannot be written.
    pub async fn begin(
        plan: &Plan,
        run: &str,
        changes: Arc<dyn HistoryReader>,
        folder: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, JournalError> {
        let path = folder.join(plan.head.journal_name(run));
        let (file, begun) = open(&path, plan).map_err(|source| JournalError::File { path: path.clone(), source })?;
        let book = JournalItems { changes: &*changes, id: run };
        let written: Vec<()> = stream::iter(parts(plan).enumerate())
            .map(|(number, text)| {
                let book = &book;
                async move {
                    let entry = JournalEntry::Part { text: text.map_err(JournalError::Plan)?, erasing: Vec::new() };
                    book.put(&part_name(number), &entry).await.map_err(JournalError::History)
                }
            })
            .buffer_unordered(PARTS_IN_FLIGHT)
            .try_collect()
            .await?;
        let entry = JournalEntry::Plan {
            head: Box::new(plan.head.clone()),
            parts: written.len(),
            writes: plan.totals.writes,
            applied: Some(clock.now().timestamp()),
        };
        book.put(PLAN, &entry).await.map_err(JournalError::History)?;
        let (sender, mut groups) = mpsc::channel::<Vec<Outcome>>(WAITING);
        let run = run.to_owned();
        let writer = tokio::spawn(async move {
            let book = JournalItems { changes: &*changes, id: &run };
            while let Some(outcomes) = groups.recv().await {
                let name = format!("outcomes-{}-{:08x}", clock.now().timestamp_millis(), rand::random::<u32>());
                book.put(&name, &JournalEntry::Outcomes { outcomes }).await?;
            }
            Ok(())
        });
        Ok(Self { file, path, begun, group: Vec::new(), unwritten: Vec::new(), sender, writer })
    }

    /// Where the local file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes on disk that steps are begun: a step with neither this mark nor an outcome was not done by this run.
    pub fn intents(&self) -> io::Result<Intents> {
        Ok(Intents { file: self.file.try_clone()? })
    }

    /// Notes an outcome, on disk at once and in the history soon. Returns false when the history no longer accepts it:
    /// [`Journal::finish`] says why.
    ///
    /// # Errors
    /// When the file cannot be written; the history gets it all the same.
    pub async fn note(&mut self, outcome: Outcome) -> io::Result<bool> {
        let added = add_line(&self.file, &outcome);
        if added.is_err() {
            self.unwritten.push(outcome.clone());
        }
        self.group.push(outcome);
        let is_taken = self.group.len() < GROUP || self.sender.send(std::mem::take(&mut self.group)).await.is_ok();
        added.map(|()| is_taken)
    }

    /// Writes the waiting lines; when this returns, everything is in the history.
    ///
    /// # Errors
    /// When the service refuses.
    pub async fn finish(self) -> Result<(), JournalError> {
        // Best effort, beyond what is already in the page cache.
        let _ = self.file.sync_all();
        if !self.group.is_empty() {
            let _ = self.sender.send(self.group).await;
        }
        drop(self.sender);
        match self.writer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(JournalError::History(failure)),
            Err(e) => Err(JournalError::Writer(e)),
        }
    }

    /// The notes of this run so far.
    pub fn noted(&self) -> RunOutcomes {
        RunOutcomes { path: self.path.clone(), begun: self.begun, unwritten: self.unwritten.clone() }
    }
}

/// Notes in a history that a restore of several containers is in progress, before any of it is written anywhere, so
/// that it can be undone from any of them, wherever it was killed. [`Journal::begin`] replaces it with the plan.
///
/// # Errors
/// When the history refuses.
pub(super) async fn announce(
    head: &PlanHead,
    run: &str,
    changes: &dyn HistoryReader,
    clock: &dyn Clock,
) -> Result<(), JournalError> {
    let (head, applied) = (Box::new(head.clone()), Some(clock.now().timestamp()));
    let entry = JournalEntry::Plan { head, parts: 0, writes: 0, applied };
    JournalItems { changes, id: run }.put(PLAN, &entry).await.map_err(JournalError::History)
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
        add_line(&self.file, &begun)
    }
}

/// Adds a complete line or nothing: the rest of a line on a full disk would be read as a part of the next.
fn add_line(mut file: &File, outcome: &Outcome) -> io::Result<()> {
    let mut line = serde_json::to_string(outcome).unwrap_or_default();
    line.push('\n');
    let before = file.metadata()?.len();
    let added = file.write_all(line.as_bytes());
    if added.is_err() {
        file.set_len(before)?;
    }
    added
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

/// The estimated request units of a plan's journal in the history.
pub fn forecast(plan: &Plan) -> f64 {
    let item = |bytes| history_item_ru(bytes, 0);
    let items = |bytes: usize, size: usize| (bytes / size) as f64 * item(size) + item(bytes % size);
    let size = usize::try_from(plan.size()).unwrap_or(usize::MAX);
    item(1024) + items(size, PART) + items(plan.totals.writes * OUTCOME, GROUP * OUTCOME)
}

/// A run's outcomes: those in the local file, and those that it did not accept.
#[derive(Debug, Clone)]
pub struct RunOutcomes {
    path: PathBuf,
    begun: u64,
    unwritten: Vec<Outcome>,
}

impl RunOutcomes {
    /// The outcomes, in the order in which they arrived.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn outcomes(&self) -> io::Result<impl Iterator<Item = io::Result<Outcome>> + '_> {
        let mut file = File::open(&self.path)?;
        file.seek(io::SeekFrom::Start(self.begun))?;
        let outcomes = BufReader::new(file).lines().map(|line| serde_json::from_str(&line?).map_err(io::Error::from));
        let ended = outcomes
            .filter(|outcome: &io::Result<Outcome>| !outcome.as_ref().is_ok_and(|o| o.fate == StepResult::Begun));
        Ok(ended.chain(self.unwritten.iter().cloned().map(Ok)))
    }
}

/// An array of the outcomes, read one by one.
impl Serialize for RunOutcomes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut array = serializer.serialize_seq(None)?;
        for outcome in self.outcomes().map_err(S::Error::custom)? {
            array.serialize_element(&outcome.map_err(S::Error::custom)?)?;
        }
        array.end()
    }
}

/// The local file, with the plan in it, and where further lines begin.
fn open(path: &Path, plan: &Plan) -> io::Result<(Locked, u64)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // A link leads to somebody else's file, which would be truncated.
    if path.is_symlink() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is a symbolic link"));
    }
    let mut file = Locked::growing(path)?;
    if file.metadata()?.len() < plan.size() {
        // New, or left by a run that was killed here: nothing had been restored then.
        file.set_len(0)?;
        io::copy(&mut plan.text().take(plan.size()), &mut *file)?;
        file.sync_all()?;
    }
    let mut end = file.metadata()?.len();
    if !ends_a_line(path, end)? {
        // A run was killed within a line. The line is not needed: the history and the documents tell what was done.
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
