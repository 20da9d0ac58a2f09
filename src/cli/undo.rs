//! `undo`: takes a restore back, document by document, with the same plan, guards and report.

use std::{collections::HashSet, time::Instant};

use chrono::Utc;
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::{
    CliError, ConnectionArgs, Exit,
    output::{self, Format, Rows},
    restore::{ApplyArgs, apply, new_id, place_of, places, show_plan},
};
use crate::{
    cosmos::{Container, Cosmos, Failure},
    restore::{
        apply::{Applier, Fate, Manner, Outcome, same_document},
        journal::{self, Past},
        pace::Pace,
        plan::{Action, PLAN_VERSION, Place, Plan, Step},
        survey::{Places, etag_of},
    },
};

/// Flags of `undo`
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// The restore to take back; its id was printed when it ended
    #[arg(required_unless_present = "list")]
    restore: Option<String>,
    /// List the restores that are in the history
    #[arg(long)]
    list: bool,
    /// Only show the plan
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    how: ApplyArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
///
/// # Errors
/// When there is no such restore. A document changed since is a conflict, not a victim: reported, exit code 3.
pub async fn run(args: UndoArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (cosmos, names) = args.connection.open()?;
    let changes = cosmos.container(&names.database, &names.changes).await?;
    if args.list {
        let count = list(&changes, args.how.format).await?;
        output::spent(&output::count_of(count, "restore"), &cosmos, started);
        return Ok(Exit::Done);
    }
    let id = args.restore.as_deref().unwrap_or_default();
    let past = journal::read(&changes, id).await?.ok_or_else(|| CliError {
        message: format!("there is no restore {id:?} in {}/{}", names.database, names.changes),
        hint: Some("cosmos-rewind undo --list shows all".into()),
        exit: Exit::Failed,
    })?;
    let restored = restored_to(&past)?;
    let into = (restored.target != names.source).then_some(restored.target.as_str());
    let places = places(&cosmos, &names, into).await?;
    let mut place = place_of(&cosmos, &names, &places);
    // The journal lies in this very account, whatever name it was reached by then.
    place.account = restored.account;
    let plan = inverse(id, past, &places, place, &cosmos).await?;
    show_plan(&plan, args.how.format, args.dry_run)?;
    if args.dry_run {
        output::spent("planned, nothing written", &cosmos, started);
        return Ok(Exit::Done);
    }
    apply(&plan, &places, &args.how, &cosmos, started).await
}

/// Where a restore wrote to.
fn restored_to(past: &Past) -> Result<Place, CliError> {
    #[derive(Deserialize)]
    struct File {
        plan: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        place: Place,
    }
    let file: File = serde_json::from_str(past.plan.trim_end())
        .map_err(|e| CliError::failed(format!("the journal's plan is not understood: {e}")))?;
    Ok(file.plan.place)
}

/// The plan that takes a restore back.
async fn inverse(id: &str, past: Past, places: &Places, place: Place, cosmos: &Cosmos) -> Result<Plan, CliError> {
    let pace = || Pace::new(cosmos.meter(), None);
    let original = Plan::from_file(past.plan.trim_end(), &place)
        .map_err(|e| CliError::failed(format!("the plan of restore {id} {e}")))?;
    let outcomes = journal::by_item(past.outcomes);
    let known: HashSet<(String, String)> = outcomes.keys().cloned().collect();
    let mut steps: Vec<Step> = outcomes.values().filter_map(journal::inverse).collect();
    // A restore that was killed wrote documents whose outcome it could not note any more.
    let applier = Applier { places, manner: &original.manner, force: false, pace: pace() };
    for step in original.steps.iter().filter(|s| s.action.writes()) {
        let item = step.item().map_err(CliError::failed)?;
        if known.contains(&item.sort_key()) {
            continue;
        }
        if let Some(outcome) = unnoted(&applier, step).await? {
            steps.extend(journal::inverse(&outcome));
        }
    }
    steps.sort_by(|a, b| (&a.id, a.pk.to_string()).cmp(&(&b.id, b.pk.to_string())));
    let exact = Manner { stamp: None, only: Vec::new() };
    let applier = Applier { places, manner: &exact, force: false, pace: pace() };
    let steps = refine(&applier, steps).await?;
    Ok(Plan {
        v: PLAN_VERSION,
        id: new_id(),
        undoes: Some(id.to_owned()),
        place,
        at: None,
        made: Utc::now().timestamp(),
        manner: exact,
        steps,
    })
}

/// Whether a step without an outcome was carried out all the same: the target has what it would have written.
async fn unnoted(applier: &Applier<'_>, step: &Step) -> Result<Option<Outcome>, Failure> {
    let prepared = applier.prepare(step).await?;
    let etag = prepared.live.as_deref().and_then(|live| etag_of(live.as_bytes()));
    let written = etag != step.live
        && match (&prepared.text, &prepared.live) {
            (Some(text), Some(live)) => same_document(text, live, false),
            (None, None) => true,
            _ => false,
        };
    Ok(written.then(|| Outcome {
        id: step.id.clone(),
        pk: step.pk.clone(),
        action: step.action,
        fate: Fate::Done,
        before: step.live.clone(),
        before_record: None,
        after: etag,
        message: None,
    }))
}

/// Completes the steps; a document changed since the restore stays a step, which will be a conflict.
async fn refine(applier: &Applier<'_>, steps: Vec<Step>) -> Result<Vec<Step>, Failure> {
    let mut refined = applier.refine(steps, 16).await?;
    for step in refined.iter_mut().filter(|s| s.action == Action::Delete) {
        step.notes = vec!["was made by the restore".into()];
    }
    Ok(refined)
}

async fn list(changes: &Container, format: Format) -> Result<u64, CliError> {
    #[derive(Deserialize)]
    struct Row {
        #[serde(rename = "item")]
        group: String,
    }
    let sql = "SELECT c._originalId AS item FROM c WHERE c._restore.kind = 'plan' AND c._restore.part = 0";
    let mut ids: Vec<String> = Vec::new();
    for text in changes.query_all(sql, &[], None).await? {
        let row: Row = serde_json::from_str(text.get())
            .map_err(|e| CliError::failed(format!("a journal is not understood: {e}")))?;
        ids.extend(row.group.strip_prefix("restore~").map(String::from));
    }
    ids.sort();
    let mut rows = Rows::stdout(format, &["restore", "made", "at", "target", "undoes", "planned", "written"]);
    for id in &ids {
        let Some(past) = journal::read(changes, id).await? else { continue };
        #[derive(Deserialize)]
        struct File {
            plan: Plan,
        }
        let Ok(File { plan }) = serde_json::from_str::<File>(past.plan.trim_end()) else {
            rows.push(&[
                json!(id),
                json!(null),
                json!(null),
                json!("of another format"),
                json!(null),
                json!(null),
                json!(null),
            ])?;
            continue;
        };
        let written = journal::by_item(past.outcomes).values().filter(|o| o.fate == Fate::Done).count();
        let time = |t: i64| crate::change::time::PointInTime::from_epoch(t).to_string();
        rows.push(&[
            json!(id),
            json!(time(plan.made)),
            json!(plan.at.map(time)),
            json!(plan.place.target),
            json!(plan.undoes),
            json!(plan.writes()),
            json!(written),
        ])?;
    }
    rows.finish()?;
    Ok(ids.len() as u64)
}
