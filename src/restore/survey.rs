//! Turns what is known of the items in scope into the steps of a plan. Nothing is written but the plan.

use std::io;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    apply::{Applier, InHand},
    plan::{Action, Rules, Step, decide},
    plan_file::Draft,
    sweep::{Found, Sweep},
};
use crate::cosmos::{Disposition, Failure};

/// Adds one step for each item in scope; tells `each` how many more there are.
///
/// # Errors
/// When the service refuses a query, with its own message; when the plan cannot be kept.
pub async fn survey(
    sweep: &Sweep<'_>,
    applier: &Applier<'_>,
    rules: Rules,
    concurrency: usize,
    draft: &mut Draft,
    mut each: impl FnMut(u64),
) -> Result<(), Failure> {
    let mut pieces = std::pin::pin!(sweep.pieces());
    while let Some(piece) = pieces.next().await {
        let steps: Vec<Step> = stream::iter(piece?.found)
            .map(|found| async move {
                let (step, hand) = decided(found, rules);
                planned(applier, step, hand).await
            })
            .buffered(concurrency.max(1))
            .try_collect()
            .await?;
        noted(steps, draft, &mut each)?;
    }
    Ok(())
}

/// Adds steps to the plan, and tells how many there were.
pub(super) fn noted(steps: Vec<Step>, draft: &mut Draft, each: &mut impl FnMut(u64)) -> Result<(), Failure> {
    each(steps.len() as u64);
    steps.into_iter().try_for_each(|step| draft.push(step)).map_err(|e| kept(&e))
}

/// The step as it comes into the plan.
pub(super) async fn planned(applier: &Applier<'_>, step: Step, hand: InHand) -> Result<Step, Failure> {
    if step.action.writes() && !applier.manner.only.is_empty() && step.action != Action::Restore {
        return Ok(nothing_to_put_into(step));
    }
    completed(applier, step, hand).await
}

/// A plan that cannot be kept.
pub fn kept(e: &io::Error) -> Failure {
    Failure::invalid("keep the plan in a temporary file".into(), e.to_string())
}

/// Completes a step; or says that nothing can be done, because a record or document of its is not usable: that is no
/// reason to leave the others alone.
///
/// # Errors
/// With a failure that the others would meet too.
pub async fn completed(applier: &Applier<'_>, mut step: Step, hand: InHand) -> Result<Step, Failure> {
    match applier.refine(&mut step, hand).await {
        Err(failure) if failure.disposition == Disposition::Poison => {
            Ok(Step { action: Action::Unknown, notes: vec![failure.message], ru: 0.0, ..step })
        }
        other => other.map(|()| step),
    }
}

/// What is to be done with an item, and the texts that were read along.
pub(super) fn decided(found: Found, rules: Rules) -> (Step, InHand) {
    let etag = found.live.as_ref().map(|live| live.etag.as_str());
    let step = decide(&found.item, &found.versions, etag, rules);
    let version = found.document_at(rules.at).and_then(|v| v.document.clone());
    let live = match found.live {
        None => Some(None),
        Some(live) => live.text.map(Some),
    };
    (step, InHand { version, live })
}

fn nothing_to_put_into(mut step: Step) -> Step {
    step.action = Action::Unknown;
    step.notes = vec!["there is no document to put single fields into, leave --only out".into()];
    step
}
