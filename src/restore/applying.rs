//! Carries out an approved plan: journals first, writes conditionally, and reports the outcome of every step.

use std::{path::PathBuf, pin::pin};

use futures::StreamExt as _;

use super::{
    apply::{Applier, StepResult},
    error::{GivenUp, RestoreError},
    journal::{self, Journal, RunOutcomes},
    plan::{Action, PlanTarget},
    plan_file::{Pair, Plan, PlanHead},
    request::{PlanLimits, RunOptions},
};
use crate::{
    archive::texts::KeptTexts,
    causes::chain,
    config::Names,
    cosmos::RuLimiter,
    history::{AnyContext, Containers, removals},
};

/// For how many seconds a plan's statements about the history are trusted: records may be pruned.
const FRESH: i64 = 600;

/// Permission to carry out this plan and no other. It is given for a plan within its limits; asking a person comes
/// before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    plan: String,
    writes: usize,
}

impl Approval {
    /// Approves a plan within the limits.
    ///
    /// # Errors
    /// When it writes or deletes more documents than that.
    pub fn of(plan: &Plan, limits: &PlanLimits) -> Result<Self, RestoreError> {
        Self::check(&[plan], limits)?;
        Ok(Self { plan: plan.head.id.clone(), writes: plan.totals.writes })
    }

    /// Approves plans that are carried out together: the limits apply to all of them in total.
    ///
    /// # Errors
    /// When they write or delete more documents than that.
    pub fn of_all(plans: &[&Plan], limits: &PlanLimits) -> Result<Vec<Self>, RestoreError> {
        Self::check(plans, limits)?;
        Ok(plans.iter().map(|plan| Self { plan: plan.head.id.clone(), writes: plan.totals.writes }).collect())
    }

    fn check(plans: &[&Plan], limits: &PlanLimits) -> Result<(), RestoreError> {
        let writes = plans.iter().map(|plan| plan.totals.writes).sum();
        let deletes = plans.iter().map(|plan| plan.totals.count(Action::Delete)).sum();
        let head = plans.first().map(|plan| &plan.head);
        let most = limits.max_deletes.or(head.and_then(|head| head.max_deletes));
        // An undo deletes what the restore itself created, on its etag.
        let is_undo = head.is_some_and(|head| head.undoes.is_some());
        let most = most.unwrap_or(if is_undo { usize::MAX } else { 0 });
        if deletes > most {
            return Err(RestoreError::TooManyDeletes { planned: deletes, most });
        }
        if writes > limits.max {
            return Err(RestoreError::TooManyWrites { planned: writes, most: limits.max });
        }
        Ok(())
    }
}

/// Notes a restore of several containers in the histories of all of them, before any of it is written.
///
/// # Errors
/// When one cannot be opened or refuses: then nothing may be written.
pub async fn announce(head: &PlanHead, run: &str, cx: &AnyContext<'_>) -> Result<(), RestoreError> {
    for Pair { source, changes } in &head.together {
        let names = Names { source: source.clone(), changes: changes.clone(), ..cx.names.clone() };
        let history = cx.account.history(&names).await?;
        let (source, changes, target) = (source.clone(), changes.clone(), source.clone());
        let place = PlanTarget { source, changes, target, ..head.place.clone() };
        let head = PlanHead { place, ..head.clone() };
        journal::announce(&head, run, &*history, &*cx.clock).await.map_err(RestoreError::Journal)?;
    }
    Ok(())
}

/// One use of a plan.
#[derive(Clone, Copy)]
pub struct Use<'a> {
    /// The name of its journal, by which it can be undone.
    pub run: &'a str,
    /// Whether the same caller made the plan a moment ago, so that its statements about the history can be trusted.
    pub made_now: bool,
    /// The versions' texts, when they come from an archive.
    pub texts: Option<&'a KeptTexts>,
}

/// The number of steps with each outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Results {
    /// Written.
    pub done: usize,
    /// Already as planned.
    pub already: usize,
    /// Changed since the plan was made; untouched.
    pub conflict: usize,
    /// Could not be written.
    pub failed: usize,
}

impl Results {
    fn add(&mut self, result: StepResult) {
        *match result {
            StepResult::Done => &mut self.done,
            // Never the outcome of a run that came to its end.
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

/// The result of a plan.
#[derive(Debug)]
pub struct Report {
    /// The outcomes, in the journal; `None` when nothing was to be written.
    pub outcomes: Option<RunOutcomes>,
    /// The number of steps with each outcome.
    pub results: Results,
    /// Steps that write and were not begun, because the work was stopped or could no longer be journalled.
    pub not_begun: usize,
    /// Documents about which the plan could not decide.
    pub unknown: usize,
    /// Documents with fields that were left alone because later writes changed them.
    pub in_conflict: usize,
    /// Why the work was given up, if it was: no further document was begun.
    pub given_up: Option<String>,
    /// Request units that applying took.
    pub ru: f64,
    /// Where the local journal is.
    pub journal: PathBuf,
    /// Whether the history ends before the point in time.
    pub beyond: bool,
}

impl Report {
    /// Whether every document in scope is as it should be.
    pub fn is_complete(&self) -> bool {
        let open = self.results.conflict + self.results.failed + self.not_begun + self.unknown + self.in_conflict;
        open == 0 && self.given_up.is_none() && !self.beyond
    }
}

/// Carries out an approved plan. What is replaced or deleted is saved in the history first; a document that was changed
/// since the plan was made is a conflict and stays, unless forced.
///
/// # Errors
/// When nothing was written: the approval belongs to another plan, or there can be no journal.
pub async fn apply(
    plan: &Plan,
    approval: &Approval,
    this: Use<'_>,
    options: &RunOptions,
    containers: &Containers,
    cx: &AnyContext<'_>,
) -> Result<Report, RestoreError> {
    if (approval.plan.as_str(), approval.writes) != (plan.head.id.as_str(), plan.totals.writes) {
        return Err(RestoreError::OtherPlan(approval.plan.clone()));
    }
    let mut report = Report {
        outcomes: None,
        results: Results::default(),
        not_begun: 0,
        unknown: plan.totals.count(Action::Unknown),
        in_conflict: plan.totals.conflicts,
        given_up: None,
        ru: 0.0,
        journal: PathBuf::new(),
        beyond: plan.head.beyond,
    };
    let writes = plan.totals.writes;
    if writes == 0 {
        return Ok(report);
    }
    // What was removed from the history since the plan was made may be what the plan calls saved.
    let removed = removals::read(&*containers.changes).await?.at.unwrap_or(i64::MIN);
    let limiter = RuLimiter::new(cx.account.meter(), options.ru_limit);
    let journal = Journal::begin(plan, this.run, containers.changes.clone(), &options.journal, cx.clock.clone()).await;
    let mut journal = journal.map_err(RestoreError::Journal)?;
    let begun = cx.account.time().await?.timestamp();
    let intents =
        journal.intents().map_err(|source| RestoreError::Intents { path: journal.path().to_owned(), source })?;
    let applier = Applier {
        containers,
        intents: Some(&intents),
        begun: Some(begun),
        manner: &plan.head.manner,
        force: options.force,
        fresh: this.made_now && begun - plan.head.made < FRESH && removed < plan.head.made,
        texts: this.texts,
        pace: limiter,
        clock: &*cx.clock,
    };
    let steps = plan.writing_steps().map(|step| step.map_err(GivenUp::Plan));
    let progress = cx.progress.begin("restoring", Some(writes as u64));
    let mut outcomes = pin!(applier.outcomes(steps, options.concurrency, &cx.stop));
    while let Some(outcome) = outcomes.next().await {
        progress.advance(1);
        let noted = match outcome {
            Ok(outcome) => {
                report.results.add(outcome.fate);
                journal.note(outcome).await.map_err(|e| format!("the journal could not be written: {e}"))
            }
            Err(e) => Err(chain(&e)),
        };
        match noted {
            Ok(true) => {}
            // Nothing more is begun that could not be undone.
            Ok(false) => cx.stop.cancel(),
            Err(e) => {
                cx.stop.cancel();
                report.given_up.get_or_insert(e);
            }
        }
    }
    drop(progress);
    report.journal = journal.path().to_owned();
    report.outcomes = Some(journal.noted());
    if let Err(e) = journal.finish().await {
        report.given_up.get_or_insert(format!("the journal could not be written: {e}"));
    }
    report.not_begun = writes - report.results.sum();
    report.ru = applier.pace.used();
    Ok(report)
}

/// The estimated request units for applying a plan: the documents, and the journal unless nothing is written.
pub fn forecast(plan: &Plan) -> f64 {
    if plan.totals.writes == 0 { 0.0 } else { plan.totals.forecast + journal::forecast(plan) }
}
