//! Runs requests of a client library in tasks of their own.
//!
//! A library holds something that others need while it asks the service: locks of its caches, or one of a few
//! connections. Many requests here are parts of streams that read ahead, and such a stream stands still while its
//! caller asks for something else. If a request stood still with it, the caller would wait for what it holds, and
//! nobody would ever release that.

use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::Failure;

/// A request that goes on while nobody polls it, and ends when this is dropped.
pub(super) type OwnTask<T> = AbortOnDropHandle<T>;

/// Begins a request.
pub(super) fn begin<T: Send + 'static>(request: impl Future<Output = T> + Send + 'static) -> OwnTask<T> {
    AbortOnDropHandle::new(tokio::spawn(request.in_current_span()))
}

/// What a request came to.
///
/// # Errors
/// When the runtime ends.
pub(super) fn ended<T>(task: Result<T, JoinError>) -> Result<T, Failure> {
    task.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Failure::shutting_down(),
    })
}

/// Begins a request and waits for it.
///
/// # Errors
/// When the runtime ends.
pub(crate) async fn run<T: Send + 'static>(request: impl Future<Output = T> + Send + 'static) -> Result<T, Failure> {
    ended(begin(request).await)
}
