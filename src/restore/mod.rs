//! Surgical point-in-time restore: a request, a plan that is a value, its application, the journal, and undo.
//!
//! Planning is pure (`plan`): what is known of an item goes in, one step comes out; no I/O, no clock. `history::scan` gathers
//! what is known, from the history and from the target, piece by piece; `survey` turns each piece into steps, which go
//! to a file (`plan_file`), so that memory does not grow with the container. `archived` does both for versions that come
//! from an archive. `apply` writes the plan and nothing else.

pub mod apply;
mod applying;
pub mod archived;
mod error;
pub mod journal;
pub mod plan;
pub mod plan_file;
mod planning;
pub mod price;
pub mod removals;
mod request;
pub mod sizing;
pub mod survey;
mod undoing;

pub use self::{
    applying::{Approval, Report, Results, Use, apply, forecast},
    error::RestoreError,
    planning::{Planned, new_id, open, plan, target_of, texts_of},
    request::{Limits, Manner, Named, Request, State, Which},
    undoing::{UndoRequest, undo},
};
