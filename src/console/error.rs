//! Why a command failed. [`ErrorKind::exit`] is the one table of exit codes; `cli::conversions` maps the errors of use
//! cases to kinds and hints. No `match` there has a wildcard: a new variant does not compile until it has its row.

use std::{borrow::Cow, error::Error, fmt, io};

use super::Exit;
use crate::{
    causes::chain,
    config::ConfigError,
    cosmos::Failure,
    dead_letters::{DeadLetterError, StoreError},
};

/// The kind of failure; it displays the attempt, without the cause.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// The command line is wrong; nothing was done.
    #[error("{0}")]
    Usage(String),
    /// A setting is wrong; nothing was done.
    #[error("setting {}: {}", .0.name, .0.problem)]
    Setting(ConfigError),
    /// The account refused the caller's predicate or query.
    #[error("{0}")]
    Predicate(Failure),
    /// The account refused, or did not answer.
    #[error("{0}")]
    Service(Failure),
    /// The requested thing is not in the history, or was not there at that time.
    #[error("{0}")]
    NotThere(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
    /// It ended before everything was done; another run can do the rest.
    #[error("{0}")]
    Incomplete(String),
    /// It failed after a part of the work was done.
    #[error("{}; {left}", .by.report())]
    Interrupted {
        /// The cause.
        by: Box<CliError>,
        /// The remaining work.
        left: &'static str,
    },
    /// A person was asked, and declined.
    #[error("not confirmed; nothing was done")]
    NotConfirmed,
    /// The reader of stdout has gone away (`| head`), which is not an error.
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

    /// Whether it is reported to the user.
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

/// Why a command failed: what happened, its cause, and the next steps.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct CliError {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// Its cause.
    pub source: Option<Box<dyn Error + Send + Sync>>,
    /// The next steps, if there are any to name.
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

    /// A file that cannot be written. The user should name another one, unless its disk is full.
    pub fn unwritable(file: impl Into<String>, cause: io::Error, hint: &'static str) -> Self {
        // What the system says is for those who know its numbers.
        let kind = cause.raw_os_error().map(|_| cause.kind());
        match (room(&cause), kind) {
            (Some(room), _) => Self::failed(file).because(cause).hint(room),
            (None, Some(io::ErrorKind::AlreadyExists)) => Self::usage(file, hint).because("it exists already"),
            (None, Some(io::ErrorKind::NotFound)) => {
                Self::usage(file, "name a file in a folder that exists").because("its folder does not exist")
            }
            (None, _) => Self::usage(file, hint).because(cause),
        }
    }

    /// A store of dead letters that failed: a hint when the disk is full, else what `otherwise` makes of the message.
    pub fn letters(error: &DeadLetterError, otherwise: impl FnOnce(String) -> Self) -> Self {
        match error.cause() {
            StoreError::Directory(cause) if room(cause).is_some() => Self::failed(chain(error)).hint_of(room(cause)),
            _ => otherwise(chain(error)),
        }
    }

    /// Another run can do the rest.
    pub fn incomplete(message: impl Into<String>, hint: impl Into<Hint>) -> Self {
        Self::from(ErrorKind::Incomplete(message.into())).hint(hint)
    }

    /// The requested thing does not exist.
    pub fn not_there(message: impl Into<String>, hint: impl Into<Hint>) -> Self {
        Self::from(ErrorKind::NotThere(message.into())).hint(hint)
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(cause.into()), ..self }
    }

    /// The same error with only this hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<Hint>) -> Self {
        Self { hints: vec![hint.into()], ..self }
    }

    /// The same error with the usual hint, if there is one.
    #[must_use]
    pub fn hint_of(self, hint: Option<impl Into<Hint>>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// The same error after a part of the work; these are the steps that are left.
    #[must_use]
    pub fn leaving(self, left: &'static str) -> Self {
        let hints = self.hints.clone();
        Self { hints, ..ErrorKind::Interrupted { by: Box::new(self), left }.into() }
    }

    /// The error with all its causes, on one line.
    pub fn report(&self) -> String {
        chain(self)
    }
}

/// The next step on a full disk: the request itself was right.
pub(crate) fn room(cause: &io::Error) -> Option<&'static str> {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
    full.contains(&cause.kind()).then_some("make room there, then run the command again")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_wrong_command_line() {
        let of = |kind: io::ErrorKind| CliError::unwritable("--out file", kind.into(), "name another file");
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge] {
            let error = of(kind);
            assert_eq!(error.kind.exit(), Exit::Failed);
            assert!(error.report().starts_with("--out file: "), "{}", error.report());
            assert!(error.hints[0].to_string().contains("make room"));
        }
        let error = of(io::ErrorKind::AlreadyExists);
        assert_eq!((error.kind.exit(), error.hints[0].to_string().as_str()), (Exit::Usage, "name another file"));
    }
}
