//! The body of an invocation, as it arrives.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode},
};
use http_body_util::BodyExt as _;

use crate::host::invocation::{BadInvocation, Payload};

/// A body that was received as a whole.
pub(super) struct Received {
    pub(super) payload: Result<Payload, BadInvocation>,
    /// Its bytes.
    pub(super) size: usize,
}

/// Why a batch is answered with an error; logged where it is made.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

/// Bodies above this many bytes are finished apart.
pub(super) const LARGE_BODY: usize = 8 << 20;
/// How much of a refused body is read on, so that a caller that is still sending gets to read the answer.
const READ_ON: usize = 64 << 20;

/// Takes the body frame by frame (the host sends it chunked, without a length); gives the number of its bytes.
pub(super) async fn read_body(
    mut body: Body,
    limit: usize,
    headers: &HeaderMap,
    mut take: impl FnMut(&[u8]),
) -> Result<usize, (StatusCode, String)> {
    let mut too_large = announced(headers).is_some_and(|length| length > limit);
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|e| (StatusCode::BAD_REQUEST, format!("the body was cut off after {received} bytes: {e}")))?;
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
        let message = format!("the body is larger than REWIND_MAX_BODY_MB allows ({} MiB); raise it", limit >> 20);
        return Err((StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(received)
}

pub(super) fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get("content-length")?.to_str().ok()?.parse().ok()
}

/// Reads on a body that nobody wants, and keeps nothing of it.
pub(super) async fn discard(body: Body, headers: &HeaderMap) {
    let _ = read_body(body, 0, headers, |_| {}).await;
}
