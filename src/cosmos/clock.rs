//! The service's clock: `_ts` is its time, not this machine's.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Cosmos;
use crate::clock::{Clock as _, SystemClock};

/// How long the service may take to say what time it is.
const PATIENCE: Duration = Duration::from_secs(5);

impl Cosmos {
    /// The time at the service, from the `Date` header of an answer that needs no key; `None` when it does not say.
    pub async fn service_time(&self) -> Option<DateTime<Utc>> {
        let endpoint = &self.shared.account.endpoint;
        if let Some(transport) = super::transport::of(endpoint) {
            return DateTime::from_timestamp(transport.now(), 0);
        }
        let mut client = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
        if crate::config::is_loopback(endpoint) {
            client = client.no_proxy();
        }
        let answer = client.build().ok()?.get(endpoint.clone()).send().await.ok()?;
        let date = answer.headers().get("date")?.to_str().ok()?;
        DateTime::parse_from_rfc2822(date).ok().map(|date| date.with_timezone(&Utc))
    }

    /// The service's time, by which `_ts` is; this machine's when the service does not say. What decides over documents or
    /// is compared by several machines goes by it: a clock that is hours ahead would make `prune` remove hours more.
    pub async fn now(&self) -> DateTime<Utc> {
        match self.service_time().await {
            Some(now) => now,
            None => SystemClock.now(),
        }
    }
}
