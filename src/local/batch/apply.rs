//! A transactional batch carried out.

use axum::http::Method;
use bytes::Bytes;
use serde_json::Value;

use super::{Kind, Operation, answer, outcome_of, plan::Step};
use crate::local::{
    container::Container,
    keys::{DocumentKey, Epk},
    log::WriteLog,
    message::{Answer, Ask, header},
};

pub(super) async fn apply(
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
pub(super) async fn by_emulator(
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
