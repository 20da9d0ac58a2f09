//! Integration tests, one binary: the real program over real HTTP, against the local account.

#[cfg(feature = "local")]
mod capture;
#[cfg(feature = "local")]
mod local_cosmos;
#[cfg(feature = "local")]
mod local_trigger;
#[cfg(feature = "local")]
mod support;
