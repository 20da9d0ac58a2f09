//! Limits shared by all functions and leases of a process.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use crate::{
    cosmos::{Failure, Gate},
    history::BATCH_BYTES,
};

/// Limits shared by all functions and leases of a process.
#[derive(Debug, Clone)]
pub struct CaptureLimits {
    /// Writes in flight.
    pub(super) gate: Arc<Gate>,
    pub(super) rereads: Arc<Semaphore>,
    pub(super) max_rereads: usize,
    pub(super) deadline: Duration,
    pub(super) piece: usize,
}

impl CaptureLimits {
    /// Sets how many records are written and how many documents are read again concurrently, and how long the retries
    /// of one batch may take.
    pub fn new(max_writes: usize, max_rereads: usize, deadline: Duration) -> Self {
        Self {
            gate: Arc::new(Gate::new(max_writes, WRITE_ROOM)),
            rereads: Arc::new(Semaphore::new(max_rereads)),
            max_rereads,
            deadline,
            piece: PIECE_BYTES,
        }
    }

    /// How long one payload may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The same with another piece size, in bytes of items. The records of one piece are made and written before those
    /// of the next.
    #[must_use]
    pub fn in_pieces_of(self, bytes: usize) -> Self {
        Self { piece: bytes, ..self }
    }
}

/// Bytes of records that are written concurrently: two full transactional batches. The client library holds them
/// several times while it writes, so a body of 64 MB would be in memory seven times without this limit.
const WRITE_ROOM: usize = 2 * BATCH_BYTES;
/// Bytes of items whose records exist at the same time. Nearly every payload is smaller; for a larger one, all records
/// together would need as much memory again as its text.
const PIECE_BYTES: usize = 4 << 20;

pub(super) async fn permit(limit: &Semaphore) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
    // The limit is never closed; if it were, the batch would be delivered again.
    limit.acquire().await.map_err(|_| Failure::shutting_down())
}
