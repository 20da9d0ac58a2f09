//! The context of every use case, besides its request: the account, progress reports and cancellation.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, SystemClock},
    config::Names,
    cosmos::Cosmos,
    progress::{Progress, Silent},
};

/// Where a use case works, whom it reports progress to, and who may stop it. `A` is what it knows of the account:
/// everything that the client library can do, or only a part of it.
pub struct Context<'a, A: ?Sized = Cosmos> {
    /// The account; nothing is contacted before it is needed.
    pub account: &'a A,
    /// Database and containers.
    pub names: &'a Names,
    /// The clock of this machine.
    pub clock: Arc<dyn Clock>,
    /// Receives reports of progress.
    pub progress: &'a dyn Progress,
    /// Once cancelled, no new work is begun, and begun work is finished.
    pub stop: CancellationToken,
}

impl<'a, A: ?Sized> Context<'a, A> {
    /// A context with this machine's clock that reports to nobody and is never cancelled.
    pub fn new(account: &'a A, names: &'a Names) -> Self {
        Self { account, names, clock: SystemClock::shared(), progress: &Silent, stop: CancellationToken::new() }
    }
}

impl<'a, A: ?Sized> Context<'a, A> {
    /// The same for other containers.
    pub fn of<'b>(&self, names: &'b Names) -> Context<'b, A>
    where
        'a: 'b,
    {
        Context { names, ..self.clone() }
    }
}

impl<A: ?Sized> Clone for Context<'_, A> {
    fn clone(&self) -> Self {
        Self {
            account: self.account,
            names: self.names,
            clock: self.clock.clone(),
            progress: self.progress,
            stop: self.stop.clone(),
        }
    }
}

impl<A: ?Sized> std::fmt::Debug for Context<'_, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("names", self.names).finish_non_exhaustive()
    }
}
