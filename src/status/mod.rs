//! Reads how capture and history stand, without reading them through: newest and oldest, what waits, leases, sizes.
//!
//! # Examples
//!
//! ```no_run
//! use cosmos_rewind::{context::Context, status::{self, Request}};
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let request = Request { count: false, dead_letters: None, ru_limit: None, stalled_after: 300 };
//! let report = status::read(request, cx).await?;
//! println!("capture is {:?} seconds behind", report.behind);
//! # Ok(())
//! # }
//! ```

mod lag;
pub mod size;
mod workers;

use std::time::Instant;

use serde::{Serialize, Serializer};

pub use self::workers::Worker;
use crate::{
    causes::chain,
    change::time::PointInTime,
    context::Context,
    cosmos::{Container, Failure, RuLimiter},
    dead_letters::DeadLetterStore,
    frontier::{self, leases::leases},
    history::{
        CosmosContainers, CosmosReader,
        ends::is_of_another,
        frontier::Evidence,
        reading::{AxisEnd, HistoryReader as _, LiveContainer as _, WhichEnd},
        removals::{self, Hole},
    },
};

/// A request to read the state of capture and history.
#[derive(Debug)]
pub struct Request {
    /// Whether to count and weigh everything, which reads every page.
    pub count: bool,
    /// Where dead letters are; `None` when the store cannot be opened.
    pub dead_letters: Option<DeadLetterStore>,
    /// Request units a second, on average, while counting; `None` is no limit.
    pub ru_limit: Option<f64>,
    /// A change that waits for longer than this many seconds shows that capture stands still.
    pub stalled_after: i64,
}

/// Why the status cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Source or history cannot be read.
    #[error("cannot read how capture stands")]
    Cosmos(#[from] Failure),
}

/// The status of capture and history; its JSON form is documented.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The source container.
    pub source: SourceStatus,
    /// The history.
    pub history: HistoryStatus,
    /// Seconds since the oldest uncaptured change was written.
    pub behind: Option<i64>,
    /// The readers that hold capture up, as far as they are known.
    pub stalled: Vec<String>,
    /// Who captures; `None` when the leases cannot be read.
    #[serde(rename = "leases")]
    pub workers: Option<Vec<Worker>>,
    /// Dead letters; `None` when they cannot be listed.
    pub dead_letters: Option<usize>,
    /// Request units since the program began.
    #[serde(serialize_with = "tenths")]
    pub ru: f64,
    /// Seconds it took.
    #[serde(serialize_with = "tenths")]
    pub seconds: f64,
}

/// The source container.
#[derive(Debug, Serialize)]
pub struct SourceStatus {
    /// Database and container.
    pub container: String,
    /// When the newest document was written, RFC 3339.
    pub newest: Option<String>,
    /// Documents, if they were counted.
    pub documents: Option<u64>,
    /// Their estimated size in bytes.
    pub bytes: Option<u64>,
}

/// The history.
#[derive(Debug, Serialize)]
pub struct HistoryStatus {
    /// Database and container.
    pub container: String,
    /// The time of the oldest version, RFC 3339.
    pub oldest: Option<String>,
    /// The time of the newest version, RFC 3339.
    pub newest: Option<String>,
    /// From when on everything is in the history: the latest of the first captures of all feed ranges.
    pub restorable_from: Option<String>,
    /// Up to when everything is in the history, or `now`; `None` when unknown.
    pub complete_until: Option<String>,
    /// The times in which changes may be missing from it, though nothing in it looks missing, oldest first.
    pub holes: Vec<MissedPeriod>,
    /// Whether it has versions of another container of the source's name.
    pub recreated: Option<bool>,
    /// Records, if they were counted.
    pub records: Option<u64>,
    /// Their estimated size in bytes.
    pub bytes: Option<u64>,
}

/// A time in which changes may be missing: no reader of every version was there.
#[derive(Debug, Serialize)]
pub struct MissedPeriod {
    /// Up to and including this second everything is in the history, RFC 3339; `None` when that is unknown.
    pub after: Option<String>,
    /// From this second on everything is in it again, RFC 3339.
    pub before: String,
}

impl MissedPeriod {
    fn of(hole: &Hole) -> Self {
        let time = |second| PointInTime::from_epoch(second).to_string();
        Self { after: hole.after.map(time), before: time(hole.before) }
    }
}

/// Rounds to one decimal, as reports show request units and seconds.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn tenths<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((number * 10.0).round() / 10.0)
}

/// Reads the status. Leases and dead letters that cannot be read are noted and left out.
///
/// # Errors
/// When source or history cannot be read.
pub async fn read(request: Request, cx: Context<'_>) -> Result<Report, StatusError> {
    let started = Instant::now();
    let (cosmos, names) = (cx.account, cx.names);
    let dead_letters = match &request.dead_letters {
        Some(store) => {
            let listed = store.list().await.map_err(|e| cx.progress.note(&format!("letters    {}", chain(&e))));
            listed.map(|names| names.len()).ok()
        }
        None => None,
    };
    let containers = CosmosContainers::open(cosmos, names).await?;
    let (source, changes) = (&containers.source, &containers.changes);
    let history = CosmosReader::new(changes.clone(), source.key_paths());
    let (oldest, newest) = (history.end(WhichEnd::Oldest).await?, history.end(WhichEnd::Newest).await?);
    let live = source.newest().await?;
    let pace = RuLimiter::new(cosmos.meter(), request.ru_limit);
    let frontier = frontier::read(cosmos, names, &containers, None, &pace).await?;
    frontier.report_problems(cx.progress);
    // Nothing can be promised for a part of which nothing was captured yet.
    let mut begins: Option<PointInTime> = None;
    for part in &frontier.parts {
        begins = begins.max(frontier::begins(&containers, &part.range).await?);
    }
    // What was pruned is gone, even though the versions that were in force then are as old as ever.
    let removed = removals::read(&history).await?;
    let pruned = removed.pruned_before.map(PointInTime::from_epoch);
    begins = begins.map(|begins| begins.max(pruned.unwrap_or(begins)));
    let now = cosmos.now().await.timestamp();
    let workers = match leases(cosmos.container(&names.database, &names.leases).await).await {
        Ok(Some((leases, followers))) => {
            Some(workers::workers(&containers, leases, followers, request.count, &cx).await)
        }
        Ok(None) => {
            cx.progress.note(&format!("leases     there is no container {}/{}", names.database, names.leases));
            None
        }
        Err(e) => {
            cx.progress.note(&format!("leases     cannot be read: {e}"));
            None
        }
    };
    let (mut live_size, mut history_size) = (None, None);
    if request.count {
        let pace = RuLimiter::new(cosmos.meter(), request.ru_limit);
        live_size = Some(counted(source, &pace, &cx).await?);
        history_size = Some(counted(changes, &pace, &cx).await?);
    }
    let time = |end: &Option<AxisEnd>| end.as_ref().map(|end| PointInTime::from_epoch(end.ts).to_string());
    let recreated = [&oldest, &newest]
        .into_iter()
        .filter_map(|end| is_of_another(end.as_ref()?.rid.as_deref()?, source.rid()))
        .reduce(|a, b| a || b);
    let lag = frontier.parts.iter().filter_map(|part| part.next.as_ref()).map(|next| now - next.ts.seconds()).max();
    let by_newest = live.as_ref().zip(newest.as_ref()).map(|(live, newest)| (live.ts - newest.ts).max(0));
    let by_readers = frontier.parts.iter().all(|part| matches!(part.evidence, Evidence::Reader(_)));
    let until = |until: PointInTime| if until == PointInTime::END { "now".into() } else { until.to_string() };
    Ok(Report {
        // When every feed range has a reader, what is waiting for the readers is decisive, not the newest version.
        behind: if by_readers { Some(lag.unwrap_or(0).max(0)) } else { by_newest.max(lag) },
        stalled: frontier::stalled(&frontier, now, request.stalled_after),
        source: SourceStatus {
            container: format!("{}/{}", names.database, names.source),
            newest: time(&live),
            documents: live_size.map(|s| s.items),
            bytes: live_size.map(|s| s.estimate()),
        },
        history: HistoryStatus {
            container: names.history(),
            oldest: time(&oldest),
            newest: time(&newest),
            restorable_from: begins.map(|begins| begins.to_string()),
            complete_until: frontier.until().map(until),
            holes: frontier.blind_spots.holes.iter().map(MissedPeriod::of).collect(),
            recreated,
            records: history_size.map(|s| s.items),
            bytes: history_size.map(|s| s.estimate()),
        },
        workers,
        dead_letters,
        ru: cosmos.meter().total(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

async fn counted(container: &Container, pace: &RuLimiter, cx: &Context<'_>) -> Result<size::Size, Failure> {
    let step = cx.progress.begin("count", None);
    size::size(container, async |n| {
        step.advance(n);
        pace.wait().await;
    })
    .await
}
