//! Limits shared by all functions and leases of a process.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use crate::{
    cosmos::{Failure, Status},
    history::BATCH_BYTES,
};

/// Limits shared by all functions and leases of a process.
#[derive(Debug, Clone)]
pub struct Limits {
    writes: Arc<Semaphore>,
    /// Room for what is being written, in pieces of [`ROOM_PIECE`].
    room: Arc<Semaphore>,
    pub(super) rereads: Arc<Semaphore>,
    pub(super) max_writes: usize,
    pub(super) max_rereads: usize,
    pub(super) deadline: Duration,
    pub(super) piece: usize,
}

impl Limits {
    /// Allows this many writes and re-reads in flight, and this much time for the retries of one batch.
    pub fn new(max_writes: usize, max_rereads: usize, deadline: Duration) -> Self {
        Self {
            writes: Arc::new(Semaphore::new(max_writes)),
            room: Arc::new(Semaphore::new(WRITE_ROOM / ROOM_PIECE)),
            rereads: Arc::new(Semaphore::new(max_rereads)),
            max_writes,
            max_rereads,
            deadline,
            piece: PIECE_BYTES,
        }
    }

    /// The same with pieces of another size, in bytes of items: of what is more, the records of one piece are made and
    /// written before those of the next.
    #[must_use]
    pub fn in_pieces_of(self, bytes: usize) -> Self {
        Self { piece: bytes, ..self }
    }

    /// Acquires permission to write `bytes` bytes; released on drop.
    pub(super) async fn write(&self, bytes: usize) -> Result<impl Sized + '_, Failure> {
        let room = bytes.min(WRITE_ROOM).div_ceil(ROOM_PIECE);
        // The room first, and always in this order: whoever waits for the other holds nothing that is waited for.
        let room = self.room.acquire_many(u32::try_from(room).unwrap_or(1)).await;
        Ok((room.map_err(|_| closed())?, permit(&self.writes).await?))
    }
}

/// Bytes of records that are being written at the same time, two full transactional batches: while it writes them, the
/// client library holds them several times. A body of 64 MB would be in memory seven times otherwise.
const WRITE_ROOM: usize = 2 * BATCH_BYTES;
const ROOM_PIECE: usize = 1024;
/// Bytes of items whose records are held at the same time. Nearly every payload is less; of a larger one, all records
/// would be as much memory again as its text.
const PIECE_BYTES: usize = 4 << 20;

pub(super) async fn permit(limit: &Semaphore) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
    limit.acquire().await.map_err(|_| closed())
}

/// A limit is never closed; should it be, the batch is delivered again.
fn closed() -> Failure {
    Failure::from_status("write".into(), Status::new(503, 0), "shutting down", None)
}
