//! Removes the versions that no kept instant needs. `plan` fixes the instants to keep, `Plan::count` forecasts and
//! `Plan::apply` deletes; whoever has to confirm does so in between.
//!
//! # Examples
//!
//! ```no_run
//! use cosmos_rewind::{context::Context, retention::{self, Policy, Request}};
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy { within: 7 * 86_400, daily: Some(90 * 86_400), ..Policy::default() };
//! let plan = retention::plan(Request { policy, shard: None, ru_limit: None, concurrency: 16 }, cx.any()).await?;
//! println!("{} versions go", plan.count().await?.sums.removed);
//! plan.apply().await?;
//! # Ok(())
//! # }
//! ```

pub mod policy;
mod pruning;
pub mod timer;

use std::time::Instant;

use serde::Serialize;

use self::pruning::{Pruning, check};
pub use self::{
    policy::{KeepReason, Policy, RetentionPlan},
    pruning::{Sums, UnknownPlace},
};
use crate::{
    change::version::BadRecord,
    cosmos::{Failure, HashRange, RuLimiter, Shard},
    history::{AnyContext, Containers, NotShared, failed_writes::FailedWrites},
};

/// How many failures are reported individually; the rest is only counted.
const SHOWN_FAILURES: usize = 10;

/// Which versions to keep, and how fast to remove the others.
#[derive(Debug, Clone)]
pub struct Request {
    /// The instants to keep.
    pub policy: Policy,
    /// The part of the history, when several machines share it.
    pub shard: Option<Shard>,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
    /// Deletes in flight.
    pub concurrency: usize,
}

/// Why versions cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The service refused, or an item of the history cannot be parsed.
    #[error("cannot prune the history")]
    Cosmos(#[from] Failure),
    /// The items of these containers cannot be divided between machines.
    #[error("cannot share the history between machines")]
    Shard(#[source] NotShared),
    /// The place of a record does not follow from its document's key.
    #[error(transparent)]
    Keys(#[from] UnknownPlace),
    /// Versions of MongoDB name no predecessor.
    #[error(
        "versions of MongoDB name no predecessor, so that nothing would show the ones that are missing between two days \
         or months"
    )]
    NoPredecessors,
}

/// The instants to keep, fixed at one moment, and the containers they apply to.
pub struct PrunePlan<'a> {
    cx: AnyContext<'a>,
    request: Request,
    containers: Containers,
    hash_ranges: Vec<HashRange>,
    kept: RetentionPlan,
    pace: RuLimiter,
    started: Instant,
}

/// Counts of what was found and removed.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether versions were only counted.
    pub dry_run: bool,
    /// Figures of documents, versions and journals.
    #[serde(flatten)]
    pub sums: Sums,
    /// Records that cannot be parsed; they stay.
    #[serde(skip)]
    pub bad: Vec<BadRecord>,
    /// The failure that ended the work early: that of a read, or one that every further delete would have met, too.
    #[serde(skip)]
    pub fatal: Option<Failure>,
    /// Whether the work ended early because it was told to stop.
    pub interrupted: bool,
    /// Request units since the program began.
    pub ru: f64,
    /// Seconds since the plan was begun.
    pub seconds: f64,
}

/// Determines the instants to keep by the service's clock. Reads no version and deletes nothing.
///
/// # Errors
/// When the containers cannot be opened, cannot be divided, or have keys by which records cannot be addressed; when
/// single instants are to be kept of a history that could not tell what is missing between them.
pub async fn plan(request: Request, cx: AnyContext<'_>) -> Result<PrunePlan<'_>, RetentionError> {
    let started = Instant::now();
    let containers = cx.account.containers(cx.names, None).await?;
    let hash_ranges = containers.hash_ranges(request.shard).map_err(RetentionError::Shard)?;
    check(&containers)?;
    let Policy { daily, monthly, .. } = request.policy;
    if containers.source.namespace().is_some() && daily.or(monthly).is_some() {
        return Err(RetentionError::NoPredecessors);
    }
    let kept = request.policy.at(cx.account.time().await?.timestamp());
    let pace = RuLimiter::new(cx.account.meter(), request.ru_limit);
    Ok(PrunePlan { cx, request, containers, hash_ranges, kept, pace, started })
}

impl PrunePlan<'_> {
    /// Returns the instants to keep.
    pub fn kept(&self) -> &RetentionPlan {
        &self.kept
    }

    /// Counts what `apply` would remove.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub async fn count(&self) -> Result<Report, RetentionError> {
        self.go(false).await
    }

    /// Removes every version that no kept instant needs, and the journals of restores that ended before the window.
    ///
    /// # Errors
    /// None: a failure is in the report, with what was removed before it.
    pub async fn apply(&self) -> Result<Report, RetentionError> {
        self.go(true).await
    }

    async fn go(&self, delete: bool) -> Result<Report, RetentionError> {
        let step = self.cx.progress.begin(if delete { "prune" } else { "count" }, None);
        let failed = FailedWrites::at_most(SHOWN_FAILURES);
        let observer = failed.observer();
        let job = Pruning {
            account: self.cx.account,
            containers: &self.containers,
            pace: &self.pace,
            kept: &self.kept,
            concurrency: self.request.concurrency,
            observer: &observer,
            stop: &self.cx.stop,
            give_up: &self.cx.stop,
        };
        let each = |versions| {
            step.advance(versions);
            failed.pass_on(&*step);
        };
        let passed = job.pass(&self.hash_ranges, delete, each).await;
        failed.pass_on(&*step);
        let mut passed = passed?;
        let interrupted = self.cx.stop.is_cancelled();
        // Journals belong to no document's key: one machine takes care of them.
        if passed.fatal.is_none() && !interrupted && self.request.shard.is_none_or(Shard::is_first) {
            let journals = job.journals(delete, &mut passed.sums).await;
            failed.pass_on(&*step);
            passed.fatal = match journals {
                // The versions that were removed before are told all the same.
                Err(failure) if delete => Some(failure),
                journals => journals?,
            };
        }
        Ok(Report {
            dry_run: !delete,
            sums: passed.sums,
            bad: passed.bad,
            fatal: passed.fatal,
            interrupted,
            ru: self.cx.account.meter().total(),
            seconds: self.started.elapsed().as_secs_f64(),
        })
    }
}
