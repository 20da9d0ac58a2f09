//! Finds which writes broke something, and when: for each document the first version for which a condition is true
//! after one for which it was not. Nothing is written.
//!
//! `history::scan` reads the versions piece by piece with their texts; `walk` decides over one document (pure); `look`
//! reads what it needs for that; `figures` sums up. Memory grows neither with the history nor with the number of
//! findings: writes are passed on as they come.
//!
//! # Examples
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use cosmos_rewind::{context::Context, find::{self, Condition, Request}};
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let request = Request::all(Condition::expression("doc.price < 0")?);
//! let report = find::find(request, &cx.any(), |write| {
//!     println!("{} at {}", write.item.id, write.version.ts);
//!     ControlFlow::Continue(())
//! }).await?;
//! println!("{} documents", report.found);
//! # Ok(())
//! # }
//! ```

mod condition;
mod figures;
mod look;
mod report;
mod request;
mod search;
mod walk;

use std::ops::ControlFlow;

use self::search::Search;
pub use self::{
    condition::{BadCondition, Condition, Decision},
    figures::{Histogram, NameCounts},
    look::{FoundWrite, SearchTally, Still},
    report::Report,
    request::{FindError, Request, SearchMode, SearchedDocuments},
    walk::{Bisection, VersionWalk, Window},
};
use crate::{change::time::PointInTime, history::AnyContext};

/// Finds the writes that made a condition true, and passes each on as soon as it is found. The order is undefined, but
/// the writes of one document come together.
///
/// # Errors
/// When the account cannot be used, the named document is not known, or the condition makes no sense.
pub async fn find(
    request: Request,
    cx: &AnyContext<'_>,
    mut each: impl FnMut(FoundWrite) -> ControlFlow<()>,
) -> Result<Report, FindError> {
    let manner = request.manner;
    if manner == SearchMode::FlipsOnce && request.when.needs_previous() {
        return Err(FindError::OnceWithPrevious);
    }
    let search = Search::open(&request, cx).await?;
    let whole = Window {
        from: request.from.unwrap_or(PointInTime::from_epoch(i64::MIN)),
        to: request.to.unwrap_or(PointInTime::END),
    };
    let frontier = cx.account.frontier(cx.names, request.to, &search.pace).await?;
    frontier.report_problems(cx.progress);
    let mut report = Report::new(frontier, request.from, request.to);
    let (scope, one) = search.scope(&request, whole, cx).await?;
    let step = cx.progress.begin("find", None);
    // Its facts are at hand, and only a few of its texts are needed.
    if let Some(item) = one.filter(|_| manner == SearchMode::FlipsOnce) {
        if let Some(write) = search.look_at(item, whole, &mut report).await? {
            report.count(&write);
            let _ = each(write);
        }
        return report.checked();
    }
    if manner != SearchMode::First {
        let mut tell = |write: FoundWrite, report: &mut Report| {
            report.count(&write);
            each(write)
        };
        search.pass(&scope, (whole, manner), &*step, &mut report, &mut tell, cx).await?;
        return report.checked();
    }
    let mut first: Option<FoundWrite> = None;
    let order = |write: &FoundWrite| (write.version.ts, write.version.lsn, write.item.sort_key());
    let mut keep = |write: FoundWrite, _: &mut Report| {
        if first.as_ref().is_none_or(|first| order(&write) < order(first)) {
            first = Some(write);
        }
        ControlFlow::Continue(())
    };
    search.pass(&scope, (whole, manner), &*step, &mut report, &mut keep, cx).await?;
    if let Some(write) = first {
        report.count(&write);
        let _ = each(write);
    }
    report.checked()
}
