//! Errors of a restore or an undo. Nothing was written unless a variant says so.

use std::{io, path::PathBuf};

use super::{journal::JournalError, survey::SurveyError};
use crate::{
    archive::{Damage, texts::TextError, versions::NoFile},
    causes::chain,
    change::{key::PartitionKey, time::PointInTime},
    cosmos::Failure,
    follow::{BadFilter, NoAnswer},
    frontier::waiting::WaitError,
    history::{NotShared, version::VersionError},
};

/// Why there is no plan, or why it was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The service refused.
    #[error("cannot use the account")]
    Cosmos(#[from] Failure),
    /// The service refused the operator's predicate, or could not run it.
    #[error("cannot run the predicate")]
    Predicate(#[source] Failure),
    /// The plan cannot be written to, or read from, a temporary file.
    #[error("keep the plan in a temporary file")]
    Disk(#[from] io::Error),
    /// The target is the history.
    #[error("the target is the history itself")]
    IntoHistory,
    /// The target has another partition key than the source.
    #[error("{target} is keyed {target_key}, the source {source_key}")]
    OtherKey {
        /// The target container.
        target: String,
        /// Its key paths.
        target_key: String,
        /// The source's.
        source_key: String,
    },
    /// Documents cannot be put back into the target.
    #[error("{target} {why}")]
    Unfit {
        /// The target container.
        target: String,
        /// The reason.
        why: String,
    },
    /// The versions come from an archive, and a list names a version for each document.
    #[error("a list with versions or times of its own is about the history, not about an archive")]
    EachFromArchive,
    /// A field to put back is not a path.
    #[error("{0}")]
    Path(String),
    /// A field to put back is the id or a part of the partition key.
    #[error("id and partition key cannot be changed")]
    KeyField,
    /// The items of these containers cannot be divided between machines.
    #[error("cannot share the documents between machines")]
    Shard(#[source] NotShared),
    /// The wait for capture was interrupted.
    #[error("stopped while waiting for capture; nothing was written")]
    Stopped,
    /// The history has no such document.
    #[error("document {0:?} is not in the history")]
    NotInHistory(String),
    /// Several documents share the id.
    #[error("{} documents have the id {id:?}", keys.len())]
    Ambiguous {
        /// The id.
        id: String,
        /// Their partition keys.
        keys: Vec<PartitionKey>,
    },
    /// The document does not have the named version.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The named version is a delete.
    #[error("version {wanted} is a delete, of {}", PointInTime::from_epoch(*ts))]
    IsDelete {
        /// The caller's text.
        wanted: String,
        /// When it was deleted, epoch seconds.
        ts: i64,
    },
    /// No document is in scope.
    #[error("no document in scope at {at}")]
    Nothing {
        /// The point in time.
        at: PointInTime,
        /// The account's endpoint.
        account: String,
        /// The fields of the predicate that no document has or had.
        unnamed: Vec<String>,
    },
    /// There is no write to take back.
    #[error("no write from {from} to {to} is to be taken back{}", ends.as_ref().map(|ends| format!(" of those that are captured: {ends}")).unwrap_or_default())]
    NothingToRevert {
        /// Where the history ends, when that is before the end of the window.
        ends: Option<String>,
        /// The first second of the window.
        from: PointInTime,
        /// The last second of the window.
        to: PointInTime,
    },
    /// The address is not that of a copy that may be changed.
    #[error("the fork has no list of changed documents")]
    NoFork(#[source] Failure),
    /// The fork cannot be read.
    #[error("cannot read the fork")]
    Fork(#[source] Failure),
    /// The fork was made of another account.
    #[error("the fork is of {fork}, not of {live}")]
    OtherFork {
        /// The account that the fork is of.
        fork: String,
        /// The one that is asked about.
        live: String,
    },
    /// Values are masked in the fork, and conflicts are to take the fork's values.
    #[error("values of the fork are masked")]
    MaskedFork,
    /// The expression uses an unknown name.
    #[error(transparent)]
    NoFilter(NoAnswer),
    /// The expression for an archive's documents cannot be compiled.
    #[error(transparent)]
    Filter(#[from] BadFilter),
    /// The archive cannot be used.
    #[error("cannot use the archive")]
    Archive(#[source] Damage),
    /// A plan whose versions are in an archive is to be applied without it.
    #[error("the versions of the plan come from the archive {0}")]
    WithoutArchive(String),
    /// A plan whose versions are in the history is to be applied with an archive.
    #[error("the versions of the plan come from the history")]
    WithArchive,
    /// A plan names an impossible place in the archive.
    #[error(transparent)]
    ArchivePlace(#[from] NoFile),
    /// More documents would be deleted than is allowed.
    #[error("{planned} documents would be deleted, {most} are allowed")]
    TooManyDeletes {
        /// Documents that the plan deletes.
        planned: usize,
        /// The limit.
        most: usize,
    },
    /// More documents would be written than is allowed.
    #[error("{planned} documents would be written, {most} are allowed")]
    TooManyWrites {
        /// Documents that the plan writes.
        planned: usize,
        /// The limit.
        most: usize,
    },
    /// The approval belongs to another plan.
    #[error("the approval is of plan {0}")]
    OtherPlan(String),
    /// The journal cannot be begun, so nothing was written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal's file cannot be opened a second time, so nothing was written.
    #[error("the journal {path} cannot be written")]
    Intents {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no restore of this id.
    #[error("there is no restore {id:?} in {history}")]
    NoRestore {
        /// The id.
        id: String,
        /// Database and history container.
        history: String,
    },
    /// The plan with this id was used several times.
    #[error("the plan {id} was used {} times", runs.len())]
    UsedOften {
        /// The plan's id.
        id: String,
        /// Its uses.
        runs: Vec<String>,
    },
    /// The restore was of other containers.
    #[error("restore {run} was of {then}, not of {now}")]
    OtherContainers {
        /// The restore.
        run: String,
        /// Its containers.
        then: String,
        /// The containers that are named now.
        now: String,
    },
}

impl From<WaitError> for RestoreError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Cosmos(failure) => Self::Cosmos(failure),
            WaitError::Stopped => Self::Stopped,
        }
    }
}

/// Why one step cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The service refused, or something that the step needs is unusable.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The temporary file with the texts of an archive cannot be read: the other steps cannot be done, either.
    #[error("a temporary file cannot be read")]
    Texts(#[source] io::Error),
    /// The journal cannot record that the step is begun.
    #[error("the journal could not be written")]
    Journal(#[source] io::Error),
}

impl From<TextError> for StepError {
    fn from(error: TextError) -> Self {
        match error {
            TextError::Disk(error) => Self::Texts(error),
            TextError::Damaged => Self::Texts(io::Error::new(io::ErrorKind::InvalidData, error)),
            TextError::Unusable(_) | TextError::Missing(_) => {
                Self::Failed(Failure::invalid("read archive".into(), chain(&error)))
            }
        }
    }
}

/// Why no further step is begun.
#[derive(Debug, thiserror::Error)]
pub enum GivenUp {
    /// The plan's own file.
    #[error("the plan cannot be read any more")]
    Plan(#[source] io::Error),
    /// The journal cannot record that a step is begun.
    #[error("the journal could not be written")]
    Journal(#[source] io::Error),
    /// The file with the texts of an archive.
    #[error("the texts of the archive cannot be read any more")]
    Texts(#[source] io::Error),
}

impl From<StepError> for RestoreError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Failed(failure) => Self::Cosmos(failure),
            StepError::Texts(error) | StepError::Journal(error) => Self::Disk(error),
        }
    }
}

impl From<SurveyError> for RestoreError {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::Cosmos(failure) => Self::Cosmos(failure),
            SurveyError::Disk(error) => Self::Disk(error),
        }
    }
}
