//! How reports are shown, and what is asked before something is done: a file for each command that has more than a line.

pub(crate) mod backfill;
pub(crate) mod backup;
pub(crate) mod cost;
pub(crate) mod coverage;
#[cfg(feature = "local")]
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod erase;
pub(crate) mod find;
pub(crate) mod follow;
pub(crate) mod history;
pub(crate) mod load;
pub(crate) mod new_function;
pub(crate) mod plan;
pub(crate) mod populate;
pub(crate) mod provision;
pub(crate) mod prune;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod truncate;
pub(crate) mod undo;
pub(crate) mod verify;
pub(crate) mod versions;
