//! The SDKs' bulk requests: independent writes, each with its own result.

use axum::http::Method;
use bytes::Bytes;
use serde_json::Value;

use super::{FAILED_DEPENDENCY, Key, Kind, Operation, Outcome, answer, outcome_of};
use crate::local::{
    container::{LocalContainer, wrong_key},
    feed::gone,
    message::{Ask, GatewayAnswer, Headers, header},
};

/// Runs the independent writes of one request.
pub(super) async fn bulk(container: &LocalContainer, ask: &Ask, operations: &[Operation<'_>]) -> GatewayAnswer {
    let range = Ask { headers: range_only(&ask.headers), ..Ask::new(Method::POST, &ask.path) };
    if container.range_of(&range).is_err() {
        return gone();
    }
    let go_on = ask.headers.get(header::BATCH_CONTINUE).is_none_or(|value| value.eq_ignore_ascii_case("true"));
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(operations.len());
    let mut session = None;
    for operation in operations {
        if !go_on && outcomes.last().is_some_and(|last| last.status >= 400) {
            outcomes.push(Outcome::failed(FAILED_DEPENDENCY));
            continue;
        }
        let outcome = match bulk_request(container, operation) {
            // Checked for each operation: the range may be split between two of them, and a client that grouped by
            // ranges that no longer exist must be told.
            Ok((_, key)) if !container.range_of(&range).is_ok_and(|range| range.contains(&key.epk)) => {
                outcome_of(&gone(), false)
            }
            Ok((single, _)) => {
                let reads = single.method == Method::GET;
                let answer = carry_out(container, &single).await;
                session = answer.headers.get(header::SESSION).map(str::to_owned).or(session);
                outcome_of(&answer, reads || ask.wants_content())
            }
            Err(outcome) => outcome,
        };
        outcomes.push(outcome);
    }
    answer(&outcomes, session)
}

async fn carry_out(container: &LocalContainer, single: &Ask) -> GatewayAnswer {
    if single.method == Method::GET {
        let _reading = container.read().await;
        container.emulator().execute(single).await
    } else {
        let mut log = container.write().await;
        container.point_write(&mut log, single, true).await
    }
}

fn range_only(headers: &Headers) -> Headers {
    headers
        .iter()
        .filter(|(name, _)| *name == header::RANGE_ID)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Returns the operation as a separate request, and its key.
fn bulk_request(container: &LocalContainer, operation: &Operation<'_>) -> Result<(Ask, Key), Outcome> {
    let key = match &operation.partition_key {
        Some(Value::String(text)) => text.clone(),
        Some(array) => array.to_string(),
        None => return Err(Outcome::refused(400, "a bulk operation needs a partitionKey")),
    };
    let Some(full) = Key::parse(container, &key) else { return Err(outcome_of(&wrong_key(), false)) };
    let name = container.name();
    let at_id = || {
        let id = operation.id.as_deref();
        id.map(|id| name.document(id)).ok_or_else(|| Outcome::refused(400, "the operation needs an id"))
    };
    let mut ask = match operation.operation_type {
        Kind::Create => Ask::new(Method::POST, name.documents()),
        Kind::Upsert => Ask::new(Method::POST, name.documents()).with_header(header::IS_UPSERT, "True"),
        Kind::Replace => Ask::new(Method::PUT, at_id()?),
        Kind::Read => Ask::new(Method::GET, at_id()?),
        Kind::Delete => Ask::new(Method::DELETE, at_id()?),
        Kind::Patch => Ask::new(Method::PATCH, at_id()?),
    };
    if let Some(body) = operation.resource_body {
        ask = ask.with_body(Bytes::copy_from_slice(body.get().as_bytes()));
    }
    ask.headers.set(header::PARTITION_KEY, crate::local::message::ascii_json(&key));
    if let Some(etag) = &operation.if_match {
        ask.headers.set("if-match", etag);
    }
    if let Some(etag) = &operation.if_none_match {
        ask.headers.set("if-none-match", etag);
    }
    Ok((ask, full))
}
