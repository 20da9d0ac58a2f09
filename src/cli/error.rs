//! What a use case's error means on the command line: message, hint and exit code.

use super::{
    CliError, Exit,
    from_archive::{FROM, damaged},
    output::count_of,
    query::wrong_key,
    render::plan::shown,
    restore::explain,
};
use crate::{
    backfill::BackfillError, change::time::PointInTime, coverage::CoverageError, erase::EraseError, follow::BadFilter,
    history::version::VersionError, restore::RestoreError, retention::RetentionError, status::StatusError,
    verify::VerifyError,
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
            EraseError::Key { key, container, paths } => return wrong_key(&key, &container, &paths),
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

impl From<VersionError> for CliError {
    fn from(error: VersionError) -> Self {
        match error {
            VersionError::None(wanted) => Self {
                message: format!("--version {wanted}: the document has no such version"),
                hint: Some("history --format json lists the records, LSNs and times of its versions".into()),
                exit: Exit::Failed,
            },
            VersionError::Several { wanted, records } => Self::usage(
                format!("--version {wanted}: {} versions are called so", records.len()),
                format!("name one of the records: {}", records.join(", ")),
            ),
        }
    }
}

impl From<BadFilter> for CliError {
    fn from(error: BadFilter) -> Self {
        Self::usage(
            format!("--filter: {error}"),
            r#"an example: --filter 'op in ["create","replace"] && doc.balance < 0'"#,
        )
    }
}

impl From<RestoreError> for CliError {
    fn from(error: RestoreError) -> Self {
        let message = error.to_string();
        match error {
            RestoreError::Cosmos(failure) => failure.into(),
            RestoreError::Predicate(failure) => explain(failure, true),
            RestoreError::IntoHistory => {
                Self::usage("--into: that is the history itself", "name a container of its own")
            }
            RestoreError::OtherKey { .. } => {
                Self::usage(format!("--into: {message}"), "restore into a container with the source's partition key")
            }
            RestoreError::Path(_) => Self::usage(format!("--only: {message}"), "such as --only /address/zip"),
            RestoreError::KeyField => Self::usage(format!("--only: {message}"), "name another field"),
            RestoreError::Shard(problem) => not_shared(&problem, "one machine restores everything"),
            RestoreError::Stopped | RestoreError::OtherPlan(_) => Self::failed(message),
            RestoreError::NotInHistory(_) => Self {
                message,
                hint: Some("check the id; what was written before capture began has no version".into()),
                exit: Exit::Failed,
            },
            RestoreError::Ambiguous { keys, .. } => {
                let keys: Vec<String> = keys.iter().map(|key| format!("--pk '{key}'")).collect();
                Self::usage(message, format!("add one of: {}", keys.join(", ")))
            }
            RestoreError::Version(error) => error.into(),
            RestoreError::IsDelete { wanted, ts } => Self::usage(
                format!("--version {wanted}: it is a delete, of {}", PointInTime::from_epoch(ts)),
                "name a version that has a document; history lists them",
            ),
            RestoreError::Nothing { at, account } => Self {
                message: format!("no document in scope at {}", shown(at)),
                hint: Some(format!(
                    "look at the history first: cosmos-rewind history --where \"...\"; account {account}"
                )),
                exit: Exit::Failed,
            },
            RestoreError::Filter(error) => error.into(),
            RestoreError::Archive(damage) => damaged(FROM, &damage),
            RestoreError::WithoutArchive(name) => Self::usage(
                format!("--plan: its versions come from the archive {name}"),
                format!("add {FROM} with that archive, or a copy of it"),
            ),
            RestoreError::WithArchive => {
                Self::usage("--plan: its versions come from the history", format!("leave {FROM} out"))
            }
            RestoreError::ArchivePlace(problem) => Self::usage(format!("--plan: {problem}"), "make a new plan"),
            RestoreError::TooManyDeletes { planned, most } => Self::usage(
                format!("{} would be deleted, more than --max-deletes {most}", count_of(planned as u64, "document")),
                format!("look at the plan (--dry-run); --max-deletes {planned} allows it"),
            ),
            RestoreError::TooManyWrites { planned, most } => Self::usage(
                format!("{} would be written, more than --max {most}", count_of(planned as u64, "document")),
                format!("look at the plan (--dry-run); --max {planned} allows it"),
            ),
            RestoreError::Journal(problem) => Self {
                message: problem,
                hint: Some("without a journal nothing is written; --journal names its folder".into()),
                exit: Exit::Failed,
            },
            RestoreError::Intents { source, .. } => Self::failed(format!("the journal cannot be written: {source}")),
            RestoreError::NoRestore { .. } => {
                Self { message, hint: Some("cosmos-rewind undo --list shows all".into()), exit: Exit::Failed }
            }
            RestoreError::UsedOften { runs, .. } => Self::usage(message, format!("undo one of: {}", runs.join(", "))),
            RestoreError::OtherContainers { .. } => {
                Self::usage(message, "name the same containers as then with --database, --source and --changes")
            }
        }
    }
}
