//! A cache of recent writes.

use std::hash::BuildHasher as _;

use crate::change::record::Record;

/// Remembers which records this process made durable recently, so that a `previous` image is not written again when its
/// version was captured a moment ago, as is nearly always the case. Forgetting one costs a write that changes nothing;
/// nothing is remembered before it is durable.
#[derive(Debug, Default)]
pub struct Recent {
    state: std::hash::RandomState,
    fingerprints: std::sync::Mutex<(std::collections::HashSet<u64>, std::collections::VecDeque<u64>)>,
}

impl Recent {
    /// How many records are remembered; 16 bytes and a set entry each.
    const CAPACITY: usize = 65_536;

    /// A short stand-in for a record.
    pub(super) fn fingerprint(&self, record: &Record) -> u64 {
        self.state.hash_one((&record.key, &record.id))
    }

    pub(super) fn has(&self, fingerprint: u64) -> bool {
        self.fingerprints.lock().is_ok_and(|fingerprints| fingerprints.0.contains(&fingerprint))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fingerprints.lock().is_ok_and(|fingerprints| fingerprints.0.is_empty())
    }

    /// Forgets these.
    pub(super) fn remove(&self, old: &[u64]) {
        if let Ok(mut fingerprints) = self.fingerprints.lock() {
            let (set, queue) = &mut *fingerprints;
            for fingerprint in old {
                set.remove(fingerprint);
            }
            if set.is_empty() {
                queue.clear();
            }
        }
    }

    /// Forgets everything: the container was made again.
    pub(super) fn forget(&self) {
        if let Ok(mut fingerprints) = self.fingerprints.lock() {
            *fingerprints = Default::default();
        }
    }

    pub(super) fn add(&self, new: impl IntoIterator<Item = u64>) {
        let Ok(mut fingerprints) = self.fingerprints.lock() else { return };
        let (set, queue) = &mut *fingerprints;
        for fingerprint in new {
            if set.insert(fingerprint) {
                queue.push_back(fingerprint);
                if queue.len() > Self::CAPACITY
                    && let Some(oldest) = queue.pop_front()
                {
                    set.remove(&oldest);
                }
            }
        }
    }
}
