//! How the history is gone through: piece by piece, several looked at together while the next are read.

use std::{ops::ControlFlow, sync::Arc};

use futures::StreamExt as _;
use tokio::task::{JoinError, JoinSet};

use super::{Condition, FindError, FoundWrite, Manner, Report, Tally, Which, Window, look::Looker};
use crate::{
    change::{time::PointInTime, version::BadRecord},
    cosmos::{Failure, HashRange, RuLimiter, Shard},
    history::{
        AnyContext, Containers,
        live::LiveDetail,
        past::LookError,
        reading::Which as End,
        scan::{PIECE_ROWS, Scan, ScanTexts, Scope, facts_of_id},
    },
    progress::ProgressStep,
};

/// Pieces that are looked at together.
const AT_ONCE: usize = 4;
/// Parts of the time that is asked for which are gone through, oldest first, until one has a write.
const SLICES: i64 = 16;

/// How the history is gone through.
pub(super) struct Search {
    pub(super) containers: Containers,
    pub(super) condition: Arc<Condition>,
    pub(super) hash_ranges: Vec<HashRange>,
    pub(super) pace: RuLimiter,
    pub(super) actor: Option<Vec<String>>,
}

impl Search {
    pub(super) async fn open(
        condition: Arc<Condition>,
        shard: Option<Shard>,
        ru_limit: Option<f64>,
        actor: Option<Vec<String>>,
        cx: &AnyContext<'_>,
    ) -> Result<Self, FindError> {
        let containers = cx.account.containers(cx.names, None).await?;
        let hash_ranges = containers.hash_ranges(shard)?;
        let pace = RuLimiter::new(cx.account.meter(), ru_limit);
        Ok(Self { containers, condition, hash_ranges, pace, actor })
    }

    /// The documents that are named; `None` when that is left to the time. Records that are not understood come along.
    pub(super) async fn scope(
        &self,
        which: &Which,
        cx: &AnyContext<'_>,
    ) -> Result<(Option<Scope>, Vec<BadRecord>), FindError> {
        let (id, key) = match which {
            Which::All => return Ok((None, Vec::new())),
            Which::Where { predicate, params } => {
                let scope = Scope::Ever { predicate: predicate.clone(), params: params.clone() };
                return Ok((Some(scope), Vec::new()));
            }
            Which::One { id, key } => (id, key.as_ref()),
        };
        let (mut found, bad) = facts_of_id(&self.containers, &self.pace, id, key).await?;
        if let Some(key) = key {
            found.retain(|one| one.item.partition_key.0.starts_with(&key.0));
        }
        match found.as_slice() {
            [one] => Ok((Some(Scope::Items(vec![one.item.clone()])), bad)),
            [] => {
                let history = format!("{}/{}", cx.names.database, cx.names.changes);
                Err(LookError::NotInHistory { id: id.clone(), history }.into())
            }
            several => {
                let key = |one: &crate::history::scan::ScannedItem| {
                    (one.item.partition_key.clone(), one.versions.len() as u64)
                };
                Err(LookError::Ambiguous { id: id.clone(), keys: several.iter().map(key).collect() }.into())
            }
        }
    }

    /// What was written in a window, or everything where it has no beginning.
    pub(super) fn of_time(&self, window: Window, begins: bool) -> Scope {
        if begins { Scope::Written { from: window.from, to: window.to } } else { Scope::All }
    }

    /// The parts of a window in which the history has anything, oldest first.
    pub(super) async fn slices(&self, whole: Window) -> Result<Vec<Window>, Failure> {
        let changes = &self.containers.changes;
        let (oldest, newest) = (changes.end(End::Oldest).await?, changes.end(End::Newest).await?);
        Ok(match oldest.zip(newest) {
            Some((oldest, newest)) => Self::parts(whole, oldest.ts, newest.ts, SLICES),
            None => Vec::new(),
        })
    }

    /// Goes through a scope once, and hands over what is found.
    pub(super) async fn pass(
        &self,
        scope: &Scope,
        (window, manner): (Window, Manner),
        step: &dyn ProgressStep,
        report: &mut Report,
        each: &mut impl FnMut(FoundWrite) -> ControlFlow<()>,
        cx: &AnyContext<'_>,
    ) -> Result<(), FindError> {
        let flips_once = manner == Manner::FlipsOnce;
        let looker = Arc::new(Looker {
            containers: self.containers.clone(),
            condition: self.condition.clone(),
            window,
            pace: self.pace.clone(),
            actor: self.actor.clone(),
            flips_once,
        });
        let scan = Scan {
            containers: &self.containers,
            wanted: scope,
            at: PointInTime::END,
            hash_ranges: &self.hash_ranges,
            live: LiveDetail::No,
            piece_rows: PIECE_ROWS,
            pace: &self.pace,
            texts: if flips_once { ScanTexts::No } else { ScanTexts::All },
        };
        let mut pieces = std::pin::pin!(scan.pieces());
        // Dropped with what is in them: what is looked at is of no use without the rest.
        let mut looks: JoinSet<Result<(Vec<FoundWrite>, Tally), Failure>> = JoinSet::new();
        let mut is_read = false;
        loop {
            if cx.stop.is_cancelled() {
                report.interrupted = true;
                return Ok(());
            }
            tokio::select! {
                Some(looked) = looks.join_next(), if !looks.is_empty() => {
                    let (writes, tally) = looked.map_err(ended)??;
                    step.advance(tally.asked);
                    report.tally.add(tally);
                    for write in writes {
                        report.count(&write);
                        if each(write).is_break() {
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
                else => return Ok(()),
            }
        }
    }

    /// The window in parts, oldest first.
    pub(super) fn parts(whole: Window, oldest: i64, newest: i64, most: i64) -> Vec<Window> {
        let (from, to) = (whole.from.seconds().max(oldest), whole.to.seconds().min(newest));
        if from > to {
            return Vec::new();
        }
        let length = to.saturating_sub(from) / most.max(1) + 1;
        let point = PointInTime::from_epoch;
        (0..most)
            .map(|n| from.saturating_add(n.saturating_mul(length)))
            .take_while(|start| *start <= to)
            .map(|start| Window { from: point(start), to: point(start.saturating_add(length - 1).min(to)) })
            .collect()
    }
}

/// A refused query is nearly always the predicate's fault.
fn refused(failure: Failure, scope: &Scope) -> FindError {
    if matches!(scope, Scope::Ever { .. }) && failure.status.is_bad_request() {
        return FindError::Predicate(failure);
    }
    failure.into()
}

/// A task that panicked takes this one along; one that was cancelled belongs to a program that ends.
fn ended(error: JoinError) -> Failure {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Failure::shutting_down(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_time_leave_nothing_out() {
        let window = |from, to| Window { from: PointInTime::from_epoch(from), to: PointInTime::from_epoch(to) };
        for (from, to, oldest, newest) in
            [(0, 99, i64::MIN, i64::MAX), (i64::MIN, i64::MAX, 5, 7), (10, 10, 0, 20), (3, 1000, 900, 950)]
        {
            let parts = Search::parts(window(from, to), oldest, newest, 16);
            assert!((1..=16).contains(&parts.len()), "{parts:?}");
            assert_eq!(parts[0].from.seconds(), from.max(oldest));
            assert_eq!(parts[parts.len() - 1].to.seconds(), to.min(newest));
            assert!(parts.windows(2).all(|pair| pair[1].from.seconds() == pair[0].to.seconds() + 1), "{parts:?}");
        }
        assert_eq!(Search::parts(window(5, 4), i64::MIN, i64::MAX, 16), []);
    }
}
