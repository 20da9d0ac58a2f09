//! Time as a value: whoever needs this machine's time is given a clock.

use std::{fmt, sync::Arc};

use chrono::{DateTime, SecondsFormat, Utc};

/// Tells the time of this machine. Decisions about documents go by the service's time instead
/// ([`Cosmos::now`](crate::cosmos::Cosmos::now)).
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time.
    fn now(&self) -> DateTime<Utc>;

    /// The time as RFC 3339, to the millisecond.
    fn stamp(&self) -> String {
        self.now().to_rfc3339_opts(SecondsFormat::Millis, true)
    }
}

/// The clock of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The same, shared.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
