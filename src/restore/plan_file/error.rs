//! Why a plan's text cannot be used.

use std::io;

use crate::restore::plan::{PLAN_VERSION, PlanTarget};

/// Why a plan's text cannot be used; displays as what follows the plan's name.
#[derive(Debug, thiserror::Error)]
pub enum BadPlan {
    /// It is empty.
    #[error("is not a plan: it is empty")]
    Empty,
    /// A line is not a line of a plan.
    #[error("is not a plan")]
    Line(#[source] serde_json::Error),
    /// A line is longer than this many bytes.
    #[error("is not a plan: a line is longer than {0}")]
    LongLine(u64),
    /// A step's partition key is malformed; the reason.
    #[error("is not a plan: {0}")]
    Key(String),
    /// The id of its restore would lead to another file or item.
    #[error("is not a plan: its id is not one")]
    Id,
    /// It has another format.
    #[error("is of plan format {0}, this program knows {PLAN_VERSION}")]
    Format(u32),
    /// It was changed since it was made.
    #[error("was edited or damaged, its checksum does not match")]
    Edited,
    /// It was cut off.
    #[error("is incomplete, its last line is missing")]
    CutOff,
    /// Its file lacks texts that its steps take values from.
    #[error("is incomplete, the texts of its documents are missing")]
    NoTexts,
    /// Its file holds plans of several restores.
    #[error("has plans that were not made together")]
    Apart,
    /// It belongs to other containers.
    #[error("was made for {}, not for {}", shown(.made_for), shown(.place))]
    OtherPlace {
        /// The containers it was made for.
        made_for: Box<PlanTarget>,
        /// The containers it is to be used for.
        place: Box<PlanTarget>,
    },
    /// Its file cannot be read.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// The temporary file for its copy cannot be created or written.
    #[error("cannot be copied")]
    Copy(#[source] io::Error),
}

fn shown(place: &PlanTarget) -> String {
    format!("{} {}/{} -> {}", place.account, place.database, place.changes, place.target)
}
