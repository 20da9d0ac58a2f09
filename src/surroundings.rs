//! What the program takes from its surroundings: the time of this machine, chance, and where it prints. A simulation puts
//! its own in their place, for the thread it runs on.

use std::{
    io::{self, Write},
    sync::Arc,
};

use chrono::{DateTime, Utc};

use crate::clock::{Clock, SystemClock};

/// The time of this machine.
pub fn now() -> DateTime<Utc> {
    #[cfg(feature = "local")]
    if let Some(time) = simulated::with(|own| own.now.as_ref().map(|now| now())).flatten() {
        return time;
    }
    SystemClock.now()
}

/// The clock of this machine, or of this thread's simulation.
pub fn clock() -> Arc<dyn Clock> {
    #[derive(Debug)]
    struct Own;
    impl Clock for Own {
        fn now(&self) -> DateTime<Utc> {
            now()
        }
    }
    Arc::new(Own)
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

/// Waits for Ctrl-C; false when it cannot be waited for.
pub async fn interrupted() -> bool {
    #[cfg(feature = "local")]
    if simulated::is() {
        std::future::pending::<()>().await;
    }
    tokio::signal::ctrl_c().await.is_ok()
}

/// Standard output.
pub fn stdout() -> Box<dyn Write + Send> {
    #[cfg(feature = "local")]
    if simulated::is() {
        return Box::new(simulated::printed());
    }
    Box::new(io::stdout())
}

/// Standard error.
pub fn stderr() -> Box<dyn Write + Send> {
    #[cfg(feature = "local")]
    if simulated::is() {
        return Box::new(simulated::noted());
    }
    Box::new(io::stderr())
}

/// The surroundings of a simulation.
#[cfg(feature = "local")]
pub mod simulated {
    use std::{
        cell::RefCell,
        io::{self, Write},
    };

    use chrono::{DateTime, Utc};
    use rand::{SeedableRng as _, rngs::StdRng};

    thread_local! {
        static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
    }

    pub(super) struct Own {
        pub now: Option<Box<dyn Fn() -> DateTime<Utc>>>,
        pub chance: StdRng,
        printed: Vec<u8>,
        noted: Vec<u8>,
    }

    pub(super) fn is() -> bool {
        with(|_| ()).is_some()
    }

    pub(super) fn with<T>(ask: impl FnOnce(&mut Own) -> T) -> Option<T> {
        OWN.with_borrow_mut(|own| own.as_mut().map(ask))
    }

    /// From here on this thread has surroundings of its own: chance from a seed, and a clock; until it is dropped.
    pub fn begin(seed: u64, now: impl Fn() -> DateTime<Utc> + 'static) -> Simulated {
        let chance = StdRng::seed_from_u64(seed);
        let own = Own { now: Some(Box::new(now)), chance, printed: Vec::new(), noted: Vec::new() };
        OWN.set(Some(own));
        Simulated(())
    }

    /// The simulation of this thread.
    #[derive(Debug)]
    pub struct Simulated(());

    impl Simulated {
        /// What was printed and what was noted on standard error since this was asked last.
        pub fn said(&self) -> (String, String) {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            with(|own| (text(std::mem::take(&mut own.printed)), text(std::mem::take(&mut own.noted))))
                .unwrap_or_default()
        }
    }

    impl Drop for Simulated {
        fn drop(&mut self) {
            OWN.set(None);
        }
    }

    /// What stands for standard output.
    pub(super) fn printed() -> Kept {
        Kept(|own| &mut own.printed)
    }

    /// What stands for standard error.
    pub(super) fn noted() -> Kept {
        Kept(|own| &mut own.noted)
    }

    /// Text that is kept for who asks.
    pub(super) struct Kept(fn(&mut Own) -> &mut Vec<u8>);

    impl Write for Kept {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            with(|own| (self.0)(own).extend_from_slice(text));
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
