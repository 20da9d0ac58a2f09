//! Integration tests, one binary.

#[cfg(feature = "local")]
mod local_cosmos;
#[cfg(feature = "local")]
mod local_trigger;
