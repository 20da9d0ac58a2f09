//! Limits shared by all functions and leases of a process.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use crate::{
    cosmos::{Failure, Gate},
    history::BATCH_BYTES,
};

/// Limits shared by all functions and leases of a process.
#[derive(Debug, Clone)]
pub struct Limits {
    /// What is being written.
    pub(super) gate: Arc<Gate>,
    pub(super) rereads: Arc<Semaphore>,
    pub(super) max_rereads: usize,
    pub(super) deadline: Duration,
    pub(super) piece: usize,
}

impl Limits {
    /// Allows this many records to be written, and documents to be read again, at the same time, and this much time for the
    /// retries of one batch.
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

    /// The same with pieces of another size, in bytes of items: of what is more, the records of one piece are made and
    /// written before those of the next.
    #[must_use]
    pub fn in_pieces_of(self, bytes: usize) -> Self {
        Self { piece: bytes, ..self }
    }
}

/// Bytes of records that are being written at the same time, two full transactional batches: while it writes them, the
/// client library holds them several times. A body of 64 MB would be in memory seven times otherwise.
const WRITE_ROOM: usize = 2 * BATCH_BYTES;
/// Bytes of items whose records are held at the same time. Nearly every payload is less; of a larger one, all records
/// would be as much memory again as its text.
const PIECE_BYTES: usize = 4 << 20;

pub(super) async fn permit(limit: &Semaphore) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
    // A limit is never closed; should it be, the batch is delivered again.
    limit.acquire().await.map_err(|_| Failure::shutting_down())
}
