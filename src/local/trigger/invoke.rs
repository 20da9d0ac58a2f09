//! One invocation: the request in the Functions host's format, and the host's rules for the response.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::binding::{FunctionBinding, RetryPolicy};
use super::handler::HandlerState;
use super::shared::TriggerCounters;
use crate::clock::{Clock as _, SystemClock};
use crate::local::guid;

/// The simulated host's version.
const HOST_VERSION: &str = "4.1043.200.25523";
/// The chunk size of the body.
const CHUNK: usize = 64 * 1024;

/// Posts batches to the handler.
#[derive(Debug)]
pub(super) struct Invoker {
    pub binding: FunctionBinding,
    pub client: reqwest::Client,
    pub handler: watch::Receiver<HandlerState>,
    pub kills: mpsc::Sender<u32>,
    pub shared: Arc<TriggerCounters>,
    pub timeout: Duration,
    pub stop: CancellationToken,
}

/// The outcome of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvocationOutcome {
    Acknowledged,
    /// Failed permanently: the host continues without it.
    Lost,
    /// The trigger was stopped, and the batch is not delivered yet.
    Stopped,
}

/// Builds a client for loopback: no proxy, HTTP/1.1.
pub(super) fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().http1_only().tcp_nodelay(true).build()
}

/// Formats a time like .NET: up to seven fractional digits, without trailing zeros.
pub(super) fn dotnet_time(time: DateTime<Utc>) -> String {
    let text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
    let ticks = format!("{:07}", time.timestamp_subsec_nanos() / 100 % 10_000_000);
    match ticks.trim_end_matches('0') {
        "" => format!("{text}Z"),
        digits => format!("{text}.{digits}Z"),
    }
}

impl Invoker {
    /// Delivers a batch, with the retries of the function's policy. `items` are JSON in the trigger's format.
    pub async fn deliver(&self, items: &[String]) -> InvocationOutcome {
        let documents = items;
        let array = format!("[{}]", items.join(","));
        let mut last_failure: Option<String> = None;
        for retry in 0_u32.. {
            let Some((url, generation)) = self.ready().await else { return InvocationOutcome::Stopped };
            let body = self.body(&array, retry, last_failure.as_deref());
            self.shared.count_invocation(retry > 0);
            let post = self.post(&url, generation, body);
            let Some(outcome) = self.stop.run_until_cancelled(post).await else { return InvocationOutcome::Stopped };
            let failure = match outcome {
                Ok(logs) => {
                    for line in logs {
                        tracing::info!(target: "handler", "{line}");
                    }
                    self.shared.count_delivered(documents.len());
                    return InvocationOutcome::Acknowledged;
                }
                Err(failure) => failure,
            };
            self.shared.count_failure(&failure);
            let function = self.binding.function.as_str();
            let Some(policy) = self.binding.retry.as_ref().filter(|policy| !is_used_up(policy, retry)) else {
                tracing::warn!(function, documents = documents.len(), "the batch failed and is lost: {failure}");
                self.shared.count_lost(documents.len());
                return InvocationOutcome::Lost;
            };
            tracing::warn!(function, documents = documents.len(), retry, "the batch failed and is retried: {failure}");
            last_failure = Some(failure);
            let wait = tokio::time::sleep(policy.delay(retry + 1));
            if self.stop.run_until_cancelled(wait).await.is_none() {
                return InvocationOutcome::Stopped;
            }
        }
        InvocationOutcome::Stopped
    }

    /// Waits for the handler; `None` when the trigger or the handler is stopped.
    async fn ready(&self) -> Option<(url::Url, u32)> {
        let mut handler = self.handler.clone();
        let known = handler.wait_for(|state| !matches!(state, HandlerState::Starting));
        let state = self.stop.run_until_cancelled(known).await?.ok()?.clone();
        match state {
            HandlerState::Ready { url, generation } => Some((url, generation)),
            HandlerState::Starting | HandlerState::Stopped(_) => None,
        }
    }

    /// Builds the request body. The array is encoded twice: a JSON string in a JSON string.
    fn body(&self, array: &str, retry: u32, failure: Option<&str>) -> String {
        let twice = Value::from(Value::from(array).to_string()).to_string();
        let mut metadata = json!({ "sys": {
            "MethodName": self.binding.function,
            "UtcNow": dotnet_time(SystemClock.now()),
            "RandGuid": guid(),
        }});
        if let Some(policy) = &self.binding.retry {
            metadata["RetryContext"] = retry_context(policy, retry, failure);
        }
        let name = Value::from(self.binding.binding.as_str());
        format!("{{\"Data\":{{{name}:{twice}}},\"Metadata\":{metadata}}}")
    }

    /// Posts once; returns the log lines of the response, or why the invocation counts as failed.
    async fn post(&self, handler: &url::Url, generation: u32, body: String) -> Result<Vec<String>, String> {
        let url = handler.join(&self.binding.function).map_err(|error| error.to_string())?;
        let body = Bytes::from(body);
        let pieces = (0..body.len()).step_by(CHUNK).map(move |from| body.slice(from..body.len().min(from + CHUNK)));
        let pieces = futures::stream::iter(pieces.map(Ok::<_, std::convert::Infallible>));
        let request = self
            .client
            .post(url)
            .header("Content-Type", "application/json; charset=utf-8")
            .header("User-Agent", format!("Azure-Functions-Host/{HOST_VERSION}"))
            .header("X-Azure-Functions-InvocationId", guid())
            .header("X-Azure-Functions-HostVersion", HOST_VERSION)
            .header("traceparent", traceparent())
            // A stream has no known length, so the body is sent chunked, as by the host.
            .body(reqwest::Body::wrap_stream(pieces));
        let exchange = async {
            let answer =
                request.send().await.map_err(|error| format!("no answer from the handler: {}", whole(&error)))?;
            let status = answer.status();
            let kind = answer.headers().get("content-type").and_then(|value| value.to_str().ok());
            let kind = kind.unwrap_or_default().to_ascii_lowercase();
            let body = answer.bytes().await.map_err(|error| format!("the answer broke off: {}", whole(&error)))?;
            Ok::<_, String>((status, kind, body))
        };
        let limit = tokio::time::Instant::now() + self.timeout;
        let outcome = match tokio::time::timeout_at(limit, exchange).await {
            Ok(answered) => {
                let (status, kind, body) = answered?;
                judge(status.as_u16(), &kind, &body)
            }
            Err(_) => Verdict::Hangs,
        };
        match outcome {
            Verdict::Succeeded(logs) => Ok(logs),
            Verdict::Failed(failure) => Err(failure),
            Verdict::Hangs => {
                // The host waits for a result that never comes, and then kills the handler.
                tokio::time::sleep_until(limit).await;
                let _ = self.kills.send(generation).await;
                // A retry is for the next process: this one may take a moment to exit.
                let gone = |state: &HandlerState| !matches!(state, HandlerState::Ready { generation: g, .. } if *g == generation);
                let _ = self.stop.run_until_cancelled(self.handler.clone().wait_for(gone)).await;
                let seconds = self.timeout.as_secs_f64();
                Err(format!("no result within the functionTimeout of {seconds} s: the handler is killed and restarted"))
            }
        }
    }
}

enum Verdict {
    Succeeded(Vec<String>),
    Failed(String),
    Hangs,
}

/// Applies the host's rules to a response.
fn judge(status: u16, content_type: &str, body: &[u8]) -> Verdict {
    if !(200..300).contains(&status) {
        return Verdict::Failed(format!("the handler answered {status}"));
    }
    if content_type.starts_with("text/plain") {
        return Verdict::Failed("the handler answered text/plain: JSON is expected".into());
    }
    let text = body.trim_ascii();
    if text.is_empty() || text == b"null" {
        return Verdict::Hangs;
    }
    match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(answer)) => {
            let logs = answer.get("Logs").and_then(Value::as_array);
            let lines =
                logs.into_iter().flatten().map(|line| line.as_str().map_or_else(|| line.to_string(), str::to_owned));
            Verdict::Succeeded(lines.collect())
        }
        Ok(_) => Verdict::Failed("the handler's answer is not a JSON object".into()),
        Err(error) => Verdict::Failed(format!("the handler's answer is no JSON: {error}")),
    }
}

fn is_used_up(policy: &RetryPolicy, retry: u32) -> bool {
    policy.max_retries.is_some_and(|max| retry >= max)
}

fn retry_context(policy: &RetryPolicy, retry: u32, failure: Option<&str>) -> Value {
    let max = policy.max_retries.map_or(-1, i64::from);
    let exception = failure.map(|failure| {
        json!({
            "ClassName": "Microsoft.Azure.WebJobs.Host.FunctionInvocationException",
            "Message": failure,
            "InnerException": null,
            "HResult": -2_146_233_088_i64,
        })
    });
    json!({ "RetryCount": retry, "MaxRetryCount": max, "Exception": exception })
}

fn traceparent() -> String {
    format!("00-{:032x}-{:016x}-00", rand::random::<u128>(), rand::random::<u64>())
}

/// Formats an error with its causes: reqwest's own message omits them.
fn whole(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, kind: &str, body: &str) -> &'static str {
        match judge(status, kind, body.as_bytes()) {
            Verdict::Succeeded(_) => "succeeded",
            Verdict::Failed(_) => "failed",
            Verdict::Hangs => "hangs",
        }
    }

    #[test]
    fn answers_are_judged_by_the_hosts_rules() {
        let json = "application/json";
        assert_eq!(verdict(200, json, "{}"), "succeeded");
        assert_eq!(verdict(200, json, r#"{"Outputs":{},"Logs":["x"],"ReturnValue":null}"#), "succeeded");
        assert_eq!(verdict(500, json, "{}"), "failed");
        assert_eq!(verdict(200, "text/plain; charset=utf-8", "{}"), "failed");
        assert_eq!(verdict(200, json, "not json"), "failed");
        assert_eq!(verdict(200, json, "[1]"), "failed");
        for empty in ["", "  ", "null"] {
            assert_eq!(verdict(200, json, empty), "hangs");
        }
    }

    #[test]
    fn times_have_up_to_seven_digits() {
        let time = |nanos| dotnet_time(DateTime::from_timestamp(1_795_541_500, nanos).unwrap());
        assert_eq!(time(0), "2026-11-24T17:31:40Z");
        assert_eq!(time(77_400), "2026-11-24T17:31:40.000077 4Z".replace(' ', ""));
        assert_eq!(time(819_418_000), "2026-11-24T17:31:40.819418Z");
    }

    #[test]
    fn a_guid_looks_like_one() {
        let guid = guid();
        assert_eq!((guid.len(), guid.matches('-').count()), (36, 4));
        assert_ne!(guid, crate::local::guid());
    }
}
