//! Checks whether all operations of a transactional batch can succeed, and plans the writes.

use std::collections::HashMap;

use axum::http::Method;
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Kind, MAX_BYTES, MAX_ID_BYTES, Operation, Outcome};
use crate::local::{
    container::{LocalContainer, check_members},
    keys::{DocumentKey, Epk, has_only_scalars, partition_key_of, same_partition_key},
    log::WriteLog,
    message::{Ask, Target, header, json_of},
    patch,
    unique::{TAKEN, Trial},
};

/// The step for an operation, once all operations are known to be possible.
pub(super) enum BatchStep {
    Write(Ask),
    /// Nothing to write: the result is already known.
    Known(Outcome),
    /// Reads a document that this batch itself writes earlier.
    ReadOwn,
}

/// The state of a document at this point of the batch.
#[derive(Clone)]
enum Expected {
    Absent,
    Stored(Option<String>, Bytes),
    /// Written by this batch; the text is known if it was sent as text.
    Own(Bytes),
}

pub(super) async fn plan(
    container: &LocalContainer,
    log: &WriteLog,
    values: &[Value],
    epk: &Epk,
    operations: &[Operation<'_>],
) -> Result<Vec<BatchStep>, (usize, Outcome)> {
    let mut expected: HashMap<String, Expected> = HashMap::new();
    let mut steps = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        let step = plan_one(container, log, values, epk, operation, &mut expected).await;
        steps.push(step.map_err(|failure| (index, failure))?);
    }
    match log.unique().and_then(|keys| first_taken(Trial::of(keys, epk), &steps)) {
        Some(index) => Err((index, Outcome::refused(409, TAKEN))),
        None => Ok(steps),
    }
}

/// Returns the first write of a batch whose unique key values belong to another document at that point.
fn first_taken(mut trial: Trial<'_>, steps: &[BatchStep]) -> Option<usize> {
    for (index, step) in steps.iter().enumerate() {
        let BatchStep::Write(write) = step else { continue };
        if let Target::Document(_, id) = Target::of(&write.path) {
            trial.remove(&id);
        }
        if write.method != Method::DELETE
            && let Ok(document) = json_of(&write.body)
            && !trial.put(document["id"].as_str().unwrap_or_default(), &document)
        {
            return Some(index);
        }
    }
    None
}

async fn plan_one(
    container: &LocalContainer,
    log: &WriteLog,
    values: &[Value],
    epk: &Epk,
    operation: &Operation<'_>,
    expected: &mut HashMap<String, Expected>,
) -> Result<BatchStep, Outcome> {
    let mut sent: Option<Bytes> = operation.resource_body.map(|body| Bytes::copy_from_slice(body.get().as_bytes()));
    let carries_document = matches!(operation.operation_type, Kind::Create | Kind::Upsert | Kind::Replace);
    let body_id = match &sent {
        Some(text) if carries_document => Some(check_document(container, values, text)?),
        None if carries_document => return Err(Outcome::refused(400, "the operation needs a resourceBody")),
        _ => None,
    };
    // A replacement may change an item's id.
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
            return Ok(BatchStep::Known(Outcome {
                charge: 1.0,
                etag: etag.map(str::to_owned),
                ..Outcome::failed(304)
            }));
        }
        return Err(Outcome::refused(412, "the item exists already"));
    }
    let ask = |method: Method, path: String| {
        Ask::new(method, path)
            .with_header(header::PARTITION_KEY, crate::local::message::ascii_json(&json!(values).to_string()))
    };
    let name = container.name();
    let step = match kind {
        Kind::Read => match &now {
            Expected::Stored(etag, text) => BatchStep::Known(Outcome {
                status: 200,
                body: Some(text.clone()),
                etag: etag.clone(),
                charge: 1.0,
                ..Outcome::failed(200)
            }),
            _ => BatchStep::ReadOwn,
        },
        Kind::Delete => BatchStep::Write(ask(Method::DELETE, name.document(&id))),
        Kind::Create => BatchStep::Write(ask(Method::POST, name.documents())),
        Kind::Upsert => BatchStep::Write(ask(Method::POST, name.documents()).with_header(header::IS_UPSERT, "True")),
        Kind::Replace => BatchStep::Write(ask(Method::PUT, name.document(&id))),
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
            if check_document(container, values, &patched)? != id {
                return Err(Outcome::refused(400, "a patch cannot change the id"));
            }
            sent = Some(patched);
            BatchStep::Write(ask(Method::PUT, name.document(&id)))
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
        (BatchStep::Write(ask), Some(text)) if kind != Kind::Delete => BatchStep::Write(ask.with_body(text)),
        (step, _) => step,
    })
}

/// Applies the checks of a single write to a document; returns its id.
fn check_document(container: &LocalContainer, values: &[Value], text: &[u8]) -> Result<String, Outcome> {
    if text.len() > MAX_BYTES {
        return Err(Outcome::refused(413, "an item has at most 2 MB"));
    }
    let document = json_of(text).map_err(|error| Outcome::refused(400, format!("no JSON: {error}")))?;
    let Some(id) = document.get("id").and_then(Value::as_str) else {
        return Err(Outcome::refused(400, "the document has no id"));
    };
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(Outcome::refused(400, format!("an id has 1 to {MAX_ID_BYTES} bytes")));
    }
    check_members(text).map_err(|message| Outcome::refused(400, message))?;
    let paths = &container.partitioning().paths;
    if !has_only_scalars(&document, paths) {
        return Err(Outcome::refused(400, "partition key components must be scalar (null, bool, number, or string)"));
    }
    if !same_partition_key(&partition_key_of(&document, paths), values) {
        return Err(Outcome {
            substatus: Some(1001),
            ..Outcome::refused(400, "the document's partition key is not the batch's")
        });
    }
    Ok(id.to_owned())
}
