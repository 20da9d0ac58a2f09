//! `undo`: takes a restore back, document by document, with the same plan, guards and report.

use std::{collections::HashSet, time::Instant};

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use super::{
    CliError, ConnectionArgs, Exit,
    applying::{ApplyArgs, Use, apply, planned_exit, show_plan},
    output::{self, Format, Progress, Rows},
    restore::{containers, new_id, place_of},
};
use crate::{
    change::{
        record::{id_of_version, own_text},
        time::PointInTime,
    },
    config::Names,
    cosmos::{Container, Cosmos, Failure, RuLimiter},
    history::scan::{Containers, look},
    restore::{
        apply::{Applier, ApplyOptions, Outcome, Prefetched, StepResult, same_document, sha256},
        journal::{self, Past},
        plan::{Action, PLAN_VERSION, Step, is_exact},
        plan_file::{Draft, Head, Plan},
        survey::{completed, kept},
    },
};

/// Steps that are looked at before the next ones are read.
const GROUP: usize = 256;

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
    let mut past = match journal::read(&changes, id).await? {
        Some(past) => past,
        None => used_once(&changes, &names, id).await?,
    };
    past.complete(args.how.journal());
    let restored = past.plan.head.place.clone();
    let into = (restored.target != names.source).then_some(restored.target.as_str());
    let containers = containers(&cosmos, &names, into).await?;
    let mut place = place_of(&cosmos, &names, &containers);
    // The journal lies in this very account, whatever name it was reached by then.
    place.account.clone_from(&restored.account);
    if place != restored {
        return Err(CliError::usage(
            format!(
                "restore {id} was of {}/{} into {}, not of {}/{} into {}",
                restored.database, restored.source, restored.target, place.database, place.source, place.target
            ),
            "name the same containers as then with --database, --source and --changes",
        ));
    }
    let plan = inverse(past, &containers, &args.how, &cosmos).await?;
    show_plan(&plan, args.how.format, args.dry_run)?;
    if args.dry_run {
        output::spent("planned, nothing written", &cosmos, started);
        return Ok(planned_exit(&plan));
    }
    let this = Use { run: &plan.head.id, made_now: true };
    apply(&plan, this, &containers, None, &args.how, &cosmos, started).await
}

/// The journal of the one restore that used a plan of this id.
async fn used_once(changes: &Container, names: &Names, id: &str) -> Result<Past, CliError> {
    let all = journal::list(changes).await?;
    let runs: Vec<&str> = all
        .iter()
        .filter(|run| run.head.as_ref().is_some_and(|head| head.id == id))
        .map(|run| run.id.as_str())
        .collect();
    let past = match runs.as_slice() {
        [one] => journal::read(changes, one).await?,
        [] => None,
        several => {
            return Err(CliError::usage(
                format!("the plan {id} was used {} times", several.len()),
                format!("undo one of: {}", several.join(", ")),
            ));
        }
    };
    past.ok_or_else(|| CliError {
        message: format!("there is no restore {id:?} in {}/{}", names.database, names.changes),
        hint: Some("cosmos-rewind undo --list shows all".into()),
        exit: Exit::Failed,
    })
}

/// The plan that takes a restore back.
async fn inverse(past: Past, containers: &Containers, how: &ApplyArgs, cosmos: &Cosmos) -> Result<Plan, CliError> {
    let Past { run, plan: original, mut outcomes, marks } = past;
    // Steps without an outcome may have been done by another use of the same plan.
    let others = if marks { HashSet::new() } else { written_by_others(containers, &original.head.id, &run).await? };
    let others = &others;
    let exact = ApplyOptions { stamp: None, only: Vec::new() };
    let head = Head {
        v: PLAN_VERSION,
        id: new_id(),
        undoes: Some(run),
        place: original.head.place.clone(),
        at: None,
        feed_range: original.head.feed_range.clone(),
        archive: None,
        frontier: None,
        beyond: false,
        max_deletes: None,
        made: cosmos.now().await.timestamp(),
        manner: exact.clone(),
    };
    let pace = RuLimiter::new(cosmos.meter(), how.ru_limit);
    let then = Applier {
        containers,
        manner: &original.head.manner,
        force: false,
        fresh: true,
        texts: None,
        begun: None,
        pace: pace.clone(),
    };
    let now = Applier { containers, manner: &exact, force: false, fresh: true, texts: None, begun: None, pace };
    let (then, now) = (&then, &now);
    let mut draft = Draft::new(head).map_err(|e| kept(&e))?;
    let planning = Progress::new("planning", Some(original.totals.writes as u64));
    let mut steps = original.writing_steps();
    loop {
        let group: Vec<(Step, Option<Outcome>)> = steps
            .by_ref()
            .take(GROUP)
            .map(|step| {
                let step = step.map_err(|e| kept(&e))?;
                let item = step.item().map_err(|e| Failure::invalid("read plan".into(), e))?;
                let outcome = outcomes.remove(&item.sort_key());
                Ok::<_, Failure>((step, outcome))
            })
            .collect::<Result<_, _>>()?;
        if group.is_empty() {
            break;
        }
        planning.inc(group.len() as u64);
        let inverted: Vec<Option<Step>> = stream::iter(group)
            .map(|(step, outcome)| inverse_of(then, now, step, outcome, marks, others))
            .buffered(how.concurrency.into())
            .try_collect()
            .await?;
        inverted.into_iter().flatten().try_for_each(|step| draft.push(step)).map_err(|e| kept(&e))?;
    }
    planning.finish();
    Ok(draft.seal().map_err(|e| kept(&e))?)
}

/// The step that takes one back. A document changed since the restore stays a step, which will be a conflict.
async fn inverse_of(
    then: &Applier<'_>,
    now: &Applier<'_>,
    step: Step,
    outcome: Option<Outcome>,
    marks: bool,
    others: &HashSet<String>,
) -> Result<Option<Step>, Failure> {
    let begun = outcome.as_ref().is_some_and(|outcome| outcome.fate == StepResult::Begun);
    let outcome = match outcome {
        Some(outcome) if !begun => Some(outcome),
        // Every step is marked before it is begun.
        None if marks => None,
        // A restore that was killed wrote documents whose outcome it could not note any more.
        _ => match unnoted(then, &step, begun, others).await? {
            Unnoted::Written(outcome) => Some(outcome),
            Unnoted::Not => None,
            Unnoted::Unclear => {
                let notes = vec!["was changed since; whether by the restore cannot be told".into()];
                return Ok(Some(Step { action: Action::Unknown, notes, ru: 0.0, ..step }));
            }
        },
    };
    let Some(mut back) = outcome.as_ref().and_then(journal::inverse) else { return Ok(None) };
    // Mostly capture has what the restore wrote; then it need not be saved again.
    if let Some(etag) = &back.live
        && !now.containers.is_elsewhere()
    {
        let item = back.item().map_err(|e| Failure::invalid("read plan".into(), e))?;
        let record = now.containers.record(&item, &id_of_version(&item.id, etag)).await;
        back.saved = record.is_ok_and(|record| record.as_ref().is_some_and(is_exact));
    }
    let mut back = completed(now, back, Prefetched::default()).await?;
    if back.action == Action::Delete {
        back.notes = vec!["was made by the restore".into()];
    }
    Ok(Some(back))
}

/// What became of a step without an outcome.
enum Unnoted {
    Written(Outcome),
    Not,
    Unclear,
}

/// The etags that other uses of a plan wrote.
async fn written_by_others(containers: &Containers, plan: &str, run: &str) -> Result<HashSet<String>, Failure> {
    let mut etags = HashSet::new();
    for other in journal::list(&containers.changes).await? {
        if other.id != run
            && other.head.as_ref().is_some_and(|head| head.id == plan)
            && let Some(past) = journal::read(&containers.changes, &other.id).await?
        {
            etags.extend(past.outcomes.into_values().filter(|o| o.fate == StepResult::Done).filter_map(|o| o.after));
        }
    }
    Ok(etags)
}

/// Whether a step without an outcome was carried out all the same. One that is known to have been begun was, when the
/// target is what it leads to. Otherwise only a document that carries the restore's own stamp proves it; a document that
/// is gone may have been deleted by anybody.
async fn unnoted(
    applier: &Applier<'_>,
    step: &Step,
    begun: bool,
    others: &HashSet<String>,
) -> Result<Unnoted, Failure> {
    let item = step.item().map_err(|e| Failure::invalid("read plan".into(), e))?;
    let live = look(applier.containers, &applier.pace, &item, true).await?;
    let etag = live.as_ref().map(|live| live.etag.clone());
    if etag == step.live || etag.as_ref().is_some_and(|etag| others.contains(etag)) {
        return Ok(Unnoted::Not);
    }
    let live = live.and_then(|live| live.text);
    let mut stamped = false;
    let written = match (&live, step.action) {
        (None, action) => action == Action::Delete,
        (Some(_), Action::Delete) => false,
        (Some(live), _) => {
            let in_hand = Prefetched { version: None, live: Some(Some(live.clone())) };
            match applier.prepare(step, in_hand).await {
                Ok(prepared) => prepared.text.is_some_and(|text| {
                    stamped = text.stamped.is_some();
                    same_document(&text.text, live, false)
                }),
                // The version came from an archive, or was pruned. The checksum is that of the text that was sent.
                Err(failure) if failure.is_own() => {
                    if own_text(live).is_ok_and(|own| step.sha256 == Some(sha256(&own))) {
                        stamped = applier.manner.stamp.is_some();
                        true
                    } else {
                        return Ok(Unnoted::Unclear);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    };
    let outcome = || Outcome {
        id: step.id.clone(),
        pk: step.pk.clone(),
        action: step.action,
        fate: StepResult::Done,
        before: step.live.clone(),
        before_record: None,
        after: etag,
        message: None,
    };
    Ok(match written {
        true if begun || stamped => Unnoted::Written(outcome()),
        true => Unnoted::Unclear,
        false => Unnoted::Not,
    })
}

async fn list(changes: &Container, format: Format) -> Result<u64, CliError> {
    let restores = journal::list(changes).await?;
    let mut rows = Rows::stdout(format, &["restore", "made", "at", "target", "undoes", "planned", "written"]);
    let time = |t: i64| PointInTime::from_epoch(t).to_string();
    for restore in &restores {
        let head = restore.head.as_ref();
        rows.push(&[
            json!(restore.id),
            json!(restore.applied.or(head.map(|h| h.made)).map(time)),
            json!(head.and_then(|h| h.at).map(time)),
            json!(head.map_or("of another format", |h| h.place.target.as_str())),
            json!(head.and_then(|h| h.undoes.as_deref())),
            json!(restore.planned),
            json!(restore.written),
        ])?;
    }
    rows.finish()?;
    Ok(restores.len() as u64)
}
