//! Which versions stay, and what remains of those that are removed.

#![cfg(test)]

use proptest::prelude::*;
use serde_json::json;

use super::{KeepReason, Policy, ROUNDS, RetentionPlan};
use crate::{
    change::{Op, time::PointInTime, version::Version},
    history::as_of::{Caveat, State, as_of},
};

const DAY: i64 = 86_400;
/// 2026-11-20T15:00:00Z.
const NOW: i64 = 1_795_186_800;

fn version(op: &str, ts: i64, lsn: i64) -> Version {
    let record =
        json!({"id": format!("a~{lsn}"), "_originalId": "a", "_change": {"v": 1, "op": op, "ts": ts, "lsn": lsn}});
    Version::parse(&record.to_string()).unwrap()
}

fn reasons(policy: Policy, versions: &[Version]) -> Vec<&'static str> {
    policy.at(NOW).decide(versions).into_iter().map(|r| r.map_or("-", KeepReason::name)).collect()
}

#[test]
fn a_window_keeps_what_was_in_force_when_it_began() {
    let week = Policy { within: 7 * DAY, ..Policy::default() };
    let life = [
        version("create", NOW - 30 * DAY, 1),
        version("replace", NOW - 20 * DAY, 2),
        version("replace", NOW - 10 * DAY, 3),
        version("replace", NOW - 7 * DAY, 4),
        version("replace", NOW - DAY, 5),
    ];
    assert_eq!(reasons(week, &life), ["-", "-", "-", "window", "window"], "it began with a version");
    assert_eq!(reasons(week, &life[..3]), ["-", "-", "in-force"]);
    assert_eq!(reasons(week, &[life[0].clone(), life[1].clone(), life[4].clone()]), ["-", "in-force", "window"]);
    assert_eq!(reasons(week, &[]), [""; 0]);
}

#[test]
fn days_and_months_end_in_utc() {
    let policy = Policy { within: DAY, daily: Some(3 * DAY), monthly: Some(70 * DAY), drop_deleted: false };
    let points: Vec<String> = policy.at(NOW).points().map(|t| PointInTime::from_epoch(t).to_string()).collect();
    assert_eq!(
        points,
        ["2026-09-30T23:59:59Z", "2026-10-31T23:59:59Z", "2026-11-17T23:59:59Z", "2026-11-18T23:59:59Z",]
    );
    assert_eq!(policy.at(NOW).earliest(), policy.at(NOW).points().next().unwrap());
    // An endless span must not panic.
    let endless = Policy { within: i64::MAX, daily: Some(i64::MAX), monthly: Some(i64::MIN), drop_deleted: true };
    assert_eq!(endless.at(NOW).points().count(), 0);
}

#[test]
fn a_creation_never_pretends_that_there_was_nothing_before() {
    let week = Policy { within: 7 * DAY, ..Policy::default() };
    let reborn = [
        version("create", NOW - 30 * DAY, 1),
        version("delete", NOW - 20 * DAY, 2),
        version("create", NOW - 10 * DAY, 3),
    ];
    assert_eq!(reasons(week, &reborn), ["-", "marker", "in-force"]);
    assert_eq!(reasons(week, &reborn[1..]), ["marker", "in-force"]);
    assert_eq!(reasons(week, &reborn[2..]), ["in-force"]);
}

#[test]
fn a_delete_stays_beside_the_creation_that_follows_it() {
    let days = Policy { within: 7 * DAY, daily: Some(60 * DAY), ..Policy::default() };
    // Three lives begin within one day.
    let born = |ago: i64, lsn| version("create", NOW - ago, lsn);
    let died = |ago: i64, lsn| version("delete", NOW - ago, lsn);
    let life = [
        born(30 * DAY, 1),
        died(29 * DAY, 2),
        born(20 * DAY + 500, 3),
        died(20 * DAY + 400, 4),
        born(20 * DAY + 300, 5),
        died(20 * DAY + 200, 6),
        born(20 * DAY + 100, 7),
    ];
    assert_eq!(reasons(days, &life), ["day", "day", "marker", "-", "-", "marker", "in-force"]);
}

#[test]
fn what_was_in_force_at_a_kept_instant_is_still_sure_when_the_id_was_made_again() {
    let days = Policy { within: 7 * DAY, daily: Some(60 * DAY), ..Policy::default() };
    let of = |life, op, ago: i64, lsn| Version { life: Some(life), ..version(op, NOW - ago, lsn) };
    // Of the second life, no version is in force at the end of a day.
    let (born, died) = (of(1, "create", 30 * DAY, 1), of(1, "delete", 20 * DAY + 400, 2));
    let (again, gone) = (of(2, "create", 20 * DAY + 300, 3), of(2, "delete", 20 * DAY + 200, 4));
    let life = [born, died, again, gone, of(3, "create", 20 * DAY + 100, 5)];
    assert_eq!(reasons(days, &life), ["day", "marker", "marker", "marker", "in-force"]);
    // A latest-version feed delivers no deletes: the last version of the first life says as much.
    let changed = |life, ago, lsn| of(life, "upsert", ago, lsn);
    let life = [changed(1, 30 * DAY, 1), changed(1, 20 * DAY + 400, 2), changed(2, 20 * DAY + 100, 3)];
    assert_eq!(reasons(days, &life), ["day", "marker", "in-force"]);
    let life = [changed(1, 30 * DAY, 1), changed(1, 20 * DAY + 400, 2), changed(1, 20 * DAY + 100, 3)];
    assert_eq!(reasons(days, &life), ["day", "-", "in-force"]);
}

#[test]
fn a_document_that_is_long_gone_is_forgotten_only_on_demand() {
    let gone = [version("create", NOW - 30 * DAY, 1), version("delete", NOW - 20 * DAY, 2)];
    let week = Policy { within: 7 * DAY, ..Policy::default() };
    assert_eq!(reasons(week, &gone), ["-", "in-force"]);
    assert_eq!(reasons(Policy { drop_deleted: true, ..week }, &gone), ["-", "-"]);
    let month = Policy { within: 7 * DAY, daily: Some(25 * DAY), drop_deleted: true, ..week };
    assert_eq!(reasons(month, &gone), ["day", "in-force"], "the last days of its life are kept");
}

/// The answer of a restore, by the simplest model: it plays the versions in order and stops.
#[derive(Debug, PartialEq)]
enum Answer {
    Document(String),
    Nothing,
    Unknown,
}

fn played(versions: &[Version], at: i64) -> Answer {
    let mut ordered: Vec<&Version> = versions.iter().collect();
    ordered.sort_by(|a, b| a.position().cmp(&b.position()));
    let first_is_creation = ordered.first().is_some_and(|v| v.op == Some(Op::Create));
    let mut answer = if first_is_creation { Answer::Nothing } else { Answer::Unknown };
    for version in ordered.into_iter().filter(|v| v.ts <= at) {
        let gone = version.op.is_some_and(Op::is_tombstone);
        answer = if gone { Answer::Nothing } else { Answer::Document(version.record_id.clone()) };
    }
    answer
}

fn answered(versions: &[Version], at: i64) -> Answer {
    let found = as_of(versions, PointInTime::from_epoch(at));
    match found.state {
        State::Document(v) => Answer::Document(v.record_id.clone()),
        State::Deleted(_) => Answer::Nothing,
        _ if found.created_later() => Answer::Nothing,
        State::NotYet { .. } | State::Empty => Answer::Unknown,
    }
}

fn life() -> impl Strategy<Value = Vec<Version>> {
    let op = prop_oneof![Just("create"), Just("replace"), Just("delete"), Just("upsert"), Just("baseline")];
    // Within a hundred days, often in the same second, often at the edge of a day.
    let ago = prop_oneof![0..100 * DAY, (0..100i64).prop_map(|d| d * DAY), (0..100i64).prop_map(|d| d * DAY + 54_001)];
    proptest::collection::vec((ago, op), 0..14)
        .prop_map(|all| (0..).zip(all).map(|(lsn, (ago, op))| version(op, NOW - ago, lsn)).collect())
}

fn policy() -> impl Strategy<Value = Policy> {
    let span = |most: i64| proptest::option::of(0..most * DAY);
    (0..60 * DAY, span(80), span(120), any::<bool>()).prop_map(|(within, daily, monthly, drop_deleted)| Policy {
        within,
        daily,
        monthly,
        drop_deleted,
    })
}

/// Successive lives of one document, as the feed of all versions delivers them.
fn lives() -> impl Strategy<Value = Vec<Version>> {
    let ago = prop_oneof![0..100 * DAY, 20 * DAY..20 * DAY + 50];
    proptest::collection::vec((ago, 0..3u8), 0..20).prop_map(|mut all| {
        all.sort_by_key(|(ago, _)| -ago);
        let (mut before, mut life) = (None, 0);
        let mut next = |(lsn, (ago, kind)): (i64, (i64, u8))| {
            let op = match (before, kind) {
                (None, _) => "create",
                (_, 0) => "delete",
                _ => "replace",
            };
            life += u64::from(op == "create");
            let one = Version { prev_lsn: before, life: Some(life), ..version(op, NOW - ago, lsn) };
            before = (op != "delete").then_some(lsn);
            one
        };
        (1..).zip(all).map(&mut next).collect()
    })
}

proptest! {
    #[test]
    fn every_kept_instant_has_the_same_answer_afterwards(
        versions in life(), policy in policy(), more in proptest::collection::vec(0..100 * DAY, 20),
    ) {
        let kept = policy.at(NOW);
        let decided = kept.decide(&versions);
        let left: Vec<Version> =
            versions.iter().zip(&decided).filter(|(_, r)| r.is_some()).map(|(v, _)| v.clone()).collect();
        let forgotten = left.is_empty();
        if forgotten && !versions.is_empty() {
            prop_assert!(policy.drop_deleted);
            prop_assert_eq!(played(&versions, kept.earliest()), Answer::Nothing);
            prop_assert_eq!(played(&versions, NOW), Answer::Nothing);
            return Ok(());
        }
        // Each second of the window in which anything happened, its neighbours, and the kept points.
        let edges = versions.iter().flat_map(|v| [v.ts - 1, v.ts, v.ts + 1]);
        let window: Vec<i64> = edges.clone()
            .chain([kept.window, NOW]).chain(more.iter().map(|ago| NOW - ago))
            .filter(|t| *t >= kept.window).collect();
        for at in window.into_iter().chain(kept.points()) {
            // What was unknown may not become known, nor anything become different.
            prop_assert_eq!(answered(&left, at), played(&versions, at), "{} of {:?}", at, decided);
        }
        // Before that: never `nothing` where there was something.
        for at in edges.chain(more.iter().map(|ago| NOW - ago)) {
            let existed = matches!(played(&versions, at), Answer::Document(_));
            let first = left.iter().map(|v| v.ts).min().unwrap_or(i64::MAX);
            if existed && at < first {
                prop_assert_eq!(answered(&left, at), Answer::Unknown);
            }
        }
    }

    /// Pruning twice removes nothing more; a prune that was interrupted anywhere is finished by the next; and what it
    /// leaves behind until then denies nothing.
    #[test]
    fn running_it_again_finishes_it(
        versions in life(), policy in policy(), reached in 0..ROUNDS, done in any::<u16>(),
    ) {
        let kept = policy.at(NOW);
        let decided = kept.decide(&versions);
        let rounds = RetentionPlan::rounds(&versions, &decided);
        let gone = |n: usize| rounds[n].is_some_and(|r| r < reached || (r == reached && done & (1 << n) != 0));
        let half: Vec<Version> = (0..versions.len()).filter(|n| !gone(*n)).map(|n| versions[n].clone()).collect();
        let first = half.iter().map(|v| v.ts).min().unwrap_or(i64::MIN);
        for at in versions.iter().flat_map(|v| [v.ts - 1, v.ts]).filter(|at| *at < first) {
            if matches!(played(&versions, at), Answer::Document(_)) {
                prop_assert_eq!(answered(&half, at), Answer::Unknown, "{} of {:?}", at, rounds);
            }
        }
        let again = kept.decide(&half);
        let left: Vec<&str> =
            half.iter().zip(&again).filter(|(_, r)| r.is_some()).map(|(v, _)| v.record_id.as_str()).collect();
        let expected: Vec<&str> =
            versions.iter().zip(&decided).filter(|(_, r)| r.is_some()).map(|(v, _)| v.record_id.as_str()).collect();
        prop_assert_eq!(left, expected);
    }

    /// At no instant does what remains of a life, or what an interrupted prune leaves behind, deny a document that
    /// existed.
    #[test]
    fn what_is_left_denies_no_document(
        versions in lives(), policy in policy(), reached in 0..=ROUNDS, done in any::<u32>(),
    ) {
        let kept = Policy { drop_deleted: false, ..policy }.at(NOW);
        let decided = kept.decide(&versions);
        let rounds = RetentionPlan::rounds(&versions, &decided);
        let gone = |n: usize| rounds[n].is_some_and(|r| r < reached || (r == reached && done & (1 << n) != 0));
        let left: Vec<Version> = (0..versions.len()).filter(|n| !gone(*n)).map(|n| versions[n].clone()).collect();
        for at in versions.iter().flat_map(|v| [v.ts - 1, v.ts]).chain(kept.points()) {
            let found = as_of(&left, PointInTime::from_epoch(at));
            let is_kept = at >= kept.window || kept.points().any(|point| point == at);
            if is_kept {
                prop_assert_eq!(found.remade(), None, "{} of {:?}: {:?}", at, decided, rounds);
            }
            let denied = match found.state {
                State::Deleted(_) => !found.caveats.iter().any(|caveat| matches!(caveat, Caveat::Gap { .. })),
                _ => found.created_later(),
            };
            if matches!(played(&versions, at), Answer::Document(_)) {
                prop_assert!(!denied, "{} of {:?}: {:?}", at, decided, rounds);
            } else if is_kept {
                prop_assert!(denied || versions.is_empty(), "{} of {:?}: {:?}", at, decided, rounds);
            }
        }
    }
}
