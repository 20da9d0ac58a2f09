//! What a use case's error means on the command line: message, hint and exit code.

use super::{CliError, Exit, query::check_key, restore::explain};
use crate::{
    backfill::BackfillError, coverage::CoverageError, erase::EraseError, retention::RetentionError,
    status::StatusError, verify::VerifyError,
};

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

impl From<BackfillError> for CliError {
    fn from(error: BackfillError) -> Self {
        match error {
            BackfillError::Cosmos(failure) => failure.into(),
            BackfillError::Predicate(failure) => explain(failure, true),
            BackfillError::Shard(problem) => not_shared(&problem, "one machine saves everything"),
        }
    }
}

impl From<EraseError> for CliError {
    fn from(error: EraseError) -> Self {
        let (message, hint) = match error {
            EraseError::Cosmos(failure) => return failure.into(),
            EraseError::Key { key, container, paths } => {
                let too_many = check_key(&key, &container, &paths).err();
                return too_many.unwrap_or_else(|| {
                    let (given, all) = (key.0.len(), paths.len());
                    Self::usage(
                        format!("--pk {key}: {given} of {all} components; the key of {container} is {paths}"),
                        "give all components as a JSON array",
                    )
                });
            }
            EraseError::HistoryKeys { .. } => {
                return Self::usage(
                    error.to_string(),
                    "erase needs a history keyed by paths of the source's key, /_originalId or /id, as provision makes it",
                );
            }
            EraseError::DeadLetters(e) => (e.to_string(), "check REWIND_DEAD_LETTERS"),
            EraseError::Journals { folder, error } => {
                (format!("journals in {}: {error}", folder.display()), "--journal names their folder")
            }
            EraseError::Archive(damage) => (
                format!("--archive: {damage}"),
                "whose it is cannot be told; move away what is no part of the archive, and run the command again",
            ),
            EraseError::Delete { .. } | EraseError::Interrupted => (
                format!("{error}; what was erased before stays erased"),
                "run the command again when that is mended: it goes on",
            ),
        };
        Self { message, hint: Some(hint.into()), exit: Exit::Failed }
    }
}
