//! Reads an earlier restore from its journal, and the steps that take it back.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use futures::TryStreamExt as _;
use serde::Deserialize;

use super::items::{JournalEntry, JournalItems, PLAN, group_id, part_name, wrong};
use crate::{
    causes::chain,
    change::record,
    cosmos::Failure,
    history::reading::{HistoryReader, JournalItem, Journals},
    restore::{
        apply::{Outcome, StepResult},
        plan::{Action, Chosen, Step},
        plan_file::{BadPlan, Draft, Intake, ItemLine, Plan, PlanHead},
    },
};

/// A restore, according to its journal in the history.
#[derive(Debug)]
pub struct Past {
    /// The use of the plan.
    pub run: String,
    /// The plan, verified.
    pub plan: Plan,
    /// The last outcome of each document.
    pub outcomes: BTreeMap<(String, String), Outcome>,
    /// Whether every step that was begun is among the outcomes, with its mark when nothing more is known.
    pub marks: bool,
}

impl Past {
    /// Adds what the local journal of the same run says, if it exists: the outcomes that did not reach the history, and
    /// which steps were begun at all.
    pub fn complete(&mut self, folder: &Path) {
        let path = folder.join(self.plan.head.journal_name(&self.run));
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
/// When the service refuses, or the plan is incomplete.
pub async fn read(changes: &dyn HistoryReader, restore: &str) -> Result<Option<Past>, Failure> {
    let book = JournalItems { changes, id: restore };
    let parts = match book.get(PLAN).await? {
        None => return Ok(None),
        // Nothing was begun in this one of several containers.
        Some(JournalEntry::Plan { head, parts: 0, .. }) => {
            let plan = Draft::new(*head).and_then(Draft::seal).map_err(|e| wrong(&e.to_string()))?;
            return Ok(Some(Past { run: restore.to_owned(), plan, outcomes: BTreeMap::new(), marks: false }));
        }
        Some(JournalEntry::Plan { parts, .. }) => parts,
        Some(_) => return Err(wrong("the plan's item is not one")),
    };
    let mut tries = 1;
    let plan = loop {
        match plan_of(&book, parts).await? {
            Ok(plan) => break plan,
            // It may have been read while `erase` took lines out.
            Err(_) if tries < READINGS => tries += 1,
            Err(e) => return Err(wrong(&format!("the plan {}", chain(&e)))),
        }
    };
    let outcomes = outcomes(&outcome_groups(changes, restore).await?).map_err(|e| odd(&e))?;
    Ok(Some(Past { run: restore.to_owned(), plan, outcomes, marks: false }))
}

/// How often a plan is read before it is taken for damaged.
const READINGS: u32 = 3;

/// Reads a plan from its parts. Lines that an `erase` is taking out, or had not all taken out when it was killed, are
/// not read: the last part, which it rewrites first, says whose they are.
async fn plan_of(book: &JournalItems<'_>, parts: usize) -> Result<Result<Plan, BadPlan>, Failure> {
    let part = async |number: usize| match book.get(&part_name(number)).await? {
        Some(JournalEntry::Part { text, erasing }) => Ok((text, erasing)),
        _ => Err(wrong(&format!("part {number} of {parts} of the plan is not there"))),
    };
    let (last, erasing) = part(parts - 1).await?;
    let mut intake = match Intake::new() {
        Ok(intake) => intake,
        Err(e) => return Ok(Err(BadPlan::Copy(e))),
    };
    for number in 0..parts {
        let text = if number + 1 == parts { last.clone() } else { part(number).await?.0 };
        for line in text.lines().filter(|line| !is_leaving(line, &erasing)) {
            if let Err(bad) = intake.line(line, None) {
                return Ok(Err(bad));
            }
        }
    }
    Ok(intake.finish())
}

/// Whether a line of a plan is about a document with one of these digests.
fn is_leaving(line: &str, erasing: &[String]) -> bool {
    !erasing.is_empty() && serde_json::from_str::<ItemLine>(line).is_ok_and(|line| line.has_digest(erasing))
}

/// The items with a restore's outcomes, oldest first, not parsed yet.
async fn outcome_groups(changes: &dyn HistoryReader, restore: &str) -> Result<Vec<String>, Failure> {
    let group = group_id(restore);
    let mut pages = changes.journal_items(Journals::Kind("outcomes", Some(&group)));
    let mut groups = Vec::new();
    while let Some(page) = pages.try_next().await? {
        groups.extend(page.into_iter().map(|item| (item.id, item.text.unwrap_or_default())));
    }
    groups.sort();
    Ok(groups.into_iter().map(|(_, text)| text).collect())
}

/// The last outcome of each document.
fn outcomes(groups: &[String]) -> Result<BTreeMap<(String, String), Outcome>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Item {
        #[serde(rename = "_restore")]
        entry: Group,
    }
    #[derive(Deserialize)]
    struct Group {
        outcomes: Vec<Outcome>,
    }
    let items = groups.iter().map(|text| serde_json::from_str::<Item>(text));
    let items = items.collect::<Result<Vec<_>, _>>()?;
    Ok(by_item(items.into_iter().flat_map(|item| item.entry.outcomes)))
}

fn odd(error: &serde_json::Error) -> Failure {
    wrong(&format!("an item is not understood: {error}"))
}

/// A restore in the history, in one line.
#[derive(Debug, Clone)]
pub struct ListedRestore {
    /// Its id.
    pub id: String,
    /// Its plan's head; `None` when this program does not know its format.
    pub head: Option<PlanHead>,
    /// When this use of the plan began, epoch seconds, if noted.
    pub applied: Option<i64>,
    /// Documents that were to be written; `None` when this program cannot read that.
    pub planned: Option<u64>,
    /// Documents that were written; `None` as above.
    pub written: Option<usize>,
}

/// The restores of the history, oldest first.
///
/// # Errors
/// When the service refuses.
pub async fn list(changes: &dyn HistoryReader) -> Result<Vec<ListedRestore>, Failure> {
    #[derive(Deserialize)]
    struct Item {
        #[serde(rename = "_restore")]
        entry: Plan,
    }
    #[derive(Deserialize)]
    struct Plan {
        #[serde(default)]
        head: serde_json::Value,
        #[serde(default)]
        writes: serde_json::Value,
        #[serde(default)]
        applied: Option<i64>,
    }
    let plans: Vec<JournalItem> = changes.journal_items(Journals::Kind("plan", None)).try_concat().await?;
    let mut restores = Vec::new();
    for plan in plans {
        let Item { entry } = serde_json::from_str(&plan.text.unwrap_or_default()).map_err(|e| odd(&e))?;
        let id = plan.group.strip_prefix("restore~").unwrap_or(&plan.group).to_owned();
        let head = serde_json::from_value(entry.head).ok();
        // One that somebody else wrote must not hide the others.
        let outcomes = outcomes(&outcome_groups(changes, &id).await?).ok();
        let written = outcomes.map(|all| all.values().filter(|o| o.fate == StepResult::Done).count());
        restores.push(ListedRestore { id, head, applied: entry.applied, planned: entry.writes.as_u64(), written });
    }
    restores.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(restores)
}

/// The step that takes an outcome back; `None` when this run wrote nothing: what was already as planned is somebody
/// else's.
pub fn inverse(outcome: &Outcome) -> Option<Step> {
    if outcome.fate != StepResult::Done {
        return None;
    }
    let version = |etag: &String| Chosen {
        record_id: outcome.before_record.clone().unwrap_or_else(|| record::id_of_version(&outcome.id, etag)),
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
    Some(Step { version, live, ..Step::new(&outcome.id, outcome.pk.clone(), action) })
}

/// The last outcome of each document.
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
