//! Failures and the reaction to them: one function maps an error to a decision.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use azure_data_cosmos_driver::CosmosError;

use super::{Remedy, Status};

/// How a caller reacts to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// May succeed when tried again: 408, 410, 429, 449, 5xx but 501, timeouts, broken connections, 404/1002.
    Transient,
    /// This record will never be stored as it is: 400, 413, 403 for a full logical partition.
    Poison,
    /// The cached facts about the container are out of date: forget them and try the whole batch again.
    Stale,
    /// The caller is not allowed to do this: 401, 403.
    Denied,
    /// No such item, container or database.
    NotFound,
    /// The item exists already (409).
    Conflict,
    /// The item was changed by someone else (412).
    PreconditionFailed,
}

/// A failed operation: verb and object, status, and the service's own message.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{context}: {}{message}", .status.before_message())]
pub struct Failure {
    /// The attempted operation, such as `upsert item`.
    pub context: String,
    /// The reaction.
    pub disposition: Disposition,
    /// The service's answer; [`Status::NOT_SENT`] when nothing was sent.
    pub status: Status,
    /// The service's message, one line, shortened.
    pub message: String,
    /// How long the service asks to wait.
    pub retry_after: Option<Duration>,
    /// Whether the client library had sent the request before: an earlier attempt may have been carried out.
    pub sent_before: bool,
    /// The remedy, when it differs from the usual one for Cosmos DB.
    pub remedy: Option<Remedy>,
}

impl Failure {
    /// Converts an error of the client library.
    pub fn from_driver(error: &CosmosError, context: String) -> Self {
        let status = Status::new(
            u16::from(error.status().status_code()),
            error.status().sub_status().map(|s| s.value()).unwrap_or(0),
        );
        let response = error.response();
        let message = response
            .and_then(|r| r.body().clone().single().ok())
            .and_then(|body| service_message(&body))
            .unwrap_or_else(|| without_status(&error.to_string(), status));
        Self {
            context,
            disposition: status.into(),
            status,
            message: one_line(&message),
            retry_after: response.and_then(|r| r.headers().retry_after_ms).map(Duration::from_millis),
            sent_before: error.diagnostics().is_some_and(|d| d.request_count() > 1),
            remedy: None,
        }
    }

    /// A failure that the service reported inside a response, as a transactional batch does.
    pub fn from_status(context: String, status: Status, message: &str, retry_after: Option<Duration>) -> Self {
        Self {
            context,
            disposition: status.into(),
            status,
            message: one_line(message),
            retry_after,
            sent_before: false,
            remedy: None,
        }
    }

    /// Something this product refuses before it is sent.
    pub fn invalid(context: String, message: String) -> Self {
        Self::unsent(context, Disposition::Poison, &message)
    }

    fn unsent(context: String, disposition: Disposition, message: &str) -> Self {
        Self { disposition, ..Self::from_status(context, Status::NOT_SENT, message, None) }
    }

    /// An answer that the service did not give: nobody knows what it has done.
    pub(super) fn of_another(context: String) -> Self {
        let message = "something between here and the service answered in its place, such as a proxy or a gateway";
        Self::from_status(context, Status::new(502, 0), message, None)
    }

    /// Whether this product raised it rather than the service.
    pub fn is_own(&self) -> bool {
        self.status == Status::NOT_SENT && self.disposition == Disposition::Poison
    }

    /// Work that is lost when the process ends; never seen in practice.
    pub(crate) fn shutting_down() -> Self {
        Self::from_status("write".into(), Status::new(503, 0), "shutting down", None)
    }

    /// The caller could not authenticate.
    pub fn denied(context: String, message: String) -> Self {
        Self::unsent(context, Disposition::Denied, &message)
    }

    /// A failure because the cached facts about a container are out of date.
    pub fn stale(context: String, message: String) -> Self {
        Self::unsent(context, Disposition::Stale, &message)
    }

    /// Whether no reader can go on from a position that was answered with this. One that is older than what the feed
    /// still has is answered with 400.
    pub fn loses_position(&self) -> bool {
        matches!(self.disposition, Disposition::Poison | Disposition::NotFound)
    }

    /// The next step for a person, if there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self.disposition {
            _ if self.remedy.is_some() => self.remedy.map(Remedy::hint),
            _ if self.status == Status::NO_HTTP_CLIENT => Some(
                "it is made with the system's certificate authorities, also for addresses without TLS: install them \
                 (the package ca-certificates), or name a file that has them in SSL_CERT_FILE",
            ),
            _ if self.status == Status::NO_TOKEN => Some(
                "no identity gave a token: run `az login`, or set CosmosDB to a connection string; on Azure set \
                 CosmosDB__credential=managedidentity",
            ),
            _ if self.status.is_without_connection() => Some(
                "nothing answers there: check the endpoint (http or https, host, port) and the network; the embedded \
                 account is there while `cosmos-rewind local` runs; running the command again is safe",
            ),
            _ if self.status == Status::OF_A_MOMENT => {
                Some("start `at` with --writable, or name the account itself with --endpoint")
            }
            Disposition::Denied => Some(
                "check the key or the identity's role: capture needs to read and write items, a restore likewise on the source",
            ),
            Disposition::NotFound => {
                Some("check COSMOS_DATABASE and the container names, or run `cosmos-rewind provision`")
            }
            Disposition::Transient => Some("the service was busy or out of reach; running the command again is safe"),
            _ => None,
        }
    }
}

/// The reaction to each status: the one table.
impl From<Status> for Disposition {
    fn from(status: Status) -> Self {
        match (status.code, status.sub) {
            (404, 1002) => Self::Transient,
            (404, _) => Self::NotFound,
            (409, _) => Self::Conflict,
            (412, _) => Self::PreconditionFailed,
            _ if status == Status::PARTITION_FULL => Self::Poison,
            // 403/3 and 403/1008: the region no longer takes writes; the driver finds another one.
            (403, 3 | 1008) => Self::Transient,
            (401 | 403, _) => Self::Denied,
            _ if status == Status::KEY_MISMATCH => Self::Stale,
            // The client library noticed by itself that the key no longer fits the definition.
            (400, 20101..=20103) => Self::Stale,
            _ if status.is_not_implemented() => Self::Poison,
            (408 | 410 | 429 | 449, _) | (500.., _) => Self::Transient,
            _ => Self::Poison,
        }
    }
}

fn service_message(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(value.get("message").or_else(|| value.get("Message"))?.as_str()?.to_owned())
}

/// The client library begins its own messages with the status, which is shown already.
fn without_status(message: &str, status: Status) -> String {
    match message.strip_prefix(&status.to_string()).and_then(|rest| rest.split_once(": ")) {
        Some((name, rest)) if name.is_empty() || name.starts_with(" (") => rest.to_owned(),
        _ => message.to_owned(),
    }
}

fn one_line(text: &str) -> String {
    const MAX: usize = 300;
    // After the first line the service appends an activity id and the call stack of its replicas.
    let line = text.split(['\r', '\n']).map(str::trim).find(|l| !l.is_empty()).unwrap_or("no message");
    let mut end = line.len().min(MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].to_owned()
}

/// Request units, counted in thousandths so that one atomic will do.
#[derive(Debug, Clone, Default)]
pub struct RuMeter(Arc<AtomicU64>);

impl RuMeter {
    /// Adds the charge of one response.
    pub fn add(&self, charge: f64) {
        if charge.is_finite() && charge > 0.0 {
            self.0.fetch_add((charge * 1000.0).round() as u64, Ordering::Relaxed);
        }
    }

    /// The sum so far, in RU.
    pub fn total(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_disposition() {
        use Disposition::*;
        for (code, sub, expected) in [
            (400, 0, Poison),
            (400, 1001, Stale),
            (400, 20101, Stale),
            (401, 0, Denied),
            (403, 0, Denied),
            (403, 3, Transient),
            (403, 1014, Poison),
            (404, 0, NotFound),
            (404, 1002, Transient),
            (404, 1003, NotFound),
            (408, 0, Transient),
            (409, 0, Conflict),
            (410, 1007, Transient),
            (412, 0, PreconditionFailed),
            (413, 0, Poison),
            (429, 3200, Transient),
            (449, 0, Transient),
            (500, 0, Transient),
            (501, 0, Poison),
            (503, 20003, Transient),
        ] {
            assert_eq!(Disposition::from(Status::new(code, sub)), expected, "{code}/{sub}");
        }
    }

    #[test]
    fn a_message_is_one_short_line() {
        assert_eq!(one_line("\r\nfirst\r\nActivityId: x"), "first");
        assert_eq!(one_line(&"ä".repeat(300)).len(), 300);
    }

    #[test]
    fn a_message_does_not_say_the_status_twice() {
        assert_eq!(without_status("400/20113 (Name): no such thing: x", Status::new(400, 20113)), "no such thing: x");
        assert_eq!(without_status("4001: x", Status::new(400, 0)), "4001: x");
        assert_eq!(without_status("plain", Status::new(400, 0)), "plain");
    }
}
