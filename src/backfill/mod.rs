//! Saves live documents that the history lacks, as the baseline of their histories.
//!
//! # Examples
//!
//! ```no_run
//! use cosmos_rewind::{backfill::{self, Request}, context::Context, history::baseline::Extent};
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let request = Request { predicate: None, extent: Extent::Whole, shard: None, ru_limit: None, concurrency: 16 };
//! let report = backfill::run(request, cx.any()).await?;
//! println!("{} documents, {} of them saved now", report.documents, report.written);
//! # Ok(())
//! # }
//! ```

use std::time::Instant;

use futures::StreamExt as _;
use serde::Serialize;

use crate::{
    change::{time::PointInTime, version::BadRecord},
    cosmos::{Concurrency, Failure, Param, RuLimiter, Shard, Writers},
    history::{
        AnyContext, Containers, NotShared,
        baseline::{Extent, ExtentError, Saver, is_missing, op_of},
        failed_writes::FailedWrites,
        live::LiveDetail,
        scan::{PIECE_ROWS, Scan, ScanTexts, Scope},
    },
    progress::ProgressStep,
};

/// Which documents to save, and how fast.
#[derive(Debug, Clone)]
pub struct Request {
    /// The operator's own SQL predicate on `c` and its parameters; `None` means all live documents.
    pub predicate: Option<(String, Vec<Param>)>,
    /// How much of each document is saved.
    pub extent: Extent,
    /// The part of the documents, when several machines share them.
    pub shard: Option<Shard>,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
    /// Writes in flight.
    pub concurrency: usize,
}

/// Why the documents cannot be saved.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// The service refused.
    #[error("cannot save the baseline")]
    Cosmos(#[from] Failure),
    /// The service does not understand the predicate.
    #[error("the service refuses the predicate")]
    Predicate(#[source] Failure),
    /// They cannot be saved to this extent.
    #[error(transparent)]
    Extent(#[from] ExtentError),
    /// The items of these containers cannot be divided between machines.
    #[error("cannot share the documents between machines")]
    Shard(#[source] NotShared),
}

/// Counts of the saved documents.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Documents that were examined.
    pub documents: u64,
    /// Of these: saved by this run.
    pub written: u64,
    /// Of these: already in the history.
    pub existed: u64,
    /// Of these: failed to be saved.
    pub failed: u64,
    /// Records of the history that cannot be read.
    #[serde(skip)]
    pub bad: Vec<BadRecord>,
    /// The failure that ended the work early: that of a read, or one that every further write would have met, too.
    #[serde(skip)]
    pub fatal: Option<Failure>,
    /// Whether the work ended early: because of that failure, or because it was told to stop.
    pub stopped: bool,
    /// Request units since the program began.
    pub ru: f64,
    /// Seconds it took.
    pub seconds: f64,
}

/// Saves missing documents. Running it again is harmless, and finishes an interrupted run.
///
/// # Errors
/// When the predicate is wrong or the account cannot be used. A document that could not be saved is only counted.
pub async fn run(request: Request, cx: AnyContext<'_>) -> Result<Report, BackfillError> {
    let started = Instant::now();
    let containers = cx.account.containers(cx.names, None).await?;
    let step = cx.progress.begin("backfill", None);
    let failed = FailedWrites::default();
    let saved = save(&request, &containers, &cx, &*step, &failed).await;
    failed.pass_on(&*step);
    Ok(Report { ru: cx.account.meter().total(), seconds: started.elapsed().as_secs_f64(), ..saved? })
}

async fn save(
    request: &Request,
    containers: &Containers,
    cx: &AnyContext<'_>,
    step: &dyn ProgressStep,
    failed: &FailedWrites,
) -> Result<Report, BackfillError> {
    let hash_ranges = containers.hash_ranges(request.shard).map_err(BackfillError::Shard)?;
    let scope = match request.predicate.clone() {
        Some((predicate, params)) => Scope::Live { predicate, params },
        None => Scope::All,
    };
    let shape = request.extent.shape(containers).await?;
    let pace = RuLimiter::new(cx.account.meter(), request.ru_limit);
    let scan = Scan {
        containers,
        wanted: &scope,
        at: PointInTime::END,
        hash_ranges: &hash_ranges,
        live: LiveDetail::Text,
        piece_rows: PIECE_ROWS,
        pace: &pace,
        texts: ScanTexts::InForce(&is_missing),
    };
    let concurrency = request.concurrency;
    let writers = Writers::start(
        containers.changes.clone(),
        Concurrency::AtMost(concurrency),
        pace.clone(),
        failed.observer(),
        &cx.stop,
    );
    let saver =
        Saver { containers, pace: &pace, writers: &writers, concurrency, shape: shape.as_deref(), clock: &*cx.clock };
    let mut report = Report::default();
    let mut unread = None;
    let mut pieces = std::pin::pin!(scan.pieces());
    loop {
        let Some(piece) = cx.stop.run_until_cancelled(pieces.next()).await else {
            report.stopped = true;
            break;
        };
        let Some(piece) = piece else { break };
        let piece = match piece {
            Ok(piece) => piece,
            // A refused query is nearly always the predicate's fault.
            Err(failure) if request.predicate.is_some() && failure.status.is_bad_request() => {
                return Err(BackfillError::Predicate(failure));
            }
            // What was saved before is told all the same.
            Err(failure) => {
                unread = Some(failure);
                break;
            }
        };
        report.bad.extend(piece.bad);
        let live = piece.found.into_iter().filter(|found| found.live.is_some());
        let (missing, known): (Vec<_>, Vec<_>) = live.partition(is_missing);
        report.existed += known.len() as u64;
        step.advance((missing.len() + known.len()) as u64);
        let saved = match saver.save(missing, op_of).await {
            Ok(saved) => saved,
            Err(failure) => {
                unread = Some(failure);
                break;
            }
        };
        for (item, problem) in &saved.unusable {
            step.note(&format!("document {:?} ({}): {problem}", item.id, item.partition_key));
        }
        report.failed += saved.unusable.len() as u64;
        report.written += saved.completed;
        failed.pass_on(step);
        if saved.stopped {
            report.stopped = true;
            break;
        }
    }
    let (tally, fatal) = writers.finish().await;
    report.written += tally.created;
    // Documents that capture saved in the meantime exist already.
    report.existed += tally.skipped;
    report.failed += tally.failed;
    report.stopped |= tally.left > 0;
    report.documents = report.written + report.existed + report.failed;
    report.fatal = fatal.or(unread);
    Ok(report)
}
