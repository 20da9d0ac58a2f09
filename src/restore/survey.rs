//! Turns the facts about the items in scope into the steps of a plan. Writes nothing but the plan.

use std::io;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    apply::{Applier, Prefetched},
    error::StepError,
    goal::Goals,
    plan::{Action, Step, StepRules, decide},
    plan_file::Draft,
};
use crate::{
    causes::chain,
    change::{Op, version::BadRecord},
    cosmos::{Disposition, Failure},
    history::{
        frontier::{Frontier, Reach},
        gone::DeleteSearch,
        known::Facts,
        live::{assumed, look_at},
        scan::{Scan, ScannedItem, Scope},
    },
};

/// Why documents in scope have no steps.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The service refused.
    #[error(transparent)]
    Cosmos(#[from] Failure),
    /// The plan cannot be written to, or read from, a temporary file.
    #[error("keep the plan in a temporary file")]
    Disk(#[from] io::Error),
}

impl From<StepError> for SurveyError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Failed(failure) => Self::Cosmos(failure),
            StepError::Texts(error) | StepError::Journal(error) => Self::Disk(error),
        }
    }
}

/// Adds one step for each item in scope, and reports progress to `each`. Returns the records that cannot be parsed,
/// which were set aside.
///
/// # Errors
/// When the service refuses a query, with its own message; when the plan cannot be written.
pub async fn survey(
    scan: &Scan<'_>,
    applier: &Applier<'_>,
    (frontier, gone): (&Frontier, &DeleteSearch<'_>),
    goals: Goals<'_>,
    concurrency: usize,
    draft: &mut Draft,
    mut each: impl FnMut(u64),
) -> Result<Vec<BadRecord>, SurveyError> {
    let mut bad = Vec::new();
    // Documents that match now are in scope if they did not exist then.
    let newer_only = matches!(scan.wanted, Scope::Live { .. });
    let mut pieces = std::pin::pin!(scan.pieces());
    while let Some(piece) = pieces.next().await {
        let mut piece = piece?;
        gone.mark(&mut piece.found, scan.at).await?;
        bad.extend(piece.bad);
        let steps: Vec<Option<Step>> = stream::iter(piece.found)
            .map(|found| async move {
                let undecided = found.undecided.clone();
                let reach = frontier.reach(&*applier.containers.source, &found.item.partition_key);
                let (step, hand) = match goals.moment_of(&found.item) {
                    Some(rules) => decided(applier, found, reach, rules).await?,
                    None => decided_back(found, reach, goals),
                };
                if newer_only && !did_not_exist(&step) {
                    return Ok::<_, StepError>(None);
                }
                if let Some(problem) = undecided {
                    // It is as it was, so it does not matter whether it matched.
                    if step.action == Action::Keep && !did_not_exist(&step) {
                        return Ok(None);
                    }
                    let notes = vec![format!("whether it matched is not known: {}", chain(&problem))];
                    return Ok(Some(Step { action: Action::Unknown, notes, ..step }));
                }
                planned(applier, step, hand).await.map(Some)
            })
            .buffered(concurrency.max(1))
            .try_collect()
            .await?;
        noted(steps.into_iter().flatten().collect(), draft, &mut each)?;
    }
    Ok(bad)
}

/// Whether a step concerns a document that did not exist at the point in time, or may not have.
fn did_not_exist(step: &Step) -> bool {
    step.version.as_ref().is_none_or(|version| version.op.is_some_and(Op::is_tombstone))
}

/// Adds steps to the plan, and reports how many there were.
pub(super) fn noted(steps: Vec<Step>, draft: &mut Draft, each: &mut impl FnMut(u64)) -> io::Result<()> {
    each(steps.len() as u64);
    steps.into_iter().try_for_each(|step| draft.push(step))
}

/// The step as it enters the plan.
pub async fn planned(applier: &Applier<'_>, step: Step, hand: Prefetched) -> Result<Step, StepError> {
    if step.action.writes() && !applier.manner.only.is_empty() && step.action != Action::Restore {
        return Ok(left_alone(step));
    }
    completed(applier, step, hand).await
}

/// Completes a step; or notes that nothing can be done because a record or a document is unusable, which is no reason
/// to leave the others alone.
///
/// # Errors
/// With a failure that the others would meet, too.
pub async fn completed(applier: &Applier<'_>, mut step: Step, hand: Prefetched) -> Result<Step, StepError> {
    match applier.refine(&mut step, hand).await {
        Err(StepError::Failed(failure)) if failure.disposition == Disposition::Poison => {
            Ok(Step { action: Action::Unknown, notes: vec![failure.message], ru: 0.0, ..step })
        }
        other => other.map(|()| step),
    }
}

/// The action for an item, and the texts that were read along.
pub(super) async fn decided(
    applier: &Applier<'_>,
    found: ScannedItem,
    reach: Reach<'_>,
    rules: StepRules,
) -> Result<(Step, Prefetched), Failure> {
    let source = match applier.containers.is_elsewhere() {
        // What the target has says nothing about the source. When the history may end too early, or a delete may have
        // been removed from it, the source does tell.
        true if !reach.covers(rules.at) || reach.blind_spots.dropped_before.is_some() => {
            let assumed = assumed(&found.versions);
            look_at(&*applier.containers.source, &applier.pace, &found.item, assumed, false).await?
        }
        true => None,
        false => found.live.clone(),
    };
    let facts = Facts {
        versions: &found.versions,
        unkeyed: &found.unkeyed,
        target: found.live.as_ref(),
        source: source.as_ref(),
        reach,
        lost: found.lost,
    };
    let step = decide(&found.item, facts, rules);
    let version = found.document_at(rules.at).and_then(|v| {
        let is_chosen = step.version.as_ref().is_some_and(|chosen| chosen.record_id == v.record_id);
        v.document.clone().filter(|_| is_chosen)
    });
    let live = match found.live {
        None => Some(None),
        Some(live) => live.text.map(Some),
    };
    Ok((step, Prefetched { version, live }))
}

/// The same for an item that goes back to a version of its own.
fn decided_back(found: ScannedItem, reach: Reach<'_>, goals: Goals<'_>) -> (Step, Prefetched) {
    let facts = Facts {
        versions: &found.versions,
        unkeyed: &found.unkeyed,
        target: found.live.as_ref(),
        source: None,
        reach,
        lost: None,
    };
    let step = goals.decide_back(&found.item, facts);
    let live = found.live.map_or(Some(None), |live| live.text.map(Some));
    (step, Prefetched { version: None, live })
}

/// Single fields are put back into documents that existed then and exist now; others stay as they are, which is known.
fn left_alone(step: Step) -> Step {
    let note = match step.action {
        Action::Delete => "did not exist then; --only deletes nothing",
        _ => "is gone, and --only puts fields into documents that exist; without it, this one is recreated",
    };
    // The rest may say that it is not sure what was there.
    let notes = [note.to_owned()].into_iter().chain(step.notes).collect();
    Step { action: Action::Keep, notes, ..step }
}

#[cfg(test)]
#[cfg(feature = "local")]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::{
        archive::texts::KeptTexts,
        change::key::{ItemKey, KeyPaths, KeyValue, PartitionKey},
        clock::SystemClock,
        config::{Names, Settings},
        cosmos::RuLimiter,
        history::{Account as _, memory::MemoryAccount},
        restore::{GivenUp, apply::ApplyOptions, plan::Chosen},
    };

    /// A failing disk is not a document's fault: no document is blamed, and the work ends.
    #[tokio::test]
    async fn texts_that_cannot_be_read_end_the_work() {
        let paths = || KeyPaths::parse(&["/pk"]).unwrap();
        let names = Names::from_settings(&Settings::from_pairs([("COSMOS_DATABASE", "dev")]), None).unwrap();
        let account = MemoryAccount::new(&names, paths(), paths());
        let containers = account.containers(&names, None).await.unwrap();
        let item = ItemKey { id: "a".into(), partition_key: PartitionKey(vec![KeyValue::String("p".into())]) };
        let texts = KeptTexts::lost(&item, "v").unwrap();
        let applier = Applier {
            containers: &containers,
            manner: &ApplyOptions { stamp: None, only: Vec::new() },
            force: false,
            fresh: true,
            begun: None,
            intents: None,
            texts: Some(&texts),
            pace: RuLimiter::new(account.meter(), None),
            clock: &SystemClock,
        };
        let step = |version: &str| Step {
            version: Some(Chosen { record_id: version.into(), op: None, ts: 1, lsn: None, via: None, archived: None }),
            ..Step::new(&item.id, item.partition_key.to_json(), Action::Recreate)
        };
        let planned = completed(&applier, step("v"), Prefetched::default()).await;
        assert!(matches!(planned, Err(StepError::Texts(_))), "{planned:?}");
        let stop = tokio_util::sync::CancellationToken::new();
        let mut outcomes = pin!(applier.outcomes(std::iter::once(Ok(step("v"))), 1, &stop));
        let outcome = outcomes.next().await.unwrap();
        assert!(matches!(outcome, Err(GivenUp::Texts(_))), "{outcome:?}");
        // A version that the archive does not have only concerns its own step.
        let missing = completed(&applier, step("gone"), Prefetched::default()).await.unwrap();
        assert_eq!(missing.action, Action::Unknown);
        assert!(account.source.texts().is_empty());
    }
}
