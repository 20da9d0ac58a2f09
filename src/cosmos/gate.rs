//! How much may be on its way to a container at the same time.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Failure, Status};

/// Requests on their way: as many connections as the client library keeps busy well.
const REQUESTS: usize = 64;
/// Room is counted in pieces of this many bytes.
const ROOM_PIECE: usize = 1024;

/// Bounds writes by what they cost: operations, whether alone in a request or packed with others, bytes, and requests.
#[derive(Debug)]
pub struct Gate {
    operations: Semaphore,
    most: usize,
    room: Semaphore,
    bytes: usize,
    requests: Semaphore,
}

impl Gate {
    /// Lets so many operations and bytes pass at the same time.
    pub fn new(operations: usize, bytes: usize) -> Self {
        let most = operations.max(1);
        Self {
            operations: Semaphore::new(most),
            most,
            room: Semaphore::new(bytes.div_ceil(ROOM_PIECE).max(1)),
            bytes,
            requests: Semaphore::new(REQUESTS.min(most)),
        }
    }

    /// Most operations at the same time.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Waits until one request with so many operations and bytes may be sent; what is returned is its permission. One that
    /// is larger than all there is goes alone.
    ///
    /// # Errors
    /// None in practice: a gate is never closed.
    pub async fn enter(&self, operations: usize, bytes: usize) -> Result<impl Sized + use<'_>, Failure> {
        // Always in this order: whoever waits for the one holds nothing that is waited for before it.
        let room = take(&self.room, bytes.min(self.bytes).div_ceil(ROOM_PIECE)).await?;
        let operations = take(&self.operations, operations.min(self.most)).await?;
        Ok((room, operations, take(&self.requests, 1).await?))
    }
}

async fn take(of: &Semaphore, count: usize) -> Result<SemaphorePermit<'_>, Failure> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    // Should it ever be closed, the batch is delivered again.
    of.acquire_many(count)
        .await
        .map_err(|_| Failure::from_status("write".into(), Status::new(503, 0), "shutting down", None))
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
