//! What has become of the time before a follower began, of which other readers were to deliver the changes.
//!
//! Nothing in a history looks missing when they never do: its versions go on with what the follower delivers.

use std::collections::BTreeMap;

use super::probing::Group;
use crate::{
    follow::Checkpoint,
    history::{
        frontier::{Fate, Part},
        removals::{Gap, Hole},
    },
};

/// Where the readers of a part of the key space stand.
#[derive(Debug, Default)]
pub(super) struct Standing<'r> {
    /// What each says; `None` when nothing is known from it.
    pub(super) groups: BTreeMap<&'r Group, Option<Part>>,
    /// Those that may say more another time, with the second of the last change that they have certainly delivered.
    pub(super) unasked: BTreeMap<&'r Group, Option<i64>>,
}

impl Standing<'_> {
    /// Whether the trigger delivers every version, whichever functions write this history.
    pub(super) fn has_trigger(&self) -> bool {
        let mut leases = self.groups.iter().filter(|(group, _)| matches!(group, Group::Lease(_))).peekable();
        leases.peek().is_some() && leases.all(|(_, part)| part.as_ref().is_some_and(|part| part.sees_deletes))
    }
}

/// The gaps of a history, and the readers that may have stood there.
pub(super) struct Gaps<'f> {
    followers: &'f [Checkpoint],
    /// When the trigger began.
    begun: Option<i64>,
    found: Vec<Found>,
}

struct Found {
    gap: Gap,
    fate: Fate,
    /// Whether the history proves nothing about it.
    is_blind: bool,
}

impl<'f> Gaps<'f> {
    /// These gaps, before any reader was asked.
    pub(super) fn of(gaps: &[Gap], followers: &'f [Checkpoint], begun: Option<i64>) -> Self {
        let found = gaps.iter().map(|gap| Found { gap: *gap, fate: Fate::Delivered, is_blind: false });
        Self { followers, begun, found: found.collect() }
    }

    /// What has become of each in a part of the key space.
    pub(super) fn fates(&self, standing: &Standing<'_>) -> Vec<Fate> {
        self.found.iter().map(|found| fate(&found.gap, standing, self.followers, self.begun)).collect()
    }

    /// Adds what has become of each in a part of the key space, and that part of the frontier.
    pub(super) fn add(&mut self, fates: Vec<Fate>, chosen: &Part) {
        for (found, fate) in self.found.iter_mut().zip(fates) {
            // A reader that is behind may have been overtaken: then the frontier does not wait for it.
            let is_ahead = chosen.until.is_some_and(|until| until.seconds() >= found.gap.before.saturating_sub(1));
            found.is_blind |= match fate {
                Fate::Delivered => false,
                Fate::Awaited => is_ahead,
                Fate::Unknown | Fate::Lost => true,
            };
            found.fate = found.fate.max(fate);
        }
    }

    /// What has become of each, and the times about which the history proves nothing.
    pub(super) fn end(self) -> (Vec<(Gap, Fate)>, Vec<Hole>) {
        let blind = self.found.iter().filter(|found| found.is_blind).map(|found| found.gap.hole()).collect();
        (self.found.into_iter().map(|found| (found.gap, found.fate)).collect(), blind)
    }
}

/// What has become of a gap in a part of the key space.
fn fate(gap: &Gap, standing: &Standing<'_>, followers: &[Checkpoint], begun: Option<i64>) -> Fate {
    let fate_by = |group: &Group| match (standing.groups.get(group), standing.unasked.get(group)) {
        (Some(Some(part)), _) if part.sees_deletes => match part.until {
            // It has the last second of the gap.
            Some(until) if until.seconds() >= gap.before.saturating_sub(1) => Fate::Delivered,
            Some(_) => Fate::Awaited,
            None => Fate::Lost,
        },
        (_, Some(Some(delivered))) if *delivered >= gap.before => Fate::Delivered,
        (_, Some(_)) => Fate::Unknown,
        _ => Fate::Lost,
    };
    let was_there = |name: &str| {
        let mut own = followers.iter().filter(|other| other.follower == name);
        own.all(|other| other.was_there_after(gap.after))
    };
    let names = followers.iter().map(|other| other.follower.as_str()).filter(|name| was_there(name));
    let by_follower = names.map(|name| fate_by(&Group::Follower(name.to_owned()))).min();
    // Nobody knows which functions write this history: the one that is furthest behind decides.
    let is_same = begun.is_some() && gap.trigger == begun;
    let leases = standing.groups.keys().filter(|group| is_same && matches!(group, Group::Lease(_)));
    let by_trigger = leases.map(|group| fate_by(group)).max();
    by_follower.into_iter().chain(by_trigger).min().unwrap_or(Fate::Lost)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use chrono::DateTime;

    use super::*;
    use crate::{
        change::time::PointInTime,
        cosmos::{FeedMode, FeedRange},
        history::frontier::{Evidence, Waiting},
    };

    fn part(until: i64) -> Part {
        Part {
            range: FeedRange::full(),
            until: Some(PointInTime::from_epoch(until)),
            evidence: Evidence::NewestVersion,
            sees_deletes: true,
            waiting: Waiting::These(HashMap::new()),
            next: None,
        }
    }

    fn follower(name: &str, began: Option<i64>) -> Checkpoint {
        let new = Checkpoint::fresh(name, "dev/events", "rid", FeedMode::AllVersions, None, DateTime::default());
        Checkpoint { began, ..new }
    }

    #[test]
    fn a_gap_is_left_to_readers_that_stood_there() {
        let (first, second, third) =
            (follower("first", None), follower("second", Some(20)), follower("third", Some(9)));
        let groups = ["first", "second", "third"].map(|name| Group::Follower(name.to_owned()));
        let lease = Group::Lease("function".to_owned());
        let gap = Gap { after: 10, before: 20, trigger: Some(5) };
        let fate_of = |followers: &[Checkpoint], begun, parts: [Option<i64>; 3], trigger: Option<i64>| {
            let mut standing = Standing::default();
            for (group, until) in groups.iter().zip(parts) {
                standing.groups.insert(group, until.map(part));
            }
            standing.groups.insert(&lease, trigger.map(part));
            fate(&gap, &standing, followers, begun)
        };
        let (two, all) = ([first.clone(), second.clone()], [first, second, third]);
        assert_eq!(fate_of(&two, None, [Some(12), Some(40), None], None), Fate::Awaited);
        assert_eq!(fate_of(&two, None, [Some(19), Some(40), None], None), Fate::Delivered);
        // The second one began with the end of the gap.
        assert_eq!(fate_of(&two, None, [None, Some(40), None], None), Fate::Lost);
        assert_eq!(fate_of(&all, None, [None, Some(40), Some(19)], None), Fate::Delivered);
        // The trigger is another one once its leases were made anew.
        assert_eq!(fate_of(&two, Some(5), [None, Some(40), None], Some(40)), Fate::Delivered);
        assert_eq!(fate_of(&two, Some(30), [None, Some(40), None], Some(40)), Fate::Lost);
        assert_eq!(fate_of(&two, Some(5), [None, Some(40), None], None), Fate::Lost);
        assert_eq!(fate_of(&two, None, [None, Some(40), None], Some(40)), Fate::Lost);
    }

    #[test]
    fn a_gap_is_a_blind_spot_unless_the_frontier_stands_before_it() {
        let (followers, group) = ([follower("first", None)], Group::Follower("first".to_owned()));
        let gap = Gap { after: 10, before: 20, trigger: None };
        let looked = |until: Option<i64>, unasked: Option<Option<i64>>, chosen: i64| {
            let mut gaps = Gaps::of(&[gap], &followers, None);
            let mut standing = Standing { groups: [(&group, until.map(part))].into(), ..Standing::default() };
            standing.unasked.extend(unasked.map(|delivered| (&group, delivered)));
            gaps.add(gaps.fates(&standing), &part(chosen));
            let (fates, blind) = gaps.end();
            (fates[0].1, !blind.is_empty())
        };
        assert_eq!(looked(Some(12), None, 12), (Fate::Awaited, false));
        assert_eq!(looked(Some(12), None, 40), (Fate::Awaited, true));
        assert_eq!(looked(Some(30), None, 40), (Fate::Delivered, false));
        assert_eq!(looked(None, None, 40), (Fate::Lost, true));
        assert_eq!(looked(None, Some(None), 40), (Fate::Unknown, true));
        assert_eq!(looked(None, Some(Some(20)), 40), (Fate::Delivered, false));
    }
}
