//! Surgical point-in-time restore: a request, a plan that is a value, its application, the journal, and undo.
//!
//! Planning is pure (`plan`): what is known of an item goes in, one step comes out; no I/O, no clock. `history::scan`
//! gathers what is known, from the history and from the target, piece by piece; `survey` turns each piece into steps,
//! which go to a file (`plan_file`), so that memory does not grow with the container. `archived` does both for versions
//! that come from an archive. `compose` makes the text of a step; `refine` compares it with the live document for the
//! plan; `apply` writes the plan and nothing else.
//!
//! # Examples
//!
//! ```no_run
//! use cosmos_rewind::{
//!     change::time::PointInTime,
//!     context::Context,
//!     restore::{self, Approval, PlanLimits, RunOptions, Request, Use, Targets},
//! };
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let cx = cx.any();
//! let containers = restore::open(None, &cx).await?;
//! let at = PointInTime::from_epoch(1_700_000_000);
//! let plan = restore::plan(&Request::at(Targets::All, at), &containers, &cx).await?.plan;
//! println!("{} documents will be written", plan.totals.writes);
//! let approval = Approval::of(&plan, &PlanLimits { max: 100, max_deletes: None })?;
//! let this = Use { run: &plan.head.id, made_now: true, texts: None };
//! let options = RunOptions { force: false, concurrency: 16, ru_limit: None, journal: "journal".into() };
//! let report = restore::apply(&plan, &approval, this, &options, &containers, &cx).await?;
//! println!("{} written; undo {}", report.results.done, plan.head.id);
//! # Ok(())
//! # }
//! ```

pub mod apply;
mod applying;
pub mod archived;
mod compose;
mod error;
mod expired;
pub(crate) mod fields;
mod goal;
pub mod journal;
mod listed;
mod outcome;
pub mod plan;
pub mod plan_file;
mod planning;
pub mod price;
mod refine;
mod request;
mod saved;
mod saving;
pub mod sizing;
mod step;
pub mod survey;
pub mod together;
mod undoing;
mod unnamed;

pub use self::{
    applying::{Approval, Report, Results, Use, announce, apply, forecast},
    error::{GivenUp, RestoreError, StepError},
    fields::{Fate, Field, Fields},
    goal::Goal,
    listed::{NotListed, each_its_own},
    planning::{Planned, check_fields, new_id, open, plan, scope, target_of, texts_of},
    request::{NamedDocument, PlanLimits, Request, RunOptions, TargetState, Targets},
    saved::{PlanLoadError, SavedPlan, load_plans, read_plans, save_plans},
    undoing::{UndoRequest, undo},
};
