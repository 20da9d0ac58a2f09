//! The service's clock: `_ts` is its time, not this machine's.

use std::time::Duration;

use chrono::{DateTime, Local, TimeDelta, Utc};

use super::Cosmos;
use crate::{
    change::time::{BadTime, PointInTime},
    clock::{Clock, SystemClock},
    progress::Progress,
};

/// How long the service may take to say what time it is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

impl Cosmos {
    /// The time at the service, from the `Date` header of an answer that needs no key; `None` when it does not say.
    pub async fn service_time(&self) -> Option<DateTime<Utc>> {
        let endpoint = &self.shared.account.endpoint;
        if let Some(transport) = super::transport::of(endpoint) {
            return DateTime::from_timestamp(transport.now(), 0);
        }
        let mut client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).redirect(reqwest::redirect::Policy::none());
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
    /// The point in time that a person names; `now` is after every version, whatever this machine's clock says. What is
    /// meant from now on back goes by the service's clock; that this machine's had to do is told.
    ///
    /// # Errors
    /// When the text is no time.
    pub async fn point_in_time(
        &self,
        text: &str,
        clock: &dyn Clock,
        progress: &dyn Progress,
    ) -> Result<PointInTime, BadTime> {
        if text.trim().eq_ignore_ascii_case("now") {
            return Ok(PointInTime::END);
        }
        let here = clock.now();
        let parse = |now: DateTime<Utc>| PointInTime::parse(text, &now.with_timezone(&Local));
        // An absolute time is the same whatever day it is, and one that is wrong stays wrong.
        match (parse(here), parse(here + TimeDelta::days(1))) {
            (Ok(one), Ok(other)) if one == other => return Ok(one),
            (Err(bad), Err(_)) => return Err(bad),
            _ => {}
        }
        let Some(now) = self.service_time().await else {
            progress.note("warning: the service does not say what time it is; this machine's clock is used");
            return parse(here);
        };
        parse(now)
    }
}
