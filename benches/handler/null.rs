//! The endpoint that handlers write to. Its metadata are real, from a local account.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri},
    response::Response,
    serve::ListenerExt as _,
};
use cosmos_rewind::local::{LocalCosmos, LocalOptions};
use serde_json::{Value, json, value::RawValue};

/// What a write is said to cost.
const CHARGE: f64 = 6.29;

/// What an operation of a batch answers when its document is not asked for.
const OPERATION: &str = r#"{"statusCode":201,"requestCharge":6.29,"eTag":"\"00000000-0000-0000-0000-000000000000\""}"#;

/// What becomes of writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// Answered at once, unread.
    Null,
    /// Passed on to the account behind, and kept.
    Kept,
}

/// How an endpoint is to behave.
#[derive(Clone, Copy)]
pub struct Behaviour {
    /// What becomes of writes.
    pub writes: Writes,
    /// Partition key ranges of each container, which share the keys evenly.
    pub ranges: u32,
    /// How long the answer to a write is held back.
    pub latency: Duration,
}

/// An endpoint; it ends with this value.
pub struct Endpoint {
    /// Its connection string.
    pub connection: String,
    /// Its address.
    pub url: String,
    /// What was asked of it.
    pub seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

/// Writes that were counted.
#[derive(Default)]
pub struct Seen {
    /// Requests that write documents.
    requests: AtomicU64,
    /// Writes in them: each operation of a batch, or the request itself.
    operations: AtomicU64,
    /// Bytes of their bodies.
    bytes: AtomicU64,
    /// Headers of the first one, as text.
    pub headers: OnceLock<Vec<(String, String)>>,
    /// With [`Writes::Kept`]: their bodies.
    pub bodies: Mutex<Vec<Bytes>>,
    /// With [`Writes::Kept`]: what the account charged for them.
    pub charged: Mutex<f64>,
}

/// How much there was of it.
#[derive(Clone, Copy)]
pub struct Counted {
    pub requests: f64,
    pub operations: f64,
    pub bytes: f64,
}

impl Seen {
    /// What was seen so far.
    pub fn counted(&self) -> Counted {
        let [requests, operations, bytes] =
            [&self.requests, &self.operations, &self.bytes].map(|count| count.load(Ordering::Relaxed) as f64);
        Counted { requests, operations, bytes }
    }
}

impl std::ops::Sub for Counted {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            operations: self.operations - before.operations,
            bytes: self.bytes - before.bytes,
        }
    }
}

struct Account {
    local: LocalCosmos,
    own: String,
    http: reqwest::Client,
    behaviour: Behaviour,
    seen: Arc<Seen>,
}

impl Endpoint {
    /// An endpoint with a database `dev`, a source `events` keyed by this path, and a container `changes` of this definition.
    pub async fn start(behaviour: Behaviour, source: &str, changes: Value) -> Self {
        let options = LocalOptions { partitions: behaviour.ranges, ..LocalOptions::default() };
        let local = LocalCosmos::start(options).await.expect("local account");
        local.create_database("dev").await.expect("database");
        let events = json!({"id": "events", "partitionKey": {"paths": [source], "kind": "Hash", "version": 2}});
        for description in [events, changes] {
            local.create_container("dev", description).await.expect("container");
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
        let own = format!("http://{}", listener.local_addr().expect("address"));
        let connection = local.connection_string().replace(local.endpoint().as_str(), &format!("{own}/"));
        let http = reqwest::Client::builder().no_proxy().build().expect("client");
        let seen = Arc::<Seen>::default();
        let account = Account { local, own: own.clone(), http, behaviour, seen: seen.clone() };
        let router = Router::new().fallback(answer).with_state(Arc::new(account));
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("nodelay"));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("server") });
        Self { connection, url: own, seen, task }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(account): State<Arc<Account>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("body");
    if method != Method::POST || !uri.path().trim_end_matches('/').ends_with("/docs") {
        return account.behind(method, &uri, &headers, body).await;
    }
    let seen = &account.seen;
    let batch = headers.contains_key("x-ms-cosmos-is-batch-request");
    let operations = if batch { elements(&body) } else { 1 };
    seen.requests.fetch_add(1, Ordering::Relaxed);
    seen.operations.fetch_add(operations as u64, Ordering::Relaxed);
    seen.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    seen.headers.get_or_init(|| headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect());
    if !account.behaviour.latency.is_zero() {
        tokio::time::sleep(account.behaviour.latency).await;
    }
    if account.behaviour.writes == Writes::Null {
        return created(&headers, body, batch.then_some(operations));
    }
    let response = account.behind(method, &uri, &headers, body.clone()).await;
    assert!(response.status().is_success(), "a write was refused: {}", response.status());
    let charge = response.headers().get("x-ms-request-charge").and_then(|v| v.to_str().ok()?.parse::<f64>().ok());
    *seen.charged.lock().expect("lock") += charge.unwrap_or(0.0);
    seen.bodies.lock().expect("lock").push(body);
    response
}

/// How many operations a batch has. They are passed over, not looked into; what is no array, as what the forwarding program
/// sends, has none.
fn elements(body: &[u8]) -> usize {
    serde_json::from_slice::<Vec<&RawValue>>(body).map_or(0, |operations| operations.len())
}

/// "Created" for whatever it was; of a batch a result for each operation, as SDKs want to see. The document itself, as the
/// service does it, where the request does not say that nobody wants it.
fn created(headers: &HeaderMap, body: Bytes, batch: Option<usize>) -> Response {
    let minimal = headers.get("prefer").is_some_and(|value| value == "return=minimal");
    let text = if let Some(operations) = batch {
        Bytes::from(format!("[{}]", vec![OPERATION; operations].join(",")))
    } else if minimal {
        Bytes::new()
    } else {
        body
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = if batch.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let charge = format!("{:.2}", CHARGE * batch.unwrap_or(1) as f64);
    response.headers_mut().insert("x-ms-request-charge", HeaderValue::from_str(&charge).expect("a number"));
    for (name, value) in
        [("content-type", "application/json"), ("x-ms-session-token", "0:-1#1"), ("etag", "\"null\""), ("lsn", "1")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Account {
    /// Asks the account behind.
    async fn behind(&self, method: Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
        let url = self.local.endpoint().join(uri.path_and_query().map_or("/", |p| p.as_str())).expect("url");
        let mut request = self.http.request(method, url).body(body);
        for (name, value) in headers {
            if !["host", "content-length", "connection", "transfer-encoding"].contains(&name.as_str()) {
                request = request.header(name, value);
            }
        }
        let answer = request.send().await.expect("the account's answer");
        let status = answer.status();
        let mut kept = answer.headers().clone();
        for name in ["content-length", "transfer-encoding", "connection"] {
            kept.remove(name);
        }
        let text = answer.text().await.expect("text");
        let text = text.replace(self.local.endpoint().as_str().trim_end_matches('/'), &self.own);
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        *response.headers_mut() = kept;
        response
    }
}
