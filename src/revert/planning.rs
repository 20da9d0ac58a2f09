//! Plans a revert: reads the versions of the documents in scope, and merges each. Nothing is written.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    document::{DocumentError, KnownDocument, RevertOutcome, RevertRules, TextReader},
    request::Request,
};
use crate::{
    causes::chain,
    change::{
        key::ItemKey,
        merge::Merged,
        time::PointInTime,
        version::{BadRecord, Version},
    },
    cosmos::{Failure, RuLimiter},
    figures::count_of,
    follow::Filter,
    frontier::waiting::reach,
    history::{
        AnyContext, Containers,
        frontier::Frontier,
        known::{Facts, with_live},
        live::LiveDetail,
        odd_records,
        scan::{PIECE_ROWS, Scan, ScanTexts, ScannedItem, Scope, text_of},
    },
    restore::{
        Field, Fields, RestoreError, Targets,
        apply::{Applier, ApplyOptions, Prefetched},
        check_fields,
        fields::{self, FieldCollector},
        new_id,
        plan::{Action, Chosen, PLAN_VERSION, Step},
        plan_file::{Draft, Plan, PlanHead, RevertedWrites},
        scope,
        survey::completed,
        target_of,
        together::OnePlan,
    },
};

/// A plan, and further results.
#[derive(Debug)]
pub struct PlannedRevert {
    /// The plan, to be shown, approved and applied.
    pub plan: Plan,
    /// The fields that it concerns, with their values.
    pub fields: Fields,
    /// Records that cannot be parsed: they were reported and set aside, and may be versions of what is reverted.
    pub bad: Vec<BadRecord>,
    /// Writes for which the expression has no answer; they are kept.
    pub no_answers: u64,
}

impl From<PlannedRevert> for OnePlan {
    fn from(planned: PlannedRevert) -> Self {
        let is_odd = !planned.bad.is_empty();
        Self { plan: planned.plan, fields: Some(planned.fields), texts: None, is_odd }
    }
}

/// Plans a revert.
///
/// # Errors
/// When the request is wrong, there is no write to take back, or the account cannot be used.
pub async fn plan(
    request: &Request,
    containers: &Containers,
    cx: &AnyContext<'_>,
) -> Result<PlannedRevert, RestoreError> {
    check_fields(&request.rules.only, containers)?;
    let filter = request.filter.as_deref().map(Filter::compile).transpose()?;
    let limiter = RuLimiter::new(cx.account.meter(), request.ru_limit);
    let scope = match scope(&request.which, containers, &limiter, cx).await? {
        Scope::All => Scope::Written { from: request.from, to: request.to },
        scope => scope,
    };
    let hash_ranges = containers.hash_ranges(request.shard).map_err(RestoreError::Shard)?;
    let made = cx.account.time().await?.timestamp();
    let frontier = reach(request.to, request.wait, &limiter, cx).await?;
    let beyond = !frontier.covers(request.to);
    let head = PlanHead {
        v: PLAN_VERSION,
        id: new_id(&*cx.clock),
        undoes: None,
        place: target_of(containers, cx),
        at: None,
        per_document: false,
        feed_range: request.shard.map(|shard| shard.to_string()),
        archive: None,
        frontier: frontier.until().map(PointInTime::seconds),
        beyond,
        max_deletes: request.max_deletes,
        takes_back: Some(RevertedWrites {
            from: request.from.seconds(),
            to: request.to.seconds(),
            filter: request.filter.clone(),
        }),
        fork: false,
        together: request.together.clone(),
        made,
        manner: ApplyOptions { stamp: None, only: Vec::new() },
    };
    let mut draft = Draft::new(head.clone())?;
    let applier = Applier::planning(containers, &head.manner, limiter.clone(), &*cx.clock);
    let wish = RevertRules {
        from: request.from,
        to: request.to,
        filter: filter.as_ref(),
        rules: &request.rules,
        assume_no_gaps: request.assume_no_gaps,
        named: matches!(request.which, Targets::Named(_)),
    };
    let scan = Scan {
        containers,
        wanted: &scope,
        at: request.to,
        hash_ranges: &hash_ranges,
        live: LiveDetail::Text,
        piece_rows: PIECE_ROWS,
        pace: &limiter,
        texts: ScanTexts::All,
    };
    let work = Work { wish, request, frontier: &frontier, applier: &applier };
    let mut gathering = FieldCollector::new()?;
    let (mut bad, mut no_answers) = (Vec::new(), 0);
    let planning = cx.progress.begin("planning", None);
    let mut pieces = std::pin::pin!(scan.pieces());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|failure| work.refused(failure))?;
        bad.extend(piece.bad);
        planning.advance(piece.found.len() as u64);
        let mut looked_at =
            stream::iter(piece.found).map(|found| work.document(found)).buffered(request.concurrency.max(1));
        while let Some(looked_at) = looked_at.try_next().await? {
            no_answers += looked_at.no_answers;
            if let Some((step, fields)) = looked_at.step {
                draft.push(step)?;
                gathering.add(fields)?;
            }
        }
    }
    drop(planning);
    odd_records::tell(&bad, cx.progress);
    if no_answers > 0 {
        let count = count_of(no_answers, "write");
        cx.progress.note(&format!("--filter has no answer about {count}, which stay as they are"));
    }
    let plan = draft.seal()?;
    // One of several machines that share a revert may well have nothing to do.
    if plan.totals.steps == 0 && request.shard.is_none() {
        let ends = beyond.then(|| frontier.describe());
        return Err(RestoreError::NothingToRevert { ends, from: request.from, to: request.to });
    }
    Ok(PlannedRevert { plan, fields: gathering.finish()?, bad, no_answers })
}

/// Everything that the documents of a plan share.
struct Work<'a> {
    wish: RevertRules<'a>,
    request: &'a Request,
    frontier: &'a Frontier,
    applier: &'a Applier<'a>,
}

/// A document that was examined.
struct LookedAt {
    step: Option<(Step, Vec<Field>)>,
    no_answers: u64,
}

impl TextReader for Work<'_> {
    async fn text(&self, item: &ItemKey, version: &Version) -> Result<Option<String>, Failure> {
        self.applier.pace.wait().await;
        Ok(text_of(self.applier.containers, item, version).await?.map(std::borrow::Cow::into_owned))
    }
}

impl Work<'_> {
    fn refused(&self, failure: Failure) -> RestoreError {
        match self.request.which {
            Targets::Where { .. } => RestoreError::Predicate(failure),
            _ => failure.into(),
        }
    }

    async fn document(&self, found: ScannedItem) -> Result<LookedAt, RestoreError> {
        let ScannedItem { item, versions, live, unkeyed, undecided, copies: _, lost: _ } = found;
        let all = with_live(&item.id, &versions, live.as_ref());
        let reach = self.frontier.reach(&*self.applier.containers.source, &item.partition_key);
        let document = KnownDocument { item: &item, versions: &all, unkeyed: &unkeyed, live: live.as_ref(), reach };
        let mut no_answers = 0;
        let outcome = match document.merged(&self.wish, self, &mut no_answers).await {
            Ok(outcome) => outcome,
            // A record that cannot be read is no reason to leave the others alone.
            Err(DocumentError::Cosmos(failure)) if failure.is_own() => RevertOutcome::Unknown(failure.message),
            Err(DocumentError::Cosmos(failure)) => return Err(failure.into()),
            Err(DocumentError::Filter(problem)) => return Err(RestoreError::NoFilter(problem)),
        };
        let facts = Facts {
            versions: &versions,
            unkeyed: &unkeyed,
            target: live.as_ref(),
            source: live.as_ref(),
            reach,
            lost: None,
        };
        let mut step = Step::about(&item, &facts, None, Action::Unknown);
        let (merged, base) = match outcome {
            RevertOutcome::Untouched => return Ok(LookedAt { step: None, no_answers }),
            RevertOutcome::Unknown(problem) => {
                step.notes.push(problem);
                return Ok(LookedAt { step: Some((step, Vec::new())), no_answers });
            }
            RevertOutcome::Merged { merged, base, notes } => {
                step.notes = notes;
                (merged, base)
            }
        };
        if let Some(problem) = undecided {
            step.notes = vec![format!("whether it matched is not known: {}", chain(&problem))];
            return Ok(LookedAt { step: Some((step, Vec::new())), no_answers });
        }
        if facts.is_beyond(self.wish.to) {
            step.notes.push(format!("{}: later writes of the window may be missing", facts.ends()));
        }
        step.version = base.map(Chosen::from);
        step.conflicts = merged.conflicts.iter().map(|conflict| conflict.place.to_string()).collect();
        let kept = "was created by a write that is taken back; --delete-created deletes it";
        let kept = (!self.request.delete_created).then_some(kept);
        step.action = action_of(&merged, step.live.is_some(), kept, &mut step.notes);
        let is_kept = step.action == Action::Keep;
        let fields = fields::of(&item, &merged, is_kept);
        if step.action.writes() {
            step.edits = merged.edits;
            let hand = Prefetched { version: merged.text, live: Some(live.and_then(|live| live.text)) };
            step = completed(self.applier, step, hand).await?;
        }
        Ok(LookedAt { step: Some((step, fields)), no_answers })
    }
}

/// The step for a merged document. `kept` is why a document is left alone that would be deleted; `None` deletes it.
pub(crate) fn action_of(merged: &Merged, is_live: bool, kept: Option<&str>, notes: &mut Vec<String>) -> Action {
    match (&merged.text, is_live, kept) {
        (None, true, Some(why)) => {
            notes.push(why.to_owned());
            Action::Keep
        }
        (None, true, None) => Action::Delete,
        (Some(_), false, _) => Action::Recreate,
        (Some(_), true, _) if !merged.taken.is_empty() => Action::Restore,
        _ => Action::Keep,
    }
}
