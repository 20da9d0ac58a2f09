//! Caveats: what the history cannot tell about a version that was in force.

use std::fmt;

use crate::change::time::PointInTime;

/// A reason why the version in force may not be the whole truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caveat {
    /// The chain of versions has a gap: another version, unseen, lies between the version in force and the next one.
    Gap {
        /// LSN of the unseen version, when the next one names it; otherwise it only follows that there must be one.
        lsn: Option<i64>,
        /// Time of the next version: the unseen one lies between it and the version in force.
        until: i64,
    },
    /// It belongs to a container of this name that was deleted since, and the document with it.
    Recreated {
        /// Time of the next version, when that belongs to another container.
        until: Option<i64>,
    },
    /// Several versions were written within one second, and nothing tells which was the last.
    Unordered {
        /// That second, epoch seconds.
        ts: i64,
    },
    /// The live document, whose version the history does not have yet.
    Uncaptured,
    /// The Functions host may have altered the document's id or key: it is uncertain whose version it is.
    Identity,
    /// Captured in latest-version mode, which delivers neither intermediate versions nor deletes.
    LatestMode,
    /// The next version is the live one, which the history does not have yet; nor does it have what may lie between.
    NextUncaptured,
    /// This version or the next came through a filter, and neither names a predecessor: others may lie between.
    Filtered,
    /// A copy of the original demo: its time is the copy's, later than the change itself.
    LegacyTime,
    /// The payload of this version or the next had no time: the time of its capture stands in.
    CaptureTime,
    /// The text is what the Functions host delivered, in which dates may have been rewritten.
    Normalized,
    /// The text was looked up after the change, and may belong to a later one.
    LookedUp,
    /// Fields were left out or hashed on purpose when it was captured.
    Partial,
    /// The document was too large for a record, or gone when it was looked up: the record holds nothing of it.
    Absent,
    /// Found by a baseline run: nothing is known about earlier versions.
    Baseline,
}

impl Caveat {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gap { .. } => "gap",
            Self::Recreated { .. } => "recreated",
            Self::Unordered { .. } => "unordered",
            Self::Uncaptured => "uncaptured",
            Self::Identity => "identity",
            Self::LatestMode => "latest-mode",
            Self::NextUncaptured => "next-uncaptured",
            Self::Filtered => "filtered",
            Self::LegacyTime => "legacy-time",
            Self::CaptureTime => "capture-time",
            Self::Normalized => "normalized",
            Self::LookedUp => "looked-up",
            Self::Partial => "partial",
            Self::Absent => "absent",
            Self::Baseline => "baseline",
        }
    }
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { lsn, until } => {
                f.write_str("a version is missing from the history")?;
                match lsn {
                    Some(lsn) => write!(f, " (LSN {lsn})")?,
                    None => f.write_str(" (the delete before a creation, or the creation after a delete)")?,
                }
                write!(f, "; it lies between this one and {}", PointInTime::from_epoch(*until))
            }
            Self::Recreated { until } => {
                f.write_str("of a container of this name that was deleted since, nobody knows when")?;
                match until {
                    Some(until) => {
                        write!(f, "; the next version, of {}, is of another one", PointInTime::from_epoch(*until))
                    }
                    None => Ok(()),
                }
            }
            Self::Unordered { ts } => write!(
                f,
                "several versions are of the second {}, and nothing tells which was the last; --version names one",
                PointInTime::from_epoch(*ts)
            ),
            Self::Uncaptured => f.write_str("the live document: its version is not in the history (yet)"),
            Self::Identity => f.write_str(
                "the Functions host may have altered its id or partition key: which document it is of is not sure",
            ),
            Self::LatestMode => f.write_str(
                "captured in latest-version mode: versions between this one and the next, and deletes, may be missing",
            ),
            Self::NextUncaptured => f.write_str(
                "the next version is the live document, which is not in the history (yet): others before it may be missing",
            ),
            Self::Filtered => f.write_str(
                "only what passed a filter was captured: versions between this one and the next, and deletes, may be missing",
            ),
            Self::LegacyTime => {
                f.write_str("a copy of the original demo: its time is the copy's, later than the change")
            }
            Self::CaptureTime => f.write_str(
                "changes came without their times: those of their capture stand in, and the next version may have been in force already",
            ),
            Self::Normalized => f.write_str("the Functions host may have rewritten date strings in it"),
            Self::LookedUp => f.write_str(
                "its text was looked up after the change and may be of a later one: the collection keeps no post-images",
            ),
            Self::Absent => f.write_str("it was too large for the history, which has nothing of it (a dead letter may), or gone when MongoDB was asked for it"),
            Self::Partial => f.write_str("fields were left out or hashed on purpose when it was captured"),
            Self::Baseline => f.write_str("found by a baseline run: earlier versions are not known"),
        }
    }
}
