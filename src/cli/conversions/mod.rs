//! Maps the errors of use cases to kinds and hints. Errors that several commands share are here, those of one command
//! in its own file.

mod erase;
mod follow;
mod load;
mod new_function;

use super::{
    from_archive::{FROM, damaged},
    query::wrong_key,
    restore::explain,
};
use crate::{
    backfill::BackfillError,
    causes::chain,
    change::{key::PartitionKey, time::PointInTime},
    config::is_mongo_address,
    console::{CliError, render::plan::shown, room, words::pk_flag},
    coverage::CoverageError,
    figures::count_of,
    find::FindError,
    follow::BadFilter,
    format::printable,
    history::{NotShared, baseline::ExtentError, past::LookError, version::VersionError},
    restore::RestoreError,
    retention::RetentionError,
    serving::ServeError,
    status::StatusError,
    verify::VerifyError,
};

#[cfg(feature = "local")]
use crate::console::ErrorKind;
#[cfg(feature = "local")]
use crate::local::{
    LocalError, demo::DemoError, environment::EnvironmentError, past::PastError, trigger::TriggerError,
};

/// The items of these containers cannot be divided between machines; `otherwise` says what happens without
/// --feed-range.
fn not_shared(problem: &NotShared, otherwise: &str) -> CliError {
    CliError::usage(format!("--feed-range: {problem}"), format!("leave it out; {otherwise} then"))
}

impl From<RetentionError> for CliError {
    fn from(error: RetentionError) -> Self {
        match error {
            RetentionError::Cosmos(failure) => failure.into(),
            RetentionError::Shard(problem) => not_shared(&problem, "one machine prunes everything"),
            RetentionError::Keys(problem) => Self::usage(
                problem.to_string(),
                "prune needs a history keyed by paths of the source's key, /_originalId or /id, as provision makes it",
            ),
            problem @ RetentionError::NoPredecessors => Self::usage(
                format!("--keep-daily, --keep-monthly: {problem}"),
                "prune such a history with --older-than or --keep-within alone",
            ),
        }
    }
}

impl From<VerifyError> for CliError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Cosmos(failure) => failure.into(),
            VerifyError::Extent(error) => error.into(),
            VerifyError::Shard(problem) => not_shared(&problem, "one machine verifies everything"),
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

impl From<FindError> for CliError {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Cosmos(failure) => failure.into(),
            FindError::Predicate(failure) => explain(failure, true),
            FindError::Shard(problem) => not_shared(&problem, "one machine looks at everything"),
            FindError::Look(error) => error.into(),
            FindError::Undeclared(_) | FindError::OnceWithPrevious => {
                Self::usage(error.to_string(), "write another expression")
            }
        }
    }
}

impl From<BackfillError> for CliError {
    fn from(error: BackfillError) -> Self {
        match error {
            BackfillError::Cosmos(failure) => failure.into(),
            BackfillError::Predicate(failure) => explain(failure, true),
            BackfillError::Extent(error) => error.into(),
            BackfillError::Shard(problem) => not_shared(&problem, "one machine saves everything"),
        }
    }
}

impl From<ExtentError> for CliError {
    fn from(error: ExtentError) -> Self {
        match error {
            ExtentError::Cosmos(failure) => failure.into(),
            ExtentError::Setting(error) => error.into(),
            ExtentError::Unsaid => Self::usage(
                error.to_string(),
                "set REWIND_FIELDS, REWIND_REDACT and REWIND_REDACT_KEY as capture has them, or save whole documents with --whole",
            ),
            ExtentError::Bytes => Self::usage(error.to_string(), "save whole documents with --whole"),
        }
    }
}

impl From<VersionError> for CliError {
    fn from(error: VersionError) -> Self {
        match error {
            VersionError::None(wanted) => Self::not_there(
                format!("--version {wanted}: the document has no such version"),
                "history --format json lists the records, LSNs and times of its versions",
            ),
            VersionError::Several { wanted, records } => Self::usage(
                format!("--version {wanted}: it names {} versions", records.len()),
                format!("name one of the records: {}", records.join(", ")),
            ),
        }
    }
}

impl From<LookError> for CliError {
    fn from(error: LookError) -> Self {
        let message = printable(&error.to_string()).into_owned();
        match error {
            LookError::Cosmos(failure) => failure.into(),
            LookError::Predicate(failure) => explain(failure, true),
            LookError::Shard(problem) => Self::failed(problem.to_string()),
            LookError::Key { key, container, paths } => wrong_key(&key, &container, &paths),
            LookError::Ambiguous { keys, .. } => {
                let line = |(key, count): &(PartitionKey, u64)| {
                    format!("  {}  ({})", pk_flag(key), count_of(*count, "version"))
                };
                let lines: Vec<String> = keys.iter().map(line).collect();
                Self::usage(message, format!("name one of them:\n{}", lines.join("\n")))
            }
            LookError::NotInHistory { .. } => {
                Self::not_there(message, "check the id and --pk; what was written before capture began has no version")
            }
            LookError::NoneInHistory(count) => Self::not_there(
                format!("no version of {}", count_of(count, "document")),
                "check the ids and keys; what was written before capture began has no version",
            ),
            LookError::NoMatch { .. } => Self::not_there(
                message,
                "check --where: a predicate on c, strings in single quotes or as --param name=value",
            ),
            LookError::Version(error) => error.into(),
            LookError::NoSource(failure) => {
                Self::from(failure).hint("--to now compares with the newest version in the history")
            }
            LookError::RecordGone(_) | LookError::NotJson(_) | LookError::Row(_) => Self::failed(message),
        }
    }
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        let message = error.to_string();
        match error {
            ServeError::Settings(error) => error.into(),
            ServeError::DeadLetters(e) => {
                Self::letters(&e, |message| Self::usage(message, "check REWIND_DEAD_LETTERS"))
            }
            ServeError::Wrong(_) => {
                Self::usage(message, "run `cosmos-rewind doctor` in the app's folder for all that it looks at")
            }
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
            RestoreError::Unfit { .. } => {
                Self::usage(message, "restore --into puts the documents into another collection, to compare")
            }
            RestoreError::Path(_) => Self::usage(format!("--only: {message}"), "such as --only /address/zip"),
            RestoreError::KeyField => Self::usage(format!("--only: {message}"), "name another field"),
            RestoreError::Shard(problem) => not_shared(&problem, "one machine restores everything"),
            RestoreError::Stopped | RestoreError::OtherPlan(_) => Self::failed(message),
            RestoreError::NotInHistory(_) => {
                Self::not_there(message, "check the id; what was written before capture began has no version")
            }
            RestoreError::Ambiguous { keys, .. } => {
                let keys: Vec<String> = keys.iter().map(pk_flag).collect();
                Self::usage(message, format!("add one of: {}", keys.join(", ")))
            }
            RestoreError::Version(error) => error.into(),
            RestoreError::IsDelete { wanted, ts } => Self::usage(
                format!("--version {wanted}: it is a delete, of {}", PointInTime::from_epoch(ts)),
                "name a version that has a document; history lists them",
            ),
            RestoreError::Nothing { at, unnamed, .. } if !unnamed.is_empty() => Self::not_there(
                format!("no document in scope at {}", shown(at)),
                format!("no document has {}, now or in the history: check --where", unnamed.join(" or ")),
            ),
            RestoreError::Nothing { at, account, .. } => {
                // The report by predicate is of containers alone.
                let report = if is_mongo_address(&account) { "find --when" } else { "history --where" };
                Self::not_there(
                    format!("no document in scope at {}", shown(at)),
                    format!("look at the history first: cosmos-rewind {report} \"...\"; account {account}"),
                )
            }
            RestoreError::NothingToRevert { ends: Some(_), .. } => {
                Self::not_there(message, "--wait waits until capture has passed --to")
            }
            RestoreError::NothingToRevert { .. } => Self::not_there(
                message,
                "look at the writes first: cosmos-rewind history --id ID, or find --when with the same expression",
            ),
            RestoreError::NoFork(failure) => Self::usage(
                format!("--fork: {}", chain(&failure)),
                "name the endpoint that at --writable printed, while it runs, and the container that it is of",
            ),
            RestoreError::Fork(failure) => {
                Self::failed(format!("{message}: {}", chain(&failure))).hint("it is there while at --writable runs")
            }
            RestoreError::OtherFork { .. } => {
                Self::usage(format!("--fork: {message}"), "name the fork of this account, or the account of this fork")
            }
            RestoreError::MaskedFork => Self::usage(
                format!("--prefer fork: {message}"),
                "masked values would be written into live documents: make a fork without --mask",
            ),
            RestoreError::NoFilter(_) => Self::usage(format!("--filter: {message}"), "look at the names it uses"),
            RestoreError::EachFromArchive => Self::usage(
                format!("--ids-file: {message}"),
                format!("leave {FROM} out, or take before, version and at out"),
            ),
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
            RestoreError::Journal(error) => {
                Self::failed(chain(&error)).hint("without a journal nothing is written; --journal names its folder")
            }
            RestoreError::Disk(error) => {
                let hint =
                    room(&error).map(|_| "make room where temporary files are, or name another folder in TMPDIR");
                Self::failed(message).because(error).hint_of(hint)
            }
            RestoreError::Intents { source, .. } => Self::failed("the journal cannot be written").because(source),
            RestoreError::NoRestore { .. } => Self::not_there(message, "cosmos-rewind undo --list shows all"),
            RestoreError::UsedOften { runs, .. } => Self::usage(message, format!("undo one of: {}", runs.join(", "))),
            RestoreError::OtherContainers { .. } => {
                Self::usage(message, "name the same containers as then with --database, --source and --changes")
            }
        }
    }
}

#[cfg(feature = "local")]
impl From<PastError> for CliError {
    fn from(error: PastError) -> Self {
        let message = error.to_string();
        match error {
            PastError::Cosmos(failure) => failure.into(),
            PastError::Local(error) => error.into(),
            PastError::Mask(problem) => {
                Self::usage(format!("--mask: {problem}"), "name fields of the documents' content")
            }
            PastError::TooLarge { needed, .. } => {
                let needed = needed.div_ceil(1 << 20);
                Self::usage(message, format!("--max-memory {needed} allows it; --where loads a part"))
            }
            PastError::Stopped => Self::failed(message),
        }
    }
}

#[cfg(feature = "local")]
impl From<LocalError> for CliError {
    fn from(error: LocalError) -> Self {
        let failed = Self::failed(chain(&error));
        match error {
            LocalError::Listen { .. } => failed.hint("pass --port 0 for any free port"),
            LocalError::Option(_) | LocalError::Emulator(_) | LocalError::Refused { .. } => failed,
        }
    }
}

#[cfg(feature = "local")]
impl From<TriggerError> for CliError {
    fn from(error: TriggerError) -> Self {
        let report = chain(&error);
        match error {
            TriggerError::Binding(_) => ErrorKind::Usage(report).into(),
            TriggerError::Local(_)
            | TriggerError::Program(_)
            | TriggerError::Client(_)
            | TriggerError::Handler(_)
            | TriggerError::NotDrained { .. } => Self::failed(report),
        }
    }
}

#[cfg(feature = "local")]
impl From<EnvironmentError> for CliError {
    fn from(error: EnvironmentError) -> Self {
        let message = error.to_string();
        match error {
            EnvironmentError::Settings(error) => error.into(),
            EnvironmentError::Cosmos(failure) => failure.into(),
            EnvironmentError::Program(source) => Self::failed(message).because(source),
        }
    }
}

#[cfg(feature = "local")]
impl From<DemoError> for CliError {
    fn from(error: DemoError) -> Self {
        let message = error.to_string();
        match error {
            DemoError::Local(error) => error.into(),
            DemoError::Trigger(error) => error.into(),
            DemoError::Environment(error) => error.into(),
            DemoError::Cosmos(failure) => failure.into(),
            DemoError::Find(error) => error.into(),
            DemoError::Restore(error) => error.into(),
            DemoError::Condition(_) | DemoError::Record(_) => Self::failed(message),
            DemoError::Folder { source, .. } => Self::failed(message).because(source),
        }
    }
}
