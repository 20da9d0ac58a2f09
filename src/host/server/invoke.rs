//! Handles one invocation: captures a batch, or does a timer's work.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, error_span, field, info, warn};

use super::{
    App, Served, Tick,
    body::{LARGE_BODY, Received, Refusal, announced, discard, read_body},
    problem,
};
use crate::{
    capture::{Capture, Summary},
    causes::chain,
    history::History,
    host::{
        incoming::Incoming,
        invocation::{BadInvocation, Payload},
    },
    telemetry::{otlp::BatchSpan, trace::TraceContext},
};

pub(super) async fn invoke<H: History>(
    State(app): State<Arc<App<H>>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let header = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let invocation: String = header("x-azure-functions-invocationid")
        .unwrap_or("-")
        .chars()
        .filter(|c| c.is_ascii_graphic())
        .take(64)
        .collect();
    let trace = header("traceparent").and_then(TraceContext::parse);
    // Every line about this invocation has both, whatever the filter's level.
    let span = error_span!("batch", invocation, trace = field::Empty);
    if let Some(trace) = trace {
        span.record("trace", trace.trace_id());
    }
    invoke_traced(app, &function, &headers, body, invocation, trace).instrument(span).await
}

async fn invoke_traced<H: History>(
    app: Arc<App<H>>,
    function: &str,
    headers: &HeaderMap,
    body: Body,
    invocation: String,
    trace: Option<TraceContext>,
) -> Response {
    let Some(served) = app.handler.functions.get(&function.to_lowercase()) else {
        let message = format!(
            "there is no function {:?}; this app has: {}",
            function.chars().take(128).collect::<String>(),
            app.handler.names()
        );
        warn!("{message}");
        discard(body, headers).await;
        return problem(StatusCode::NOT_FOUND, &message);
    };
    // Counted before checking `stop`: a drain that begins in between waits for this batch.
    let _counted = app.batches.token();
    if app.stop.is_cancelled() {
        discard(body, headers).await;
        return stopping();
    }
    let (binding, capture) = match served {
        Served::Changes { binding, capture } => (binding.clone(), capture.clone()),
        Served::Timer { name, tick } => {
            let (name, tick, stop) = (name.clone(), tick.clone(), app.stop.clone());
            let mut looked = app.handler.looked.clone();
            // What the host says about the schedule does not matter.
            discard(body, headers).await;
            let tick = async move {
                // Nothing is removed before the containers are known to be right.
                let looked = stop.run_until_cancelled(looked.wait_for(|looked| *looked)).await;
                let is_right = looked.is_some_and(|looked| looked.is_ok());
                if is_right { run_tick(&name, tick, stop).await } else { stopping() }
            };
            let task = app.batches.spawn(tick.in_current_span());
            return answered(task.await, "the timer's work was not finished; the next tick goes on with it");
        }
    };
    // An announced length is only a claim: no more is reserved for it than a usual batch needs.
    let mut incoming = Incoming::new(&binding, announced(headers).unwrap_or(0).min(4 << 20), &app.spare);
    let size = match read_body(body, app.handler.max_body, headers, |data| incoming.push(data)).await {
        Ok(size) => size,
        Err(refusal) => {
            let message = refusal.message();
            error!(function = capture.function, "{message}");
            return problem(refusal.status(), &message);
        }
    };
    // When a body has to be parsed generically, many megabytes take long enough for the host's health check to wait:
    // another thread handles requests in the meantime.
    let finish = move || incoming.finish();
    let payload = if size > LARGE_BODY { tokio::task::block_in_place(finish) } else { finish() };
    let told = app.handler.export.as_ref().map(|export| export.batch(&capture.function, &invocation, trace));
    let tracker = app.batches.clone();
    let batch = async move {
        let received = Received { payload, size };
        let answer = run_batch(&capture, &received, &binding, &invocation, told).await;
        if let Ok(payload) = received.payload {
            app.spare.keep(payload.into_bytes());
        }
        answer
    };
    let task = tracker.spawn(batch.in_current_span());
    answered(task.await, "the batch was not finished; deliver it again")
}

fn stopping() -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "the handler is stopping; deliver the batch again")
}

/// A task that panicked is a failed invocation.
fn answered(ended: Result<Response, tokio::task::JoinError>, message: &str) -> Response {
    ended.unwrap_or_else(|e| {
        // Its panic has a log line of its own; this error's text would quote its message.
        error!(panicked = e.is_panic(), "invocation's task failed");
        problem(StatusCode::INTERNAL_SERVER_ERROR, message)
    })
}

async fn run_tick(function: &str, tick: Tick, stop: CancellationToken) -> Response {
    match tick(stop).await {
        Ok(line) => {
            info!(function, "pruned: {line}");
            Json(json!({"Outputs": {}, "Logs": [format!("{function}: {line}")], "ReturnValue": null})).into_response()
        }
        Err(error) => {
            let reason = chain(&*error);
            error!(function, "not pruned, the next tick goes on: {reason}");
            problem(StatusCode::INTERNAL_SERVER_ERROR, &reason)
        }
    }
}

async fn run_batch<H: History>(
    capture: &Capture<H>,
    received: &Received,
    binding: &str,
    invocation: &str,
    told: Option<BatchSpan>,
) -> Response {
    let function = capture.function.as_str();
    let size = received.size;
    let ended = capture_body(capture, &received.payload, binding, invocation).await;
    match ended {
        Ok(summary) => {
            log_summary(function, size, &summary);
            if let Some(told) = told {
                told.stored(&summary);
            }
            Json(json!({"Outputs": {}, "Logs": [format!("{function}: {summary}")], "ReturnValue": null}))
                .into_response()
        }
        Err(refusal) => {
            let message = refusal.message();
            match &refusal {
                Refusal::Capture { items, .. } => {
                    let hint = refusal.hint();
                    error!(function, items, hint, "batch not stored, to be delivered again: {message}");
                }
                Refusal::Payload(_) | Refusal::TooLarge(_) | Refusal::CutOff { .. } => {
                    error!(function, bytes = size, "{message}");
                }
            }
            if let Some(told) = told {
                told.failed(&message);
            }
            problem(refusal.status(), &message)
        }
    }
}

async fn capture_body<H: History>(
    capture: &Capture<H>,
    payload: &Result<Payload, BadInvocation>,
    binding: &str,
    invocation: &str,
) -> Result<Summary, Refusal> {
    let payload = payload.as_ref().map_err(|e| Refusal::Payload(e.clone()))?;
    let items = payload.items(binding).map_err(Refusal::Payload)?;
    let run = capture.run(&items, invocation).await;
    run.map_err(|error| Refusal::Capture { error, items: items.len() })
}

fn log_summary(function: &str, bytes: usize, s: &Summary) {
    info!(
        function,
        bytes,
        items = s.items,
        records = s.records,
        healed = s.healed,
        rereads = s.rereads,
        normalized = s.normalized,
        unsure = s.unsure,
        compressed = s.compressed,
        dead_letters = s.dead_letters,
        retries = s.retries,
        ru = (s.ru * 10.0).round() / 10.0,
        ms = u64::try_from(s.elapsed.as_millis()).unwrap_or(u64::MAX),
        lag = s.lag,
        "batch stored"
    );
}
