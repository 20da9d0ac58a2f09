//! The outcome of a batch.

use std::time::Duration;

/// The outcome of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Items in the payload.
    pub items: usize,
    /// Records made durable in `changes`, duplicates within the payload counted once.
    pub records: usize,
    /// Of these: earlier versions, taken from a `previous` image because they were not known to be stored.
    pub healed: usize,
    /// Of these: stored as delivered although the host may have altered them.
    pub normalized: usize,
    /// Of these: under an id or a partition key that the host may have altered.
    pub unsure: usize,
    /// Of these: too large as they were, and stored compressed.
    pub compressed: usize,
    /// Documents read again from the source.
    pub rereads: usize,
    /// Items put into the dead-letter store.
    pub dead_letters: usize,
    /// Transient failures that were retried.
    pub retries: u64,
    /// Request units used.
    pub ru: f64,
    /// Time taken.
    pub elapsed: Duration,
    /// Age of the newest change when the batch was done, in whole seconds: how far capture is behind. `None` when no
    /// change has a time.
    pub lag: Option<u64>,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} items, {} records, {} re-reads, {} normalized, {} dead letters, {} retries, {:.1} RU, {} ms",
            self.items,
            self.records,
            self.rereads,
            self.normalized,
            self.dead_letters,
            self.retries,
            self.ru,
            self.elapsed.as_millis()
        )
    }
}
