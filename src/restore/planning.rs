//! Plans a restore: reads the facts about the documents in scope, and decides about each. Nothing is written.

use super::{
    apply::{Applier, ApplyOptions, Prefetched},
    archived::{ArchiveScope, Archived, known, survey as survey_archived},
    error::RestoreError,
    goal::Goals,
    plan::{Action, Chosen, PLAN_VERSION, PlanTarget, Step, StepRules},
    plan_file::{Draft, Plan, PlanHead},
    request::{NamedDocument, Request, TargetState, Targets},
    survey::{SurveyError, planned, survey},
    unnamed::fields_of_nobody,
};
use crate::{
    archive::{Archive, texts::KeptTexts, versions::ArchiveFacts},
    change::{
        Op,
        key::{ItemKey, parse_path},
        record::layout::is_id,
        time::PointInTime,
        version::{BadRecord, container_of},
    },
    clock::Clock,
    cosmos::{HashRange, RuLimiter},
    figures::count_of,
    follow::Filter,
    frontier::waiting::reach,
    history::{
        AnyContext, Containers,
        ends::from_previous_container,
        frontier::{Frontier, Reach},
        gone::DeleteSearch,
        known::Facts,
        live::{LiveDetail, look_at},
        odd_records,
        reading::WhichEnd as End,
        scan::{PIECE_ROWS, Scan, ScanTexts, ScannedItem, Scope, facts_of_id},
        version::named,
    },
};

/// A plan, and what belongs to it.
pub struct Planned {
    /// The plan, to be shown, approved and applied.
    pub plan: Plan,
    /// The versions' texts, when they come from an archive.
    pub texts: Option<KeptTexts>,
    /// Records that cannot be parsed: they were reported and set aside, and may be versions of what is restored.
    pub bad: Vec<BadRecord>,
}

/// Opens the containers of a restore: the history, its source, and the target, which is the source unless another one
/// is named.
///
/// # Errors
/// When one cannot be opened, the target has another partition key than the source, or documents cannot be put into it.
pub async fn open(into: Option<&str>, cx: &AnyContext<'_>) -> Result<Containers, RestoreError> {
    if into == Some(cx.names.changes.as_str()) {
        return Err(RestoreError::IntoHistory);
    }
    let containers = cx.account.containers(cx.names, into).await?;
    let (target, source) = (&containers.target, &containers.source);
    if target.key_paths() != source.key_paths() {
        return Err(RestoreError::OtherKey {
            target: target.name().to_owned(),
            target_key: target.key_paths().to_string(),
            source_key: source.key_paths().to_string(),
        });
    }
    match target.unfit() {
        Some(why) => Err(RestoreError::Unfit { target: target.name().to_owned(), why: why.to_owned() }),
        None => Ok(containers),
    }
}

/// The containers that a plan is made for.
pub fn target_of(containers: &Containers, cx: &AnyContext<'_>) -> PlanTarget {
    PlanTarget {
        account: cx.account.endpoint().to_owned(),
        database: cx.account.database(cx.names).to_owned(),
        source: cx.names.source.clone(),
        changes: cx.names.changes.clone(),
        target: containers.target.name().to_owned(),
    }
}

/// A new id for a plan, or for a use of one; ids sort by time.
pub fn new_id(clock: &dyn Clock) -> String {
    format!("{}-{:06x}", clock.now().format("%Y%m%dT%H%M%S%3fZ"), rand::random::<u32>() & 0x00ff_ffff)
}

/// Plans a restore.
///
/// # Errors
/// When the request is wrong, nothing is in scope, or the account cannot be used.
pub async fn plan(
    request: &Request<'_>,
    containers: &Containers,
    cx: &AnyContext<'_>,
) -> Result<Planned, RestoreError> {
    let only = request.only.iter().map(|path| parse_path(path)).collect::<Result<Vec<_>, _>>();
    check_fields(&only.map_err(RestoreError::Path)?, containers)?;
    let limiter = RuLimiter::new(cx.account.meter(), request.ru_limit);
    let scope = scope(&request.which, containers, &limiter, cx).await?;
    let hash_ranges = containers.hash_ranges(request.shard).map_err(RestoreError::Shard)?;
    let (at, version) = match &request.state {
        TargetState::At(at) => (*at, None),
        TargetState::Version(version) => (PointInTime::END, Some(version.as_str())),
        TargetState::Each(_) => (PointInTime::END, None),
    };
    let made = cx.account.time().await?.timestamp();
    let from_history = request.archive.is_none();
    if !from_history && matches!(request.state, TargetState::Each(_)) {
        return Err(RestoreError::EachFromArchive);
    }
    let rules = rules(request, at, containers).await?;
    // A named version is what it is; only for moments, and here for the last of them, it matters how far the history
    // reaches.
    let moment = request.state.last_moment().filter(|_| from_history);
    let frontier = match moment {
        Some(moment) => reach(moment, request.wait, &limiter, cx).await?,
        None => Frontier::default(),
    };
    let beyond = moment.is_some_and(|moment| !frontier.covers(moment));
    let head = PlanHead {
        v: PLAN_VERSION,
        id: new_id(&*cx.clock),
        undoes: None,
        place: target_of(containers, cx),
        at: if let TargetState::At(at) = &request.state { Some(at.seconds()) } else { None },
        per_document: matches!(request.state, TargetState::Each(_)),
        feed_range: request.shard.map(|shard| shard.to_string()),
        archive: request.archive.map(ToString::to_string),
        frontier: frontier.until().map(PointInTime::seconds),
        beyond,
        max_deletes: request.max_deletes,
        takes_back: None,
        fork: false,
        together: request.together.clone(),
        made,
        manner: ApplyOptions { stamp: request.stamp.then_some(made), only: request.only.clone() },
    };
    let mut draft = Draft::new(head.clone())?;
    let applier = Applier::planning(containers, &head.manner, limiter.clone(), &*cx.clock);
    let work = Planning { request, at, rules, limiter: &limiter, hash_ranges: &hash_ranges, frontier: &frontier, cx };
    let (mut texts, mut bad) = (None, Vec::new());
    match (request.archive, version) {
        (Some(archive), _) => texts = Some(work.survey_archive(archive, scope, applier, &mut draft).await?),
        (None, Some(version)) => work.version(&applier, &scope, version, &mut draft).await?,
        (None, None) => bad = work.survey_history(&applier, &scope, &mut draft).await?,
    }
    let plan = draft.seal()?;
    // One of several machines that share a restore may well have nothing to do.
    if plan.totals.steps == 0 && request.shard.is_none() {
        let unnamed = fields_of_nobody(&request.which, containers, &limiter).await;
        return Err(RestoreError::Nothing { at, account: cx.account.endpoint().to_owned(), unnamed });
    }
    Ok(Planned { plan, texts, bad })
}

/// Everything that the documents of a plan share.
struct Planning<'a> {
    request: &'a Request<'a>,
    at: PointInTime,
    rules: StepRules,
    limiter: &'a RuLimiter,
    hash_ranges: &'a [HashRange],
    frontier: &'a Frontier,
    cx: &'a AnyContext<'a>,
}

impl Planning<'_> {
    /// Looks for documents of the source that are gone without a delete.
    fn gone<'a>(&'a self, containers: &'a Containers) -> DeleteSearch<'a> {
        let (changes, source) = (&*containers.changes, &*containers.source);
        DeleteSearch::new(self.cx.account, self.cx.names, (changes, source), self.frontier, self.limiter)
            .elsewhere(containers.is_elsewhere())
    }

    async fn survey_history(
        &self,
        applier: &Applier<'_>,
        scope: &Scope,
        draft: &mut Draft,
    ) -> Result<Vec<BadRecord>, RestoreError> {
        let at = self.at;
        // A document with another etag is put back, unless its content turns out to be the same.
        let needs_text = |found: &ScannedItem| {
            let etag = found.live.as_ref().map(|live| live.etag.as_str());
            found.document_at(at).is_some_and(|version| etag.is_none() || version.etag.as_deref() != etag)
        };
        let scan = |wanted| Scan {
            containers: applier.containers,
            wanted,
            at,
            hash_ranges: self.hash_ranges,
            live: LiveDetail::Text,
            piece_rows: PIECE_ROWS,
            pace: self.limiter,
            texts: ScanTexts::InForce(&needs_text),
        };
        let planning = self.cx.progress.begin("planning", None);
        let gone = self.gone(applier.containers);
        let (reached, concurrency) = ((self.frontier, &gone), self.request.concurrency);
        let each_its_own = if let TargetState::Each(each) = &self.request.state { Some(each) } else { None };
        let goals = Goals { rules: self.rules, each: each_its_own };
        let refused = |error: SurveyError| match error {
            SurveyError::Cosmos(failure) if matches!(self.request.which, Targets::Where { .. }) => {
                RestoreError::Predicate(failure)
            }
            other => other.into(),
        };
        let mut each = |n| planning.advance(n);
        let mut bad =
            survey(&scan(scope), applier, reached, goals, concurrency, draft, &mut each).await.map_err(refused)?;
        // Documents that match a predicate now and were created after the point in time.
        if self.request.delete_newer
            && let Targets::Where { predicate, params } = &self.request.which
        {
            let now = Scope::Live { predicate: predicate.clone(), params: params.clone() };
            let live = scan(&now);
            let more = survey(&live, applier, reached, goals, concurrency, draft, &mut each);
            bad.extend(more.await.map_err(refused)?);
        }
        drop(planning);
        odd_records::tell(&bad, self.cx.progress);
        Ok(bad)
    }

    /// The texts that the plan needs.
    async fn survey_archive(
        &self,
        archive: &Archive,
        scope: Scope,
        applier: Applier<'_>,
        draft: &mut Draft,
    ) -> Result<KeptTexts, RestoreError> {
        let filter = match &self.request.which {
            Targets::Filter(expression) => Some(Filter::compile(expression)?),
            _ => None,
        };
        let wanted = match scope {
            Scope::Items(items) => ArchiveScope::Items(items.into_iter().collect()),
            _ if filter.is_some() => ArchiveScope::Filtered,
            _ => ArchiveScope::All,
        };
        let planning = self.cx.progress.begin("planning", None);
        let keys = applier.containers.source.key_paths();
        let only = if let ArchiveScope::Items(items) = &wanted { Some(items.clone()) } else { None };
        let facts = ArchiveFacts::of(archive.clone(), keys.len(), only, applier.containers.source.namespace())
            .await
            .map_err(RestoreError::Archive)?;
        facts.counts.describe(None).iter().for_each(|line| planning.note(line));
        let mut known = known(applier.containers, &applier.pace, &facts, &wanted, self.rules).await?;
        let needed = std::mem::take(&mut known.wanted);
        let texts = KeptTexts::read(archive, needed, keys, filter.as_ref()).await.map_err(RestoreError::Archive)?;
        if texts.no_answer > 0 {
            planning.note(&format!("--filter has no answer about {}", count_of(texts.no_answer, "version")));
        }
        let applier = Applier { texts: Some(&texts), ..applier };
        let each = |n| planning.advance(n);
        let gone = self.gone(applier.containers);
        let archived = Archived { facts: &facts, texts: &texts, wish: &wanted, known, gone };
        survey_archived(archived, &applier, self.rules, self.request.concurrency, draft, each).await?;
        Ok(texts)
    }

    /// The step that puts back one named version.
    async fn version(
        &self,
        applier: &Applier<'_>,
        scope: &Scope,
        wanted: &str,
        draft: &mut Draft,
    ) -> Result<(), RestoreError> {
        let Scope::Items(items) = scope else { return Ok(()) };
        for item in items {
            let (found, odd) =
                facts_of_id(applier.containers, self.limiter, &item.id, Some(&item.partition_key)).await?;
            odd_records::tell(&odd, self.cx.progress);
            let found = found.into_iter().find(|found| found.item == *item);
            let versions = found.map(|found| found.versions).unwrap_or_default();
            let version = named(&versions, wanted)?;
            if version.op.is_some_and(Op::is_tombstone) {
                return Err(RestoreError::IsDelete { wanted: wanted.to_owned(), ts: version.ts });
            }
            let live = look_at(&*applier.containers.target, self.limiter, item, None, true).await?;
            let etag = live.as_ref().map(|live| &live.etag);
            let action = match etag {
                None => Action::Recreate,
                Some(etag) if version.etag.as_ref() == Some(etag) => Action::Keep,
                Some(_) => Action::Restore,
            };
            let (target, source) = (live.as_ref(), live.as_ref());
            let facts = Facts { versions: &versions, unkeyed: &[], target, source, reach: Reach::ALL, lost: None };
            let mut step = Step::about(item, &facts, Some(Chosen::from(version)), action);
            if version.is_partial() {
                step.action = Action::Unknown;
                step.notes.push(version.why_partial().into());
            }
            let hand = Prefetched { version: None, live: Some(live.and_then(|live| live.text)) };
            draft.push(planned(applier, step, hand).await?)?;
        }
        Ok(())
    }
}

/// Fields that can be put back individually.
///
/// # Errors
/// When one is the id, or a part of the partition key.
pub fn check_fields(only: &[Vec<String>], containers: &Containers) -> Result<(), RestoreError> {
    for path in only {
        if is_id(path) || containers.source.key_paths().segments().contains(path) {
            return Err(RestoreError::KeyField);
        }
    }
    Ok(())
}

async fn rules(request: &Request<'_>, at: PointInTime, containers: &Containers) -> Result<StepRules, RestoreError> {
    let from_history = request.archive.is_none();
    Ok(StepRules {
        at,
        delete_newer: request.delete_newer,
        recreate_deleted: request.recreate_deleted,
        named: matches!(request.which, Targets::Named(_)),
        container: container_of(containers.source.rid()),
        recreated: request.delete_newer && from_history && from_previous_container(containers, End::Oldest).await?,
    })
}

/// Where the documents of a request are searched.
///
/// # Errors
/// When a named document is not in the history, or several share its id.
pub async fn scope(
    which: &Targets,
    containers: &Containers,
    limiter: &RuLimiter,
    cx: &AnyContext<'_>,
) -> Result<Scope, RestoreError> {
    let named = match which {
        Targets::All | Targets::Filter(_) => return Ok(Scope::All),
        Targets::Where { predicate, params } => {
            return Ok(Scope::Where { predicate: predicate.clone(), params: params.clone() });
        }
        Targets::Items(items) => return Ok(Scope::Items(items.clone())),
        Targets::Named(named) => named,
    };
    let mut items = Vec::new();
    for NamedDocument { id, key } in named {
        if let Some(key) = key {
            items.push(ItemKey { id: id.clone(), partition_key: key.clone() });
            continue;
        }
        let (found, odd) = facts_of_id(containers, limiter, id, None).await?;
        odd_records::tell(&odd, cx.progress);
        match found.as_slice() {
            [one] => items.push(one.item.clone()),
            [] => return Err(RestoreError::NotInHistory(id.clone())),
            several => {
                let keys = several.iter().map(|found| found.item.partition_key.clone()).collect();
                return Err(RestoreError::Ambiguous { id: id.clone(), keys });
            }
        }
    }
    Ok(Scope::Items(items))
}

/// The texts that a saved plan needs, when they come from an archive.
///
/// # Errors
/// When the archive is missing or superfluous, differs from the one that was planned with, or cannot be read.
pub async fn texts_of(
    plan: &Plan,
    archive: Option<&Archive>,
    containers: &Containers,
) -> Result<Option<KeptTexts>, RestoreError> {
    let archive = match (&plan.head.archive, archive) {
        (None, None) => return Ok(None),
        (Some(_), Some(archive)) => archive,
        (Some(name), None) => return Err(RestoreError::WithoutArchive(name.clone())),
        (None, Some(_)) => return Err(RestoreError::WithArchive),
    };
    let mut wanted = Vec::new();
    for step in plan.writing_steps() {
        let step = step?;
        if let Some((chosen, place)) = step.version.as_ref().and_then(|v| Some((v, v.archived.as_ref()?))) {
            wanted.push(archive.wanted(place, &chosen.record_id)?);
        }
    }
    let texts = KeptTexts::read(archive, wanted, containers.source.key_paths(), None).await;
    texts.map(Some).map_err(RestoreError::Archive)
}
