//! What was written lately.

use std::hash::BuildHasher as _;

use crate::change::record::Record;

/// Remembers which records this process made durable lately, so that a `previous` image is not written again when
/// the version was captured a moment before, as it nearly always was. Forgetting one costs a write that changes
/// nothing; nothing is remembered before it is durable.
#[derive(Debug, Default)]
pub struct Recent {
    state: std::hash::RandomState,
    marks: std::sync::Mutex<(std::collections::HashSet<u64>, std::collections::VecDeque<u64>)>,
}

impl Recent {
    /// Records remembered; 16 bytes and a set entry each.
    const CAPACITY: usize = 65_536;

    pub(super) fn mark(&self, record: &Record) -> u64 {
        self.state.hash_one((&record.key, &record.id))
    }

    pub(super) fn has(&self, mark: u64) -> bool {
        self.marks.lock().is_ok_and(|marks| marks.0.contains(&mark))
    }

    /// What was written is in a container that is no more.
    pub(super) fn forget(&self) {
        if let Ok(mut marks) = self.marks.lock() {
            *marks = Default::default();
        }
    }

    pub(super) fn add(&self, new: impl IntoIterator<Item = u64>) {
        let Ok(mut marks) = self.marks.lock() else { return };
        let (set, queue) = &mut *marks;
        for mark in new {
            if set.insert(mark) {
                queue.push_back(mark);
                if queue.len() > Self::CAPACITY
                    && let Some(oldest) = queue.pop_front()
                {
                    set.remove(&oldest);
                }
            }
        }
    }
}
