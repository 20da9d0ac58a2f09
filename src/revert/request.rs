//! The request of a revert.

use crate::{
    change::{merge::MergeRules, time::PointInTime},
    cosmos::Shard,
    restore::{Targets, plan_file::Pair},
};

/// Which writes are taken back, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// In which documents; for a predicate, those that matched it at the end of the window.
    pub which: Targets,
    /// From this second on.
    pub from: PointInTime,
    /// Up to and including this second.
    pub to: PointInTime,
    /// Of the writes in the window, those that this expression matches (CEL, as for `follow`); `None` means all.
    pub filter: Option<String>,
    /// How fields are merged.
    pub rules: MergeRules,
    /// Whether documents are deleted that these writes created.
    pub delete_created: bool,
    /// How many documents the plan may delete; `None` leaves that to the approver.
    pub max_deletes: Option<usize>,
    /// Whether consecutive versions count as consecutive writes even when that is not certain: in latest-version mode,
    /// and where versions are missing.
    pub assume_no_gaps: bool,
    /// Whether to wait until capture has passed the end of the window.
    pub wait: bool,
    /// The part of the documents, when several machines share the work.
    pub shard: Option<Shard>,
    /// Documents in flight.
    pub concurrency: usize,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
    /// All containers that are reverted together, including this one; empty when it is the only one.
    pub together: Vec<Pair>,
}

/// Documents in flight, when the caller does not say.
const CONCURRENCY: usize = 64;

impl Request {
    /// Takes back all writes of a window.
    pub fn of(which: Targets, from: PointInTime, to: PointInTime) -> Self {
        Self {
            which,
            from,
            to,
            filter: None,
            rules: MergeRules::default(),
            delete_created: false,
            max_deletes: None,
            assume_no_gaps: false,
            wait: false,
            shard: None,
            concurrency: CONCURRENCY,
            ru_limit: None,
            together: Vec::new(),
        }
    }
}
