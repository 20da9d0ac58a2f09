//! Batches: transactional ones, and the bulk ones of SDKs that pack independent writes into one request.
//!
//! The emulator copies a whole physical partition for every transactional batch. Here each operation is checked
//! against the write log first; only when all of them can succeed are they carried out, one by one, while the
//! container's lock keeps every reader away. So a batch is whole or absent, and costs what its operations cost.

use std::collections::HashMap;

use axum::http::Method;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::container::{Container, wrong_key};
use super::keys::{DocumentKey, Epk, partition_key_of, same_partition_key};
use super::log::WriteLog;
use super::message::{Answer, Ask, Headers, header};
use super::patch;

const MAX_OPERATIONS: usize = 100;
const MAX_BYTES: usize = 2 * 1024 * 1024;
const MAX_ID_BYTES: usize = 1023;
/// What an operation that was not carried out because another one failed answers: 424 Failed Dependency.
const FAILED_DEPENDENCY: u16 = 424;

/// One operation as the SDKs send it.
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
    /// Bulk only: the header's text, `["x"]`, or the same as an array.
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

/// An operation's result in the answer's array.
struct Outcome {
    status: u16,
    body: Option<Bytes>,
    etag: Option<String>,
    charge: f64,
    message: Option<String>,
    substatus: Option<u32>,
}

impl Outcome {
    fn failed(status: u16) -> Self {
        Self { status, body: None, etag: None, charge: 0.0, message: None, substatus: None }
    }

    fn refused(status: u16, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..Self::failed(status) }
    }
}

/// Answers a batch request.
pub(super) async fn run(container: &Container, ask: &Ask) -> Answer {
    if ask.body.first().is_some_and(|first| *first >= 0x80) {
        return Answer::error(
            501,
            None,
            "NotImplemented",
            "The local account reads batches in JSON, not in HybridRow as the .NET client sends them: write item by item",
        );
    }
    let operations: Vec<Operation<'_>> = match serde_json::from_slice(&ask.body) {
        Ok(operations) => operations,
        Err(error) => return Answer::bad_request(format!("The batch is not understood: {error}")),
    };
    if operations.is_empty() {
        return Answer::bad_request("Batch request has no operations.");
    }
    if operations.len() > MAX_OPERATIONS {
        return Answer::bad_request(format!(
            "Batch request has more operations than what is supported. At most {MAX_OPERATIONS}, this one {}",
            operations.len()
        ));
    }
    if ask.body.len() > MAX_BYTES {
        return Answer::error(413, None, "RequestEntityTooLarge", "A batch has at most 2 MB");
    }
    let atomic = ask.headers.get(header::BATCH_ATOMIC).is_none_or(|value| !value.eq_ignore_ascii_case("false"));
    if !atomic {
        return bulk(container, ask, &operations).await;
    }
    let values: Option<Vec<Value>> =
        ask.headers.get(header::PARTITION_KEY).and_then(|text| serde_json::from_str(text).ok());
    let Some((values, epk)) = values.and_then(|values| {
        let range = container.partitioning().range_of(&values)?;
        (range.min == range.max).then_some((values, range.min))
    }) else {
        return *wrong_key();
    };
    let Some(_shape) = container.hold_shape() else {
        return being_split();
    };
    let mut log = container.write().await;
    if container.has_unique_keys() {
        return by_emulator(container, &mut log, ask, &operations, epk).await;
    }
    let steps = match plan(container, &log, &values, &epk, &operations).await {
        Ok(steps) => steps,
        Err((index, failure)) => return refused(operations.len(), index, failure),
    };
    let mut answer = apply(container, &mut log, ask, &operations, steps).await;
    answer.headers.set("lsn", log.lsn().to_string());
    answer
}

/// What the service says while a physical partition is split or merged.
pub(super) fn being_split() -> Answer {
    Answer::error(410, Some(1007), "Gone", "The partition is being split or merged: try again")
}

/// The answer of a batch of which nothing was carried out.
fn refused(count: usize, at: usize, failure: Outcome) -> Answer {
    let mut failure = Some(failure);
    let outcomes: Vec<Outcome> = (0..count)
        .map(|index| {
            let own = if index == at { failure.take() } else { None };
            own.unwrap_or_else(|| Outcome::failed(FAILED_DEPENDENCY))
        })
        .collect();
    answer(&outcomes, None)
}

/// What to do for an operation, once all of them have been found possible.
enum Step {
    Write(Ask),
    /// Nothing to write: the result is known.
    Known(Outcome),
    /// Read a document that this batch itself writes before.
    ReadOwn,
}

/// What a document will be at this point of the batch.
#[derive(Clone)]
enum Expected {
    Absent,
    Stored(Option<String>, Bytes),
    /// Written by this batch; the text is known when it was sent as text.
    Own(Bytes),
}

async fn plan(
    container: &Container,
    log: &WriteLog,
    values: &[Value],
    epk: &Epk,
    operations: &[Operation<'_>],
) -> Result<Vec<Step>, (usize, Outcome)> {
    let mut expected: HashMap<String, Expected> = HashMap::new();
    let mut steps = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        let step = plan_one(container, log, values, epk, operation, &mut expected).await;
        steps.push(step.map_err(|failure| (index, failure))?);
    }
    Ok(steps)
}

async fn plan_one(
    container: &Container,
    log: &WriteLog,
    values: &[Value],
    epk: &Epk,
    operation: &Operation<'_>,
    expected: &mut HashMap<String, Expected>,
) -> Result<Step, Outcome> {
    let mut sent: Option<Bytes> = operation.resource_body.map(|body| Bytes::copy_from_slice(body.get().as_bytes()));
    let carries_document = matches!(operation.operation_type, Kind::Create | Kind::Upsert | Kind::Replace);
    let body_id = match &sent {
        Some(text) if carries_document => Some(check_document(container, values, text)?),
        None if carries_document => return Err(Outcome::refused(400, "the operation needs a resourceBody")),
        _ => None,
    };
    // A replacement may give an item another id.
    let mut renamed_to = None;
    let id = match (&operation.id, body_id) {
        (Some(id), Some(body_id)) if *id != body_id && operation.operation_type == Kind::Replace => {
            renamed_to = Some(body_id);
            id.clone()
        }
        (Some(id), Some(body_id)) if *id != body_id => {
            return Err(Outcome::refused(400, "the id of the operation differs from the document's"));
        }
        (_, Some(id)) => id,
        (Some(id), None) => id.clone(),
        (None, None) => return Err(Outcome::refused(400, "the operation needs an id")),
    };
    let now = expected.get(&id).cloned().unwrap_or_else(|| {
        match log.get(&DocumentKey { epk: epk.clone(), id: id.clone() }) {
            Some(document) => Expected::Stored(Some(document.etag.clone()), document.text.clone()),
            None => Expected::Absent,
        }
    });
    let (exists, etag) = match &now {
        Expected::Absent => (false, None),
        Expected::Stored(etag, _) => (true, etag.as_deref()),
        Expected::Own(_) => (true, None),
    };
    let kind = operation.operation_type;
    if kind == Kind::Create && exists {
        return Err(Outcome::refused(409, "an item with this id exists already"));
    }
    if !exists && !matches!(kind, Kind::Create | Kind::Upsert) {
        return Err(Outcome::refused(404, "there is no item with this id"));
    }
    if exists && operation.if_match.as_deref().is_some_and(|wanted| wanted != "*" && Some(wanted) != etag) {
        return Err(Outcome::refused(412, "the item has changed: its _etag is another one"));
    }
    if let Some(new) = &renamed_to {
        let is_taken = match expected.get(new) {
            Some(known) => !matches!(known, Expected::Absent),
            None => log.get(&DocumentKey { epk: epk.clone(), id: new.clone() }).is_some(),
        };
        if is_taken {
            return Err(Outcome::refused(409, "an item with this id exists already"));
        }
    }
    let unwanted = operation.if_none_match.as_deref();
    if exists && unwanted.is_some_and(|unwanted| unwanted == "*" || Some(unwanted) == etag) {
        if kind == Kind::Read {
            return Ok(Step::Known(Outcome { charge: 1.0, etag: etag.map(str::to_owned), ..Outcome::failed(304) }));
        }
        return Err(Outcome::refused(412, "the item exists already"));
    }
    let ask = |method: Method, path: String| {
        Ask::new(method, path)
            .with_header(header::PARTITION_KEY, super::message::ascii_json(&json!(values).to_string()))
    };
    let name = container.name();
    // In a URL these ids mean other places. What exists can be written again without its id in the path.
    let in_no_path = matches!(id.as_str(), "." | "..");
    let upsert = || Step::Write(ask(Method::POST, name.documents()).with_header(header::IS_UPSERT, "True"));
    let step = match kind {
        Kind::Replace if in_no_path && renamed_to.is_none() => upsert(),
        Kind::Delete | Kind::Replace | Kind::Patch if in_no_path => {
            return Err(Outcome::refused(
                501,
                "the local account cannot delete, rename or patch an item with the id . or ..",
            ));
        }
        Kind::Read => match &now {
            Expected::Stored(etag, text) => Step::Known(Outcome {
                status: 200,
                body: Some(text.clone()),
                etag: etag.clone(),
                charge: 1.0,
                ..Outcome::failed(200)
            }),
            _ => Step::ReadOwn,
        },
        Kind::Delete => Step::Write(ask(Method::DELETE, name.document(&id))),
        Kind::Create => Step::Write(ask(Method::POST, name.documents())),
        Kind::Upsert => upsert(),
        Kind::Replace => Step::Write(ask(Method::PUT, name.document(&id))),
        Kind::Patch => {
            let instructions = sent.take().ok_or_else(|| Outcome::refused(400, "a patch needs a resourceBody"))?;
            let (Expected::Stored(_, text) | Expected::Own(text)) = &now else {
                return Err(Outcome::refused(404, "there is no item with this id"));
            };
            match patch::meets_condition(text, &instructions) {
                Ok(true) => {}
                Ok(false) => return Err(Outcome::refused(412, "the item does not meet the patch's condition")),
                Err(message) => return Err(Outcome::refused(400, message)),
            }
            let patched = patch::apply(text, &instructions).map_err(|message| Outcome::refused(400, message))?;
            check_document(container, values, &patched)?;
            sent = Some(patched);
            Step::Write(ask(Method::PUT, name.document(&id)))
        }
    };
    match kind {
        Kind::Read => {}
        Kind::Delete => {
            expected.insert(id, Expected::Absent);
        }
        _ => {
            let own = Expected::Own(sent.clone().unwrap_or_default());
            if let Some(new) = renamed_to {
                expected.insert(id, Expected::Absent);
                expected.insert(new, own);
            } else {
                expected.insert(id, own);
            }
        }
    }
    Ok(match (step, sent) {
        (Step::Write(ask), Some(text)) if kind != Kind::Delete => Step::Write(ask.with_body(text)),
        (step, _) => step,
    })
}

/// Checks a document as far as a single write would be refused for it; returns its id.
fn check_document(container: &Container, values: &[Value], text: &[u8]) -> Result<String, Outcome> {
    if text.len() > MAX_BYTES {
        return Err(Outcome::refused(413, "an item has at most 2 MB"));
    }
    let document: Value =
        serde_json::from_slice(text).map_err(|error| Outcome::refused(400, format!("no JSON: {error}")))?;
    let Some(id) = document.get("id").and_then(Value::as_str) else {
        return Err(Outcome::refused(400, "the document has no id"));
    };
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(Outcome::refused(400, format!("an id has 1 to {MAX_ID_BYTES} bytes")));
    }
    if !same_partition_key(&partition_key_of(&document, &container.partitioning().paths), values) {
        return Err(Outcome {
            substatus: Some(1001),
            ..Outcome::refused(400, "the document's partition key is not the batch's")
        });
    }
    Ok(id.to_owned())
}

async fn apply(
    container: &Container,
    log: &mut WriteLog,
    ask: &Ask,
    operations: &[Operation<'_>],
    steps: Vec<Step>,
) -> Answer {
    let mut outcomes = Vec::with_capacity(steps.len());
    let mut session = None;
    let mut begun = false;
    for (step, operation) in steps.into_iter().zip(operations) {
        let outcome = match step {
            Step::Known(outcome) => outcome,
            Step::ReadOwn => {
                let path = container.name().document(operation.id.as_deref().unwrap_or_default());
                let mut read = Ask::new(Method::GET, path);
                if let Some(key) = ask.headers.get(header::PARTITION_KEY) {
                    read.headers.set(header::PARTITION_KEY, key);
                }
                outcome_of(&container.emulator().execute(&read).await, true)
            }
            Step::Write(write) => {
                let answer = container.point_write(log, &write, !begun).await;
                if !answer.is_success() {
                    // Everything was checked, so this is the emulator's or our own mistake: say so, loudly.
                    tracing::error!(container = %container.name(), status = answer.status, "a batch failed after its check");
                    return Answer::error(500, None, "InternalServerError", "a checked batch operation failed");
                }
                begun = true;
                session = answer.headers.get(header::SESSION).map(str::to_owned).or(session);
                outcome_of(&answer, ask.wants_content())
            }
        };
        outcomes.push(outcome);
    }
    answer(&outcomes, session)
}

/// Containers with unique keys: the emulator knows them and its batch is atomic; the log takes over what it did.
async fn by_emulator(
    container: &Container,
    log: &mut WriteLog,
    ask: &Ask,
    operations: &[Operation<'_>],
    epk: Epk,
) -> Answer {
    let mut forward = ask.clone();
    forward.headers.set(header::CONTENT_ON_WRITE, "true");
    let mut answer = container.emulator().execute(&forward).await;
    if answer.status != 200 {
        return answer;
    }
    let Ok(mut results) = serde_json::from_slice::<Vec<Value>>(&answer.body) else { return answer };
    if operations.iter().any(|operation| operation.operation_type != Kind::Read) {
        log.begin();
    }
    for (operation, result) in operations.iter().zip(&mut results) {
        match operation.operation_type {
            Kind::Read => {}
            Kind::Delete => {
                let id = operation.id.clone().unwrap_or_default();
                container.record_delete(log, &DocumentKey { epk: epk.clone(), id });
            }
            kind => {
                let replaced = operation.id.as_deref().filter(|_| kind == Kind::Replace);
                container.record_put(log, &Bytes::from(result["resourceBody"].to_string()), replaced);
                if !ask.wants_content()
                    && let Some(result) = result.as_object_mut()
                {
                    result.remove("resourceBody");
                }
            }
        }
    }
    answer.body = Value::Array(results).to_string().into();
    answer
}

/// Independent writes in one request: each stands for itself.
async fn bulk(container: &Container, ask: &Ask, operations: &[Operation<'_>]) -> Answer {
    if container.range_of(&Ask { headers: range_only(&ask.headers), ..ask.clone() }).is_err() {
        return super::feed::gone();
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
            Ok(single) => {
                let answer = if single.method == Method::GET {
                    let _reading = container.read().await;
                    container.emulator().execute(&single).await
                } else {
                    let mut log = container.write().await;
                    container.point_write(&mut log, &single, true).await
                };
                session = answer.headers.get(header::SESSION).map(str::to_owned).or(session);
                outcome_of(&answer, ask.wants_content() || single.method == Method::GET)
            }
            Err(outcome) => outcome,
        };
        outcomes.push(outcome);
    }
    answer(&outcomes, session)
}

fn range_only(headers: &Headers) -> Headers {
    headers
        .iter()
        .filter(|(name, _)| *name == header::RANGE_ID)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn bulk_request(container: &Container, operation: &Operation<'_>) -> Result<Ask, Outcome> {
    let key = match &operation.partition_key {
        Some(Value::String(text)) => text.clone(),
        Some(array) => array.to_string(),
        None => return Err(Outcome::refused(400, "a bulk operation needs a partitionKey")),
    };
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
    ask.headers.set(header::PARTITION_KEY, super::message::ascii_json(&key));
    if let Some(etag) = &operation.if_match {
        ask.headers.set("if-match", etag);
    }
    if let Some(etag) = &operation.if_none_match {
        ask.headers.set("if-none-match", etag);
    }
    Ok(ask)
}

fn outcome_of(answer: &Answer, with_body: bool) -> Outcome {
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
    }
}

/// 200 when everything went well, 207 otherwise; the results as text, so that documents stay as they are.
fn answer(outcomes: &[Outcome], session: Option<String>) -> Answer {
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
    let mut answer = Answer::json(if failed { 207 } else { 200 }, body);
    let charge: f64 = outcomes.iter().map(|outcome| outcome.charge).sum();
    answer.headers.set(header::CHARGE, format!("{charge:.2}"));
    if let Some(session) = session {
        answer.headers.set(header::SESSION, session);
    }
    answer
}
