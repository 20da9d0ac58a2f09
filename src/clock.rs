//! Time as a value: whoever needs to know what time it is on this machine is given a clock.

use std::{fmt, sync::Arc};

use chrono::{DateTime, SecondsFormat, Utc};

/// Says what time it is on this machine. What decides over documents goes by the account's time instead
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
    /// The same for whoever shares one.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
