//! What every use case is given besides its request: the account, and ways to tell and to be stopped.

use tokio_util::sync::CancellationToken;

use crate::{config::Names, cosmos::Cosmos, progress::Progress};

/// Where a use case works, whom it tells how far it is, and who may stop it. `A` is what it knows of the account: all that
/// the client library can do, or no more than a part of it.
pub struct Context<'a, A: ?Sized = Cosmos> {
    /// The account; nothing is contacted before it is needed.
    pub account: &'a A,
    /// Database and containers.
    pub names: &'a Names,
    /// Is told how far the work is.
    pub progress: &'a dyn Progress,
    /// Once cancelled, nothing new is begun and what has begun is finished.
    pub stop: CancellationToken,
}

impl<A: ?Sized> Clone for Context<'_, A> {
    fn clone(&self) -> Self {
        Self { account: self.account, names: self.names, progress: self.progress, stop: self.stop.clone() }
    }
}

impl<A: ?Sized> std::fmt::Debug for Context<'_, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("names", self.names).finish_non_exhaustive()
    }
}
