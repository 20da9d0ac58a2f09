//! Capture without a host.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use cosmos_rewind::{
    capture::{Capture, CaptureLimits, Recent},
    change::{Via, fidelity::Delivery},
    clock::SystemClock,
    config::{Credential, DeadLetterLocation, Fidelity, Secret},
    dead_letters::DeadLetterStore,
};

/// A dead-letter store in a folder.
pub fn letters(folder: &Path) -> DeadLetterStore {
    let location = DeadLetterLocation::Directory(folder.to_owned());
    DeadLetterStore::open(&location, &Credential::Key(Secret::new("none"))).unwrap()
}

/// Exact capture behind a host that rewrites dates, by a process with an empty write cache.
pub fn capture_into<H>(history: H, folder: &Path, limits: CaptureLimits) -> Capture<H> {
    Capture {
        function: "CaptureChanges".into(),
        clock: SystemClock::shared(),
        history,
        dead_letters: Arc::new(letters(folder)),
        fidelity: Fidelity::Exact,
        delivery: Delivery::DatesRewritten,
        identity_told: AtomicBool::new(false),
        limits,
        via: Via::Trigger,
        recent: Recent::default(),
        unfinished: Recent::default(),
        partial: None,
        projection: None,
    }
}
