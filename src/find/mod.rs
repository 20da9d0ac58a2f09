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
use crate::{change::time::PointInTime, history::AnyContext};

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
    let (condition, manner) = (Arc::new(request.when), request.manner);
    if manner == Manner::FlipsOnce && condition.needs_previous() {
        return Err(FindError::OnceWithPrevious);
    }
    let search = Search::open(condition, request.shard, request.ru_limit, request.actor, cx).await?;
    let whole = Window {
        from: request.from.unwrap_or(PointInTime::from_epoch(i64::MIN)),
        to: request.to.unwrap_or(PointInTime::END),
    };
    let mut report = Report::new(cx.account.frontier(cx.names, request.to, &search.pace).await?, request.to);
    let (scope, odd) = search.scope(&request.which, cx).await?;
    report.bad.extend(odd);
    let step = cx.progress.begin("find", None);
    if manner != Manner::First {
        let scope = scope.unwrap_or_else(|| search.of_time(whole, request.from.is_some()));
        search.pass(&scope, (whole, manner), &*step, &mut report, &mut each, cx).await?;
        return report.checked();
    }
    for window in search.slices(whole).await? {
        let mut first: Option<FoundWrite> = None;
        let order = |write: &FoundWrite| (write.version.ts, write.version.lsn, write.item.sort_key());
        let mut keep = |write: FoundWrite| {
            if first.as_ref().is_none_or(|first| order(&write) < order(first)) {
                first = Some(write);
            }
            ControlFlow::Continue(())
        };
        let scope = scope.clone().unwrap_or_else(|| search.of_time(window, true));
        let mut of_slice = Report::new(report.frontier.clone(), request.to);
        search.pass(&scope, (window, manner), &*step, &mut of_slice, &mut keep, cx).await?;
        report.add_slice(of_slice);
        if let Some(write) = first {
            report.count(&write);
            let _ = each(write);
            break;
        }
    }
    report.checked()
}
