//! Why a plan's text is not one that can be used.

use std::io;

use crate::restore::plan::{PLAN_VERSION, PlanTarget};

/// Why a plan's text is not one that can be used; displays as what follows the plan's name.
#[derive(Debug, thiserror::Error)]
pub enum BadPlan {
    /// It has no lines.
    #[error("is not a plan: it is empty")]
    Empty,
    /// A line is no line of a plan.
    #[error("is not a plan")]
    Line(#[source] serde_json::Error),
    /// A line is longer than this many bytes.
    #[error("is not a plan: a line is longer than {0}")]
    LongLine(u64),
    /// A step's partition key is none; the reason.
    #[error("is not a plan: {0}")]
    Key(String),
    /// The id of its restore would lead to another file or item.
    #[error("is not a plan: its id is not one")]
    Id,
    /// It is of another format.
    #[error("is of plan format {0}, this program knows {PLAN_VERSION}: make a new plan")]
    Format(u32),
    /// It says something else than when it was made.
    #[error("was edited or damaged, its checksum does not match: make a new plan")]
    Edited,
    /// It was cut off.
    #[error("is not whole, its last line is missing: make a new plan")]
    CutOff,
    /// Texts that its steps take values from are not in its file.
    #[error("is not whole, the texts of its documents are missing: make a new plan")]
    NoTexts,
    /// Its file has plans of several restores.
    #[error("has plans that were not made together: make a new plan")]
    Apart,
    /// It is of other containers.
    #[error("was made for {}, not for {}", shown(.made_for), shown(.place))]
    OtherPlace {
        /// Those it was made for.
        made_for: Box<PlanTarget>,
        /// Those it is to be used for.
        place: Box<PlanTarget>,
    },
    /// Its file cannot be read.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// The temporary file that it is copied to cannot be made or written.
    #[error("cannot be copied")]
    Copy(#[source] io::Error),
}

fn shown(place: &PlanTarget) -> String {
    format!("{} {}/{} -> {}", place.account, place.database, place.changes, place.target)
}
