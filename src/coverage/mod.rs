//! Determines which periods the history covers, and how well.
//!
//! # Examples
//!
//! ```no_run
//! use cosmos_rewind::{context::Context, coverage::{self, Request}};
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let report = coverage::read(Request { late: 60, shard: None, ru_limit: None }, cx.any()).await?;
//! println!("{}", serde_json::to_string(&report)?);
//! # Ok(())
//! # }
//! ```

mod days;

use chrono::NaiveDate;
use futures::StreamExt as _;
use serde::Serialize;

use self::days::Coverage;
pub use self::days::{Day, DayMode, Outage, Period};
use crate::{
    change::version::BadRecord,
    cosmos::{Failure, RuLimiter, Shard},
    history::{
        AnyContext, NotShared,
        removals::Hole,
        scan::{Scan, Scope},
    },
};

/// A request to read how well the history covers its time.
#[derive(Debug, Clone)]
pub struct Request {
    /// Seconds after which a version counts as captured late.
    pub late: i64,
    /// The part of the documents; `None` is all of them.
    pub shard: Option<Shard>,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
}

/// Why the history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CoverageError {
    /// The service refused.
    #[error("cannot read the history")]
    Cosmos(#[from] Failure),
    /// The items of these containers cannot be divided between machines.
    #[error("cannot share the history between machines")]
    Shard(#[source] NotShared),
    /// The work was told to stop.
    #[error("stopped before everything was read")]
    Interrupted,
}

/// The days, periods and outages of a history.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The days (UTC) on which anything happened, oldest first.
    pub days: Vec<KnownDay>,
    /// Consecutive days of one mode, oldest first.
    pub periods: Vec<Period>,
    /// When capture was down or behind, oldest first.
    pub outages: Vec<Outage>,
    /// Records that cannot be read.
    #[serde(skip)]
    pub bad: Vec<BadRecord>,
    /// The times in which changes may be missing, though nothing in the history looks missing.
    #[serde(skip)]
    pub holes: Vec<Hole>,
}

/// A day, with its mode.
#[derive(Debug, Serialize)]
pub struct KnownDay {
    /// The day (UTC).
    pub day: NaiveDate,
    /// How much of it is known.
    pub mode: DayMode,
    /// Its versions, by the feed they came from.
    #[serde(flatten)]
    pub known: Day,
}

/// Reads the facts of every version, not the documents.
///
/// # Errors
/// When the account cannot be used, or the work was told to stop.
pub async fn read(request: Request, cx: AnyContext<'_>) -> Result<Report, CoverageError> {
    let containers = cx.account.containers(cx.names, None).await?;
    let hash_ranges = containers.hash_ranges(request.shard).map_err(CoverageError::Shard)?;
    let pace = RuLimiter::new(cx.account.meter(), request.ru_limit);
    let frontier = cx.account.frontier(cx.names, None, &pace).await?;
    frontier.report_problems(cx.progress);
    let scan = Scan::facts(&containers, &Scope::All, &hash_ranges, &pace);
    let step = cx.progress.begin("coverage", None);
    let mut coverage = Coverage::new(request.late);
    let mut bad = Vec::new();
    let mut pieces = std::pin::pin!(scan.pieces());
    loop {
        let next = cx.stop.run_until_cancelled(pieces.next()).await;
        let Some(piece) = next.ok_or(CoverageError::Interrupted)? else { break };
        let piece = piece?;
        bad.extend(piece.bad);
        for found in piece.found {
            step.advance(found.versions.len() as u64);
            coverage.add(&found.versions);
        }
    }
    Ok(Report {
        days: coverage.days().map(|(day, known)| KnownDay { day, mode: known.mode(), known }).collect(),
        periods: coverage.periods(),
        outages: coverage.outages().collect(),
        bad,
        holes: frontier.blind_spots.holes,
    })
}
