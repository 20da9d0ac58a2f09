//! An in-memory blob container with the operations that dead letters and sinks need. It can be told to be busy.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};

#[derive(Default)]
struct Shared {
    blobs: Mutex<BTreeMap<String, Bytes>>,
    busy: AtomicBool,
    /// Milliseconds before each answer.
    slow: AtomicU64,
    refused: AtomicUsize,
    /// How many answers with a blob are still to be cut off.
    cut: AtomicUsize,
}

/// The container; gone on drop.
pub struct Letterbox {
    url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Letterbox {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        // The signature is never checked.
        let url = format!("http://{}/account/letters?sv=2019-12-12&sig=none", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, task }
    }

    /// The value for `REWIND_DEAD_LETTERS`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// While busy, carries out no request: each is refused with 503 or 429, or answered as if by a proxy in between.
    pub fn busy(&self, busy: bool) {
        self.shared.busy.store(busy, Ordering::SeqCst);
    }

    /// Delays every answer from now on.
    pub fn slow(&self, pause: std::time::Duration) {
        self.shared.slow.store(pause.as_millis().try_into().unwrap(), Ordering::SeqCst);
    }

    /// Cuts off the next answers that hold a blob.
    pub fn cut(&self, answers: usize) {
        self.shared.cut.store(answers, Ordering::SeqCst);
    }

    /// The number of refused requests.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// All blobs by name.
    pub fn blobs(&self) -> BTreeMap<String, Bytes> {
        self.shared.blobs.lock().unwrap().clone()
    }

    /// The texts of all blobs.
    pub fn texts(&self) -> Vec<String> {
        let blobs = self.shared.blobs.lock().unwrap();
        blobs.values().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

impl Drop for Letterbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    tokio::time::sleep(std::time::Duration::from_millis(shared.slow.load(Ordering::SeqCst))).await;
    if shared.busy.load(Ordering::SeqCst) {
        let before = shared.refused.fetch_add(1, Ordering::SeqCst);
        let (status, code) = match before % 3 {
            0 => (503, "ServerBusy"),
            // A gateway's answer to a write that never reached the service.
            1 if method == Method::PUT => return (StatusCode::OK, "<html>Please log in</html>").into_response(),
            _ => (429, "OperationTimedOut"),
        };
        return (StatusCode::from_u16(status).unwrap(), [("x-ms-error-code", code)]).into_response();
    }
    let name = uri.path().trim_start_matches("/account/letters").trim_start_matches('/').to_owned();
    let mut blobs = shared.blobs.lock().unwrap();
    match method {
        Method::PUT if headers.contains_key("if-none-match") && blobs.contains_key(&name) => {
            (StatusCode::CONFLICT, [("x-ms-error-code", "BlobAlreadyExists")]).into_response()
        }
        Method::PUT => {
            blobs.insert(name, body);
            StatusCode::CREATED.into_response()
        }
        Method::DELETE => match blobs.remove(&name) {
            Some(_) => StatusCode::ACCEPTED.into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        Method::GET if name.is_empty() => {
            let listed: String = blobs.keys().map(|name| format!("<Blob><Name>{name}</Name></Blob>")).collect();
            let text = format!(
                "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"letters\"><Blobs>{listed}</Blobs><NextMarker/></EnumerationResults>"
            );
            ([("content-type", "application/xml")], text).into_response()
        }
        Method::GET => match blobs.get(&name) {
            Some(bytes) => {
                let end = bytes.len().saturating_sub(1);
                let range = format!("bytes 0-{end}/{}", bytes.len());
                let headers = [("content-range", range), ("etag", "\"1\"".into())];
                let is_cut = |left: usize| left.checked_sub(1);
                if shared.cut.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_cut).is_err() {
                    return (StatusCode::PARTIAL_CONTENT, headers, bytes.clone()).into_response();
                }
                let half = futures::stream::iter([Ok(bytes.slice(..bytes.len() / 2))]);
                let gone = futures::stream::once(async {
                    // Until then the head of the answer has left.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    Err(std::io::Error::other("the connection is gone"))
                });
                let torn = futures::StreamExt::chain(half, gone);
                let length = [("content-length", bytes.len().to_string())];
                (StatusCode::PARTIAL_CONTENT, headers, length, axum::body::Body::from_stream(torn)).into_response()
            }
            None => (StatusCode::NOT_FOUND, [("x-ms-error-code", "BlobNotFound")]).into_response(),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}
