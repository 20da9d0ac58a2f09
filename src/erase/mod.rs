//! Erases every trace of one document and proves it: `plan` looks, `Plan::apply` erases and looks again, and the
//! receipt names nobody. Whoever has to confirm does so in between.
//!
//! # Examples
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use cosmos_rewind::{
//!     change::key::{ItemKey, PartitionKey},
//!     context::Context,
//!     dead_letters::DeadLetterStore,
//!     erase::{self, Request},
//! };
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! # let dead_letters: DeadLetterStore = todo!();
//! let request = Request {
//!     item: ItemKey { id: "order-1".into(), partition_key: PartitionKey::parse("customer-7")? },
//!     live: true,
//!     settle: Duration::from_secs(60),
//!     dead_letters,
//!     journals: "journal".into(),
//!     archives: Vec::new(),
//! };
//! let receipt = erase::plan(request, cx.any()).await?.apply().await?;
//! println!("{} versions erased, {} left", receipt.versions, receipt.left);
//! # Ok(())
//! # }
//! ```

mod dead_letter_match;
mod eraser;
mod journal_files;
mod journal_items;
mod journals;

use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use chrono::SecondsFormat;
use serde::Serialize;

use self::eraser::{Eraser, Traces};
use crate::{
    archive::{Archive, Damage},
    change::key::{ItemKey, KeyPaths, PartitionKey},
    cosmos::{Failure, RuLimiter, Status},
    dead_letters::{DeadLetterError, DeadLetterStore},
    history::{AnyContext, scan::facts_of_id},
};

/// A request to erase a document, with the places where traces of it may be.
pub struct Request {
    /// The document.
    pub item: ItemKey,
    /// Whether the live document is erased too.
    pub live: bool,
    /// How long to wait for capture to deliver the delete of the live document.
    pub settle: Duration,
    /// Where dead letters are.
    pub dead_letters: DeadLetterStore,
    /// Folder of the local journals of restores.
    pub journals: PathBuf,
    /// Archives that `follow` wrote.
    pub archives: Vec<Archive>,
}

/// Why the document cannot be erased. What was erased before stays erased, and the next run goes on.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The service refused, or an item cannot be parsed.
    #[error("cannot look for the document")]
    Cosmos(#[from] Failure),
    /// The partition key does not have one component for each path.
    #[error("{key} is not a complete partition key of {container}, which is keyed {paths}")]
    Key {
        /// The key.
        key: PartitionKey,
        /// The source container.
        container: String,
        /// Its paths.
        paths: KeyPaths,
    },
    /// Where the id is the key, or a part of it, the document has another one.
    #[error("a document with this id has the partition key {expected} in {container}, which is keyed {paths}")]
    OtherKey {
        /// The key that it has.
        expected: PartitionKey,
        /// The source container.
        container: String,
        /// Its paths.
        paths: KeyPaths,
    },
    /// The place of a record does not follow from its document's key.
    #[error("{container} is keyed {paths}: where a record lies does not follow from its document's key")]
    HistoryKeys {
        /// The history.
        container: String,
        /// Its paths.
        paths: KeyPaths,
    },
    /// Dead letters cannot be read or deleted.
    #[error("cannot erase dead letters")]
    DeadLetters(#[from] DeadLetterError),
    /// Local journals cannot be read or written.
    #[error("journals in {}", .folder.display())]
    Journals {
        /// Their folder.
        folder: PathBuf,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// An archive cannot be read or written.
    #[error("cannot erase from the archive")]
    Archive(#[from] Damage),
    /// The service did not delete an item. Its message names the item, so it is left out.
    #[error("{context}: {status}")]
    Delete {
        /// The attempted operation.
        context: String,
        /// The service's answer.
        status: Status,
    },
    /// The work was told to stop.
    #[error("stopped before everything was erased")]
    Interrupted,
}

/// The traces that were found, and how to erase them.
pub struct ErasePlan<'a> {
    eraser: Eraser<'a>,
    traces: Traces,
    /// The counts.
    pub found: TraceCounts,
    other_keys: Vec<PartitionKey>,
    started: Instant,
}

/// Counts of the traces of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TraceCounts {
    /// Versions in the history.
    pub versions: u64,
    /// Dead letters that concern it.
    pub dead_letters: u64,
    /// Mentions in journals of restores.
    pub mentions: u64,
    /// Journals that mention it.
    pub journals: u64,
    /// Events in archives.
    pub events: u64,
    /// Files of archives that hold them.
    pub files: u64,
    /// Whether there is anything to erase.
    pub anything: bool,
}

/// The receipt of an erasure; nothing in it names the document.
#[derive(Debug, Serialize)]
pub struct Receipt {
    /// The SHA-256 of `["<id>",[<key components>]]`.
    pub item: String,
    /// Whether anything was to be erased.
    pub found: bool,
    /// Versions erased.
    pub versions: u64,
    /// Dead letters erased.
    pub dead_letters: u64,
    /// Journals that mentioned it.
    pub journals: u64,
    /// Events erased from archives.
    pub archived: u64,
    /// Whether the live document was deleted.
    pub live: bool,
    /// Deletes of this id that stay, because another document has it and nobody knows whose deletes they are.
    pub shared: u64,
    /// Traces that were found afterwards.
    pub left: u64,
    /// When it was done, RFC 3339.
    pub at: String,
    /// Request units since the program began.
    pub ru: f64,
    /// Seconds since the plan was begun.
    pub seconds: f64,
    /// Whether there is a live document that was meant to stay.
    #[serde(skip)]
    pub live_stays: bool,
    /// Whether the live document was deleted, and the history did not have its delete by then: what capture delivers
    /// with it may bring the document back.
    #[serde(skip)]
    pub delete_awaited: bool,
    /// Other partition keys under which the history has this id, when nothing was found under this one.
    #[serde(skip)]
    pub other_keys: Vec<PartitionKey>,
}

/// Looks for every trace of the document. Erases nothing.
///
/// # Errors
/// When the key is incomplete, the history cannot be addressed by it, or something cannot be read.
pub async fn plan(request: Request, cx: AnyContext<'_>) -> Result<ErasePlan<'_>, EraseError> {
    let started = Instant::now();
    let containers = cx.account.containers(cx.names, None).await?;
    let paths = containers.source.key_paths();
    if request.item.partition_key.0.len() != paths.len() {
        return Err(EraseError::Key {
            key: request.item.partition_key.clone(),
            container: cx.names.source.clone(),
            paths: paths.clone(),
        });
    }
    let expected = paths.key_with_id(&request.item);
    if expected != request.item.partition_key {
        let (container, paths) = (cx.names.source.clone(), paths.clone());
        return Err(EraseError::OtherKey { expected, container, paths });
    }
    if containers.record_key(&request.item, "").is_none() {
        let paths = containers.changes.key_paths().clone();
        return Err(EraseError::HistoryKeys { container: cx.names.changes.clone(), paths });
    }
    let pace = RuLimiter::new(cx.account.meter(), None);
    let items = containers.changes.layout().places_of(&request.item).into();
    let eraser = Eraser { cx, request, containers, items, pace };
    let traces = eraser.look().await?;
    let found = traces.found(eraser.request.live);
    let mut other_keys = Vec::new();
    if !found.anything {
        let (documents, _) = facts_of_id(&eraser.containers, &eraser.pace, &eraser.request.item.id, None).await?;
        other_keys = documents.into_iter().map(|other| other.item.partition_key).collect();
    }
    Ok(ErasePlan { eraser, traces, found, other_keys, started })
}

impl ErasePlan<'_> {
    /// Erases the traces that were found, and looks again.
    ///
    /// # Errors
    /// When something cannot be read or deleted, or the work was told to stop; the next run goes on.
    pub async fn apply(self) -> Result<Receipt, EraseError> {
        let Self { eraser, traces, found, other_keys, started } = self;
        let (erased, live) = eraser.erase(traces).await?;
        let left = eraser.look().await?;
        let with_live = eraser.request.live;
        let delete_awaited = live && erased.is_awaited;
        let (shared, erased) = (erased.shared, erased.found(with_live));
        Ok(Receipt {
            item: eraser.request.item.digest(),
            found: found.anything,
            versions: erased.versions,
            dead_letters: erased.dead_letters,
            journals: erased.journals,
            archived: erased.events,
            live,
            shared,
            left: left.count(with_live),
            at: eraser.cx.clock.now().to_rfc3339_opts(SecondsFormat::Secs, true),
            ru: eraser.cx.account.meter().total(),
            seconds: started.elapsed().as_secs_f64(),
            live_stays: left.live && !with_live,
            delete_awaited,
            other_keys,
        })
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::change::record::hex;

    #[test]
    fn the_receipt_has_a_digest_that_can_be_repeated() {
        let item = ItemKey { id: "28036".into(), partition_key: PartitionKey::parse("28036").unwrap() };
        // printf '%s' '["28036",["28036"]]' | sha256sum
        assert_eq!(item.digest(), hex(&Sha256::digest(br#"["28036",["28036"]]"#)));
    }
}
