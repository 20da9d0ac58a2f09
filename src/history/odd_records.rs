//! Records that cannot be parsed: they are named, and the others are not affected.

use crate::{causes::chain, change::version::BadRecord, figures::count_of, progress::Progress};

/// How many records are named individually; the rest is counted.
const NAMED: usize = 20;

/// Names records that were set aside.
pub fn tell(odd: &[BadRecord], progress: &dyn Progress) {
    for one in odd.iter().take(NAMED) {
        progress.note(&format!("warning: {}; it is set aside", chain(one)));
    }
    if let Some(more) = odd.len().checked_sub(NAMED).filter(|more| *more > 0) {
        progress.note(&format!("... and {} more", count_of(more as u64, "record")));
    }
}
