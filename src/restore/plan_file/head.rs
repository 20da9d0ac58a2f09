//! The head of a plan: what it says once.

use serde::{Deserialize, Serialize};

use super::BadPlan;
use crate::restore::{apply::ApplyOptions, plan::PlanTarget};

/// The head of a plan: what it says once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanHead {
    /// Format version.
    pub v: u32,
    /// Id of the restore; sorts by time.
    pub id: String,
    /// The restore that this one undoes.
    #[serde(default)]
    pub undoes: Option<String>,
    /// The containers.
    pub place: PlanTarget,
    /// The point in time, epoch seconds; `None` for an undo, and for a version by name.
    #[serde(default)]
    pub at: Option<i64>,
    /// Whether each document goes back to a version or a moment of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_document: bool,
    /// Which part of the items, when several machines share a restore: `i/n`.
    #[serde(default)]
    pub feed_range: Option<String>,
    /// The archive that the versions come from, instead of the history; without a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
    /// Up to when the history was known to be complete, epoch seconds. `None` when unknown, or when the plan does not
    /// depend on it (a version by name, an archive, an undo, a fork). Plans of earlier releases only say it together
    /// with `beyond`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontier: Option<i64>,
    /// Whether the history is not known to be complete up to the point in time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub beyond: bool,
    /// The largest number of documents that may be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_deletes: Option<usize>,
    /// When the plan was made, epoch seconds.
    pub made: i64,
    /// Which writes a revert takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_back: Option<RevertedWrites>,
    /// Whether it brings the changes of a fork into the live documents; `at` is then the moment at which the fork
    /// began.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fork: bool,
    /// All containers of the restore, including this one, when there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub together: Vec<Pair>,
    /// How it is applied.
    pub manner: ApplyOptions,
}

/// A container, and the one that holds its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The container.
    pub source: String,
    /// Its history.
    pub changes: String,
}

impl PlanHead {
    /// Checks that the plan was made for these containers.
    ///
    /// # Errors
    /// When it was made for others.
    pub fn check_place(&self, place: &PlanTarget) -> Result<(), BadPlan> {
        if self.place == *place {
            return Ok(());
        }
        Err(BadPlan::OtherPlace { made_for: Box::new(self.place.clone()), place: Box::new(place.clone()) })
    }

    /// The name of the local journal for a use of this plan.
    pub fn journal_name(&self, run: &str) -> String {
        if self.together.is_empty() { format!("{run}.jsonl") } else { format!("{run}~{}.jsonl", self.place.source) }
    }
}

/// Which writes a revert takes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevertedWrites {
    /// From this second on, epoch seconds.
    pub from: i64,
    /// Up to and including this second.
    pub to: i64,
    /// Of these, only those that match.
    #[serde(default)]
    pub filter: Option<String>,
}
