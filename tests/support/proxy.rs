//! A proxy before the account that fails requests on purpose. Strict: a fault that was never used fails the test.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use url::Url;

/// What happens to a write instead of the usual.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answered with a status and sub-status; the account never sees it.
    Reject(u16, u16),
    /// Done by the account, but the answer is a 408: the caller cannot know.
    FailAfterWrite,
    /// Done by the account; the answer comes late.
    RespondSlowly(Duration),
    /// Not done; the connection is cut without an answer.
    Cut,
    /// Nothing happens: counts as one write that passes.
    Pass,
}

struct Shared {
    target: Url,
    own: Mutex<Option<Url>>,
    faults: Mutex<VecDeque<Fault>>,
    always: Mutex<Option<Fault>>,
    only_if_body_has: Mutex<Option<String>>,
    writes: AtomicUsize,
    reads: AtomicUsize,
    http: reqwest::Client,
}

/// The proxy; its port closes when it is dropped.
pub struct Proxy {
    endpoint: Url,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(target: Url) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let shared = Arc::new(Shared {
            target,
            own: Mutex::new(Some(endpoint.clone())),
            faults: Mutex::default(),
            always: Mutex::default(),
            only_if_body_has: Mutex::default(),
            writes: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        });
        let router = Router::new().fallback(forward).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, shared, task }
    }

    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// The next writes to `changes` meet these faults, in order.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    /// Every write to `changes` meets this fault until it is taken back.
    pub fn fail_always(&self, fault: Option<Fault>) {
        *self.shared.always.lock().unwrap() = fault;
    }

    /// Faults concern only writes whose body contains this text.
    pub fn only_if_body_has(&self, text: &str) {
        *self.shared.only_if_body_has.lock().unwrap() = Some(text.to_owned());
    }

    /// Writes to `changes` that were seen.
    pub fn writes(&self) -> usize {
        self.shared.writes.load(Ordering::SeqCst)
    }

    /// Point reads of `events` that were seen.
    pub fn reads(&self) -> usize {
        self.shared.reads.load(Ordering::SeqCst)
    }

    /// Whether every fault was met.
    pub fn all_used(&self) -> bool {
        self.shared.faults.lock().unwrap().is_empty()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            assert!(self.all_used(), "faults that no write met: {:?}", self.shared.faults.lock().unwrap());
        }
    }
}

async fn forward(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().trim_end_matches('/');
    let query =
        headers.contains_key("x-ms-documentdb-isquery") || headers.contains_key("x-ms-cosmos-is-query-plan-request");
    let write = path.contains("/colls/changes/docs") && !query && method != Method::GET;
    if path.contains("/colls/events/docs/") && method == Method::GET {
        shared.reads.fetch_add(1, Ordering::SeqCst);
    }
    let mut fault = Fault::Pass;
    if write {
        shared.writes.fetch_add(1, Ordering::SeqCst);
        let concerned = match shared.only_if_body_has.lock().unwrap().as_deref() {
            Some(text) => String::from_utf8_lossy(&body).contains(text),
            None => true,
        };
        if concerned {
            let next = shared.faults.lock().unwrap().pop_front();
            fault = next.or_else(|| shared.always.lock().unwrap().clone()).unwrap_or(Fault::Pass);
        }
    }
    match fault {
        Fault::Reject(status, sub) => reject(status, sub),
        Fault::Cut => Response::new(Body::from_stream(futures::stream::once(async {
            Err::<Bytes, _>(std::io::Error::other("cut"))
        }))),
        Fault::Pass => pass(&shared, method, &uri, headers, body).await,
        Fault::FailAfterWrite => {
            pass(&shared, method, &uri, headers, body).await;
            reject(408, 0)
        }
        Fault::RespondSlowly(wait) => {
            let answer = pass(&shared, method, &uri, headers, body).await;
            tokio::time::sleep(wait).await;
            answer
        }
    }
}

fn reject(status: u16, sub: u16) -> Response {
    let body = format!("{{\"code\":\"{status}\",\"message\":\"fault injected by the test\"}}");
    let mut answer = (StatusCode::from_u16(status).unwrap(), body).into_response();
    let headers = answer.headers_mut();
    headers.insert("x-ms-substatus", sub.to_string().parse().unwrap());
    headers.insert("x-ms-retry-after-ms", "5".parse().unwrap());
    headers.insert("x-ms-request-charge", "0".parse().unwrap());
    answer
}

async fn pass(shared: &Shared, method: Method, uri: &Uri, headers: HeaderMap, body: Bytes) -> Response {
    let url = shared.target.join(uri.path_and_query().map_or("/", |p| p.as_str())).unwrap();
    let mut request = shared.http.request(method, url).body(body);
    for (name, value) in &headers {
        if !["host", "content-length", "connection", "transfer-encoding"].contains(&name.as_str()) {
            request = request.header(name, value);
        }
    }
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(e) => return (StatusCode::BAD_GATEWAY, e.to_string()).into_response(),
    };
    let status = answer.status();
    let mut headers = answer.headers().clone();
    for name in ["content-length", "transfer-encoding", "connection"] {
        headers.remove(name);
    }
    let mut body = answer.bytes().await.unwrap();
    if uri.path() == "/" {
        // The account names its own address: clients would go round the proxy.
        let own = shared.own.lock().unwrap().clone().unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        body = text.replace(shared.target.as_str().trim_end_matches('/'), own.as_str().trim_end_matches('/')).into();
    }
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
