//! The listener: turns HTTP requests into [`Ask`], and the gateway's responses into HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::serve::ListenerExt;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::gateway::Gateway;
use super::message::{Ask, GatewayAnswer, Headers};

/// Larger than any request that the service accepts; larger requests are refused unread.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// How long connections may take to close on shutdown.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves until `stop` is cancelled. HTTP/1.1 and HTTP/2 without TLS are distinguished by the first bytes.
pub(super) async fn serve(listener: TcpListener, gateway: Arc<Gateway>, stop: CancellationToken) {
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
    });
    let app = Router::new().fallback(answer).with_state(gateway);
    let server = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let enough = async {
        stop.cancelled().await;
        tokio::time::sleep(GOODBYE).await;
    };
    tokio::select! {
        ended = server => {
            if let Err(error) = ended {
                tracing::error!(%error, "the local account stopped listening");
            }
        }
        () = enough => {}
    }
}

async fn answer(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let answer = match read(request).await {
        Ok(ask) => gateway.handle(ask).await,
        Err(answer) => answer,
    };
    into_response(answer)
}

async fn read(request: Request) -> Result<Ask, GatewayAnswer> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(GatewayAnswer::error(413, None, "RequestEntityTooLarge", "Request size is too large"));
        }
        Err(_) => return Err(GatewayAnswer::bad_request("The request's body broke off")),
    };
    let headers: Headers = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    Ok(Ask { method: parts.method, path: parts.uri.path().to_owned(), headers, body })
}

fn into_response(answer: GatewayAnswer) -> Response {
    let body = if answer.status == 304 || answer.status == 204 { Bytes::new() } else { answer.body };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers.iter() {
        if matches!(name, "content-length" | "transfer-encoding" | "connection") {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
