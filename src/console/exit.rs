//! How a command ends.

/// How a command ended; the numbers are a documented contract (docs/reference/exit-codes.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line or a setting is wrong; nothing was done.
    Usage = 2,
    /// It finished, but some documents were not handled.
    Incomplete = 3,
}

/// The meaning of each exit code; docs/reference/exit-codes.md is generated from it.
pub const EXITS: [(Exit, &str); 4] = [
    (Exit::Done, "done"),
    (Exit::Failed, "failed; the message says what, the hint what to do"),
    (Exit::Usage, "the command line or a setting is wrong; nothing was done"),
    (Exit::Incomplete, "finished, but some documents were not handled, or a check of `doctor` failed; each is named"),
];

impl Exit {
    /// Combines how two parts of a command ended.
    pub(crate) fn and(self, other: Self) -> Self {
        if self == Self::Done { other } else { self }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
