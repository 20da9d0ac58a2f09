//! Bounds how much may be in flight to a container.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::Failure;

/// Requests in flight: as many connections as the client library keeps busy well.
const REQUESTS: usize = 64;

/// Room for bytes that are held at the same time.
#[derive(Debug)]
pub(super) struct ByteBudget {
    pieces: Arc<Semaphore>,
    bytes: usize,
}

impl ByteBudget {
    /// Room is counted in pieces of this many bytes.
    const PIECE: usize = 1024;

    pub(super) fn new(bytes: usize) -> Self {
        Self { pieces: Arc::new(Semaphore::new(bytes.div_ceil(Self::PIECE).max(1))), bytes }
    }

    /// Waits until there is room, which is given back on drop. Whatever is larger than all the room takes all of it.
    pub(super) async fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let pieces = u32::try_from(bytes.min(self.bytes).div_ceil(Self::PIECE)).unwrap_or(u32::MAX);
        // If it were ever closed, the batch would be delivered again.
        self.pieces.clone().acquire_many_owned(pieces).await.map_err(|_| Failure::shutting_down())
    }
}

/// Bounds writes by what they cost: operations (alone in a request or packed with others), bytes, and requests.
#[derive(Debug)]
pub struct Gate {
    operations: Semaphore,
    most: usize,
    room: ByteBudget,
    requests: Semaphore,
}

impl Gate {
    /// Admits this many operations and bytes at the same time.
    pub fn new(operations: usize, bytes: usize) -> Self {
        let most = operations.max(1);
        Self {
            operations: Semaphore::new(most),
            most,
            room: ByteBudget::new(bytes),
            requests: Semaphore::new(REQUESTS.min(most)),
        }
    }

    /// Most operations at the same time.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Waits until a request with this many operations and bytes may be sent, and returns its permit. A request that is
    /// larger than the limits goes alone.
    ///
    /// # Errors
    /// None in practice: a gate is never closed.
    pub async fn enter(&self, operations: usize, bytes: usize) -> Result<impl Sized + use<'_>, Failure> {
        // Always in this order: whoever waits for one permit holds none that another waits for first.
        let room = self.room.take(bytes).await?;
        let operations = take(&self.operations, operations.min(self.most)).await?;
        Ok((room, operations, take(&self.requests, 1).await?))
    }
}

async fn take(of: &Semaphore, count: usize) -> Result<SemaphorePermit<'_>, Failure> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    of.acquire_many(count).await.map_err(|_| Failure::shutting_down())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_permission_is_for_operations_and_bytes_not_for_requests() {
        let gate = Gate::new(100, 1 << 20);
        let most = gate.enter(90, 0).await.unwrap();
        assert!(gate.enter(20, 0).now_or_never().is_none());
        assert!(gate.enter(10, 0).now_or_never().is_some());
        drop(most);
        let large = gate.enter(1, 5 << 20).await.unwrap();
        assert!(gate.enter(1, 1).now_or_never().is_none());
        drop(large);
        assert!(gate.enter(1000, 1).now_or_never().is_some());
    }
}
