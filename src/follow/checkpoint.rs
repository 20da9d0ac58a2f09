//! The checkpoint of a follower: a token for each range, and the holder of its name.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::cosmos::{FeedMode, FeedRange, Shard};

/// Version of this format.
const VERSION: u32 = 1;

/// The one document (or file) of a follower. All ranges are in it, so that they are saved together or not at all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its id in the lease container.
    pub id: String,
    /// Version of the format.
    pub v: u32,
    /// The follower's name.
    pub follower: String,
    /// The database and container that are read.
    pub source: String,
    /// The container's resource id: another container under the same name has another feed.
    pub rid: String,
    /// The mode, which a token is bound to.
    pub mode: FeedMode,
    /// The static share `i/n`, if there is one.
    pub part: Option<String>,
    /// Who holds the name, or nobody.
    pub holder: Option<String>,
    /// When the holder counts as dead unless it saves before.
    pub expires: Option<DateTime<Utc>>,
    /// The holder's lease in seconds: a stand-by that sees no change for that long takes over.
    pub lease: u64,
    /// Counts the saves.
    pub seq: u64,
    /// When it was saved.
    pub saved: DateTime<Utc>,
    /// The history that receives every change that is read: database and container. `None` when there is none, or it
    /// only receives what passes a filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
    /// The time from which changes may be missing in this history, because they were read for something else, or are
    /// from before the start was fixed. `None` when nothing is, or the history says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacking: Option<UnnotedHole>,
    /// From which second on it captures every change for this history itself, epoch seconds. `None` when nobody was
    /// before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<i64>,
    /// The position of each range; none until the start of each was fixed.
    pub ranges: Vec<RangePosition>,
}

/// Changes that a history may lack, and does not say so yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UnnotedHole {
    /// Nobody has looked yet whether it lacks any.
    Perhaps,
    /// Those from after this second, epoch seconds; `None` when it is unknown where they begin.
    After(Option<i64>),
    /// Those from after this second, unless a reader that stood there goes on and delivers them.
    Unless {
        /// Epoch seconds.
        after: i64,
        /// When the trigger began that stood there, epoch seconds; `None` when none did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trigger: Option<i64>,
    },
}

/// How far one range was read and made durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangePosition {
    /// First key of the range, hexadecimal.
    pub min: String,
    /// The first key after the range, hexadecimal.
    pub max: String,
    /// The client library's continuation token.
    pub token: String,
}

/// Why a stored checkpoint does not fit the follower that would resume from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It is of a newer format.
    #[error("they are of format {0}, this program knows up to {VERSION}")]
    Format(u32),
    /// It belongs to another follower, which has read something else.
    #[error("they belong to follower {stored:?}")]
    Follower {
        /// Its name.
        stored: String,
    },
    /// It belongs to another container.
    #[error("they belong to {stored}, not to {wanted}")]
    Container {
        /// Its database and container.
        stored: String,
        /// Those that are to be read now.
        wanted: String,
    },
    /// It belongs to the other feed.
    #[error("they are of mode {stored}, not {wanted}: a token is bound to its mode")]
    Mode {
        /// Its mode.
        stored: FeedMode,
        /// The mode now.
        wanted: FeedMode,
    },
    /// It belongs to another share.
    #[error("they are of feed range {stored}, not {wanted}")]
    Part {
        /// Its share, or `all`.
        stored: String,
        /// The share now.
        wanted: String,
    },
    /// The container was recreated: its database and name.
    #[error("they belong to another container that was called {0}: it was made again")]
    MadeAgain(String),
}

/// A position with malformed bounds; the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRange(String);

impl BadRange {
    /// Some keys have no position: nobody would read them.
    pub(super) fn left_out(range: &FeedRange) -> Self {
        Self(format!("it has no position for all of {range}"))
    }
}

impl Checkpoint {
    /// Whether it has a position for every key.
    pub fn has_all_keys(&self) -> bool {
        let ranges = self.ranges.iter().map(|range| FeedRange::parse(&range.min, &range.max));
        let ranges: Result<Vec<FeedRange>, _> = ranges.collect();
        ranges.is_ok_and(|ranges| FeedRange::full().is_covered_by(ranges.iter()))
    }

    /// Whether it tells up to where a history has every change of a source: what was passed over without a note is not
    /// part of that.
    pub fn covers(&self, source: &str, history: &str) -> bool {
        self.source == source && self.history.as_deref() == Some(history) && self.lacking.is_none()
    }

    /// Whether it captures the changes from after a second itself: it began before that.
    pub fn was_there_after(&self, second: i64) -> bool {
        self.began.is_none_or(|began| began <= second.saturating_add(1))
    }

    /// The id under which a follower's checkpoint is kept.
    pub fn id_of(name: &str, part: Option<Shard>) -> String {
        match part {
            Some(part) => format!("follow.{name}.{}", part.to_string().replace('/', "-of-")),
            None => format!("follow.{name}"),
        }
    }

    /// A checkpoint without positions.
    pub fn fresh(name: &str, source: &str, rid: &str, mode: FeedMode, part: Option<Shard>, now: DateTime<Utc>) -> Self {
        Self {
            id: Self::id_of(name, part),
            v: VERSION,
            follower: name.to_owned(),
            source: source.to_owned(),
            rid: rid.to_owned(),
            mode,
            part: part.map(|part| part.to_string()),
            holder: None,
            expires: None,
            lease: 0,
            seq: 0,
            saved: now,
            history: None,
            lacking: None,
            began: None,
            ranges: Vec::new(),
        }
    }

    /// The checkpoint that a follower with these settings resumes from: this one, or `wanted` when no start was ever
    /// fixed here.
    ///
    /// # Errors
    /// With what differs.
    pub fn adopted(self, wanted: &Self) -> Result<Self, Mismatch> {
        if self.ranges.is_empty() && self.v <= VERSION {
            let Self { holder, expires, lease, seq, .. } = self;
            return Ok(Self { holder, expires, lease, seq, ..wanted.clone() });
        }
        self.fits(wanted)?;
        // Nobody takes a latest-version history for complete.
        let is_whole = self.mode == FeedMode::AllVersions && wanted.history.is_some();
        let is_new = self.history != wanted.history;
        let known = self.lacking.filter(|lacking| !is_new || !matches!(lacking, UnnotedHole::Unless { .. }));
        let lacking = known.or(is_new.then_some(UnnotedHole::Perhaps)).filter(|_| is_whole);
        Ok(Self { history: wanted.history.clone(), lacking, began: self.began.filter(|_| !is_new), ..self })
    }

    fn fits(&self, wanted: &Self) -> Result<(), Mismatch> {
        if self.v > VERSION {
            return Err(Mismatch::Format(self.v));
        }
        if self.follower != wanted.follower {
            return Err(Mismatch::Follower { stored: self.follower.clone() });
        }
        if self.source != wanted.source {
            return Err(Mismatch::Container { stored: self.source.clone(), wanted: wanted.source.clone() });
        }
        if self.mode != wanted.mode {
            return Err(Mismatch::Mode { stored: self.mode, wanted: wanted.mode });
        }
        if self.part != wanted.part {
            let show = |part: &Option<String>| part.clone().unwrap_or_else(|| "all".into());
            return Err(Mismatch::Part { stored: show(&self.part), wanted: show(&wanted.part) });
        }
        if self.rid != wanted.rid {
            return Err(Mismatch::MadeAgain(self.source.clone()));
        }
        Ok(())
    }

    /// The positions, one for each physical partition that now lies in a range: partitions that were split since are
    /// read in parallel from where their parent stood.
    ///
    /// # Errors
    /// When a range's bounds are malformed.
    pub fn refined(&self, partitions: &[FeedRange]) -> Result<Vec<(FeedRange, String)>, BadRange> {
        let mut refined = Vec::new();
        for position in &self.ranges {
            let range = FeedRange::parse(&position.min, &position.max).map_err(BadRange)?;
            let parts = partitions.iter().filter_map(|partition| partition.intersection(&range));
            refined.extend(parts.map(|part| (part, position.token.clone())));
        }
        Ok(refined)
    }
}

impl RangePosition {
    /// The position of a span.
    pub fn new(span: &FeedRange, token: String) -> Self {
        Self { min: span.min(), max: span.max(), token }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(mode: FeedMode, part: Option<&str>) -> Checkpoint {
        Checkpoint::fresh("a", "dev/events", "rid", mode, part.map(|p| p.parse().unwrap()), DateTime::default())
    }

    #[test]
    fn a_checkpoint_of_something_else_is_refused_with_the_reason() {
        let own = checkpoint(FeedMode::Latest, None);
        assert_eq!(own.fits(&own), Ok(()));
        let problem = |one: &Checkpoint, wanted: &Checkpoint| one.fits(wanted).unwrap_err().to_string();
        assert!(problem(&own, &checkpoint(FeedMode::AllVersions, None)).contains("bound to its mode"));
        assert!(problem(&own, &checkpoint(FeedMode::Latest, Some("1/2"))).contains("feed range all, not 1/2"));
        let again = Checkpoint { rid: "other".into(), ..own.clone() };
        assert!(problem(&again, &own).contains("made again"));
        let theirs = Checkpoint { follower: "b".into(), ..own.clone() };
        assert!(problem(&theirs, &own).contains("belong to follower \"b\""));
        let newer = Checkpoint { v: 9, ..own.clone() };
        assert!(problem(&newer, &own).contains("format 9"));
        // A checkpoint whose start was never fixed does not bind anybody.
        assert_eq!(own.adopted(&checkpoint(FeedMode::AllVersions, None)).unwrap().mode, FeedMode::AllVersions);
    }

    #[test]
    fn what_was_read_for_something_else_is_lacking_until_the_history_says_so() {
        let ranges = vec![RangePosition { min: String::new(), max: "FF".into(), token: "a".into() }];
        let begun = Checkpoint { ranges, ..checkpoint(FeedMode::AllVersions, None) };
        let to = |history: Option<&str>, from: &Checkpoint| {
            let wanted = Checkpoint { history: history.map(str::to_owned), ..begun.clone() };
            from.clone().adopted(&wanted).unwrap()
        };
        let filtered = to(None, &begun);
        assert_eq!(filtered.lacking, None);
        let whole = to(Some("dev/changes"), &filtered);
        assert_eq!(whole.lacking, Some(UnnotedHole::Perhaps));
        let examined = Checkpoint { lacking: Some(UnnotedHole::After(Some(7))), ..whole };
        assert_eq!(to(Some("dev/changes"), &examined).lacking, Some(UnnotedHole::After(Some(7))));
        let noted = Checkpoint { lacking: None, ..examined };
        assert_eq!(to(Some("dev/changes"), &noted).lacking, None);
        assert_eq!(to(Some("dev/others"), &noted).lacking, Some(UnnotedHole::Perhaps));
        // What another follower of this history was to deliver is not its matter in another one.
        let unless = UnnotedHole::Unless { after: 7, trigger: None };
        let beside = Checkpoint { lacking: Some(unless), began: Some(9), ..noted.clone() };
        assert_eq!(to(Some("dev/changes"), &beside).lacking, Some(unless));
        let elsewhere = to(Some("dev/others"), &beside);
        assert_eq!((elsewhere.lacking, elsewhere.began), (Some(UnnotedHole::Perhaps), None));
        assert!(noted.covers(&noted.source, "dev/changes") && !beside.covers(&beside.source, "dev/changes"));
        assert!(noted.was_there_after(7) && !beside.was_there_after(7) && beside.was_there_after(8));
        // Nothing was read before the first start.
        assert_eq!(to(Some("dev/changes"), &checkpoint(FeedMode::AllVersions, None)).lacking, None);
    }

    #[test]
    fn a_range_that_was_split_goes_on_in_parallel_and_merged_ones_stay_apart() {
        let mut own = checkpoint(FeedMode::Latest, None);
        own.ranges = vec![
            RangePosition { min: String::new(), max: "20".into(), token: "a".into() },
            RangePosition { min: "20".into(), max: "FF".into(), token: "b".into() },
        ];
        let spans = |bounds: &[(&str, &str)]| -> Vec<FeedRange> {
            bounds.iter().map(|(min, max)| FeedRange::parse(min, max).unwrap()).collect()
        };
        let shown = |partitions: &[FeedRange]| -> Vec<String> {
            own.refined(partitions).unwrap().iter().map(|(span, token)| format!("{span} {token}")).collect()
        };
        assert_eq!(shown(&spans(&[("", "10"), ("10", "20"), ("20", "FF")])), ["00-10 a", "10-20 a", "20-FF b"]);
        assert_eq!(shown(&spans(&[("", "FF")])), ["00-20 a", "20-FF b"]);
    }
}
