//! The faults: of the account, and of a machine whose clock is wrong.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use cosmos_rewind::{
    chance::simulated::{self, Simulated},
    clock::Clock,
    console::Exit,
    local::{Call, Connection, Partly, RequestOutcome},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{BEGIN, Tally};

/// A connection that is healthy or faulty.
#[derive(Debug)]
pub(super) struct Weather {
    pub(super) state: Mutex<State>,
    pub(super) tally: Tally,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) rng: StdRng,
    /// The percentage of requests that fail.
    pub(super) bad: u32,
    /// Whether definitions and feeds fail as well. A command that cannot open a container ends.
    pub(super) all: bool,
    /// Writes with this text are never accepted.
    pub(super) poison: Option<&'static str>,
    /// Until this instant every request fails the same way. The client library hides a single failure with its own
    /// retries.
    outage: Option<(u16, u16, Instant)>,
}

impl Weather {
    pub(super) fn new(seed: u64, all: bool, tally: &Tally) -> Arc<Self> {
        let state = State { rng: StdRng::seed_from_u64(seed), bad: 0, all, poison: None, outage: None };
        Arc::new(Self { state: Mutex::new(state), tally: tally.clone() })
    }

    pub(super) fn set(&self, bad: u32) {
        let mut state = self.state.lock().unwrap();
        (state.bad, state.outage) = (bad, None);
    }

    pub(super) fn poison(&self, text: Option<&'static str>) {
        self.state.lock().unwrap().poison = text;
    }
}

impl Connection for Weather {
    fn fate(&self, call: &Call<'_>) -> RequestOutcome {
        let mut state = self.state.lock().unwrap();
        let has = |text: &str| call.body.windows(text.len()).any(|part| part == text.as_bytes());
        let is_document = call.path.contains("/docs");
        if call.path.contains("/colls/changes/docs") && !call.is_query && state.poison.is_some_and(has) {
            let which = state.poison.map_or(0, |text| having(call.body, text));
            return RequestOutcome::Partly(Partly { which, status: 400, sub: 0, done: false });
        }
        if call.is_query || !(state.all || (is_document && !call.is_feed)) || call.path == "/" {
            return RequestOutcome::Done(Duration::ZERO);
        }
        if let Some((status, sub, until)) = state.outage {
            if Instant::now() < until {
                return RequestOutcome::Rejected(status, sub);
            }
            state.outage = None;
        }
        let bad = state.bad;
        if bad > 0 && state.rng.random_bool(0.01) {
            // Not 410: the client library retries at once, for a time measured by its own clock, which is not
            // simulated.
            let (status, sub) = [(503, 0), (429, 3200), (449, 0)][state.rng.random_range(0..3)];
            // Capture gives up after half a minute, a command after a full minute.
            let most = if state.all && state.rng.random_bool(0.3) { 50 } else { 10 };
            let seconds = state.rng.random_range(most / 2..most);
            state.outage = Some((status, sub, Instant::now() + Duration::from_secs(seconds)));
            *self.tally.lock().unwrap().entry("outage").or_default() += 1;
            return RequestOutcome::Rejected(status, sub);
        }
        // Bulk requests are rare, so half of them contain failing operations at any fault rate.
        if call.is_bulk && bad > 0 && state.rng.random_bool(0.5) {
            // Some operations of the request fail, independently of each other; 408 although the operation was applied.
            let (status, sub, done) = [
                (429, 3200, false),
                (429, 3200, false),
                (429, 3200, false),
                (449, 0, false),
                (503, 0, false),
                (410, 1002, false),
                (408, 0, true),
                (424, 0, false),
            ][state.rng.random_range(0..8)];
            let which = state.rng.random::<u128>() | state.rng.random::<u128>();
            *self.tally.lock().unwrap().entry("some of a request").or_default() += 1;
            return RequestOutcome::Partly(Partly { which, status, sub, done });
        }
        if bad == 0 || state.rng.random_range(0..100) >= bad {
            return RequestOutcome::Done(Duration::from_millis(state.rng.random_range(0..15)));
        }
        let (name, fate) = match state.rng.random_range(0..14) {
            0 | 1 => ("429", RequestOutcome::Rejected(429, 3200)),
            2 => ("503", RequestOutcome::Rejected(503, 0)),
            3 | 4 => ("449", RequestOutcome::Rejected(449, 0)),
            5 => ("408", RequestOutcome::Rejected(408, 0)),
            6 => ("410", RequestOutcome::Rejected(410, 1002)),
            7 => ("done, answered 408", RequestOutcome::DoneAndFailed),
            8 => ("done, cut", RequestOutcome::DoneAndCut),
            9 => ("cut", RequestOutcome::Cut),
            10 => ("done, held", RequestOutcome::DoneAndHeld),
            11 => ("held", RequestOutcome::Held),
            _ => ("slow", RequestOutcome::Done(Duration::from_millis(state.rng.random_range(200..5_000)))),
        };
        *self.tally.lock().unwrap().entry(name).or_default() += 1;
        fate
    }
}

/// A bit mask of the operations whose text contains `text`.
fn having(body: &[u8], text: &str) -> u128 {
    let operations: Vec<&RawValue> = serde_json::from_slice(body).unwrap_or_default();
    let bit = |(place, one): (usize, &&RawValue)| u128::from(one.get().contains(text)) << place;
    operations.iter().enumerate().map(bit).fold(0, std::ops::BitOr::bitor)
}

/// The machine on which the product runs.
pub(super) struct Machine {
    _chance: Simulated,
    pub(super) clock: Arc<MachineClock>,
}

impl Machine {
    pub(super) fn new(seed: u64) -> Self {
        let clock = MachineClock { begun: Instant::now(), ahead: AtomicI64::new(0) };
        Self { _chance: simulated::begin(seed), clock: Arc::new(clock) }
    }
}

/// The machine's clock, which may be wrong.
#[derive(Debug)]
pub(super) struct MachineClock {
    begun: Instant,
    /// The seconds by which it is ahead of the account's clock.
    ahead: AtomicI64,
}

impl MachineClock {
    pub(super) fn set_ahead(&self, seconds: i64) {
        self.ahead.store(seconds, Ordering::Relaxed);
    }
}

impl Clock for MachineClock {
    fn now(&self) -> DateTime<Utc> {
        let elapsed = self.begun.elapsed();
        let then = BEGIN as i64 + elapsed.as_secs() as i64 + self.ahead.load(Ordering::Relaxed);
        DateTime::from_timestamp(then, elapsed.subsec_nanos()).unwrap()
    }
}

/// A finished command: exit code, standard output, standard error.
pub(super) type Done = (Exit, String, String);
