//! A plan, and its outcome.

use std::{io, time::Instant};

use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    change::{key::PartitionKey, time::PointInTime},
    console::{CliError, Exit, Ui},
    cosmos::Cosmos,
    figures::count_of,
    format::{Format, Rows},
    restore::{
        Fields, Report, Results, apply::StepResult, forecast, journal::RunOutcomes, plan::Action, plan_file::Plan,
    },
};

/// How many unchanged documents the table names; the rest is counted.
const SHOWN_KEPT: usize = 20;
/// How many rows the table has; the rest is counted.
const SHOWN: usize = 1000;

pub(crate) fn shown(at: PointInTime) -> String {
    if at == PointInTime::END { "now".into() } else { at.to_string() }
}

/// A key as a person types it.
fn key_text(pk: &Value) -> String {
    PartitionKey::parse_json(pk).map_or_else(|_| pk.to_string(), |key| key.to_string())
}

/// A plan, and how it is shown.
#[derive(Clone, Copy)]
pub(crate) struct PlanView<'a> {
    pub(crate) plan: &'a Plan,
    /// The fields that a revert concerns.
    pub(crate) fields: Option<&'a Fields>,
    pub(crate) format: Format,
}

/// Prints the plan: the whole value for programs, what matters for people. For programs it becomes part of the report
/// when one follows.
pub(crate) fn show_plan(ui: &Ui, shown: PlanView<'_>, alone: bool) -> Result<(), CliError> {
    let PlanView { plan, fields, format } = shown;
    if matches!(format, Format::Json | Format::Jsonl) {
        #[derive(Serialize)]
        struct Alone<'a> {
            plan: &'a Plan,
            #[serde(skip_serializing_if = "Option::is_none")]
            fields: Option<&'a Fields>,
        }
        return if alone { ui.json(&Alone { plan, fields }) } else { Ok(()) };
    }
    let mut rows = ui.rows(format, &["action", "id", "pk", "version", "changed", "notes"]);
    let (mut kept, mut rest) = (0, 0_u64);
    for (number, step) in plan.steps().enumerate() {
        let step = step.map_err(unreadable)?;
        if format == Format::Table {
            kept += usize::from(step.action == Action::Keep);
            if number >= SHOWN || (step.action == Action::Keep && kept > SHOWN_KEPT) {
                rest += 1;
                continue;
            }
        }
        let version = step.version.as_ref().filter(|v| v.ts > 0).map(|v| {
            let via = v.via.as_ref().map_or_else(String::new, |via| format!(", via {via}"));
            format!("{} {}{via}", PointInTime::from_epoch(v.ts), v.op.map_or("legacy", crate::change::Op::as_str))
        });
        rows.push(&[
            json!(step.action),
            json!(step.id),
            json!(key_text(&step.pk)),
            json!(version),
            json!(few(&step.changed, format)),
            json!(step.notes.join("; ")),
        ])?;
    }
    rows.finish()?;
    if rest > 0 {
        ui.note(&format!("... and {}; --format csv shows all", count_of(rest, "document")));
    }
    if let Some(fields) = fields.filter(|_| format == Format::Table) {
        show_fields(ui, fields, plan.head.fork)?;
    }
    let count = |action| plan.totals.count(action);
    let time = PointInTime::from_epoch;
    let at = match (&plan.head.takes_back, plan.head.at) {
        (Some(writes), _) => format!("without the writes from {} to {}", time(writes.from), time(writes.to)),
        (None, Some(at)) if plan.head.fork => format!("with what was changed in the fork of {}", time(at)),
        (None, None) if plan.head.fork => "as it is: nothing was changed in the fork".to_owned(),
        (None, Some(at)) => format!("to {}", self::shown(time(at))),
        (None, None) if plan.head.per_document => "to what the list says".to_owned(),
        (None, None) if plan.head.undoes.is_none() => "to the version that is named".to_owned(),
        (None, None) => "to before the restore".to_owned(),
    };
    let part = plan.head.feed_range.as_ref().map_or_else(String::new, |part| format!(" (part {part})"));
    ui.note(&format!(
        "plan       {}{part} {at}: {} restore, {} recreate, {} delete, {} keep, {} unknown; about {:.0} RU",
        plan.head.place.target,
        count(Action::Restore),
        count(Action::Recreate),
        count(Action::Delete),
        count(Action::Keep),
        count(Action::Unknown),
        forecast(plan)
    ));
    if plan.totals.conflicts > 0 {
        let documents = count_of(plan.totals.conflicts as u64, "document");
        let (who, how) = if plan.head.fork {
            (
                "somebody changed the same in the live ones",
                "--prefer live is content with that, --prefer fork takes the fork's",
            )
        } else {
            ("later writes changed the same fields", "--prefer ours is content with that, --prefer base puts them back")
        };
        ui.note(&format!("conflicts  in {documents}, where {who}: these stay as they are ({how})"));
    }
    let frontier = plan.head.frontier.map(time);
    match (plan.head.beyond, frontier) {
        (false, Some(until)) => ui.note(&format!("frontier   the history is complete up to {until}")),
        (false, None) => {}
        (true, _) => {
            let ends = frontier.map_or_else(
                || "nothing tells how far the history reaches".to_owned(),
                |until| format!("the history ends at {until}"),
            );
            ui.note(&format!(
                "warning    {ends}, before the point in time: what was written in between is not known, and nothing is deleted or made again that it may be about (--wait waits for capture)"
            ));
        }
    }
    Ok(())
}

/// How a command ends that only shows its plan.
pub(crate) fn planned_exit(plan: &Plan) -> Exit {
    let open = plan.totals.count(Action::Unknown) + plan.totals.conflicts;
    if open == 0 && !plan.head.beyond { Exit::Done } else { Exit::Incomplete }
}

/// The fields of a revert, with their values.
fn show_fields(ui: &Ui, fields: &Fields, is_fork: bool) -> Result<(), CliError> {
    let (base, theirs) = if is_fork { ("then", "fork") } else { ("before", "written") };
    let mut rows = ui.rows(Format::Table, &["id", "pk", "path", "fate", base, theirs, "today"]);
    for field in fields.iter().map_err(unreadable)?.take(SHOWN) {
        let field = field.map_err(unreadable)?;
        let value = |value: &Option<Box<RawValue>>| json!(value.as_ref().map_or(String::new(), |v| short(v.get())));
        rows.push(&[
            json!(field.id),
            json!(key_text(&field.pk)),
            json!(field.path),
            json!(field.fate),
            value(&field.base),
            value(&field.theirs),
            value(&field.ours),
        ])?;
    }
    rows.finish()?;
    if let Some(rest) = fields.count().checked_sub(SHOWN as u64).filter(|rest| *rest > 0) {
        ui.note(&format!("... and {}; --format json shows all", count_of(rest, "field")));
    }
    Ok(())
}

/// A value as a table shows it: shortened when it is long.
fn short(value: &str) -> String {
    const LONGEST: usize = 40;
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_owned(),
    }
}

/// Changed paths: for people the first few.
fn few(paths: &[String], format: Format) -> String {
    const FEW: usize = 4;
    match paths.len().checked_sub(FEW) {
        Some(more) if more > 0 && format == Format::Table => format!("{} and {more} more", paths[..FEW].join(", ")),
        _ => paths.join(", "),
    }
}

/// Prints the outcome of a plan. `run` is the name of its journal, if there is one.
///
/// # Errors
/// When the outcomes cannot be printed or read; what was written, and how to take it back, is printed all the same.
pub(crate) fn print_report(
    ui: &Ui,
    shown: PlanView<'_>,
    run: Option<&str>,
    done: &Report,
    cosmos: &Cosmos,
    started: Instant,
) -> Result<(), CliError> {
    let listed = report(ui, shown, run, done.outcomes.as_ref());
    let plan = shown.plan;
    if done.outcomes.is_none() {
        ui.spent("nothing to write", cosmos, started);
        return listed;
    }
    ui.note(&format!("applied    {:.1} RU, {:.1} were expected", done.ru, forecast(plan)));
    let Results { done: written, already, conflict, failed } = done.results;
    ui.spent(
        &format!(
            "{written} written, {already} already up to date, {conflict} conflicts, {failed} failed, {} not begun, {} unknown",
            done.not_begun, done.unknown
        ),
        cosmos,
        started,
    );
    if let Some(run) = run.filter(|_| written > 0) {
        ui.note(&format!("undo       cosmos-rewind undo {run}   (journal {})", done.journal.display()));
    }
    listed
}

/// How a command ends whose report was printed.
pub(crate) fn printed_exit(plan: &Plan, done: &Report) -> Result<Exit, CliError> {
    if let Some(message) = &done.given_up {
        return Err(CliError::incomplete(message, "no further document was begun"));
    }
    if done.outcomes.is_none() {
        return Ok(planned_exit(plan));
    }
    Ok(if done.is_complete() { Exit::Done } else { Exit::Incomplete })
}

/// How a command ends whose outcomes may not have been printed: what was not done matters more than that.
pub(crate) fn ended(ui: &Ui, exit: Exit, listed: Result<(), CliError>) -> Result<Exit, CliError> {
    match listed {
        Err(error) if exit != Exit::Done => {
            ui.error(&error);
            Ok(exit)
        }
        listed => listed.map(|()| exit),
    }
}

fn unreadable(e: io::Error) -> CliError {
    CliError::failed("the plan cannot be read any more").because(e)
}

fn lost(e: io::Error) -> CliError {
    CliError::failed("the outcomes in the journal cannot be read any more").because(e)
}

/// Outcomes: all of them for programs, for people only what was not done.
fn report(ui: &Ui, shown: PlanView<'_>, run: Option<&str>, noted: Option<&RunOutcomes>) -> Result<(), CliError> {
    let PlanView { plan, fields, format } = shown;
    if matches!(format, Format::Json | Format::Jsonl) {
        #[derive(Serialize)]
        struct Report<'a, T> {
            restore: Option<&'a str>,
            plan: &'a Plan,
            #[serde(skip_serializing_if = "Option::is_none")]
            fields: Option<&'a Fields>,
            outcomes: T,
        }
        return match noted {
            // Opened first, so that a missing journal is not taken for an output that cannot be written.
            Some(outcomes) if let Err(e) = outcomes.outcomes().map(drop) => Err(lost(e)),
            Some(outcomes) => ui.json(&Report { restore: run, plan, fields, outcomes }),
            None => ui.json(&Report { restore: run, plan, fields, outcomes: [(); 0] }),
        };
    }
    let Some(noted) = noted else { return Ok(()) };
    let mut rows: Option<Rows> = None;
    for outcome in noted.outcomes().map_err(lost)? {
        let o = outcome.map_err(lost)?;
        if format != Format::Csv && !matches!(o.fate, StepResult::Conflict | StepResult::Failed) {
            continue;
        }
        let rows = rows.get_or_insert_with(|| ui.rows(format, &["outcome", "id", "pk", "action", "message"]));
        rows.push(&[json!(o.fate), json!(o.id), json!(key_text(&o.pk)), json!(o.action), json!(o.message)])?;
    }
    Ok(rows.map_or(Ok(()), Rows::finish)?)
}
