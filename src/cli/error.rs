//! What a use case's error means on the command line: message, hint and exit code.

use super::CliError;
use crate::{coverage::CoverageError, retention::RetentionError, status::StatusError, verify::VerifyError};

/// The items of these containers cannot be shared; `otherwise` says what happens without --feed-range.
fn not_shared(problem: &str, otherwise: &str) -> CliError {
    CliError::usage(format!("--feed-range: {problem}"), format!("leave it out; {otherwise} then"))
}

impl From<RetentionError> for CliError {
    fn from(error: RetentionError) -> Self {
        match error {
            RetentionError::Cosmos(failure) => failure.into(),
            RetentionError::Shard(problem) => not_shared(&problem, "one machine prunes everything"),
            RetentionError::Keys(problem) => Self::usage(
                problem,
                "prune needs a history keyed by paths of the source's key, /_originalId or /id, as provision makes it",
            ),
        }
    }
}

impl From<VerifyError> for CliError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Cosmos(failure) => failure.into(),
            VerifyError::Shard(problem) => not_shared(&problem, "one machine verifies everything"),
            VerifyError::Interrupted => Self::failed(error.to_string()),
        }
    }
}

impl From<StatusError> for CliError {
    fn from(error: StatusError) -> Self {
        let StatusError::Cosmos(failure) = error;
        failure.into()
    }
}

impl From<CoverageError> for CliError {
    fn from(error: CoverageError) -> Self {
        match error {
            CoverageError::Cosmos(failure) => failure.into(),
            CoverageError::Shard(problem) => not_shared(&problem, "everything is read"),
            CoverageError::Interrupted => Self::failed(error.to_string()),
        }
    }
}
