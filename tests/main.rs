//! Integration tests, one binary.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as the tests themselves")]

#[cfg(feature = "local")]
mod local_cosmos;
#[cfg(feature = "local")]
mod local_trigger;
