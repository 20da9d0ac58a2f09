//! Which writes broke it, and when: for each document the first version of which a condition is true after one of which
//! it was not. Nothing is written.
//!
//! `history::scan` reads the versions piece by piece with their texts; `walk` decides over one document (pure); `look`
//! reads what it needs for that; `figures` sums up. Memory grows neither with the history nor with what is found:
//! writes are passed on as they come.
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

use std::{ops::ControlFlow, sync::Arc};

use self::search::Search;
pub use self::{
    condition::{Answer, BadCondition, Condition},
    figures::{Counts, Histogram},
    look::{FoundWrite, Still, Tally},
    report::Report,
    request::{FindError, Manner, Request, Which},
    walk::{Halving, Walk, Window},
};
use crate::{
    change::time::PointInTime,
    history::{AnyContext, scan::Scope},
};

/// Looks for the writes that made a condition true, and hands each over as soon as it is found: in no order, but all of
/// one document are one.
///
/// # Errors
/// When the account cannot be used, the document that is named is not known, or the condition makes no sense.
pub async fn find(
    request: Request,
    cx: &AnyContext<'_>,
    mut each: impl FnMut(FoundWrite) -> ControlFlow<()>,
) -> Result<Report, FindError> {
    let manner = request.manner;
    let condition = Arc::new(request.when);
    if manner == Manner::FlipsOnce && condition.needs_previous() {
        return Err(FindError::OnceWithPrevious);
    }
    let search = Search::open(condition, (request.shard, request.ru_limit), request.actor, cx).await?;
    let whole = Window {
        from: request.from.unwrap_or(PointInTime::from_epoch(i64::MIN)),
        to: request.to.unwrap_or(PointInTime::END),
    };
    let mut report = Report::new(cx.account.frontier(cx.names, request.to, &search.pace).await?, request.to);
    let (scope, odd) = search.scope(&request.which, cx).await?;
    report.bad.extend(odd);
    let step = cx.progress.begin("find", None);
    let scope = scope.unwrap_or_else(|| {
        // What was never touched in that time is not even read.
        if request.from.is_some() { Scope::Written { from: whole.from, to: whole.to } } else { Scope::All }
    });
    if manner != Manner::First {
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
