//! Expires documents by their time to live.

use std::sync::Arc;

use super::WriteLog;
use crate::local::keys::DocumentKey;

impl WriteLog {
    /// Returns the first document that has expired at second `now`.
    pub fn first_due(&self, now: u64) -> Option<Arc<DocumentKey>> {
        let (due, key) = self.due.first()?;
        (*due <= now).then(|| Arc::clone(key))
    }

    /// Applies a changed `defaultTtl` of the container: every document's expiry time moves.
    pub fn set_default_ttl(&mut self, default_ttl: Option<i64>) {
        if self.default_ttl == default_ttl {
            return;
        }
        self.default_ttl = default_ttl;
        self.due.clear();
        for (key, document) in &mut self.documents {
            document.due = due_time(default_ttl, document.ttl, document.ts);
            if let Some(due) = document.due {
                self.due.insert((due, Arc::clone(key)));
            }
        }
    }
}

/// Returns when a document expires. Without a `defaultTtl` on the container, a document's own `ttl` has no effect. -1
/// means "never" in both places.
pub(super) fn due_time(container: Option<i64>, document: Option<i64>, ts: u64) -> Option<u64> {
    let seconds = document.unwrap_or(container?);
    container?;
    u64::try_from(seconds).ok().map(|seconds| ts + seconds)
}
