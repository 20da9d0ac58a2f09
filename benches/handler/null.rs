//! The endpoint to which handlers write. Its metadata is real and comes from a local account.

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

/// The reported charge of a write.
const CHARGE: f64 = 6.29;

/// The result of an operation in a batch when its document is not requested.
const OPERATION: &str = r#"{"statusCode":201,"requestCharge":6.29,"eTag":"\"00000000-0000-0000-0000-000000000000\""}"#;

/// The treatment of writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// Answered at once without being read.
    Null,
    /// Forwarded to the account behind the endpoint, and kept.
    Kept,
}

/// The behaviour of an endpoint.
#[derive(Clone, Copy)]
pub struct Behaviour {
    /// The treatment of writes.
    pub writes: Writes,
    /// The number of partition key ranges in each container, which divide the keys evenly.
    pub ranges: u32,
    /// The delay before the response to a write.
    pub latency: Duration,
}

/// An endpoint; it stops on drop.
pub struct Endpoint {
    /// The connection string.
    pub connection: String,
    /// The address.
    pub url: String,
    /// The requests so far.
    pub seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

/// Counters of writes.
#[derive(Default)]
pub struct Seen {
    /// The number of requests that write documents.
    requests: AtomicU64,
    /// The number of writes in them: each operation of a batch, or the request itself.
    operations: AtomicU64,
    /// The size of their bodies in bytes.
    bytes: AtomicU64,
    /// The headers of the first one as text.
    pub headers: OnceLock<Vec<(String, String)>>,
    /// With [`Writes::Kept`], the bodies.
    pub bodies: Mutex<Vec<Bytes>>,
    /// With [`Writes::Kept`], the account's charge.
    pub charged: Mutex<f64>,
}

/// A snapshot of the counters.
#[derive(Clone, Copy)]
pub struct Counted {
    pub requests: f64,
    pub operations: f64,
    pub bytes: f64,
}

impl Seen {
    /// Returns the counters so far.
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
    /// Starts an endpoint with the database `dev`, a source `events` keyed by this path, and a container `changes` with
    /// this definition.
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

/// The number of operations in a batch, without parsing them. A body that is not an array, such as the forwarding
/// program's, has none.
fn elements(body: &[u8]) -> usize {
    serde_json::from_slice::<Vec<&RawValue>>(body).map_or(0, |operations| operations.len())
}

/// Answers every write with "Created", and a batch with the SDKs' result format for each operation. Like the service,
/// returns the document unless the request declines it.
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
    /// Forwards a request to the account behind the endpoint.
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
