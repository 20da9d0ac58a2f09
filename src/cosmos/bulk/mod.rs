//! Operations of any partition keys in few requests: Cosmos' bulk protocol. A request goes to one physical partition
//! and has up to a hundred operations, each of which succeeds or fails for itself.
//!
//! Microsoft's .NET, Java and JavaScript clients do the same; the Rust client cannot yet. Should an account not take
//! such a request, the process goes back to one request for each operation and says so once ([`Switch`]).

mod carrier;
mod operation;
mod packing;
mod retrying;
mod routes;
mod sending;
mod tests;

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use futures::stream::BoxStream;
use tracing::warn;

pub use self::operation::{Operation, OperationResult, Verb};
pub(super) use self::{packing::Packer, routes::Routes};
use super::{Container, Failure, Gate};

/// The outcomes of operations, each with its position among those that were given.
pub type BulkOutcomes<T> = Vec<(usize, Result<T, Failure>)>;

/// Whether operations are packed. One per connection.
#[derive(Debug)]
pub struct Switch {
    on: AtomicBool,
    /// Why the account does not take bulk requests.
    refusal: OnceLock<Failure>,
}

impl Switch {
    pub(super) fn new(on: bool) -> Self {
        Self { on: AtomicBool::new(on), refusal: OnceLock::new() }
    }

    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn turn_off(&self, reason: &Failure) {
        if self.on.swap(false, Ordering::Relaxed) {
            let _ = self.refusal.set(reason.clone());
            warn!(%reason, "the account does not take bulk requests: from here on each write is a request of its own");
        }
    }
}

impl Container {
    /// Runs operations of any keys, each independent of the others, in as few requests as possible: those of one
    /// physical partition together. Outcomes arrive as they become known; operations on the same item are carried out
    /// in order. Nothing is retried, except what has to go to another partition or into smaller requests. `gate` bounds
    /// what is in flight.
    pub fn run_many<'a>(
        &'a self,
        operations: Vec<Operation<'a>>,
        gate: Option<&'a Gate>,
    ) -> BoxStream<'a, BulkOutcomes<OperationResult>> {
        let (routes, switch) = (self.routes(), self.cosmos().switch());
        sending::Sending { carrier: self, routes, switch, gate }.run(operations.into_iter().enumerate().collect(), 0)
    }

    /// Whether operations are packed.
    pub fn packs(&self) -> bool {
        self.cosmos().switch().is_on()
    }

    /// Why the account does not take bulk requests; `None` when it does, or was not asked yet.
    pub fn bulk_refusal(&self) -> Option<&Failure> {
        self.cosmos().switch().refusal.get()
    }
}
