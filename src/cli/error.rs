//! Why a command did not do what was asked. [`ErrorKind::exit`] is the one table of exit codes; the conversions below say
//! which kind a use case's error is, and what to do about it. No `match` here has a wildcard: a new variant does not
//! compile until it has its row.

use std::{borrow::Cow, error::Error, fmt};

use super::{
    Exit,
    from_archive::{FROM, damaged},
    query::wrong_key,
    render::plan::shown,
    restore::explain,
};
use crate::{
    backfill::BackfillError,
    causes::chain,
    change::{key::PartitionKey, time::PointInTime},
    config::ConfigError,
    cosmos::Failure,
    coverage::CoverageError,
    erase::EraseError,
    figures::count_of,
    follow::BadFilter,
    format::printable,
    history::{NotShared, past::LookError, version::VersionError},
    restore::RestoreError,
    retention::RetentionError,
    serving::ServeError,
    status::StatusError,
    verify::VerifyError,
};

#[cfg(feature = "local")]
use crate::local::{LocalError, demo::DemoError, environment::EnvironmentError, trigger::TriggerError};

/// What kind of thing went wrong; it displays as what was tried, without the cause.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// The command line is wrong; nothing was done.
    #[error("{0}")]
    Usage(String),
    /// A setting is wrong; nothing was done.
    #[error("setting {}: {}", .0.name, .0.problem)]
    Setting(ConfigError),
    /// The account refused the caller's predicate.
    #[error("{0}")]
    Predicate(Failure),
    /// The account refused, or did not answer.
    #[error("{0}")]
    Service(Failure),
    /// What was asked for is not in the history, or was not there at that time.
    #[error("{0}")]
    NotThere(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
    /// It ended before everything was done: what is not done can be done by another run.
    #[error("{0}")]
    Incomplete(String),
    /// Another error, after a part of the work.
    #[error("{}; {left}", .by.report())]
    Interrupted {
        /// What ended it.
        by: Box<CliError>,
        /// What is left of the work.
        left: &'static str,
    },
    /// A person was asked, and did not agree.
    #[error("not confirmed; nothing was done")]
    NotConfirmed,
    /// The reader of stdout has gone away (`| head`), which is no error.
    #[error("nobody reads the output any more")]
    Unread,
    /// The log has it already; a second report would look like a second error.
    #[error("the log has the error")]
    Logged,
}

impl ErrorKind {
    /// The exit code: the one table.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unread => Exit::Done,
            Self::Service(_) | Self::NotThere(_) | Self::Failed(_) | Self::NotConfirmed | Self::Logged => Exit::Failed,
            Self::Usage(_) | Self::Setting(_) | Self::Predicate(_) => Exit::Usage,
            Self::Incomplete(_) => Exit::Incomplete,
            Self::Interrupted { by, .. } => by.kind.exit(),
        }
    }

    /// Whether a person is told.
    pub fn is_told(&self) -> bool {
        match self {
            Self::Unread | Self::Logged => false,
            Self::Usage(_)
            | Self::Setting(_)
            | Self::Predicate(_)
            | Self::Service(_)
            | Self::NotThere(_)
            | Self::Failed(_)
            | Self::Incomplete(_)
            | Self::Interrupted { .. }
            | Self::NotConfirmed => true,
        }
    }
}

/// A next step for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint(Cow<'static, str>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&'static str> for Hint {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Hint {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

/// Why a command did not do what was asked: what happened, its cause, and the next steps.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct CliError {
    /// What happened.
    pub kind: ErrorKind,
    /// Why.
    pub source: Option<Box<dyn Error + Send + Sync>>,
    /// The next steps, where there are any to name.
    pub hints: Vec<Hint>,
}

impl CliError {
    /// A wrong command line.
    pub fn usage(message: impl Into<String>, hint: impl Into<Hint>) -> Self {
        Self::from(ErrorKind::Usage(message.into())).hint(hint)
    }

    /// A failure without a usual remedy.
    pub fn failed(message: impl Into<String>) -> Self {
        ErrorKind::Failed(message.into()).into()
    }

    /// What is not done can be done by another run.
    pub fn incomplete(message: impl Into<String>, hint: impl Into<Hint>) -> Self {
        Self::from(ErrorKind::Incomplete(message.into())).hint(hint)
    }

    /// What was asked for is not there.
    pub fn not_there(message: impl Into<String>, hint: impl Into<Hint>) -> Self {
        Self::from(ErrorKind::NotThere(message.into())).hint(hint)
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(cause.into()), ..self }
    }

    /// The same error with this next step alone.
    #[must_use]
    pub fn hint(self, hint: impl Into<Hint>) -> Self {
        Self { hints: vec![hint.into()], ..self }
    }

    /// The same error after a part of the work, of which this is left.
    #[must_use]
    pub fn leaving(self, left: &'static str) -> Self {
        let hints = self.hints.clone();
        Self { hints, ..ErrorKind::Interrupted { by: Box::new(self), left }.into() }
    }

    /// What happened and all of its causes, on one line.
    pub fn report(&self) -> String {
        chain(self)
    }
}

impl From<ErrorKind> for CliError {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, source: None, hints: Vec::new() }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let fix = error.fix.clone();
        Self::from(ErrorKind::Setting(error)).hint(fix)
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let hints = failure.hint().map(Hint::from).into_iter().collect();
        Self { hints, ..ErrorKind::Service(failure).into() }
    }
}

/// The items of these containers cannot be shared; `otherwise` says what happens without --feed-range.
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
        let message = error.to_string();
        match error {
            EraseError::Cosmos(failure) => failure.into(),
            EraseError::Key { key, container, paths } => wrong_key(&key, &container, &paths),
            EraseError::HistoryKeys { .. } => Self::usage(
                message,
                "erase needs a history keyed by paths of the source's key, /_originalId or /id, as provision makes it",
            ),
            EraseError::DeadLetters(e) => Self::failed(e.to_string()).hint("check REWIND_DEAD_LETTERS"),
            EraseError::Journals { error, .. } => {
                Self::failed(message).because(error).hint("--journal names their folder")
            }
            EraseError::Archive(damage) => Self::failed(format!("--archive: {}", chain(&damage))).hint(
                "whose it is cannot be told; move away what is no part of the archive, and run the command again",
            ),
            EraseError::Delete { .. } | EraseError::Interrupted => Self::failed(message)
                .leaving("what was erased before stays erased")
                .hint("run the command again when that is mended: it goes on"),
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
                format!("--version {wanted}: {} versions are called so", records.len()),
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
                    printable(&format!("  --pk '{key}'  ({})", count_of(*count, "version"))).into_owned()
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
            ServeError::DeadLetters(_) => Self::usage(message, "check REWIND_DEAD_LETTERS"),
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
            RestoreError::Path(_) => Self::usage(format!("--only: {message}"), "such as --only /address/zip"),
            RestoreError::KeyField => Self::usage(format!("--only: {message}"), "name another field"),
            RestoreError::Shard(problem) => not_shared(&problem, "one machine restores everything"),
            RestoreError::Stopped | RestoreError::OtherPlan(_) => Self::failed(message),
            RestoreError::NotInHistory(_) => {
                Self::not_there(message, "check the id; what was written before capture began has no version")
            }
            RestoreError::Ambiguous { keys, .. } => {
                let keys: Vec<String> = keys.iter().map(|key| format!("--pk '{key}'")).collect();
                Self::usage(message, format!("add one of: {}", keys.join(", ")))
            }
            RestoreError::Version(error) => error.into(),
            RestoreError::IsDelete { wanted, ts } => Self::usage(
                format!("--version {wanted}: it is a delete, of {}", PointInTime::from_epoch(ts)),
                "name a version that has a document; history lists them",
            ),
            RestoreError::Nothing { at, account } => Self::not_there(
                format!("no document in scope at {}", shown(at)),
                format!("look at the history first: cosmos-rewind history --where \"...\"; account {account}"),
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
            RestoreError::Disk(error) => Self::failed(message).because(error),
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
            DemoError::Record(_) => Self::failed(message),
            DemoError::Folder { source, .. } => Self::failed(message).because(source),
        }
    }
}
