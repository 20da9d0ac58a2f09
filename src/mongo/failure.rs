//! Translates the driver's errors for this program. Decided by codes and labels, never by a message.

use std::time::Duration;

use mongodb::error::{Error, ErrorKind, WriteFailure};

use super::Address;
use crate::cosmos::{Disposition, Failure, Remedy, Status};

/// `Unauthorized`: the user, or nobody, is not allowed to do this.
const UNAUTHORIZED: i32 = 13;
/// `AuthenticationFailed`.
const AUTHENTICATION_FAILED: i32 = 18;
/// `AtlasError`: either of the two.
const OF_ATLAS: i32 = 8000;
/// `NamespaceNotFound`.
const NO_NAMESPACE: i32 = 26;
/// `ChangeStreamHistoryLost`.
const HISTORY_LOST: i32 = 286;
/// `CommandNotFound`.
const NO_COMMAND: i32 = 59;
/// Too many request units, in Azure Cosmos DB for MongoDB.
const THROTTLED: i32 = 16500;

/// The status of a write that conflicted with another one.
pub(super) const WRITE_CONFLICT: Status = Status::new(449, 0);

/// The document of a write is not there.
pub(super) fn gone(context: &str) -> Failure {
    Failure::from_status(context.into(), Status::NO_ITEM, "there is no such document", None)
}

/// The document that a write was to create is there.
pub(super) fn present(context: &str) -> Failure {
    Failure::from_status(context.into(), Status::new(409, 0), "there is a document with this _id", None)
}

/// The document of a write is another one.
pub(super) fn precondition(context: &str) -> Failure {
    Failure::from_status(context.into(), Status::new(412, 0), "the document was changed by somebody else", None)
}

/// The server's code, if the server answered.
pub(super) fn code_of(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(write)) => Some(write.code),
        _ => None,
    }
}

/// Whether the server does not have such a command.
pub(super) fn is_unknown_command(error: &Error) -> bool {
    code_of(error) == Some(NO_COMMAND)
}

/// Whether the server may answer the same question in a moment.
pub(super) fn is_busy(error: &Error) -> bool {
    Disposition::from(understood(error).0) == Disposition::Transient
}

/// An error of the driver, in this program's terms.
pub(super) fn failure(address: &Address, context: &str, error: &Error) -> Failure {
    let (status, message) = understood(error);
    let mut failure = Failure::from_status(context.into(), status, &address.without_secrets(&message), pause_of(error));
    failure.remedy = remedy(error);
    if code_of(error) == Some(NO_NAMESPACE) {
        // It may be created at any time; the stream then begins with its first document.
        failure.disposition = Disposition::Transient;
    }
    failure
}

/// The remedy for a user whom the server refuses.
fn remedy(error: &Error) -> Option<Remedy> {
    match (&*error.kind, code_of(error)) {
        (ErrorKind::Authentication { .. }, _) | (_, Some(AUTHENTICATION_FAILED)) => Some(Remedy::User),
        (_, Some(UNAUTHORIZED)) => Some(Remedy::Roles),
        (_, Some(OF_ATLAS)) => Some(Remedy::UserOrRoles),
        _ => None,
    }
}

/// The status that Cosmos DB would return in this case, and the message.
fn understood(error: &Error) -> (Status, String) {
    let status = |code| Status::new(code, 0);
    match &*error.kind {
        ErrorKind::Command(command) => {
            (by_code(command.code, error), told(command.code, &command.code_name, &command.message))
        }
        ErrorKind::Write(WriteFailure::WriteError(write)) => (
            by_code(write.code, error),
            told(write.code, write.code_name.as_deref().unwrap_or_default(), &write.message),
        ),
        ErrorKind::Write(WriteFailure::WriteConcernError(write)) => {
            (status(503), told(write.code, &write.code_name, &write.message))
        }
        ErrorKind::Authentication { message, .. } => (status(401), message.clone()),
        ErrorKind::IncompatibleServer { message, .. } => (
            Status::new(400, 0),
            format!(
                "{message}; an account of an old server version (3.6 to 4.2) must be upgraded to 4.4 or later first"
            ),
        ),
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Shutdown => (status(503), error.kind.to_string()),
        _ if is_retryable(error) => (status(503), error.kind.to_string()),
        _ => (status(400), error.kind.to_string()),
    }
}

fn told(code: i32, name: &str, message: &str) -> String {
    let what = if name.is_empty() { format!("MongoDB error {code}") } else { format!("{name} ({code})") };
    if code == HISTORY_LOST {
        return format!(
            "{what}: the server has no history any more back to where this follower stood, so changes are lost; \
             follow under another --name (or --checkpoint-file) with --from beginning, which reads the collection first: {message}"
        );
    }
    format!("{what}: {message}")
}

fn is_retryable(error: &Error) -> bool {
    ["RetryableWriteError", "TransientTransactionError", "ResumableChangeStreamError", "SystemOverloadedError"]
        .iter()
        .any(|label| error.contains_label(label))
}

/// The codes by name: <https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml>.
fn by_code(code: i32, error: &Error) -> Status {
    let code = match code {
        UNAUTHORIZED | AUTHENTICATION_FAILED | OF_ATLAS => 401,
        NO_NAMESPACE => 404,
        11000 | 11001 | 12582 => 409,
        // WriteConflict.
        112 => 449,
        THROTTLED => 429,
        // HostUnreachable, HostNotFound, NetworkTimeout, ShutdownInProgress, PrimarySteppedDown, ExceededTimeLimit,
        // SocketException, NotWritablePrimary, the Interrupted ones, NotPrimary..., LockTimeout, MaxTimeMSExpired,
        // CursorNotFound, CursorKilled, CappedPositionLost, RetryChangeStream, StaleShardVersion and its kin,
        // FailedToSatisfyReadPreference.
        6 | 7 | 24 | 43 | 50 | 63 | 89 | 91 | 133 | 136 | 150 | 189 | 234 | 237 | 262 | 9001 | 10107 | 11600
        | 11602 | 13388 | 13435 | 13436 => 503,
        HISTORY_LOST => 400,
        _ if is_retryable(error) => 503,
        // BSONObjectTooLarge.
        10334 | 17280 => 413,
        _ => 400,
    };
    Status::new(code, 0)
}

/// How long the server asks to wait: Azure only says so in its message.
fn pause_of(error: &Error) -> Option<Duration> {
    if code_of(error) != Some(THROTTLED) {
        return None;
    }
    let text = error.kind.to_string();
    let digits = text.split_once("RetryAfterMs=")?.1.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().map(Duration::from_millis)
}
