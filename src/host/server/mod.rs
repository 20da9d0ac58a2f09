//! The HTTP server of `serve`: answers the host at once, takes batches, and finishes what it took.

mod body;
mod invoke;

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt as _,
};
use futures::future::BoxFuture;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use self::invoke::invoke;
use super::text::BufferPool;
use crate::{capture::Capture, history::History, telemetry::otlp::Export};

/// The functions this process serves, by lower-case name: the host's routes ignore case.
pub struct Handler<H> {
    functions: BTreeMap<String, Served<H>>,
    max_body: usize,
    export: Option<Arc<Export>>,
    /// Whether the containers were checked.
    looked: watch::Receiver<bool>,
}

/// The work of a timer function at each tick. Returns a line for the log, or why it failed; ends soon after the token
/// is cancelled.
pub type Tick = Arc<dyn Fn(CancellationToken) -> BoxFuture<'static, Result<String, AnyTickError>> + Send + Sync>;

/// Why a timer function failed: whatever the error of its work is.
pub type AnyTickError = Box<dyn std::error::Error + Send + Sync>;

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
    /// A handler for `(binding name, capture)` pairs; larger bodies than `max_body` bytes are refused.
    pub fn new(functions: impl IntoIterator<Item = (String, Capture<H>)>, max_body: usize) -> Self {
        let functions = functions
            .into_iter()
            .map(|(binding, capture)| {
                (capture.function.to_lowercase(), Served::Changes { binding, capture: Arc::new(capture) })
            })
            .collect();
        Self { functions, max_body, export: None, looked: watch::channel(true).1 }
    }

    /// The same handler; until the containers were checked, its health is `starting` and its timers wait.
    pub fn until(self, looked: watch::Receiver<bool>) -> Self {
        Self { looked, ..self }
    }

    /// The capture of each function.
    pub fn captures(&self) -> Vec<Arc<Capture<H>>> {
        let capture = |served: &Served<H>| match served {
            Served::Changes { capture, .. } => Some(capture.clone()),
            Served::Timer { .. } => None,
        };
        self.functions.values().filter_map(capture).collect()
    }

    /// The same handler, which reports each batch to a collector.
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

/// How a server is told to stop: first no new batches, and when the drain time is over, nothing more.
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
        .route("/", get(health::<H>))
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
        // The answers have to be sent, too; idle connections do not count.
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

/// Any answer tells the host that it can deliver; this one also says whether the containers were checked.
async fn health<H: History>(State(app): State<Arc<App<H>>>) -> impl IntoResponse {
    let status = if *app.handler.looked.borrow() { "ok" } else { "starting" };
    Json(json!({"status": status, "version": env!("CARGO_PKG_VERSION")}))
}

async fn unknown<H: History>(State(app): State<Arc<App<H>>>, method: Method, uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    let message = format!(
        "there is no {method} {path}; this app answers GET / and POST /<function>, functions: {}",
        app.handler.names()
    );
    problem(StatusCode::NOT_FOUND, &message)
}

fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}
