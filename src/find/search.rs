//! Walks the history piece by piece: several pieces are examined together while the next are being read.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::AtomicI64},
};

use futures::StreamExt as _;
use tokio::task::{JoinError, JoinSet};

use super::{
    Condition, FindError, FoundWrite, Report, Request, SearchMode, SearchTally, SearchedDocuments, Window,
    look::Inspector,
};
use crate::{
    change::{time::PointInTime, version::BadRecord},
    cosmos::{Failure, HashRange, RuLimiter},
    history::{
        AnyContext, Containers,
        live::LiveDetail,
        past::LookError,
        scan::{PIECE_ROWS, Scan, ScanTexts, ScannedItem, Scope, facts_of_id},
    },
    progress::ProgressStep,
};

/// Pieces that are examined together.
const AT_ONCE: usize = 2;
/// Versions in a piece: all their texts are held, for several pieces at a time.
const ROWS: usize = PIECE_ROWS / 2;

/// The versions of a document, and records that cannot be read.
type DocumentHistory = (ScannedItem, Vec<BadRecord>);

/// How the history is searched.
pub(super) struct Search {
    pub(super) containers: Containers,
    pub(super) condition: Arc<Condition>,
    pub(super) hash_ranges: Vec<HashRange>,
    pub(super) pace: RuLimiter,
    pub(super) actor: Option<Vec<String>>,
}

impl Search {
    pub(super) async fn open(request: &Request, cx: &AnyContext<'_>) -> Result<Self, FindError> {
        let containers = cx.account.containers(cx.names, None).await?;
        let hash_ranges = containers.hash_ranges(request.shard)?;
        let pace = RuLimiter::new(cx.account.meter(), request.ru_limit);
        let (condition, actor) = (request.when.clone(), request.actor.clone());
        Ok(Self { containers, condition, hash_ranges, pace, actor })
    }

    /// The documents that are searched; for a single one, what the history has of it.
    pub(super) async fn scope(
        &self,
        request: &Request,
        window: Window,
        cx: &AnyContext<'_>,
    ) -> Result<(Scope, Option<DocumentHistory>), FindError> {
        let (id, key) = match &request.which {
            // Documents that were never touched in that time are not even read.
            SearchedDocuments::All if request.from.is_some() => {
                return Ok((Scope::Written { from: window.from, to: window.to }, None));
            }
            SearchedDocuments::All => return Ok((Scope::All, None)),
            SearchedDocuments::Where { predicate, params } => {
                return Ok((Scope::Ever { predicate: predicate.clone(), params: params.clone() }, None));
            }
            SearchedDocuments::One { id, key } => (id, key.as_ref()),
        };
        let (mut found, bad) = facts_of_id(&self.containers, &self.pace, id, key).await?;
        if let Some(key) = key {
            found.retain(|one| one.item.partition_key.0.starts_with(&key.0));
        }
        if found.len() > 1 {
            let keys = found.into_iter().map(|one| (one.item.partition_key, one.versions.len() as u64)).collect();
            return Err(LookError::Ambiguous { id: id.clone(), keys }.into());
        }
        match found.pop() {
            Some(one) => Ok((Scope::Items(vec![one.item.clone()]), Some((one, bad)))),
            None => {
                let history = cx.names.history();
                Err(LookError::NotInHistory { id: id.clone(), history }.into())
            }
        }
    }

    fn looker(&self, (window, manner): (Window, SearchMode)) -> Inspector {
        Inspector {
            containers: self.containers.clone(),
            condition: self.condition.clone(),
            window,
            pace: self.pace.clone(),
            actor: self.actor.clone(),
            flips_once: manner == SearchMode::FlipsOnce,
            earliest: (manner == SearchMode::First).then(|| AtomicI64::new(i64::MAX)),
        }
    }

    /// Examines one document whose facts are known.
    pub(super) async fn look_at(
        &self,
        (item, bad): DocumentHistory,
        window: Window,
        report: &mut Report,
    ) -> Result<Option<FoundWrite>, FindError> {
        let (write, tally) = self.looker((window, SearchMode::FlipsOnce)).look(item).await?;
        report.tally.add(tally);
        report.bad.extend(bad);
        Ok(write)
    }

    /// Walks a scope once, and passes on the findings.
    pub(super) async fn pass(
        &self,
        scope: &Scope,
        (window, manner): (Window, SearchMode),
        step: &dyn ProgressStep,
        report: &mut Report,
        each: &mut impl FnMut(FoundWrite, &mut Report) -> ControlFlow<()>,
        cx: &AnyContext<'_>,
    ) -> Result<(), FindError> {
        let looker = Arc::new(self.looker((window, manner)));
        let scan = Scan {
            containers: &self.containers,
            wanted: scope,
            at: PointInTime::END,
            hash_ranges: &self.hash_ranges,
            live: LiveDetail::No,
            piece_rows: ROWS,
            pace: &self.pace,
            texts: if manner == SearchMode::FlipsOnce { ScanTexts::No } else { ScanTexts::All },
        };
        let mut pieces = std::pin::pin!(scan.pieces());
        // Dropped with its contents: half a search is of no use.
        let mut looks: JoinSet<Result<(Vec<FoundWrite>, SearchTally), Failure>> = JoinSet::new();
        let mut is_read = false;
        while !is_read || !looks.is_empty() {
            if cx.stop.is_cancelled() {
                report.interrupted = true;
                return Ok(());
            }
            tokio::select! {
                () = cx.stop.cancelled() => {}
                Some(looked) = looks.join_next(), if !looks.is_empty() => {
                    let (writes, tally) = looked.map_err(ended)??;
                    step.advance(tally.asked);
                    report.tally.add(tally);
                    for write in writes {
                        if each(write, report).is_break() {
                            return Ok(());
                        }
                    }
                }
                piece = pieces.next(), if !is_read && looks.len() < AT_ONCE => match piece {
                    None => is_read = true,
                    Some(piece) => {
                        let mut piece = piece.map_err(|failure| refused(failure, scope))?;
                        report.bad.append(&mut piece.bad);
                        let looker = looker.clone();
                        looks.spawn(async move { looker.look_all(piece).await });
                    }
                },
            }
        }
        Ok(())
    }
}

/// A refused query is nearly always the predicate's fault.
fn refused(failure: Failure, scope: &Scope) -> FindError {
    if matches!(scope, Scope::Ever { .. }) && failure.status.is_bad_request() {
        return FindError::Predicate(failure);
    }
    failure.into()
}

/// A task that panicked takes this one down, too; one that was cancelled belongs to a program that is ending.
fn ended(error: JoinError) -> Failure {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Failure::shutting_down(),
    }
}
