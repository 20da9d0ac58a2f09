//! Plans the undo of a restore, document by document: only what the restore itself wrote, proved by etag.

use std::collections::HashSet;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    apply::{Applier, ApplyOptions, Outcome, Prefetched, StepResult, is_noted},
    error::{RestoreError, StepError},
    expired::{UndoTimes, of_gone},
    journal::{self, Past},
    plan::{Action, PLAN_VERSION, Step, is_exact},
    plan_file::{Draft, Plan, PlanHead},
    planning::{new_id, open, target_of},
    survey::completed,
};
use crate::{
    change::record::{id_of_version, own_text},
    cosmos::{Failure, RuLimiter},
    history::{AnyContext, Containers, live::look_at, reading::HistoryReader},
};

/// Steps that are examined before the next ones are read.
const GROUP: usize = 256;

/// Which restore is taken back.
#[derive(Debug, Clone)]
pub struct UndoRequest {
    /// The restore; or its plan, if that was used only once.
    pub restore: String,
    /// Folder of the local journals, which know more when a restore was killed.
    pub journal: std::path::PathBuf,
    /// Documents in flight.
    pub concurrency: usize,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
}

/// Plans the undo of a restore; the plan is approved and applied like any other. A document that was changed since
/// becomes a conflict, not a victim.
///
/// # Errors
/// When there is no such restore, it was of other containers, or the account cannot be used.
pub async fn undo(request: &UndoRequest, cx: &AnyContext<'_>) -> Result<(Plan, Containers), RestoreError> {
    let changes = cx.account.containers(cx.names, None).await?.changes;
    let mut past = match journal::read(&*changes, &request.restore).await? {
        Some(past) => past,
        None => used_once(&*changes, &request.restore, cx).await?,
    };
    past.complete(&request.journal);
    let then = past.plan.head.place.clone();
    let into = (then.target != cx.names.source).then_some(then.target.as_str());
    let containers = open(into, cx).await?;
    let mut now = target_of(&containers, cx);
    // The journal is in this very account, whatever name it was reached by then.
    now.account.clone_from(&then.account);
    if now != then {
        return Err(RestoreError::OtherContainers {
            run: request.restore.clone(),
            then: format!("{}/{} into {}", then.database, then.source, then.target),
            now: format!("{}/{} into {}", now.database, now.source, now.target),
        });
    }
    let plan = inverse(past, &containers, request, cx).await?;
    Ok((plan, containers))
}

/// The journal of the one restore that used a plan of this id.
async fn used_once(changes: &dyn HistoryReader, id: &str, cx: &AnyContext<'_>) -> Result<Past, RestoreError> {
    let all = journal::list(changes).await?;
    let is_of_plan = |run: &&journal::ListedRestore| run.head.as_ref().is_some_and(|head| head.id == id);
    let runs: Vec<String> = all.iter().filter(is_of_plan).map(|run| run.id.clone()).collect();
    let past = match runs.as_slice() {
        [one] => journal::read(changes, one).await?,
        [] => None,
        _ => return Err(RestoreError::UsedOften { id: id.to_owned(), runs }),
    };
    past.ok_or_else(|| RestoreError::NoRestore { id: id.to_owned(), history: cx.names.history() })
}

/// The plan that takes a restore back.
async fn inverse(
    past: Past,
    containers: &Containers,
    request: &UndoRequest,
    cx: &AnyContext<'_>,
) -> Result<Plan, RestoreError> {
    let Past { run, plan: original, mut outcomes, marks } = past;
    // Steps without an outcome may have been done by another use of the same plan.
    let others = if marks { HashSet::new() } else { written_by_others(containers, &original.head.id, &run).await? };
    let others = &others;
    let exact = ApplyOptions { stamp: None, only: Vec::new() };
    let head = PlanHead {
        v: PLAN_VERSION,
        id: new_id(&*cx.clock),
        undoes: Some(run),
        place: original.head.place.clone(),
        at: None,
        per_document: false,
        feed_range: original.head.feed_range.clone(),
        archive: None,
        frontier: None,
        beyond: false,
        max_deletes: None,
        takes_back: None,
        fork: false,
        together: original.head.together.clone(),
        made: cx.account.time().await?.timestamp(),
        manner: exact.clone(),
    };
    let pace = RuLimiter::new(cx.account.meter(), request.ru_limit);
    let then = Applier::planning(containers, &original.head.manner, pace.clone(), &*cx.clock);
    let now = Applier::planning(containers, &exact, pace, &*cx.clock);
    let (then, now) = (&then, &now);
    let times = UndoTimes { restored: original.head.made, undone: head.made };
    let mut draft = Draft::new(head)?;
    let planning = cx.progress.begin("planning", Some(original.totals.writes as u64));
    let mut steps = original.writing_steps();
    loop {
        let group: Vec<(Step, Option<Outcome>)> = steps
            .by_ref()
            .take(GROUP)
            .map(|step| {
                let step = step?;
                let item = step.item().map_err(|e| Failure::invalid("read plan".into(), e))?;
                let outcome = outcomes.remove(&item.sort_key());
                Ok::<_, RestoreError>((step, outcome))
            })
            .collect::<Result<_, _>>()?;
        if group.is_empty() {
            break;
        }
        planning.advance(group.len() as u64);
        let inverted: Vec<Option<Step>> = stream::iter(group)
            .map(|(step, outcome)| inverse_of((then, now), step, outcome, marks, others, times))
            .buffered(request.concurrency)
            .try_collect()
            .await?;
        inverted.into_iter().flatten().try_for_each(|step| draft.push(step))?;
    }
    drop(planning);
    Ok(draft.seal()?)
}

/// The step that takes one back. A document that was changed since the restore keeps its step, which will be a
/// conflict.
async fn inverse_of(
    (then, now): (&Applier<'_>, &Applier<'_>),
    step: Step,
    outcome: Option<Outcome>,
    marks: bool,
    others: &HashSet<String>,
    times: UndoTimes,
) -> Result<Option<Step>, StepError> {
    let begun = outcome.as_ref().is_some_and(|outcome| outcome.fate == StepResult::Begun);
    let outcome = match outcome {
        Some(outcome) if !begun => Some(outcome),
        // Every step is marked before it is begun.
        None if marks => None,
        // A restore that was killed wrote documents whose outcomes it could no longer note.
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
    let item = back.item().map_err(|e| Failure::invalid("read plan".into(), e))?;
    // Usually capture has what the restore wrote; then it need not be saved again.
    if let Some(etag) = &back.live
        && !now.containers.is_elsewhere()
    {
        let record = now.containers.record(&item, &id_of_version(&item.id, etag)).await;
        back.saved = record.is_ok_and(|record| record.as_ref().is_some_and(is_exact));
    }
    let live = look_at(&*now.containers.target, &now.pace, &item, back.live.as_deref(), true).await?;
    let is_as_left = live.as_ref().map(|live| &live.etag) == back.live.as_ref();
    let is_gone = live.is_none() && back.live.is_some();
    if is_gone {
        of_gone(now, &mut back, &item, times).await?;
    }
    let hand = Prefetched { version: None, live: Some(live.and_then(|live| live.text)) };
    let mut back = completed(now, back, hand).await?;
    if back.action == Action::Delete {
        back.notes = vec!["was made by the restore".into()];
    }
    if !is_as_left && !is_gone && back.action.writes() {
        back.notes.push("was changed since: a conflict, which stays unless --force".into());
    }
    Ok(Some(back))
}

/// The fate of a step without an outcome.
enum Unnoted {
    Written(Outcome),
    Not,
    Unclear,
}

/// The etags that other uses of a plan wrote.
async fn written_by_others(containers: &Containers, plan: &str, run: &str) -> Result<HashSet<String>, Failure> {
    let mut etags = HashSet::new();
    for other in journal::list(&*containers.changes).await? {
        if other.id != run
            && other.head.as_ref().is_some_and(|head| head.id == plan)
            && let Some(past) = journal::read(&*containers.changes, &other.id).await?
        {
            etags.extend(past.outcomes.into_values().filter(|o| o.fate == StepResult::Done).filter_map(|o| o.after));
        }
    }
    Ok(etags)
}

/// Whether a step without an outcome was carried out all the same. A step that is known to have been begun was, when
/// the target is as it leads to. Otherwise only a document with the restore's own stamp proves it; a document that is
/// gone may have been deleted by anybody.
async fn unnoted(
    applier: &Applier<'_>,
    step: &Step,
    begun: bool,
    others: &HashSet<String>,
) -> Result<Unnoted, StepError> {
    let item = step.item().map_err(|e| Failure::invalid("read plan".into(), e))?;
    let live = look_at(&*applier.containers.target, &applier.pace, &item, None, true).await?;
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
            // What was put into a document was based on the document before, not on whatever is there now.
            let into = match &step.live {
                Some(etag) if step.is_edit() || !applier.manner.only.is_empty() => {
                    let record = step.live_record().unwrap_or_else(|| id_of_version(&item.id, etag));
                    applier.containers.document(&item, &record).await.map(Some)
                }
                _ => Ok(Some(live.clone())),
            };
            let prepared = match into {
                Ok(into) => applier.prepare(step, Prefetched { version: None, live: Some(into) }).await,
                Err(failure) => Err(failure.into()),
            };
            match prepared {
                Ok(prepared) => prepared.text.is_some_and(|text| {
                    stamped = text.stamped.is_some();
                    text.is(live)
                }),
                // The version came from an archive, or was pruned. The checksum is that of the text that was sent.
                Err(StepError::Failed(failure)) if failure.is_own() => {
                    if own_text(live).is_ok_and(|own| step.sha256.as_deref().is_some_and(|noted| is_noted(&own, noted)))
                    {
                        stamped = applier.manner.stamp.is_some();
                        true
                    } else {
                        return Ok(Unnoted::Unclear);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    };
    let outcome = || Outcome {
        id: step.id.clone(),
        pk: step.pk.clone(),
        action: step.action,
        fate: StepResult::Done,
        before: step.live.clone(),
        before_record: step.record.clone(),
        after: etag,
        message: None,
    };
    Ok(match written {
        true if begun || stamped => Unnoted::Written(outcome()),
        true => Unnoted::Unclear,
        false => Unnoted::Not,
    })
}
