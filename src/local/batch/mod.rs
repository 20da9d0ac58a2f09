//! Batches: transactional ones, and the SDKs' bulk requests, which pack independent writes into one request.
//!
//! The emulator copies a whole physical partition for every transactional batch. Here each operation is first checked
//! against the write log. They are applied one by one only when all of them can succeed, while the container's lock
//! keeps readers away. A batch is therefore all or nothing, and its cost depends only on its operations.

mod apply;
mod bulk;
mod plan;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use self::{apply::apply, bulk::bulk, plan::plan};
use super::{
    container::{LocalContainer, too_long, wrong_key},
    keys::{Epk, is_too_long},
    message::{Ask, GatewayAnswer, header},
};

const MAX_OPERATIONS: usize = 100;
const MAX_BYTES: usize = 2 * 1024 * 1024;
const MAX_ID_BYTES: usize = 1023;
/// 424 Failed Dependency: the result of an operation that was not applied because another one failed.
const FAILED_DEPENDENCY: u16 = 424;

/// One operation in the SDKs' format.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation<'a> {
    operation_type: Kind,
    #[serde(default)]
    id: Option<String>,
    #[serde(default, borrow)]
    resource_body: Option<&'a RawValue>,
    #[serde(default)]
    if_match: Option<String>,
    #[serde(default)]
    if_none_match: Option<String>,
    /// In bulk requests only: the partition key header's text `["x"]`, or the same as an array.
    #[serde(default)]
    partition_key: Option<Value>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
enum Kind {
    Create,
    Upsert,
    Replace,
    Read,
    Delete,
    Patch,
}

/// A full partition key of a container, and its position in the key space.
struct Key {
    values: Vec<Value>,
    epk: Epk,
}

impl Key {
    fn parse(container: &LocalContainer, text: &str) -> Option<Self> {
        let values: Vec<Value> = serde_json::from_str(text).ok()?;
        let range = container.partitioning().range_of(&values)?;
        (range.min == range.max).then_some(Self { values, epk: range.min })
    }
}

/// An operation's result in the response array.
struct Outcome {
    status: u16,
    body: Option<Bytes>,
    etag: Option<String>,
    charge: f64,
    message: Option<String>,
    substatus: Option<u32>,
    /// In milliseconds.
    retry_after: Option<u64>,
}

impl Outcome {
    fn failed(status: u16) -> Self {
        Self { status, body: None, etag: None, charge: 0.0, message: None, substatus: None, retry_after: None }
    }

    fn refused(status: u16, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..Self::failed(status) }
    }
}

/// Runs a batch request.
pub(super) async fn run(container: &LocalContainer, ask: &Ask) -> GatewayAnswer {
    if ask.body.first().is_some_and(|first| *first >= 0x80) {
        return GatewayAnswer::error(
            501,
            None,
            "NotImplemented",
            "The local account reads batches in JSON, not in HybridRow as the .NET client sends them: write item by item",
        );
    }
    let operations: Vec<Operation<'_>> = match serde_json::from_slice(&ask.body) {
        Ok(operations) => operations,
        Err(error) => return GatewayAnswer::bad_request(format!("The batch is not understood: {error}")),
    };
    if operations.is_empty() {
        return GatewayAnswer::bad_request("Batch request has no operations.");
    }
    if operations.len() > MAX_OPERATIONS {
        return GatewayAnswer::bad_request(format!(
            "Batch request has more operations than what is supported. At most {MAX_OPERATIONS}, this one {}",
            operations.len()
        ));
    }
    if ask.body.len() > MAX_BYTES {
        return GatewayAnswer::error(413, None, "RequestEntityTooLarge", "A batch has at most 2 MB");
    }
    if ask.headers.is_bulk() {
        return bulk(container, ask, &operations).await;
    }
    let key = ask.headers.get(header::PARTITION_KEY).and_then(|text| Key::parse(container, text));
    let Some(Key { values, epk }) = key else { return *wrong_key() };
    if is_too_long(&values) {
        return *too_long();
    }
    let Some(_shape) = container.hold_shape() else {
        return being_split();
    };
    let mut log = container.write().await;
    let steps = match plan(container, &log, &values, &epk, &operations).await {
        Ok(steps) => steps,
        Err((index, failure)) => return refused(operations.len(), index, failure),
    };
    let mut answer = apply(container, &mut log, ask, &operations, steps).await;
    answer.headers.set("lsn", log.lsn().to_string());
    answer
}

/// The service's response while a physical partition is split or merged.
pub(super) fn being_split() -> GatewayAnswer {
    GatewayAnswer::error(410, Some(1007), "Gone", "The partition is being split or merged: try again")
}

/// The response to a batch of which nothing was applied.
fn refused(count: usize, at: usize, failure: Outcome) -> GatewayAnswer {
    let mut failure = Some(failure);
    let outcomes: Vec<Outcome> = (0..count)
        .map(|index| {
            let own = if index == at { failure.take() } else { None };
            own.unwrap_or_else(|| Outcome::failed(FAILED_DEPENDENCY))
        })
        .collect();
    answer(&outcomes, None)
}

fn outcome_of(answer: &GatewayAnswer, with_body: bool) -> Outcome {
    let message = (!answer.is_success() && answer.status != 304)
        .then(|| serde_json::from_slice::<Value>(&answer.body).ok()?["message"].as_str().map(str::to_owned))
        .flatten();
    Outcome {
        status: answer.status,
        body: (with_body && answer.is_success() && !answer.body.is_empty()).then(|| answer.body.clone()),
        etag: answer.headers.get("etag").map(str::to_owned),
        charge: answer.headers.get(header::CHARGE).and_then(|charge| charge.parse().ok()).unwrap_or(1.0),
        message,
        substatus: answer.headers.get(header::SUBSTATUS).and_then(|text| text.parse().ok()),
        retry_after: answer.headers.get(header::RETRY_AFTER).and_then(|text| text.parse().ok()),
    }
}

/// 200 when everything succeeded, 207 otherwise. Results are kept as text, so that documents stay unchanged.
fn answer(outcomes: &[Outcome], session: Option<String>) -> GatewayAnswer {
    let mut body = Vec::new();
    for outcome in outcomes {
        body.push(if body.is_empty() { b'[' } else { b',' });
        let mut result = json!({ "statusCode": outcome.status, "requestCharge": outcome.charge });
        if let Some(etag) = &outcome.etag {
            result["eTag"] = etag.as_str().into();
        }
        if let Some(substatus) = outcome.substatus {
            result["subStatusCode"] = substatus.into();
        }
        if let Some(milliseconds) = outcome.retry_after {
            result["retryAfterMilliseconds"] = milliseconds.into();
        }
        if let Some(message) = &outcome.message {
            result["message"] = message.as_str().into();
        }
        let text = result.to_string();
        match &outcome.body {
            None => body.extend_from_slice(text.as_bytes()),
            Some(document) => {
                body.extend_from_slice(text.strip_suffix('}').unwrap_or(&text).as_bytes());
                body.extend_from_slice(b",\"resourceBody\":");
                body.extend_from_slice(document);
                body.push(b'}');
            }
        }
    }
    if body.is_empty() {
        body.push(b'[');
    }
    body.push(b']');
    let failed = outcomes.iter().any(|outcome| outcome.status >= 400);
    let mut answer = GatewayAnswer::json(if failed { 207 } else { 200 }, body);
    let charge: f64 = outcomes.iter().map(|outcome| outcome.charge).sum();
    answer.headers.set(header::CHARGE, format!("{charge:.2}"));
    if let Some(session) = session {
        answer.headers.set(header::SESSION, session);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_the_status_and_headers_of_its_response() {
        let mut throttled = GatewayAnswer::error(429, Some(3200), "TooManyRequests", "slower");
        throttled.headers.set(header::RETRY_AFTER, "12");
        let written = GatewayAnswer::json(201, "{\"id\":\"a\"}");
        let all = answer(&[outcome_of(&written, true), outcome_of(&throttled, true)], None);
        assert_eq!((all.status, all.headers.get(header::CHARGE)), (207, Some("2.00")));
        let results: Value = serde_json::from_slice(&all.body).unwrap();
        let expected = json!([
            {"statusCode": 201, "requestCharge": 1.0, "resourceBody": {"id": "a"}},
            {"statusCode": 429, "subStatusCode": 3200, "requestCharge": 1.0, "retryAfterMilliseconds": 12, "message": "slower"},
        ]);
        assert_eq!(results, expected);
    }
}
