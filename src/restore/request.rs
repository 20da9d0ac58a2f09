//! What a caller asks for: plain values, as a command line or a page makes them.

use std::{collections::HashMap, path::PathBuf};

use super::back::Back;
use super::plan_file::Pair;
use crate::{
    archive::Archive,
    change::{
        key::{ItemKey, PartitionKey},
        time::PointInTime,
    },
    cosmos::{Param, Shard},
};

/// Which documents are put back to which state, and how much else may happen to the container.
#[derive(Clone)]
pub struct Request<'a> {
    /// Which documents.
    pub which: Which,
    /// Which state.
    pub state: State,
    /// Where the versions are, when they do not come from the history.
    pub archive: Option<&'a Archive>,
    /// Only these fields are put back, as JSON pointers; empty: whole documents.
    pub only: Vec<String>,
    /// Whether documents that did not exist at the point in time are deleted.
    pub delete_newer: bool,
    /// How many documents the plan may delete; `None` leaves it to whoever approves.
    pub max_deletes: Option<usize>,
    /// Whether documents are made again of which latest-version mode cannot tell whether they were deleted before.
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
    /// All containers that are restored together, this one among them; empty: it is alone.
    pub together: Vec<Pair>,
}

/// Documents in flight when a caller does not say.
const CONCURRENCY: usize = 64;

impl Request<'_> {
    /// Puts documents back to what they were at a moment, with a stamp and without deleting anything.
    pub fn at(which: Which, at: PointInTime) -> Self {
        Self {
            which,
            state: State::At(at),
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
pub enum Which {
    /// These; whatever is not sure of one is said, and it is restored all the same.
    Named(Vec<Named>),
    /// These, as a list has them.
    Items(Vec<ItemKey>),
    /// Those that matched the caller's own SQL on `c` at the point in time.
    Where {
        /// The predicate.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// Those of an archive that match this expression at the point in time.
    Filter(String),
    /// All of the history and of the target.
    All,
}

/// A document by its id.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Its id.
    pub id: String,
    /// Its partition key, all components; `None` when the history is to tell.
    pub key: Option<PartitionKey>,
}

/// The state that documents are put back to.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// What they were at a moment.
    At(PointInTime),
    /// One version of the one document that is named: a record's id, an LSN or an etag.
    Version(String),
    /// Of each document of a list what the list says.
    Each(HashMap<ItemKey, Back>),
}

impl State {
    /// The last moment that is asked for; `None` when only versions are.
    pub(super) fn last_moment(&self) -> Option<PointInTime> {
        match self {
            Self::At(at) => Some(*at),
            Self::Version(_) => None,
            Self::Each(each) => {
                let moment = |back: &Back| if let Back::At(at) = back { Some(*at) } else { None };
                each.values().filter_map(moment).max()
            }
        }
    }
}

/// How much a plan may do, and how it is carried out.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Documents that may be written.
    pub max: usize,
    /// Documents that may be deleted; `None`: what the plan says, else none. An undo deletes what the restore made.
    pub max_deletes: Option<usize>,
}

/// How an approved plan is carried out.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Overwrites documents that were changed after the plan was made.
    pub force: bool,
    /// Documents in flight.
    pub concurrency: usize,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
    /// Folder of the local journals.
    pub journal: PathBuf,
}
