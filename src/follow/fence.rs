//! Keeps a holder that lost its name from writing: sinks are only asked to write while the term lasts, and what they
//! create has the term in its name.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// One term of holding a follower's name.
#[derive(Debug)]
pub struct Fence {
    term: String,
    until: Mutex<Until>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// A lease that others respect until then, by this machine's monotonic clock.
    Then(Instant),
    /// A lock that ends with the process.
    Released,
    /// It is over.
    Ended,
}

impl Fence {
    /// The term that began with the `seq`-th save of a checkpoint. A checkpoint that was removed starts counting again,
    /// so the number alone does not identify a term.
    pub fn begin(seq: u64) -> Self {
        Self { term: format!("t{seq}-{:08x}", rand::random::<u32>()), until: Mutex::new(Until::Released) }
    }

    /// The term's unique name: letters, digits and `-`.
    pub fn term(&self) -> &str {
        &self.term
    }

    /// Whether somebody else may hold the name by now.
    pub fn is_over(&self) -> bool {
        match *self.lock() {
            Until::Then(then) => Instant::now() >= then,
            Until::Released => false,
            Until::Ended => true,
        }
    }

    /// Extends the term, unless the name was already lost.
    pub(super) fn renew(&self, then: Instant) {
        let mut until = self.lock();
        if *until != Until::Ended {
            *until = Until::Then(then);
        }
    }

    /// The name is lost, or was given back.
    pub(super) fn end(&self) {
        *self.lock() = Until::Ended;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Until> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_term_is_over_when_its_lease_has_passed_or_it_was_ended() {
        let fence = Fence::begin(7);
        assert!(fence.term().starts_with("t7-") && fence.term() != Fence::begin(7).term());
        assert!(!fence.is_over(), "held by a lock");
        fence.renew(Instant::now() + Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!fence.is_over());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(fence.is_over());
        fence.renew(Instant::now() + Duration::from_secs(2));
        assert!(!fence.is_over());
        fence.end();
        fence.renew(Instant::now() + Duration::from_secs(2));
        assert!(fence.is_over());
    }
}
