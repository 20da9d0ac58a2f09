//! How large reports are shown: one file for each command that has one.

#[cfg(feature = "local")]
pub(super) mod demo;
pub(super) mod diff;
pub(super) mod find;
pub(super) mod follow;
pub(super) mod history;
pub(super) mod load;
pub(super) mod new_function;
pub(super) mod plan;
pub(super) mod show;
pub(super) mod status;
pub(super) mod verify;
pub(super) mod versions;
