//! Surgical point-in-time restore: a request, a plan that is a value, its application, the journal, and undo.
//!
//! Planning is pure (`plan`): what is known of an item goes in, one step comes out; no I/O, no clock. What is known is
//! gathered by `survey`, from the history and from the target. `apply` writes the plan and nothing else.

pub mod apply;
pub mod journal;
pub mod pace;
pub mod plan;
pub mod survey;
