//! The HTTP server of `serve`: answers the host at once, takes batches, finishes what it took.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt as _,
};
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, error, error_span, field, info, warn};

use super::{
    incoming::Incoming,
    invocation::{BadInvocation, Payload},
    text::BufferPool,
};
use crate::{
    capture::{Capture, CaptureError, Summary},
    causes::chain,
    history::History,
    telemetry::{
        otlp::{BatchSpan, Export},
        trace::TraceContext,
    },
};

/// The functions this process serves, by lower-case name: the host's routes ignore case.
pub struct Handler<H> {
    functions: BTreeMap<String, Served<H>>,
    max_body: usize,
    export: Option<Arc<Export>>,
}

/// What a timer function does at each tick: a line for the log, or why it could not. It ends soon after the token is
/// cancelled.
pub type Tick = Arc<dyn Fn(CancellationToken) -> BoxFuture<'static, Result<String, TickError>> + Send + Sync>;

/// Why a timer function could not do its work: whatever the work's own error is.
pub type TickError = Box<dyn std::error::Error + Send + Sync>;

enum Served<H> {
    Changes { binding: String, capture: Arc<Capture<H>> },
    Timer { name: String, tick: Tick },
}

impl<H: History> Served<H> {
    fn name(&self) -> &str {
        match self {
            Self::Changes { capture, .. } => &capture.function,
            Self::Timer { name, .. } => name,
        }
    }
}

impl<H: History> Handler<H> {
    /// A handler for `(binding name, capture)` pairs; bodies over `max_body` bytes are refused.
    pub fn new(functions: impl IntoIterator<Item = (String, Capture<H>)>, max_body: usize) -> Self {
        let functions = functions
            .into_iter()
            .map(|(binding, capture)| {
                (capture.function.to_lowercase(), Served::Changes { binding, capture: Arc::new(capture) })
            })
            .collect();
        Self { functions, max_body, export: None }
    }

    /// The same handler, which tells a collector about each batch.
    pub fn with_export(self, export: Option<Arc<Export>>) -> Self {
        Self { export, ..self }
    }

    /// Serves a timer function too.
    pub fn with_timer(mut self, name: String, tick: Tick) -> Self {
        self.functions.insert(name.to_lowercase(), Served::Timer { name, tick });
        self
    }

    /// Names of the functions, for people.
    pub fn names(&self) -> String {
        self.functions.values().map(Served::name).collect::<Vec<_>>().join(", ")
    }
}

/// How a server is told to stop: first no new batches, then, when the drain time is over, nothing more.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// Cancelled when no new batches are to be taken.
    pub stop: CancellationToken,
    /// How long batches in flight may still take.
    pub drain: Duration,
}

struct App<H> {
    handler: Handler<H>,
    stop: CancellationToken,
    batches: TaskTracker,
    spare: BufferPool,
}

/// Serves until told to stop, then finishes the batches in flight. Returns whether all of them were finished.
///
/// A batch runs in a task of its own: a caller that disconnects does not cut it in half.
///
/// # Errors
/// When the listener fails.
pub async fn serve<H: History>(listener: TcpListener, handler: Handler<H>, shutdown: Shutdown) -> io::Result<bool> {
    let batches = TaskTracker::new();
    let app =
        Arc::new(App { handler, stop: shutdown.stop.clone(), batches: batches.clone(), spare: BufferPool::default() });
    let router = Router::new()
        .route("/", get(health))
        .route("/{function}", post(invoke::<H>))
        .fallback(unknown::<H>)
        .method_not_allowed_fallback(unknown::<H>)
        .with_state(app);
    // Small answers must not wait for more data to fill a packet.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let stop = shutdown.stop.clone();
    let server =
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await });
    let mut server = server;
    tokio::select! {
        ended = &mut server => return ended.map_err(io::Error::other)?.map(|()| true),
        () = shutdown.stop.cancelled() => {}
    }
    batches.close();
    info!(batches = batches.len(), "stopping: no new batches, finishing those in flight");
    let drained = tokio::time::timeout(shutdown.drain, async {
        batches.wait().await;
        // The answers have to get out too; idle connections do not count.
        let _ = tokio::time::timeout(Duration::from_secs(1), &mut server).await;
    })
    .await
    .is_ok();
    server.abort();
    if !drained {
        warn!(batches = batches.len(), "drain time is over; unfinished batches will be delivered again");
    }
    Ok(drained)
}

async fn health() -> impl IntoResponse {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

async fn unknown<H: History>(State(app): State<Arc<App<H>>>, method: Method, uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    let message = format!(
        "there is no {method} {path}; this app answers GET / and POST /<function>, functions: {}",
        app.handler.names()
    );
    problem(StatusCode::NOT_FOUND, &message)
}

async fn invoke<H: History>(
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
    // Every line about this invocation carries both, whatever the level of the filter.
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
    // Counted before the look at `stop`: a drain that begins in between waits for this batch.
    let _counted = app.batches.token();
    if app.stop.is_cancelled() {
        discard(body, headers).await;
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the handler is stopping; deliver the batch again");
    }
    let (binding, capture) = match served {
        Served::Changes { binding, capture } => (binding.clone(), capture.clone()),
        Served::Timer { name, tick } => {
            let (name, tick, stop) = (name.clone(), tick.clone(), app.stop.clone());
            // What the host says of the schedule is of no interest.
            discard(body, headers).await;
            let task = app.batches.spawn(async move { run_tick(&name, tick, stop).await }.in_current_span());
            return answered(task.await, "the timer's work was not finished; the next tick goes on with it");
        }
    };
    // An announced length is only a promise: no more is reserved for it than a usual batch needs.
    let mut incoming = Incoming::new(&binding, announced(headers).unwrap_or(0).min(4 << 20), &app.spare);
    let size = match read_body(body, app.handler.max_body, headers, |data| incoming.push(data)).await {
        Ok(size) => size,
        Err(refusal) => {
            let message = refusal.message();
            error!(function = capture.function, "{message}");
            return problem(refusal.status(), &message);
        }
    };
    // Where a body has to be parsed in the general way, many megabytes take long enough for the host's health check to
    // wait: another thread takes over the others meanwhile.
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

/// A task that panicked is a failed invocation.
fn answered(ended: Result<Response, tokio::task::JoinError>, message: &str) -> Response {
    ended.unwrap_or_else(|e| {
        // Its panic has a line of its own; this one's text would quote its message.
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
            let hint = refusal.hint();
            match &refusal {
                Refusal::Capture { error: _, items } => {
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

/// A body that was received as a whole.
struct Received {
    payload: Result<Payload, BadInvocation>,
    /// Its bytes.
    size: usize,
}

/// Why a batch is answered with an error.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// It is not what the host sends.
    #[error(transparent)]
    Payload(BadInvocation),
    /// It is larger than the limit, in bytes.
    #[error("the body is larger than REWIND_MAX_BODY_MB allows ({} MiB); raise it", .0 >> 20)]
    TooLarge(usize),
    /// It ended too early.
    #[error("the body was cut off after {received} bytes: {cause}")]
    CutOff { received: usize, cause: axum::Error },
    /// Not all of it is durable.
    #[error("{error}")]
    Capture { error: CaptureError, items: usize },
}

impl Refusal {
    /// What the host is answered: the one table. It delivers a batch again whatever it is; only 5xx says that this may
    /// help.
    fn status(&self) -> StatusCode {
        match self {
            Self::Payload(_) | Self::CutOff { .. } => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Capture { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The next step for a person.
    fn hint(&self) -> Option<&'static str> {
        let Self::Capture { error, .. } = self else { return None };
        match error {
            CaptureError::Service(f) => f.hint(),
            CaptureError::Refused(_) => Some(
                "look at the history container: its partition key and its policies, or `cosmos-rewind doctor`; nothing was put away, and all of it is delivered again",
            ),
            CaptureError::Layout(_) => Some("name another history, which `cosmos-rewind provision` makes"),
            CaptureError::Projection(_) => None,
            CaptureError::DeadLetters(_) => Some("check REWIND_DEAD_LETTERS: the store must exist and be writable"),
        }
    }

    /// What happened and why, on one line: a setting's error has two.
    fn message(&self) -> String {
        chain(self).replace('\n', " ")
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

/// Bodies above this many bytes are finished apart.
const LARGE_BODY: usize = 8 << 20;

/// How much of a refused body is read on, so that a caller that is still sending gets to read the answer.
const READ_ON: usize = 64 << 20;

/// Takes the body frame by frame (the host sends it chunked, without a length); gives the number of its bytes.
async fn read_body(
    mut body: Body,
    limit: usize,
    headers: &HeaderMap,
    mut take: impl FnMut(&[u8]),
) -> Result<usize, Refusal> {
    let mut too_large = announced(headers).is_some_and(|length| length > limit);
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| Refusal::CutOff { received, cause })?;
        let Some(data) = frame.data_ref() else { continue };
        received += data.len();
        too_large |= received > limit;
        if !too_large {
            take(data);
        } else if received > limit + READ_ON {
            break;
        }
    }
    if too_large {
        return Err(Refusal::TooLarge(limit));
    }
    Ok(received)
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get("content-length")?.to_str().ok()?.parse().ok()
}

/// Reads on a body that nobody wants, and keeps nothing of it.
async fn discard(body: Body, headers: &HeaderMap) {
    let _ = read_body(body, 0, headers, |_| {}).await;
}

fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}
