//! How a plan is shown, confirmed, carried out and reported: what `restore` and `undo` share.

use std::{io, path::PathBuf, pin::pin, time::Instant};

use clap::Args;
use futures::StreamExt as _;
use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeSeq as _},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    CliError, Exit,
    connection::ru_limit,
    output::{self, Format, Progress, Rows, note},
};
use crate::{
    archive::versions::Texts,
    change::time::PointInTime,
    cosmos::{Cosmos, RuLimiter},
    history::scan::Containers,
    restore::{
        apply::{Applier, StepResult},
        journal::{self, Done, Journal},
        plan::Action,
        plan_file::Plan,
        removals,
    },
};

/// Unchanged documents that the table names; the rest is counted.
const SHOWN_KEPT: usize = 20;
/// Rows of the table; the rest is counted.
const SHOWN: usize = 1000;
/// How long what a plan says of the history is relied on, seconds: records may be pruned.
const FRESH: i64 = 600;

/// How a plan is applied: flags of `restore` and `undo`
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Overwrite documents that were changed after the plan was made (what they were is saved first)
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Refuse to write more documents than this
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max: usize,
    /// Refuse to delete more documents than this; of a restore 0, unless --delete-newer names a number; of an undo as many
    /// as the restore made
    #[arg(long, value_name = "N")]
    max_deletes: Option<usize>,
    /// Documents in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) concurrency: u16,
    /// At most this many request units a second, on average, while planning and while applying
    #[arg(long, value_name = "RU/S", value_parser = ru_limit)]
    pub(super) ru_limit: Option<f64>,
    /// Folder of the local journals
    #[arg(long, value_name = "DIR", default_value = ".cosmos-rewind")]
    journal: PathBuf,
    /// How to print the plan and the outcomes
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

impl ApplyArgs {
    /// Folder of the local journals.
    pub(super) fn journal(&self) -> &std::path::Path {
        &self.journal
    }
}

pub(super) fn shown(at: PointInTime) -> String {
    if at == PointInTime::END { "now".into() } else { at.to_string() }
}

/// Prints the plan: the whole value for programs, what matters for people. For programs it is part of the report when
/// one follows.
pub(super) fn show_plan(plan: &Plan, format: Format, alone: bool) -> Result<(), CliError> {
    if matches!(format, Format::Json | Format::Jsonl) {
        #[derive(Serialize)]
        struct Alone<'a> {
            plan: &'a Plan,
        }
        return if alone { output::json(&Alone { plan }) } else { Ok(()) };
    }
    let mut rows = Rows::stdout(format, &["action", "id", "pk", "version", "changed", "notes"]);
    let (mut kept, mut rest) = (0, 0_u64);
    for (number, step) in plan.steps().enumerate() {
        let step = step.map_err(|e| unreadable(&e))?;
        if format == Format::Table {
            kept += usize::from(step.action == Action::Keep);
            if number >= SHOWN || (step.action == Action::Keep && kept > SHOWN_KEPT) {
                rest += 1;
                continue;
            }
        }
        let key = step.item().map_or_else(|_| step.pk.to_string(), |i| i.partition_key.to_string());
        let version = step.version.as_ref().filter(|v| v.ts > 0).map(|v| {
            let via = v.via.as_ref().map_or_else(String::new, |via| format!(", via {via}"));
            format!("{} {}{via}", PointInTime::from_epoch(v.ts), v.op.map_or("legacy", crate::change::Op::as_str))
        });
        rows.push(&[
            json!(step.action),
            json!(step.id),
            json!(key),
            json!(version),
            json!(few(&step.changed, format)),
            json!(step.notes.join("; ")),
        ])?;
    }
    rows.finish()?;
    if rest > 0 {
        note(&format!("... and {}; --format csv shows all", output::count_of(rest, "document")));
    }
    let count = |action| plan.totals.count(action);
    let at = plan.head.at.map_or_else(|| "before the restore".to_owned(), |t| shown(PointInTime::from_epoch(t)));
    let part = plan.head.feed_range.as_ref().map_or_else(String::new, |part| format!(" (part {part})"));
    note(&format!(
        "plan       {}{part} to {at}: {} restore, {} recreate, {} delete, {} keep, {} unknown; about {:.0} RU",
        plan.head.place.target,
        count(Action::Restore),
        count(Action::Recreate),
        count(Action::Delete),
        count(Action::Keep),
        count(Action::Unknown),
        forecast(plan)
    ));
    if plan.head.beyond {
        let ends = match plan.head.frontier {
            Some(until) => format!("the history ends at {}", PointInTime::from_epoch(until)),
            None => "nothing tells how far the history reaches".to_owned(),
        };
        note(&format!(
            "warning    {ends}, before the point in time: what was written in between is not known, and nothing is deleted or made again that it may be about (--wait waits for capture)"
        ));
    }
    Ok(())
}

/// How a plan that is only shown ends.
pub(super) fn planned_exit(plan: &Plan) -> Exit {
    if plan.totals.count(Action::Unknown) == 0 && !plan.head.beyond { Exit::Done } else { Exit::Incomplete }
}

/// Refuses a plan that does more than it may.
fn guard(plan: &Plan, how: &ApplyArgs) -> Result<(), CliError> {
    let (writes, deletes) = (plan.totals.writes, plan.totals.count(Action::Delete));
    let most = how.max_deletes.or(plan.head.max_deletes);
    // An undo deletes what the restore made itself, by its etag.
    let most = most.unwrap_or(if plan.head.undoes.is_some() { usize::MAX } else { 0 });
    if deletes > most {
        return Err(CliError::usage(
            format!(
                "{} would be deleted, more than --max-deletes {most}",
                output::count_of(deletes as u64, "document")
            ),
            format!("look at the plan (--dry-run); --max-deletes {deletes} allows it"),
        ));
    }
    if writes > how.max {
        return Err(CliError::usage(
            format!("{} would be written, more than --max {}", output::count_of(writes as u64, "document"), how.max),
            format!("look at the plan (--dry-run); --max {writes} allows it"),
        ));
    }
    Ok(())
}

/// Changed paths: for people the first few.
fn few(paths: &[String], format: Format) -> String {
    const FEW: usize = 4;
    match paths.len().checked_sub(FEW) {
        Some(more) if more > 0 && format == Format::Table => format!("{} and {more} more", paths[..FEW].join(", ")),
        _ => paths.join(", "),
    }
}

/// One use of a plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use<'a> {
    /// What its journal is called, and its undo.
    pub run: &'a str,
    /// Whether the plan was made by this very command, so that what it says of the history may be relied on.
    pub made_now: bool,
}

/// Asks, journals, writes and reports.
pub(super) async fn apply(
    plan: &Plan,
    this: Use<'_>,
    containers: &Containers,
    texts: Option<&Texts>,
    how: &ApplyArgs,
    cosmos: &Cosmos,
    started: Instant,
) -> Result<Exit, CliError> {
    let Use { run, made_now } = this;
    let unknown = plan.totals.count(Action::Unknown);
    let writes = plan.totals.writes;
    if writes == 0 {
        report(plan, run, None, how.format)?;
        output::spent("nothing to write", cosmos, started);
        return Ok(planned_exit(plan));
    }
    guard(plan, how)?;
    let target = &plan.head.place.target;
    let what = format!(
        "{} of {}/{target} will be written.",
        output::count_of(writes as u64, "document"),
        plan.head.place.database,
    );
    output::confirm(&what, target, how.yes)?;
    // What was removed from the history since the plan was made may be what the plan calls saved.
    let removed = removals::read(&containers.changes).await?.at.unwrap_or(i64::MIN);

    let pace = RuLimiter::new(cosmos.meter(), how.ru_limit);
    let mut journal = Journal::begin(plan, run, &containers.changes, &how.journal).await.map_err(|e| CliError {
        message: e,
        hint: Some("without a journal nothing is written; --journal names its folder".into()),
        exit: Exit::Failed,
    })?;
    let stop = CancellationToken::new();
    let watcher = tokio::spawn({
        let stop = stop.clone();
        async move {
            if crate::surroundings::interrupted().await {
                stop.cancel();
            }
        }
    });
    let begun = containers.target.cosmos().now().await.timestamp();
    let applier = Applier {
        containers,
        begun: Some(begun),
        manner: &plan.head.manner,
        force: how.force,
        fresh: made_now && begun - plan.head.made < FRESH && removed < plan.head.made,
        texts,
        pace,
    };
    let progress = Progress::new("restoring", Some(writes as u64));
    let mut fates = Fates::default();
    let mut unwritten: Option<String> = None;
    let intents = journal.intents().map_err(|e| CliError::failed(format!("the journal cannot be written: {e}")))?;
    let begun = plan.writing_steps().map(|step| step.and_then(|step| intents.note(&step).map(|()| step)));
    let mut outcomes = pin!(applier.outcomes(begun, how.concurrency.into(), &stop));
    while let Some(outcome) = outcomes.next().await {
        progress.inc(1);
        let noted = match outcome {
            Ok(outcome) => {
                fates.add(outcome.fate);
                journal.note(outcome).await.map_err(|e| format!("the journal could not be written: {e}"))
            }
            Err(e) => Err(unreadable(&e).message),
        };
        match noted {
            Ok(true) => {}
            // Nothing more is begun that could not be undone.
            Ok(false) => stop.cancel(),
            Err(e) => {
                stop.cancel();
                unwritten.get_or_insert(e);
            }
        }
    }
    progress.finish();
    watcher.abort();
    let path = journal.path().to_owned();
    let noted = journal.noted();
    if let Err(e) = journal.finish().await {
        unwritten.get_or_insert(format!("the journal could not be written: {e}"));
    }
    report(plan, run, Some(&noted), how.format)?;
    let not_begun = writes - fates.sum();
    let used = applier.pace.used();
    note(&format!("applied    {:.1} RU, {:.1} were expected", used, forecast(plan)));
    output::spent(
        &format!(
            "{} written, {} already so, {} conflicts, {} failed, {not_begun} not begun, {unknown} unknown",
            fates.done, fates.already, fates.conflict, fates.failed
        ),
        cosmos,
        started,
    );
    if fates.done > 0 {
        note(&format!("undo       cosmos-rewind undo {run}   (journal {})", path.display()));
    }
    if let Some(message) = unwritten {
        return Err(CliError { message, hint: Some("no further document was begun".into()), exit: Exit::Incomplete });
    }
    let whole = fates.conflict + fates.failed + not_begun + unknown == 0 && !plan.head.beyond;
    Ok(if whole { Exit::Done } else { Exit::Incomplete })
}

/// Request units that applying is expected to cost: the documents, and the journal unless nothing is written.
fn forecast(plan: &Plan) -> f64 {
    if plan.totals.writes == 0 { 0.0 } else { plan.totals.forecast + journal::forecast(plan) }
}

/// How many steps came to what.
#[derive(Default)]
struct Fates {
    done: usize,
    already: usize,
    conflict: usize,
    failed: usize,
}

impl Fates {
    fn add(&mut self, fate: StepResult) {
        *match fate {
            StepResult::Done => &mut self.done,
            // Never an outcome of a run that came to its end.
            StepResult::Begun => return,
            StepResult::Already => &mut self.already,
            StepResult::Conflict => &mut self.conflict,
            StepResult::Failed => &mut self.failed,
        } += 1;
    }

    fn sum(&self) -> usize {
        self.done + self.already + self.conflict + self.failed
    }
}

fn unreadable(e: &io::Error) -> CliError {
    CliError::failed(format!("the plan cannot be read any more: {e}"))
}

/// Outcomes: all of them for programs, for people only what was not done.
fn report(plan: &Plan, run: &str, noted: Option<&Done>, format: Format) -> Result<(), CliError> {
    if matches!(format, Format::Json | Format::Jsonl) {
        #[derive(Serialize)]
        struct Report<'a> {
            restore: &'a str,
            plan: &'a Plan,
            outcomes: Outcomes<'a>,
        }
        return output::json(&Report { restore: run, plan, outcomes: Outcomes(noted) });
    }
    let Some(noted) = noted else { return Ok(()) };
    let mut rows: Option<Rows> = None;
    for outcome in noted.outcomes().map_err(|e| unreadable(&e))? {
        let o = outcome.map_err(|e| unreadable(&e))?;
        if format != Format::Csv && !matches!(o.fate, StepResult::Conflict | StepResult::Failed) {
            continue;
        }
        let rows = rows.get_or_insert_with(|| Rows::stdout(format, &["outcome", "id", "pk", "action", "message"]));
        rows.push(&[json!(o.fate), json!(o.id), json!(o.pk.to_string()), json!(o.action), json!(o.message)])?;
    }
    rows.map_or(Ok(()), Rows::finish)
}

/// An array of them, read from the journal one by one.
struct Outcomes<'a>(Option<&'a Done>);

impl Serialize for Outcomes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut array = serializer.serialize_seq(None)?;
        if let Some(done) = self.0 {
            for outcome in done.outcomes().map_err(S::Error::custom)? {
                array.serialize_element(&outcome.map_err(S::Error::custom)?)?;
            }
        }
        array.end()
    }
}
