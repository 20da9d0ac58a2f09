//! Requests: plain values, as a command line or a page provides them.

use std::{collections::HashMap, path::PathBuf};

use super::goal::Goal;
use super::plan_file::Pair;
use crate::{
    archive::Archive,
    change::{
        key::{ItemKey, PartitionKey},
        time::PointInTime,
    },
    cosmos::{Param, Shard},
};

/// Which documents are put back to which state, and what else may happen to the container.
#[derive(Clone)]
pub struct Request<'a> {
    /// Which documents.
    pub which: Targets,
    /// Which state.
    pub state: TargetState,
    /// Where the versions are, when they do not come from the history.
    pub archive: Option<&'a Archive>,
    /// Only these fields are put back, as JSON pointers; empty means whole documents.
    pub only: Vec<String>,
    /// Whether documents that did not exist at the point in time are deleted.
    pub delete_newer: bool,
    /// How many documents the plan may delete; `None` leaves that to the approver.
    pub max_deletes: Option<usize>,
    /// Whether documents are recreated when latest-version mode cannot tell whether they were deleted before.
    pub recreate_deleted: bool,
    /// Whether to wait until capture has passed the point in time.
    pub wait: bool,
    /// Whether restored documents get a member `restored_at`.
    pub stamp: bool,
    /// The part of the documents, when several machines share the work.
    pub shard: Option<Shard>,
    /// Documents in flight.
    pub concurrency: usize,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
    /// All containers that are restored together, including this one; empty when it is the only one.
    pub together: Vec<Pair>,
}

/// Documents in flight, when the caller does not say.
const CONCURRENCY: usize = 64;

impl Request<'_> {
    /// Puts documents back to what they were at a moment, with a stamp and without deleting anything.
    pub fn at(which: Targets, at: PointInTime) -> Self {
        Self {
            which,
            state: TargetState::At(at),
            archive: None,
            only: Vec::new(),
            delete_newer: false,
            max_deletes: None,
            recreate_deleted: false,
            wait: false,
            stamp: true,
            shard: None,
            concurrency: CONCURRENCY,
            ru_limit: None,
            together: Vec::new(),
        }
    }
}

/// Which documents.
#[derive(Debug, Clone)]
pub enum Targets {
    /// A list; doubts are reported, and the documents are restored all the same.
    Named(Vec<NamedDocument>),
    /// A list, in which each line may say what its document goes back to.
    Items(Vec<ItemKey>),
    /// Those that matched the operator's own SQL on `c` at the point in time.
    Where {
        /// The predicate.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// Those in an archive that match this expression at the point in time.
    Filter(String),
    /// All of the history and of the target.
    All,
}

/// A document by its id.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedDocument {
    /// Its id.
    pub id: String,
    /// Its partition key, all components; `None` to look it up in the history.
    pub key: Option<PartitionKey>,
}

/// The state that documents are put back to.
#[derive(Debug, Clone, PartialEq)]
pub enum TargetState {
    /// Their state at a moment.
    At(PointInTime),
    /// One version of the single document that is named: a record's id, an LSN or an etag.
    Version(String),
    /// For each document, what the list says.
    Each(HashMap<ItemKey, Goal>),
}

impl TargetState {
    /// The last requested moment; `None` when only versions are requested.
    pub(super) fn last_moment(&self) -> Option<PointInTime> {
        match self {
            Self::At(at) => Some(*at),
            Self::Version(_) => None,
            Self::Each(each) => {
                let moment = |back: &Goal| if let Goal::At(at) = back { Some(*at) } else { None };
                each.values().filter_map(moment).max()
            }
        }
    }
}

/// Limits on what a plan may do.
#[derive(Debug, Clone)]
pub struct PlanLimits {
    /// How many documents may be written.
    pub max: usize,
    /// How many documents may be deleted; `None` means what the plan says, otherwise none. An undo deletes what the
    /// restore created.
    pub max_deletes: Option<usize>,
}

/// How an approved plan is carried out.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Whether documents that were changed after the plan was made are overwritten.
    pub force: bool,
    /// Documents in flight.
    pub concurrency: usize,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
    /// Folder of the local journals.
    pub journal: PathBuf,
}
