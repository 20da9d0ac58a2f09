//! Applies a transactional batch.

use axum::http::Method;

use super::{Operation, answer, outcome_of, plan::BatchStep};
use crate::local::{
    container::LocalContainer,
    log::WriteLog,
    message::{Ask, GatewayAnswer, header},
};

pub(super) async fn apply(
    container: &LocalContainer,
    log: &mut WriteLog,
    ask: &Ask,
    operations: &[Operation<'_>],
    steps: Vec<BatchStep>,
) -> GatewayAnswer {
    let mut outcomes = Vec::with_capacity(steps.len());
    let mut session = None;
    let mut begun = false;
    for (step, operation) in steps.into_iter().zip(operations) {
        let outcome = match step {
            BatchStep::Known(outcome) => outcome,
            BatchStep::ReadOwn => {
                let path = container.name().document(operation.id.as_deref().unwrap_or_default());
                let mut read = Ask::new(Method::GET, path);
                if let Some(key) = ask.headers.get(header::PARTITION_KEY) {
                    read.headers.set(header::PARTITION_KEY, key);
                }
                outcome_of(&container.emulator().execute(&read).await, true)
            }
            BatchStep::Write(write) => {
                let answer = container.point_write(log, &write, !begun).await;
                if !answer.is_success() {
                    // Everything was checked, so this is a bug in the emulator or in the check, and must not go
                    // unnoticed.
                    tracing::error!(container = %container.name(), status = answer.status, "a batch failed after its check");
                    return GatewayAnswer::error(500, None, "InternalServerError", "a checked batch operation failed");
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
