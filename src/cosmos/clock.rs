//! The service's clock, which sets `_ts`; this machine's may differ.

use std::time::Duration;

use chrono::{DateTime, Local, TimeDelta, Utc};

use super::{Cosmos, Failure, Retry, Status};
use crate::{
    change::time::{BadTime, PointInTime},
    clock::{Clock, SystemClock},
    progress::Progress,
};

/// How long the service may take to tell its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is asked. An answer may be lost, and another clock decides wrongly.
const ATTEMPTS: u32 = 4;

impl Cosmos {
    /// The service's time, from the `Date` header of an answer that needs no key; `None` when it does not tell.
    pub async fn service_time(&self) -> Option<DateTime<Utc>> {
        let endpoint = &self.shared.account.endpoint;
        if let Some(transport) = super::transport::of(endpoint) {
            return DateTime::from_timestamp(transport.now(), 0);
        }
        let mut client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).redirect(reqwest::redirect::Policy::none());
        if crate::config::is_loopback(endpoint) {
            client = client.no_proxy();
        }
        let client = client.build().ok()?;
        for attempt in 1..=ATTEMPTS {
            match client.get(endpoint.clone()).send().await {
                Ok(answer) => {
                    let date = answer.headers().get("date")?.to_str().ok()?;
                    return DateTime::parse_from_rfc2822(date).ok().map(|date| date.with_timezone(&Utc));
                }
                // The service had its time.
                Err(error) if error.is_timeout() => return None,
                Err(_) => tokio::time::sleep(Retry::pause(attempt)).await,
            }
        }
        None
    }

    /// The service's time, which sets `_ts`: what decides about documents goes by it alone. With the clock of a machine
    /// that is hours ahead, `prune` would remove hours more.
    ///
    /// # Errors
    /// When the service does not tell.
    pub async fn time(&self) -> Result<DateTime<Utc>, Failure> {
        require_time(self.service_time().await)
    }

    /// The same for values that are only shown, or compared with room to spare: this machine's time when the service
    /// does not tell.
    pub async fn now(&self) -> DateTime<Utc> {
        match self.service_time().await {
            Some(now) => now,
            None => SystemClock.now(),
        }
    }
}

/// A service's time, which it must tell.
///
/// # Errors
/// When it does not.
pub fn require_time(time: Option<DateTime<Utc>>) -> Result<DateTime<Utc>, Failure> {
    time.ok_or_else(|| {
        let problem = "the account does not say what time it is, and the clock of this machine may be wrong";
        Failure::from_status("ask for the time".into(), Status::new(503, 0), problem, None)
    })
}

/// The point in time that a person names; `now` is after every version, whatever this machine's clock says. Relative
/// times count from the clock of the service that dates the versions; a warning says when this machine's had to do.
///
/// # Errors
/// When the text is no time.
pub async fn point_in_time(
    service: impl Future<Output = Option<DateTime<Utc>>>,
    text: &str,
    clock: &dyn Clock,
    progress: &dyn Progress,
) -> Result<PointInTime, BadTime> {
    if text.trim().eq_ignore_ascii_case("now") {
        return Ok(PointInTime::END);
    }
    let here = clock.now();
    let parse = |now: DateTime<Utc>| PointInTime::parse(text, &now.with_timezone(&Local));
    // An absolute time does not depend on the clock, and a malformed one stays malformed.
    match (parse(here), parse(here + TimeDelta::days(1))) {
        (Ok(one), Ok(other)) if one == other => return Ok(one),
        (Err(bad), Err(_)) => return Err(bad),
        _ => {}
    }
    let Some(now) = service.await else {
        progress.note("warning: the service does not say what time it is; this machine's clock is used");
        return parse(here);
    };
    parse(now)
}
