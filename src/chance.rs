//! The random part of pauses. A simulation draws it from its own seed, for the thread it runs on.

/// The factor by which a pause is stretched, so that those who failed together do not come back together.
pub fn jitter() -> f64 {
    let range = 0.75..1.25;
    #[cfg(feature = "local")]
    if let Some(drawn) = simulated::with(|chance| rand::RngExt::random_range(chance, range.clone())) {
        return drawn;
    }
    rand::random_range(range)
}

/// The chance of a simulation.
#[cfg(feature = "local")]
pub mod simulated {
    use std::cell::RefCell;

    use rand::{SeedableRng as _, rngs::StdRng};

    thread_local! {
        static OWN: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    pub(super) fn with<T>(ask: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
        OWN.with_borrow_mut(|own| own.as_mut().map(ask))
    }

    /// From here on this thread draws from a seed, until the guard is dropped.
    pub fn begin(seed: u64) -> Simulated {
        OWN.set(Some(StdRng::seed_from_u64(seed)));
        Simulated(())
    }

    /// The chance of this thread.
    #[derive(Debug)]
    pub struct Simulated(());

    impl Drop for Simulated {
        fn drop(&mut self) {
            OWN.set(None);
        }
    }
}
