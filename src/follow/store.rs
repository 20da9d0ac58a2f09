//! Where the checkpoint is kept, and who may write it: a document of the lease container, or a file.
//!
//! The document is the lease as well. Every save is a replace on the condition of its etag, so a holder that was taken
//! over finds out at its next save, whatever the clocks of the two machines say.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Checkpoint, Fence, Mismatch, RangePosition};
use crate::{
    change::{key::PartitionKey, raw::RawDocument},
    clock::Clock,
    cosmos::{Container, Disposition, Failure, Retry, Status},
    dead_letters::replace_file,
    private_file,
};

/// How often a stand-by checks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why a checkpoint could not be read or saved.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Somebody else holds the name now.
    #[error("another follower has taken over this name")]
    Lost,
    /// No save succeeded for a whole lease: somebody else may hold the name by now.
    #[error("no checkpoint could be saved for a whole lease")]
    Expired,
    /// The lease container failed or refused.
    #[error("checkpoint: {0}")]
    Service(#[from] Failure),
    /// The file cannot be used.
    #[error("checkpoint file {path}")]
    File {
        /// The file.
        path: String,
        /// The problem.
        #[source]
        problem: CheckpointFileError,
    },
    /// The stored checkpoint belongs to something else.
    #[error("the checkpoints of {follower:?} cannot be used")]
    Foreign {
        /// The follower's name.
        follower: String,
        /// The difference.
        #[source]
        problem: Mismatch,
    },
    /// The stored document is not a checkpoint.
    #[error("the checkpoints of {follower:?} cannot be used: the document in the lease container is not understood")]
    Document {
        /// The follower's name.
        follower: String,
        /// Why not.
        source: serde_json::Error,
    },
}

/// Why a checkpoint file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFileError {
    /// Its path does not end in a name.
    #[error("names no file")]
    NoName,
    /// The lock file beside it cannot be used.
    #[error("its lock")]
    Lock(#[source] io::Error),
    /// It cannot be read or written.
    #[error(transparent)]
    Disk(io::Error),
    /// It has another content.
    #[error("is not a checkpoint")]
    NotACheckpoint(#[source] serde_json::Error),
}

impl CheckpointError {
    /// Whether somebody else holds, or may hold, the name.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost | Self::Expired)
    }
}

/// Where the checkpoint of a follower is kept.
#[derive(Debug)]
pub enum CheckpointStore {
    /// A document of the lease container, beside the leases of a trigger.
    Container(Container),
    /// A file on this machine; a lock beside it, which ends with the process, serves as the lease.
    File(PathBuf),
}

/// The name, held.
#[derive(Debug)]
pub struct HeldName {
    /// The checkpoint: as stored when the name was acquired, and as saved since.
    pub checkpoint: Checkpoint,
    /// Tells sinks whether the name is still held.
    pub fence: Arc<Fence>,
    place: Place,
    /// Until when nobody else may take over, on this machine's monotonic clock.
    valid_until: Instant,
    lease: Duration,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
enum Place {
    Document {
        container: Container,
        key: PartitionKey,
        etag: String,
    },
    /// The lock is held as long as the file is open.
    File {
        path: PathBuf,
        _lock: File,
    },
}

/// The checkpoint that a stand-by saw last: its etag, and since when.
struct Seen {
    etag: String,
    since: Instant,
}

impl CheckpointStore {
    /// Waits until the name is free or its holder is dead, and acquires it. `None` when it was stopped before.
    ///
    /// # Errors
    /// When the store fails, or what is stored does not fit `wanted`.
    pub async fn acquire(
        &self,
        wanted: &Checkpoint,
        holder: &str,
        lease: Duration,
        clock: &Arc<dyn Clock>,
        stop: &CancellationToken,
    ) -> Result<Option<HeldName>, CheckpointError> {
        match self {
            Self::Container(container) => acquire_document(container, wanted, holder, lease, clock, stop).await,
            Self::File(path) => acquire_file(path, wanted, holder, lease, clock, stop).await,
        }
    }
}

async fn acquire_document(
    container: &Container,
    wanted: &Checkpoint,
    holder: &str,
    lease: Duration,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> Result<Option<HeldName>, CheckpointError> {
    let key = key_of(container, wanted)?;
    let mut seen: Option<Seen> = None;
    loop {
        let retry = Retry::for_at_most(lease);
        let stored = retry.run(|| container.read(&key, &wanted.id)).await?;
        let (mut checkpoint, etag) = match &stored {
            Some(text) => {
                let (checkpoint, etag) = parse(text)
                    .map_err(|source| CheckpointError::Document { follower: wanted.follower.clone(), source })?;
                (checkpoint, Some(etag))
            }
            None => (wanted.clone(), None),
        };
        checkpoint = checkpoint
            .adopted(wanted)
            .map_err(|problem| CheckpointError::Foreign { follower: wanted.follower.clone(), problem })?;
        if let (Some(other), Some(etag)) = (&checkpoint.holder, &etag)
            && other != holder
            && checkpoint.expires.is_none_or(|expires| expires > clock.now())
        {
            // With a wrong clock it might say so for ever: a checkpoint that does not change for a whole lease counts
            // as dead, too.
            if seen.as_ref().is_none_or(|seen| seen.etag != *etag) {
                if seen.is_none() {
                    info!(follower = wanted.follower, holder = other, "standing by: another follower has this name");
                }
                seen = Some(Seen { etag: etag.clone(), since: Instant::now() });
            }
            let patience = Duration::from_secs(checkpoint.lease) + LOOK_EVERY;
            if seen.as_ref().is_some_and(|seen| seen.since.elapsed() < patience) {
                if stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
                    return Ok(None);
                }
                continue;
            }
        }
        if let Some(dead) = checkpoint.holder.as_ref().filter(|other| *other != holder) {
            warn!(follower = wanted.follower, holder = dead, "taking over from a follower that ended without a word");
        }
        checkpoint.holder = Some(holder.to_owned());
        let place = Place::Document { container: container.clone(), key: key.clone(), etag: etag.unwrap_or_default() };
        let fence = Arc::new(Fence::begin(checkpoint.seq + 1));
        let mut held =
            HeldName { checkpoint, fence, place, valid_until: Instant::now() + lease, lease, clock: clock.clone() };
        let ranges = held.checkpoint.ranges.clone();
        match held.save(ranges, false).await {
            Ok(()) => return Ok(Some(held)),
            // Somebody else was quicker.
            Err(CheckpointError::Lost) => {}
            Err(e) => return Err(e),
        }
        if stop.is_cancelled() {
            return Ok(None);
        }
    }
}

async fn acquire_file(
    path: &Path,
    wanted: &Checkpoint,
    holder: &str,
    lease: Duration,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> Result<Option<HeldName>, CheckpointError> {
    let fail = |problem| CheckpointError::File { path: path.display().to_string(), problem };
    let mut name = path.file_name().ok_or_else(|| fail(CheckpointFileError::NoName))?.to_owned();
    name.push(".lock");
    let lock = private_file::options().write(true).create(true).truncate(false).open(path.with_file_name(name));
    let lock = lock.map_err(|e| fail(CheckpointFileError::Lock(e)))?;
    let mut told = false;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut told, true) {
                    info!(follower = wanted.follower, "standing by: another follower has this checkpoint file");
                }
            }
            Err(TryLockError::Error(e)) => return Err(fail(CheckpointFileError::Lock(e))),
        }
        if stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
            return Ok(None);
        }
    }
    let checkpoint: Checkpoint = match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| fail(CheckpointFileError::NotACheckpoint(e)))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => wanted.clone(),
        Err(e) => return Err(fail(CheckpointFileError::Disk(e))),
    };
    let mut checkpoint = checkpoint
        .adopted(wanted)
        .map_err(|problem| CheckpointError::Foreign { follower: wanted.follower.clone(), problem })?;
    checkpoint.holder = Some(holder.to_owned());
    let place = Place::File { path: path.to_owned(), _lock: lock };
    let fence = Arc::new(Fence::begin(checkpoint.seq + 1));
    let mut held =
        HeldName { checkpoint, fence, place, valid_until: Instant::now() + lease, lease, clock: clock.clone() };
    let ranges = held.checkpoint.ranges.clone();
    held.save(ranges, false).await?;
    Ok(Some(held))
}

impl HeldName {
    /// Saves the positions and renews the lease; with `release` it gives the name back instead.
    ///
    /// # Errors
    /// [`CheckpointError::Lost`] or [`CheckpointError::Expired`] when somebody else holds the name, or may hold it by
    /// now.
    pub async fn save(&mut self, ranges: Vec<RangePosition>, release: bool) -> Result<(), CheckpointError> {
        let now = self.clock.now();
        let begun = Instant::now();
        let mut next = self.checkpoint.clone();
        next.ranges = ranges;
        next.seq += 1;
        next.saved = now;
        next.lease = self.lease.as_secs();
        next.expires = (!release).then(|| now + self.lease);
        if release {
            next.holder = None;
        }
        match &mut self.place {
            Place::Document { container, key, etag } => {
                let left = self.valid_until.saturating_duration_since(begun);
                // A save that takes longer than the lease would prove nothing.
                *etag = match tokio::time::timeout(left, write_document(container, key, etag, &next)).await {
                    Ok(written) => written?,
                    Err(_) => return Err(CheckpointError::Expired),
                };
            }
            Place::File { path, .. } => {
                let path = path.clone();
                let text = serde_json::to_vec_pretty(&next).unwrap_or_default();
                let shown = path.display().to_string();
                let written = tokio::task::spawn_blocking(move || {
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                    replace_file(folder, &name, &text)
                });
                let written = written.await.unwrap_or_else(|e| Err(io::Error::other(e)));
                written.map_err(|e| CheckpointError::File { path: shown, problem: CheckpointFileError::Disk(e) })?;
            }
        }
        self.checkpoint = next;
        self.valid_until = begun + self.lease;
        match self.place {
            _ if release => self.fence.end(),
            Place::Document { .. } => self.fence.renew(self.valid_until),
            Place::File { .. } => {}
        }
        Ok(())
    }
}

/// Replaces the document while it has `etag`, or creates it when that is empty; returns the new etag.
async fn write_document(
    container: &Container,
    key: &PartitionKey,
    etag: &str,
    next: &Checkpoint,
) -> Result<String, CheckpointError> {
    let body = serde_json::to_vec(next).unwrap_or_default();
    let retry = Retry::for_at_most(Duration::from_secs(next.lease));
    let written = retry
        .run(|| async {
            if etag.is_empty() {
                container.create(key, &next.id, body.clone()).await
            } else {
                container.replace(key, &next.id, body.clone(), etag).await
            }
        })
        .await;
    match written {
        Ok(written) if written.etag.is_some() => return Ok(written.etag.unwrap_or_default()),
        Ok(_) => {}
        // Perhaps it is our own write, whose answer was lost.
        Err(f) if matches!(f.disposition, Disposition::PreconditionFailed | Disposition::Conflict) => {}
        // The document was deleted by hand.
        Err(f) if f.status == Status::NO_ITEM => return Err(CheckpointError::Lost),
        Err(f) => return Err(f.into()),
    }
    let stored = retry.run(|| container.read(key, &next.id)).await?.ok_or(CheckpointError::Lost)?;
    match parse(&stored) {
        Ok((found, etag)) if found.holder == next.holder && found.seq == next.seq && found.saved == next.saved => {
            Ok(etag)
        }
        _ => Err(CheckpointError::Lost),
    }
}

/// The checkpoint and its etag.
fn parse(text: &[u8]) -> Result<(Checkpoint, String), serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Stored {
        #[serde(flatten)]
        checkpoint: Checkpoint,
        #[serde(rename = "_etag")]
        etag: String,
    }
    let stored: Stored = serde_json::from_slice(text)?;
    Ok((stored.checkpoint, stored.etag))
}

/// The document's partition key, whatever the lease container's key is.
fn key_of(container: &Container, checkpoint: &Checkpoint) -> Result<PartitionKey, CheckpointError> {
    let text = serde_json::to_string(checkpoint).unwrap_or_default();
    let document = RawDocument::parse(&text)
        .map_err(|source| CheckpointError::Document { follower: checkpoint.follower.clone(), source })?;
    Ok(container.key_paths().extract(&document))
}
