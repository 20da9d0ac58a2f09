//! What every use case is given besides its request: the account, and ways to tell and to be stopped.

use tokio_util::sync::CancellationToken;

use crate::{config::Names, cosmos::Cosmos, progress::Progress};

/// Where a use case works, whom it tells how far it is, and who may stop it.
#[derive(Clone)]
pub struct Context<'a> {
    /// The account; nothing is contacted before it is needed.
    pub cosmos: &'a Cosmos,
    /// Database and containers.
    pub names: &'a Names,
    /// Is told how far the work is.
    pub progress: &'a dyn Progress,
    /// Once cancelled, nothing new is begun and what has begun is finished.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("names", self.names).finish_non_exhaustive()
    }
}
