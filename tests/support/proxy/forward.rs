//! Forwards one request, or fails it.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use tokio::sync::oneshot;

use super::{Fault, Held, HoldAt, Kind, Shared, When};

pub(super) async fn forward(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().trim_end_matches('/').to_owned();
    // Only the question for the time needs no key.
    let asks_the_time = path.is_empty() && !headers.contains_key("authorization");
    if asks_the_time && shared.untold.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
        return cut();
    }
    let kind = shared.kind_of(&method, &path, &headers);
    if matches!(kind, Kind::HistoryWrite | Kind::LiveWrite)
        && let Some(HoldAt { when, reached, .. }) = shared.held()
    {
        let shared = shared.clone();
        // A separate task, because a killed caller would take its request down with it.
        let task = tokio::spawn(async move {
            if when == When::After {
                pass(&shared, method, &uri, headers, body).await;
            }
            let (let_go, dropped) = oneshot::channel();
            let _ = reached.send(Held { _let_go: let_go });
            let _ = dropped.await;
        });
        let _ = task.await;
        return cut();
    }
    if kind == Kind::LiveWrite {
        let hook = shared.before_live_write.lock().unwrap().clone();
        if let Some(hook) = hook {
            for path in written(&path, &headers, &body) {
                hook(path).await;
            }
        }
    }
    if is_bulk(&headers)
        && let Some(status) = *shared.bulk.lock().unwrap()
    {
        return reject(status, 0);
    }
    if is_bulk(&headers) && shared.trouble.lock().unwrap().is_some() {
        return troubled(&shared, method, &uri, headers, body).await;
    }
    let fault = shared.fault_of(kind, &path, &headers, &body);
    if !matches!(fault, Fault::Pass) {
        shared.faulted.fetch_add(operations_in(&headers, &body), Ordering::SeqCst);
    }
    match fault {
        Fault::Reject(status, sub) => reject(status, sub),
        Fault::Cut => cut(),
        Fault::CutAfterWrite => {
            pass(&shared, method, &uri, headers, body).await;
            cut()
        }
        Fault::TruncateAfterWrite => truncate(pass(&shared, method, &uri, headers, body).await).await,
        Fault::Pass
            if matches!(kind, Kind::HistoryWrite | Kind::LiveWrite) && shared.budget.lock().unwrap().is_some() =>
        {
            throttled(&shared, method, &uri, headers, body).await
        }
        Fault::Pass => pass(&shared, method, &uri, headers, body).await,
        Fault::FailAfterWrite => {
            pass(&shared, method, &uri, headers, body).await;
            reject(408, 0)
        }
        Fault::Hold(when, time) => {
            if when == When::After {
                pass(&shared, method, &uri, headers, body).await;
            }
            tokio::time::sleep(time).await;
            cut()
        }
        Fault::Stranger(when, status) => {
            if when == When::After {
                pass(&shared, method, &uri, headers, body).await;
            }
            // The client library does not parse HTML where it expects a page of a query, only an empty body.
            let text = if kind == Kind::Query || status == 204 { "" } else { "<html>Please log in</html>" };
            (StatusCode::from_u16(status).unwrap(), [("content-type", "text/html")], text).into_response()
        }
        Fault::RespondSlowly(wait) => {
            let answer = pass(&shared, method, &uri, headers, body).await;
            tokio::time::sleep(wait).await;
            answer
        }
    }
}

/// Forwards a write while the budget has request units, a bulk request operation by operation.
async fn throttled(shared: &Shared, method: Method, uri: &Uri, headers: HeaderMap, body: Bytes) -> Response {
    let wait = || shared.budget.lock().unwrap().as_mut().unwrap().admit();
    let charged = |answer: &Response| {
        let charge = answer.headers().get("x-ms-request-charge").map_or("0", |value| value.to_str().unwrap());
        shared.budget.lock().unwrap().as_mut().unwrap().used += charge.parse::<f64>().unwrap();
    };
    if !is_bulk(&headers) {
        let Some(wait) = wait() else {
            let answer = pass(shared, method, uri, headers, body).await;
            charged(&answer);
            return answer;
        };
        let mut answer = reject(429, 3200);
        answer.headers_mut().insert("x-ms-retry-after-ms", wait.as_millis().to_string().parse().unwrap());
        return answer;
    }
    let operations: Vec<Box<serde_json::value::RawValue>> = serde_json::from_slice(&body).unwrap();
    let mut results = Vec::new();
    for operation in operations {
        if let Some(wait) = wait() {
            let wait = u64::try_from(wait.as_millis()).unwrap();
            results.push(serde_json::json!({"statusCode": 429, "subStatusCode": 3200, "retryAfterMilliseconds": wait}));
            continue;
        }
        let one = Bytes::from(format!("[{operation}]"));
        let answer = pass(shared, method.clone(), uri, headers.clone(), one).await;
        charged(&answer);
        let answer = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        results.extend(serde_json::from_slice::<Vec<serde_json::Value>>(&answer).unwrap());
    }
    let text = serde_json::Value::from(results).to_string();
    (StatusCode::MULTI_STATUS, [("x-ms-request-charge", "0")], text).into_response()
}

/// Forwards a bulk request operation by operation, and answers each of them wrongly the first time.
async fn troubled(shared: &Shared, method: Method, uri: &Uri, headers: HeaderMap, body: Bytes) -> Response {
    let operations: Vec<Box<serde_json::value::RawValue>> = serde_json::from_slice(&body).unwrap();
    let mut results = Vec::new();
    for operation in operations {
        let (trouble, is_new) = {
            let mut troubles = shared.trouble.lock().unwrap();
            let (trouble, met) = troubles.as_mut().unwrap();
            (*trouble, met.insert(operation.get().to_owned()))
        };
        let mut result = serde_json::Value::Null;
        if !is_new || trouble.carried_out {
            let one = Bytes::from(format!("[{operation}]"));
            let answer = pass(shared, method.clone(), uri, headers.clone(), one).await;
            let answer = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            result = serde_json::from_slice::<Vec<serde_json::Value>>(&answer).unwrap().remove(0);
        }
        if is_new {
            let (status, sub) = trouble.status;
            result = serde_json::json!({"statusCode": status, "subStatusCode": sub});
        }
        if !trouble.etags {
            result.as_object_mut().unwrap().remove("eTag");
        }
        results.push(result);
    }
    let text = serde_json::Value::from(results).to_string();
    (StatusCode::MULTI_STATUS, [("x-ms-request-charge", "0")], text).into_response()
}

/// How many operations a request has: how many are packed into one depends on when they come.
fn operations_in(headers: &HeaderMap, body: &[u8]) -> usize {
    // The body of a client that was killed is not whole.
    let packed = is_bulk(headers).then(|| serde_json::from_slice::<Vec<serde::de::IgnoredAny>>(body).ok()).flatten();
    packed.map_or(1, |operations| operations.len())
}

/// Whether the operations of a request are independent of each other.
fn is_bulk(headers: &HeaderMap) -> bool {
    headers.get("x-ms-cosmos-batch-atomic").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"false"))
}

/// The paths that a request writes to, as if each operation were a request of its own.
fn written(path: &str, headers: &HeaderMap, body: &[u8]) -> Vec<String> {
    if !headers.contains_key("x-ms-cosmos-is-batch-request") {
        return vec![path.to_owned()];
    }
    let operations: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap();
    let of = |operation: &serde_json::Value| match operation["id"].as_str() {
        Some(id) => format!("{path}/{id}"),
        None => path.to_owned(),
    };
    operations.iter().map(of).collect()
}

fn cut() -> Response {
    let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
    Response::new(Body::from_stream(broken))
}

/// Keeps status and headers, and cuts the body in half.
async fn truncate(answer: Response) -> Response {
    let (parts, body) = answer.into_parts();
    let whole = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let half = whole.slice(..whole.len() / 2);
    let broken = futures::stream::iter([Ok(half), Err(std::io::Error::other("truncated"))]);
    Response::from_parts(parts, Body::from_stream(broken))
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
        // The account returns its own address, and clients would bypass the proxy.
        let text = String::from_utf8(body.to_vec()).unwrap();
        body = text
            .replace(shared.target.as_str().trim_end_matches('/'), shared.own.as_str().trim_end_matches('/'))
            .into();
    }
    if let Some((from, to)) = shared.rewrite.lock().unwrap().as_ref() {
        body = String::from_utf8(body.to_vec()).unwrap().replace(from, to).into();
    }
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
