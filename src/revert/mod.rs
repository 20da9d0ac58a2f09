//! Takes back what some writes changed, and keeps what all others did: another way to make a plan, which
//! [`restore::apply`](fn@crate::restore::apply) carries out and [`restore::undo`](fn@crate::restore::undo) takes back.
//!
//! The writes are those of a window of time, all of them or those that an expression matches. Each document's versions
//! are walked from the one before the first such write to today's ([`merge`](crate::change::merge)). What cannot be
//! known (whose a change was, what was before) is never guessed: the document is left alone, and said.
//!
//! # Examples
//!
//! ```no_run
//! use cosmos_rewind::{
//!     change::time::PointInTime,
//!     context::Context,
//!     restore::{self, Approval, PlanLimits, RunOptions, Use, Targets},
//!     revert,
//! };
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let cx = cx.any();
//! let containers = restore::open(None, &cx).await?;
//! let (from, to) = (PointInTime::from_epoch(1_700_000_000), PointInTime::from_epoch(1_700_000_600));
//! let request = revert::Request {
//!     filter: Some(r#"doc.updatedBy == "job-42""#.into()),
//!     ..revert::Request::of(Targets::All, from, to)
//! };
//! let planned = revert::plan(&request, &containers, &cx).await?;
//! println!("{} documents have fields in conflict", planned.plan.totals.conflicts);
//! let approval = Approval::of(&planned.plan, &PlanLimits { max: 100, max_deletes: None })?;
//! let this = Use { run: &planned.plan.head.id, made_now: true, texts: None };
//! let options = RunOptions { force: false, concurrency: 16, ru_limit: None, journal: "journal".into() };
//! let report = restore::apply(&planned.plan, &approval, this, &options, &containers, &cx).await?;
//! println!("{} written", report.results.done);
//! # Ok(())
//! # }
//! ```

mod document;
mod planning;
mod request;

pub(crate) use self::planning::action_of;
pub use self::{
    planning::{PlannedRevert, plan},
    request::Request,
};
