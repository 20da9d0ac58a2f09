//! Brings what somebody repaired in a fork into the live documents: a three-way merge of each document that was changed
//! there. The result is a plan that `restore` applies.
//!
//! A fork is a copy of a moment that may be changed (`at --writable`). It lists the documents that were written in it,
//! each with what it was before; what nobody touched there is nobody's wish. Of a document that was touched, the fields
//! go in that the fork changed; one that somebody changed in the live document as well is a conflict.

mod account;
mod listed;
mod merging;
mod planning;

pub use self::{
    account::{NotAFork, account},
    listed::{CHANGED, ForkedDocument},
    planning::{PlannedFork, Request, plan},
};
