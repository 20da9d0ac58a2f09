//! Receives the body of an invocation.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode},
};
use http_body_util::BodyExt as _;

use crate::{
    capture::CaptureError,
    causes::chain,
    host::invocation::{BadInvocation, Payload},
};

/// A completely received body.
pub(super) struct Received {
    pub(super) payload: Result<Payload, BadInvocation>,
    /// Its bytes.
    pub(super) size: usize,
}

/// Why a batch is answered with an error.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The body is not what the host sends.
    #[error(transparent)]
    Payload(BadInvocation),
    /// It is larger than the limit, in bytes.
    #[error("the body is larger than REWIND_MAX_BODY_MB allows ({} MiB); raise it", .0 >> 20)]
    TooLarge(usize),
    /// It ended too early.
    #[error("the body was cut off after {received} bytes: {cause}")]
    CutOff { received: usize, cause: axum::Error },
    /// Not everything in it is durable.
    #[error("{}", chain(error))]
    Capture { error: CaptureError, items: usize },
}

impl Refusal {
    /// The answers to the host: the one table. The host delivers a batch again whatever the answer; only 5xx says that
    /// this may help.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Payload(_) | Self::CutOff { .. } => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Capture { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The next step for a person.
    pub(super) fn hint(&self) -> Option<&'static str> {
        let Self::Capture { error, .. } = self else { return None };
        match error {
            CaptureError::Service(f) => f.hint(),
            CaptureError::Refused { .. } => Some(
                "look at the history container: its partition key and its policies, or `cosmos-rewind doctor`; nothing was put away, and all of it is delivered again",
            ),
            CaptureError::Layout(_) => Some("name another history, which `cosmos-rewind provision` makes"),
            CaptureError::Projection(_) => None,
            CaptureError::DeadLetters(_) => Some("check REWIND_DEAD_LETTERS: the store must exist and be writable"),
        }
    }

    /// The error with its causes, on one line: a setting's error has two.
    pub(super) fn message(&self) -> String {
        chain(self).replace('\n', " ")
    }
}

/// Bodies above this many bytes are finished on another thread.
pub(super) const LARGE_BODY: usize = 8 << 20;
/// How much of a refused body is still read, so that a caller that is still sending can read the answer.
const READ_ON: usize = 64 << 20;

/// Receives the body frame by frame (the host sends it chunked, without a length); returns its size in bytes.
pub(super) async fn read_body(
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

pub(super) fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get("content-length")?.to_str().ok()?.parse().ok()
}

/// Reads the rest of a refused body and drops it.
pub(super) async fn discard(body: Body, headers: &HeaderMap) {
    let _ = read_body(body, 0, headers, |_| {}).await;
}
