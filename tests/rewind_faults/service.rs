//! A service that refuses requests for a moment, is unavailable, or whose answers get lost.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Damage, EVERYTHING, fates, report};
use crate::support::{Fault, Kind, Trouble, When};

#[tokio::test]
async fn a_storm_of_429_only_delays_planning_applying_and_undoing() {
    let damage = Damage::done(4).await;
    let proxy = &damage.app.proxy;
    let ids: Vec<String> = damage.good.keys().flat_map(|id| ["--id", id, "--pk", id].map(str::to_owned)).collect();
    for (status, sub) in [(429, 3200), (449, 0)] {
        // The client library retries pages of a query itself, but only for 429.
        let kinds = if status == 429 { &EVERYTHING[..] } else { &EVERYTHING[..4] };
        for all in [true, false] {
            let args = match all {
                true => damage.args(&["--yes"]),
                false => ["restore", "--at", &damage.at, "--no-stamp", "--format", "json", "--yes"]
                    .into_iter()
                    .chain(ids.iter().map(String::as_str))
                    .collect(),
            };
            proxy.storm(kinds, 3, Fault::Reject(status, sub));
            let restored = damage.app.run_through_proxy(&args).await;
            assert_eq!(restored.code, 0, "{restored:?}");
            assert!(proxy.calm() > 60, "no storm");
            let written = if all { 12 } else { 8 };
            assert_eq!(fates(&report(&restored)), BTreeMap::from([("done", written)]));
            let mut expected = damage.good.clone();
            if !all {
                expected.extend(
                    damage.before.iter().filter(|(id, _)| id.starts_with("new")).map(|(i, d)| (i.clone(), d.clone())),
                );
            }
            assert_eq!(damage.live().await, expected);

            let id = report(&restored)["restore"].as_str().unwrap().to_owned();
            proxy.storm(kinds, 3, Fault::Reject(status, sub));
            let undone = damage.app.run_through_proxy(&["undo", &id, "--yes"]).await;
            assert_eq!(undone.code, 0, "{undone:?}");
            assert!(proxy.calm() > 40, "no storm");
            assert_eq!(damage.live().await, damage.before);
        }
    }
}

#[tokio::test]
async fn an_undo_reads_live_documents_together_unless_that_is_refused() {
    let damage = Damage::done(30).await;
    let proxy = &damage.app.proxy;
    let restored = damage.app.run_through_proxy(&damage.args(&["--yes"])).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    let id = report(&restored)["restore"].as_str().unwrap().to_owned();
    // A key that may only read is refused a request that could write. One that is alone when it is sent is read alone,
    // which a busy machine does more often.
    for (refusal, least, most) in [(None, 0, 59), (Some(400), 60, 120), (Some(403), 60, 120)] {
        proxy.refuse_bulk(refusal);
        let before = proxy.reads();
        let planned = damage.app.run_through_proxy(&["undo", &id, "--dry-run", "--format", "json"]).await;
        assert_eq!(planned.code, 0, "{planned:?}");
        let steps = report(&planned)["plan"]["steps"].as_array().unwrap().len();
        let reads = proxy.reads() - before;
        assert!(steps == 90 && (least..=most).contains(&reads), "{refusal:?}: {reads} reads for {steps} steps");
    }
    proxy.refuse_bulk(None);
    assert_eq!(damage.app.run_through_proxy(&["undo", &id, "--yes"]).await.code, 0);
    assert_eq!(damage.live().await, damage.before);
}

#[tokio::test]
async fn what_was_written_is_taken_back_whatever_the_answer_said_of_it() {
    for (status, etags) in [((410, 1002), true), ((413, 3402), true), ((408, 0), true), ((429, 0), false)] {
        let damage = Damage::done(12).await;
        let proxy = &damage.app.proxy;
        proxy.trouble_operations(Some(Trouble { status, carried_out: etags, etags }));
        let restored = damage.app.run_through_proxy(&damage.args(&["--yes"])).await;
        assert_eq!(restored.code, 0, "{status:?}: {restored:?}");
        assert!(proxy.trouble_operations(None) > 20, "{status:?}");
        assert_eq!(fates(&report(&restored)), BTreeMap::from([("done", 36)]), "{status:?}");
        assert_eq!(damage.live().await, damage.good, "{status:?}");
        let id = report(&restored)["restore"].as_str().unwrap().to_owned();
        let undone = damage.app.run_through_proxy(&["undo", &id, "--yes"]).await;
        assert_eq!(undone.code, 0, "{status:?}: {undone:?}");
        assert_eq!(damage.live().await, damage.before, "{status:?}");
    }
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_done_and_can_be_undone() {
    for fault in [Fault::FailAfterWrite, Fault::CutAfterWrite, Fault::Cut] {
        let damage = Damage::done(3).await;
        let proxy = &damage.app.proxy;
        let kinds = [Kind::HistoryWrite, Kind::LiveWrite];
        proxy.storm(&kinds, 1, fault.clone());
        let restored = damage.app.run_through_proxy(&damage.args(&["--yes"])).await;
        assert_eq!(restored.code, 0, "{fault:?}: {restored:?}");
        // Nine documents, and the one version that was not captured yet.
        assert!(proxy.calm() >= 10, "{fault:?}");
        assert_eq!(fates(&report(&restored)), BTreeMap::from([("done", 9)]), "{fault:?}");
        assert_eq!(damage.live().await, damage.good, "{fault:?}");
        let again = damage.app.run(&damage.args(&["--yes"])).await;
        assert_eq!(report(&again)["outcomes"], json!([]), "{fault:?}");

        let id = report(&restored)["restore"].as_str().unwrap().to_owned();
        proxy.storm(&kinds, 1, fault.clone());
        let undone = damage.app.run_through_proxy(&["undo", &id, "--yes", "--format", "json"]).await;
        assert_eq!(undone.code, 0, "{fault:?}: {undone:?}");
        assert!(proxy.calm() >= 9, "{fault:?}");
        assert_eq!(damage.live().await, damage.before, "{fault:?}");
    }
}

/// Restores and undoes while the first attempt of every request of these kinds fails. Asserts that more than
/// `more_than` fail.
async fn storms_change_nothing_else(damage: &Damage, kinds: &[Kind], fault: Fault, more_than: usize) {
    let proxy = &damage.app.proxy;
    proxy.storm(kinds, 1, fault.clone());
    let restored = damage.app.run_through_proxy(&damage.args(&["--yes"])).await;
    assert_eq!(restored.code, 0, "{fault:?}: {restored:?}");
    assert!(proxy.calm() > more_than, "{fault:?}: no storm");
    assert_eq!(fates(&report(&restored)), BTreeMap::from([("done", 6)]), "{fault:?}");
    assert_eq!(damage.live().await, damage.good, "{fault:?}");
    let id = report(&restored)["restore"].as_str().unwrap().to_owned();
    proxy.storm(kinds, 1, fault.clone());
    let undone = damage.app.run_through_proxy(&["undo", &id, "--yes"]).await;
    assert_eq!(undone.code, 0, "{fault:?}: {undone:?}");
    assert!(proxy.calm() > more_than, "{fault:?}: no storm");
    assert_eq!(damage.live().await, damage.before, "{fault:?}");
}

#[tokio::test]
async fn broken_connections_and_short_outages_only_delay() {
    let damage = Damage::done(2).await;
    for fault in [Fault::Cut, Fault::Reject(503, 0), Fault::Reject(408, 0), Fault::Reject(410, 1007)] {
        storms_change_nothing_else(&damage, &EVERYTHING, fault, 10).await;
    }
}

#[tokio::test]
async fn a_gateways_answer_is_not_taken_for_the_services() {
    for (when, status) in
        [(When::Before, 200), (When::Before, 204), (When::Before, 404), (When::After, 200), (When::After, 204)]
    {
        let damage = Damage::done(2).await;
        storms_change_nothing_else(&damage, &EVERYTHING[..4], Fault::Stranger(when, status), 8).await;
    }
}

#[tokio::test]
async fn an_empty_answer_from_a_gateway_does_not_end_a_query() {
    let damage = Damage::done(2).await;
    let proxy = &damage.app.proxy;
    for status in [200, 204] {
        proxy.storm(&[Kind::Query], 1, Fault::Stranger(When::Before, status));
        let found = damage.app.run_through_proxy(&["query", "SELECT c.id FROM c"]).await;
        proxy.calm();
        assert_eq!(found.code, 1, "{found:?}");
        proxy.storm(&[Kind::Query], 1, Fault::Stranger(When::Before, status));
        let out = format!("{status}.jsonl");
        let written = damage.app.run_through_proxy(&["backup", "--all", "--out", &out]).await;
        assert!(proxy.calm() > 0, "no storm");
        assert_eq!(written.code, 0, "{written:?}");
        let text = std::fs::read_to_string(damage.app.folder.path().join(out)).unwrap();
        assert_eq!(text.lines().count(), damage.before.len() + 1, "documents and the trailer");
    }
}
