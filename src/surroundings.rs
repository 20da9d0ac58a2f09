//! What the program takes from its surroundings: the time of this machine, and chance. A simulation puts its own in their
//! place, for the thread it runs on.

use chrono::{DateTime, Utc};

/// The time of this machine.
pub fn now() -> DateTime<Utc> {
    #[cfg(feature = "local")]
    if let Some(time) = simulated::with(|own| own.now.as_ref().map(|now| now())).flatten() {
        return time;
    }
    Utc::now()
}

/// By how much a pause is stretched, so that those who failed together do not come back together.
pub fn jitter() -> f64 {
    let range = 0.75..1.25;
    #[cfg(feature = "local")]
    if let Some(drawn) = simulated::with(|own| rand::RngExt::random_range(&mut own.chance, range.clone())) {
        return drawn;
    }
    rand::random_range(range)
}

/// The surroundings of a simulation.
#[cfg(feature = "local")]
pub mod simulated {
    use std::cell::RefCell;

    use chrono::{DateTime, Utc};
    use rand::{SeedableRng as _, rngs::StdRng};

    thread_local! {
        static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
    }

    pub(super) struct Own {
        pub now: Option<Box<dyn Fn() -> DateTime<Utc>>>,
        pub chance: StdRng,
    }

    pub(super) fn with<T>(ask: impl FnOnce(&mut Own) -> T) -> Option<T> {
        OWN.with_borrow_mut(|own| own.as_mut().map(ask))
    }

    /// From here on this thread has surroundings of its own: chance from a seed, and a clock; until it is dropped.
    pub fn begin(seed: u64, now: impl Fn() -> DateTime<Utc> + 'static) -> Simulated {
        let chance = StdRng::seed_from_u64(seed);
        let own = Own { now: Some(Box::new(now)), chance };
        OWN.set(Some(own));
        Simulated(())
    }

    /// The simulation of this thread.
    #[derive(Debug)]
    pub struct Simulated(());

    impl Drop for Simulated {
        fn drop(&mut self) {
            OWN.set(None);
        }
    }
}
