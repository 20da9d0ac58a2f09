//! How reports are shown: one file for each command that has one.

#[cfg(feature = "local")]
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod find;
pub(crate) mod follow;
pub(crate) mod history;
pub(crate) mod load;
pub(crate) mod new_function;
pub(crate) mod plan;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod versions;
