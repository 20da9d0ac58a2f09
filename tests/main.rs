//! Integration tests, one binary.

#[cfg(feature = "local")]
mod local_cosmos;
