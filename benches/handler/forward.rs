//! The lower bound: a program that only forwards bytes.
//!
//! It receives an invocation over HTTP and, without parsing it, sends slices of it to the endpoint: as many requests
//! with as many bytes and the same headers as the real handler. Server, HTTP client, allocator and thread count are the
//! handler's. Any further cost of the handler is its own work.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    routing::{get, post},
    serve::ListenerExt as _,
};
use futures::{StreamExt as _, stream};

/// The number of writes in flight, the handler's limit.
const MAX_WRITES: usize = 64;

/// The requests for one invocation, passed in the environment.
#[derive(Clone, Default)]
pub struct Shape {
    /// The number of requests.
    pub requests: usize,
    /// The size of each body in bytes.
    pub bytes: usize,
    /// The headers of each request.
    pub headers: Vec<(String, String)>,
}

const REQUESTS: &str = "FORWARD_REQUESTS";
const BYTES: &str = "FORWARD_BYTES";
const HEADERS: &str = "FORWARD_HEADERS";
const URL: &str = "FORWARD_URL";

impl Shape {
    /// The environment variables that describe these requests.
    pub fn environment(&self, url: &str) -> [(&'static str, String); 4] {
        let headers = serde_json::to_string(&self.headers).expect("headers");
        [
            (REQUESTS, self.requests.to_string()),
            (BYTES, self.bytes.to_string()),
            (HEADERS, headers),
            (URL, format!("{url}/dbs/dev/colls/changes/docs")),
        ]
    }
}

struct Forward {
    http: reqwest::Client,
    url: String,
    requests: usize,
    bytes: usize,
    headers: HeaderMap,
}

/// Runs until it is killed.
pub fn run() {
    let text = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let number = |name: &str| text(name).parse::<usize>().unwrap_or_else(|_| panic!("{name} is no number"));
    let given: Vec<(String, String)> = serde_json::from_str(&text(HEADERS)).expect("headers");
    let mut headers = HeaderMap::new();
    for (name, value) in &given {
        if !["host", "content-length", "connection", "transfer-encoding"].contains(&name.as_str()) {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).expect("name"),
                HeaderValue::from_str(value).expect("value"),
            );
        }
    }
    let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).http1_only().build().expect("client");
    let forward = Arc::new(Forward { http, url: text(URL), requests: number(REQUESTS), bytes: number(BYTES), headers });
    let address = format!("127.0.0.1:{}", text("FUNCTIONS_CUSTOMHANDLER_PORT"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind(address).await.expect("port");
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("nodelay"));
        let router = Router::new()
            .route("/", get(async || "{}"))
            .route("/{function}", post(invoke))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(forward);
        axum::serve(listener, router).await.expect("server");
    });
}

async fn invoke(State(forward): State<Arc<Forward>>, body: Body) -> (StatusCode, &'static str) {
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("body");
    let bytes = forward.bytes.min(body.len());
    stream::iter(0..forward.requests)
        .map(|i| {
            // Any slice of the body will do: only the number of bytes matters.
            let at = (i * bytes) % (body.len() - bytes + 1);
            send(&forward, body.slice(at..at + bytes))
        })
        .buffer_unordered(MAX_WRITES)
        .for_each(async |()| ())
        .await;
    (StatusCode::OK, r#"{"Outputs":{},"Logs":[],"ReturnValue":null}"#)
}

async fn send(forward: &Forward, body: Bytes) {
    let answer = forward.http.post(&forward.url).headers(forward.headers.clone()).body(body).send().await;
    let answer = answer.expect("answer");
    assert!(answer.status().is_success(), "{}", answer.status());
    answer.bytes().await.expect("its body");
}
