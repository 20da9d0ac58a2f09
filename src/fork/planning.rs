//! Plans how a fork's changes are brought into the live container. Nothing is written.

use std::io;

use futures::{StreamExt as _, stream};

use super::{
    listed::{CHANGED, ForkedDocument},
    merging::ThreeTexts,
};
use crate::{
    archive::texts::{Keeping, KeptTexts},
    change::{
        key::ItemKey,
        merge::{BASE, FORK, MergeRules, Prefer},
        record::{id_of_version, own_text},
    },
    cosmos::{Container, Cosmos, Failure, Param, RETRY_TIMEOUT, Retry, RuLimiter},
    history::{AnyContext, Containers, frontier::Reach, known::Facts, live::look_at},
    restore::{
        Field, Fields, RestoreError,
        apply::{Applier, ApplyOptions, Prefetched},
        check_fields,
        fields::FieldCollector,
        new_id,
        plan::{Action, PLAN_VERSION, Step},
        plan_file::{Draft, Pair, Plan, PlanHead},
        survey::completed,
        target_of,
        together::OnePlan,
    },
    revert::action_of,
};

/// Documents in flight.
const CONCURRENCY: usize = 16;

/// A request to bring the changes of a fork into live documents.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The fork's account.
    pub fork: &'a Cosmos,
    /// How fields are merged. [`Prefer::Base`] means the fork's value here, [`Prefer::Ours`] the live one.
    pub rules: MergeRules,
    /// Whether documents are deleted that were deleted in the fork.
    pub delete_removed: bool,
    /// How many documents the plan may delete; `None` leaves that to the approver.
    pub max_deletes: Option<usize>,
    /// All containers of one plan file, including this one; empty when it is the only one.
    pub together: Vec<Pair>,
}

/// A plan, and further results.
pub struct PlannedFork {
    /// The plan, to be shown, approved and applied.
    pub plan: Plan,
    /// The fields that it concerns, with their values.
    pub fields: Fields,
    /// The fork's texts that the plan takes values from: they exist nowhere else once the fork has ended.
    pub texts: KeptTexts,
}

impl From<PlannedFork> for OnePlan {
    fn from(PlannedFork { plan, fields, texts }: PlannedFork) -> Self {
        Self { plan, fields: Some(fields), texts: Some(texts), is_odd: false }
    }
}

/// Plans how a fork's changes are brought into the live container.
///
/// # Errors
/// When the address is not that of a fork, or the fork belongs to another account; when either account cannot be used;
/// when values are masked in the fork, and conflicts are to take the fork's values.
pub async fn plan(
    request: &Request<'_>,
    containers: &Containers,
    cx: &AnyContext<'_>,
) -> Result<PlannedFork, RestoreError> {
    check_fields(&request.rules.only, containers)?;
    let (fork, listed) = changed(request, cx).await?;
    let masked = listed.iter().any(|listed| listed.masked);
    if masked && request.rules.prefer == Some(Prefer::Base) {
        return Err(RestoreError::MaskedFork);
    }
    let place = target_of(containers, cx);
    if let Some(other) = listed.iter().find(|listed| listed.account != place.account) {
        return Err(RestoreError::OtherFork { fork: other.account.clone(), live: place.account });
    }
    let head = PlanHead {
        v: PLAN_VERSION,
        id: new_id(&*cx.clock),
        undoes: None,
        place,
        at: listed.first().map(|listed| listed.at),
        per_document: false,
        feed_range: None,
        archive: None,
        frontier: None,
        beyond: false,
        max_deletes: request.max_deletes,
        takes_back: None,
        fork: true,
        together: request.together.clone(),
        made: cx.account.time().await?.timestamp(),
        manner: ApplyOptions { stamp: None, only: Vec::new() },
    };
    let mut draft = Draft::new(head.clone())?;
    let limiter = RuLimiter::new(cx.account.meter(), None);
    let applier = Applier::planning(containers, &head.manner, limiter, &*cx.clock);
    let work = Work { request, applier: &applier, fork: &fork };
    let planning = cx.progress.begin("planning", Some(listed.len() as u64));
    let (mut gathering, mut texts) = (FieldCollector::new()?, Keeping::new()?);
    let mut looked_at = stream::iter(listed).map(|listed| work.document(listed)).buffered(CONCURRENCY);
    while let Some(looked_at) = looked_at.next().await {
        planning.advance(1);
        if let Some(LookedAt { item, step, fields, fork, base }) = looked_at? {
            keep(&mut texts, &item, &step, (fork, base))?;
            draft.push(step)?;
            gathering.add(fields)?;
        }
    }
    drop((looked_at, planning));
    Ok(PlannedFork { plan: draft.seal()?, fields: gathering.finish()?, texts: texts.finish()? })
}

/// The documents of the container that were changed in the fork.
async fn changed(request: &Request<'_>, cx: &AnyContext<'_>) -> Result<(Container, Vec<ForkedDocument>), RestoreError> {
    let no_fork = |failure: Failure| {
        if failure.status.code == 404 { RestoreError::NoFork(failure) } else { RestoreError::Fork(failure) }
    };
    let database = &cx.names.database;
    let list = request.fork.container(database, CHANGED).await.map_err(no_fork)?;
    let fork = request.fork.container(database, &cx.names.source).await.map_err(no_fork)?;
    let of = [Param::new("container", cx.names.source.as_str())];
    let query = || list.query_all("SELECT * FROM c WHERE c.container = @container", &of, None);
    let found = Retry::for_at_most(RETRY_TIMEOUT).run(query).await.map_err(RestoreError::Fork)?;
    let listed = found.iter().map(|raw| {
        serde_json::from_str(raw.get()).map_err(|e| {
            RestoreError::Fork(Failure::invalid("read the list of changed documents".into(), e.to_string()))
        })
    });
    Ok((fork, listed.collect::<Result<_, _>>()?))
}

/// Keeps the texts that a step takes values from.
fn keep(
    texts: &mut Keeping,
    item: &ItemKey,
    step: &Step,
    (fork, base): (Option<String>, Option<String>),
) -> io::Result<()> {
    let versions = step.own_versions();
    for (version, text) in [(FORK, fork), (BASE, base)] {
        if let Some(text) = text.filter(|_| versions.contains(version)) {
            texts.add(item, version, &text)?;
        }
    }
    Ok(())
}

/// Everything that the documents of a plan share.
struct Work<'a> {
    request: &'a Request<'a>,
    applier: &'a Applier<'a>,
    fork: &'a Container,
}

/// A document that was examined.
struct LookedAt {
    item: ItemKey,
    step: Step,
    fields: Vec<Field>,
    fork: Option<String>,
    base: Option<String>,
}

impl Work<'_> {
    async fn document(&self, listed: ForkedDocument) -> Result<Option<LookedAt>, RestoreError> {
        let invalid = |problem: String| Failure::invalid("read a document of the fork".into(), problem);
        let item = listed.item().map_err(RestoreError::Fork)?;
        let read = || self.fork.read(&item.partition_key, &item.id);
        let fork = Retry::for_at_most(RETRY_TIMEOUT).run(read).await.map_err(RestoreError::Fork)?;
        let fork = fork.map(|text| own_text(&String::from_utf8_lossy(&text))).transpose();
        let fork = fork.map_err(|e| RestoreError::Fork(invalid(e.to_string())))?;
        let base = listed.before.map(|text| text.get().to_owned());
        let containers = self.applier.containers;
        let live = look_at(&*containers.target, &self.applier.pace, &item, None, true).await?;
        // Usually the history has the live version; then it need not be saved again.
        let mut versions = Vec::new();
        if let Some(live) = &live {
            let record = containers.record(&item, &id_of_version(&item.id, &live.etag)).await;
            versions.extend(record.ok().flatten());
        }
        let (target, source) = (live.as_ref(), live.as_ref());
        let facts = Facts { versions: &versions, unkeyed: &[], target, source, reach: Reach::ALL, lost: None };
        let mut step = Step::about(&item, &facts, None, Action::Unknown);
        let live = live.and_then(|live| live.text);
        let own = live.as_deref().map(own_text).transpose();
        let own = own.map_err(|e| Failure::invalid("read a live document".into(), e.to_string()))?;
        let three = ThreeTexts { base: base.as_deref(), fork: fork.as_deref(), live: own.as_deref() };
        let rules = &self.request.rules;
        let merged = match three.has_wish(rules).and_then(|has| has.then(|| three.merged(rules)).transpose()) {
            Ok(Some(merged)) => merged,
            Ok(None) => return Ok(None),
            Err(problem) => {
                step.notes.push(problem.to_string());
                return Ok(Some(LookedAt { item, step, fields: Vec::new(), fork, base }));
            }
        };
        let above = merged.above.iter();
        step.notes.extend(above.map(|place| format!("{place} was changed as a whole; --only leaves it alone")));
        step.conflicts = merged.conflicts.iter().map(|conflict| conflict.place.to_string()).collect();
        let kept = "was deleted in the fork; --delete-removed deletes it";
        let kept = (!self.request.delete_removed).then_some(kept);
        step.action = action_of(&merged, step.live.is_some(), kept, &mut step.notes);
        if step.action == Action::Keep && step.notes.is_empty() && step.conflicts.is_empty() {
            return Ok(None);
        }
        let fields = three.fields(&step.pk, &item.id, &merged, step.action == Action::Keep);
        if step.action.writes() {
            step.edits = merged.edits;
            step = completed(self.applier, step, Prefetched { version: merged.text, live: Some(live) }).await?;
        }
        Ok(Some(LookedAt { item, step, fields, fork, base }))
    }
}
