//! Several containers in one restore, revert or undo. Each has a plan; all are approved before the first is carried
//! out, and they are carried out one after another, under one id.

use super::{
    applying::{Approval, Report, Use, announce, apply},
    error::RestoreError,
    fields::Fields,
    plan_file::{BadPlan, Pair, Plan},
    planning::{Planned, new_id, open, target_of},
    request::{PlanLimits, RunOptions},
    saved::SavedPlan,
    undoing::{UndoRequest, undo},
};
use crate::{
    archive::texts::KeptTexts,
    config::Names,
    history::{AnyContext, Containers},
};

/// The plan for one container.
pub struct OnePlan {
    /// The plan, to be shown, approved and applied.
    pub plan: Plan,
    /// The fields that it concerns, when it consists of single fields.
    pub fields: Option<Fields>,
    /// Texts that are not in the history.
    pub texts: Option<KeptTexts>,
    /// Whether records were set aside because they cannot be parsed.
    pub is_odd: bool,
}

impl OnePlan {
    fn of(plan: Plan, texts: Option<KeptTexts>) -> Self {
        Self { plan, fields: None, texts, is_odd: false }
    }
}

impl From<Planned> for OnePlan {
    fn from(Planned { plan, texts, bad }: Planned) -> Self {
        Self { plan, fields: None, texts, is_odd: !bad.is_empty() }
    }
}

/// A container, and its plan.
pub struct ContainerPlan {
    /// Its names.
    pub names: Names,
    /// The container, its history, and the target.
    pub containers: Containers,
    /// The plan.
    pub planned: OnePlan,
}

impl ContainerPlan {
    /// Its plan.
    pub fn plan(&self) -> &Plan {
        &self.planned.plan
    }
}

/// Plans that are used together.
pub struct Together {
    /// The plans, in order.
    pub parts: Vec<ContainerPlan>,
    /// Names a use of saved plans; `None` when the plans were made just now and are used once.
    run: Option<String>,
}

/// Progress of carrying out plans.
pub enum Stage {
    /// A plan begins.
    Begun,
    /// It has ended.
    Ended(Report),
}

/// Why saved plans cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum ReopenError {
    /// One was made for another container.
    #[error(transparent)]
    Plan(#[from] BadPlan),
    /// A container cannot be opened.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// The containers, as plans that are used together name them.
pub fn pairs(all: &[Names]) -> Vec<Pair> {
    all.iter().map(|names| Pair { source: names.source.clone(), changes: names.changes.clone() }).collect()
}

/// Plans each container. A container with nothing in scope is left out; at least one must have something.
///
/// # Errors
/// As `plan`, when a container cannot be opened, or when nothing is in scope anywhere.
pub async fn plan_each<E: From<RestoreError>>(
    all: &[Names],
    cx: &AnyContext<'_>,
    plan: impl AsyncFn(&Names, &Containers, &AnyContext<'_>) -> Result<Result<OnePlan, RestoreError>, E>,
) -> Result<Together, E> {
    let (mut parts, mut nothing) = (Vec::new(), None);
    for names in all {
        let cx = cx.of(names);
        let containers = open(None, &cx).await?;
        match plan(names, &containers, &cx).await? {
            Err(error @ (RestoreError::Nothing { .. } | RestoreError::NothingToRevert { .. })) => nothing = Some(error),
            planned => parts.push(ContainerPlan { names: names.clone(), containers, planned: planned? }),
        }
    }
    match nothing {
        Some(error) if parts.is_empty() => Err(error.into()),
        _ => Ok(Together { parts, run: None }),
    }
}

/// Opens the containers of saved plans, which may be used repeatedly: each use has its own journals.
///
/// # Errors
/// When one cannot be opened, or its plan was made for another one.
pub async fn reopen_each(saved: Vec<SavedPlan>, cx: &AnyContext<'_>) -> Result<Together, ReopenError> {
    let mut parts = Vec::new();
    for SavedPlan { plan, texts } in saved {
        let place = &plan.head.place;
        let names = Names { source: place.source.clone(), changes: place.changes.clone(), ..cx.names.clone() };
        let containers = open(None, &cx.of(&names)).await?;
        plan.head.check_place(&target_of(&containers, &cx.of(&names)))?;
        parts.push(ContainerPlan { names, containers, planned: OnePlan::of(plan, texts) });
    }
    Ok(Together { parts, run: Some(new_id(&*cx.clock)) })
}

/// Plans the undo of a restore: of this container first, then of those that were restored with it and were begun.
///
/// # Errors
/// As [`undo`].
pub async fn undo_each(request: &UndoRequest, cx: &AnyContext<'_>) -> Result<Together, RestoreError> {
    let (plan, containers) = undo(request, cx).await?;
    let together = plan.head.together.clone();
    let mut parts = vec![ContainerPlan { names: cx.names.clone(), containers, planned: OnePlan::of(plan, None) }];
    for Pair { source, changes } in together.into_iter().filter(|pair| pair.source != cx.names.source) {
        let names = Names { source, changes, ..cx.names.clone() };
        let (plan, containers) = match undo(request, &cx.of(&names)).await {
            // It was not begun there.
            Err(RestoreError::NoRestore { .. }) => continue,
            undo => undo?,
        };
        parts.push(ContainerPlan { names, containers, planned: OnePlan::of(plan, None) });
    }
    Ok(Together { parts, run: None })
}

impl Together {
    /// The single plan, when there is only one container.
    pub fn alone(&self) -> Option<&ContainerPlan> {
        match self.parts.as_slice() {
            [one] if one.plan().head.together.is_empty() => Some(one),
            _ => None,
        }
    }

    /// Whether records were set aside anywhere because they cannot be parsed.
    pub fn is_odd(&self) -> bool {
        self.parts.iter().any(|part| part.planned.is_odd)
    }

    /// How many documents will be written in all.
    pub fn writes(&self) -> usize {
        self.parts.iter().map(|part| part.plan().totals.writes).sum()
    }

    /// The name of this use's journals, by which it can be undone; `None` when nothing is to be written.
    pub fn run(&self) -> Option<&str> {
        let first = self.parts.first().filter(|_| self.writes() > 0)?;
        Some(self.run.as_deref().unwrap_or(&first.plan().head.id))
    }

    /// Approves the plans: the limits apply to all of them in total.
    ///
    /// # Errors
    /// When they write or delete more documents than that.
    pub fn approve(&self, limits: &PlanLimits) -> Result<Vec<Approval>, RestoreError> {
        Approval::of_all(&self.parts.iter().map(ContainerPlan::plan).collect::<Vec<_>>(), limits)
    }

    /// Carries the plans out one after another, and reports how each begins and ends. A plan that is given up, or not
    /// begun completely, ends the others.
    ///
    /// # Errors
    /// When nothing was written of a plan: the approvals belong to other plans, or there can be no journal.
    pub async fn apply(
        &self,
        approvals: &[Approval],
        options: &RunOptions,
        cx: &AnyContext<'_>,
        mut told: impl FnMut(&ContainerPlan, Stage),
    ) -> Result<(), RestoreError> {
        if let (Some(first), Some(run)) = (self.parts.first(), self.run()) {
            announce(&first.plan().head, run, &cx.of(&first.names)).await?;
        }
        for (part, approval) in self.parts.iter().zip(approvals) {
            told(part, Stage::Begun);
            let run = self.run().unwrap_or(&part.plan().head.id);
            let this = Use { run, made_now: self.run.is_none(), texts: part.planned.texts.as_ref() };
            // What stops a single plan is in its report, and stops the others only when something was left.
            let own = AnyContext { stop: cx.stop.child_token(), ..cx.of(&part.names) };
            let report = apply(part.plan(), approval, this, options, &part.containers, &own).await?;
            let is_last = report.not_begun > 0 || report.given_up.is_some();
            told(part, Stage::Ended(report));
            if is_last {
                break;
            }
        }
        Ok(())
    }
}
