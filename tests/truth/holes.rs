//! Histories with holes that leave no trace in the records: a missing change does not prove that nothing happened.

use cosmos_rewind::{
    change::{key::PartitionKey, time::PointInTime, version::Version},
    history::{frontier::Reach, known::Facts, live::Live},
    restore::plan::{Action, StepRules, decide},
};
use serde_json::{Value, json};

use super::captured::{Captured, action, delete_positions, next_second};
use crate::support::{Output, TestApp};

async fn plan(world: &Captured, at: &str, more: &[&str]) -> Output {
    world.run(&[&["restore", "--all", "--at", at, "--dry-run", "--format", "json"], more].concat()).await
}

/// Asserts that every command reports the document's state as unknown, and the number of such documents.
async fn nobody_knows(world: &Captured, id: &str, at: &str, unknown: u32) {
    let planned = plan(world, at, &["--delete-newer=9"]).await;
    assert_eq!((planned.code, action(&planned, id)), (3, "unknown".to_owned()), "{planned:?}");
    let planned = plan(world, at, &[]).await;
    assert_eq!((planned.code, action(&planned, id)), (3, "unknown".to_owned()), "{planned:?}");
    let saved = world.run(&["backup", "--all", "--at", at, "--out", "then.jsonl", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&saved.stdout).unwrap();
    assert_eq!((saved.code, &report["documents"], &report["unknown"]), (3, &json!(0), &json!(unknown)), "{saved:?}");
    let shown = world.run(&["show", "--id", id, "--pk", "p", "--at", at, "--format", "json"]).await;
    let doubt = serde_json::from_str::<Value>(&shown.stdout).unwrap()["doubt"].take();
    assert!(shown.code == 1 && doubt.as_str().is_some_and(|doubt| doubt.contains("not known")), "{shown:?}");
    let mut program = world.app.start_program(&["at", at]);
    program.line().await;
    let loaded: Value = serde_json::from_str(&program.line().await).unwrap();
    assert_eq!((&loaded["documents"], &loaded["unknown"]), (&json!(0), &json!(unknown)), "{loaded}");
}

#[tokio::test]
async fn a_creation_proves_nothing_about_the_time_before_capture() {
    let world = Captured { app: TestApp::start().await, mode: "all-versions" };
    world.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    let before = next_second().await.to_string();
    next_second().await;
    world.delete("a", "p").await;
    world.capture().await;
    next_second().await;
    world.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    let between = next_second().await.to_string();
    next_second().await;
    world.put(json!({"id": "b", "pk": "q", "n": 1})).await;
    world.capture().await;
    nobody_knows(&world, "a", &before, 2).await;
    // From the first captured change on, a creation does prove that the document did not exist before.
    let planned = plan(&world, &between, &["--delete-newer=9"]).await;
    assert_eq!((planned.code, action(&planned, "b")), (0, "delete".to_owned()), "{planned:?}");
}

#[tokio::test]
async fn a_delete_proves_nothing_about_what_latest_mode_left_out() {
    let world = Captured::start("all-versions").await;
    world.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    next_second().await;
    world.delete("a", "p").await;
    world.capture().await;
    next_second().await;
    world.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    let at = next_second().await.to_string();
    next_second().await;
    world.put(json!({"id": "a", "pk": "p", "n": 3})).await;
    let world = Captured { mode: "latest", ..world };
    let latest = ["follow", "--name", "latest", "--from", "beginning", "--until-caught-up"];
    assert_eq!(world.run(&latest).await.code, 0);
    nobody_knows(&world, "a", &at, 1).await;
    let told = world.run(&["show", "--id", "a", "--pk", "p", "--at", &at]).await;
    assert!(told.stderr.contains("latest-version mode"), "{told:?}");
}

#[test]
fn a_delete_proves_nothing_about_an_earlier_container() {
    // The first resource id belongs to an earlier container, in which the document may have been recreated at the end.
    let rids = ["47UeAPmUTk0GEQAAAAAAAA==", "47UeAPmUTk4GEQAAAAAAAA=="];
    let record = |op: &str, ts: i64, rid: &str| {
        let change = json!({"v": 1, "op": op, "ts": ts, "lsn": ts, "etag": ts.to_string(), "rid": rid});
        Version::parse(&json!({"id": format!("a~{ts}"), "_originalId": "a", "_change": change}).to_string()).unwrap()
    };
    let item = cosmos_rewind::change::key::ItemKey { id: "a".into(), partition_key: PartitionKey::parse("p").unwrap() };
    let live = Live { etag: "30".into(), ts: Some(30), text: None };
    for (rid, expected) in [(rids[0], Action::Unknown), (rids[1], Action::Delete)] {
        let versions = [record("create", 10, rid), record("delete", 20, rid), record("create", 30, rids[1])];
        let facts = Facts {
            versions: &versions,
            unkeyed: &[],
            target: Some(&live),
            source: Some(&live),
            reach: Reach::ALL,
            lost: None,
        };
        let container = versions[2].container;
        let rules = StepRules { delete_newer: true, container, ..StepRules::at(PointInTime::from_epoch(25)) };
        let step = decide(&item, facts, rules);
        assert_eq!(step.action, expected, "{:?}", step.notes);
    }
}

#[tokio::test]
async fn a_follower_that_began_later_proves_nothing_about_the_time_before() {
    let world = Captured::start("all-versions").await;
    for id in ["a", "d"] {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    next_second().await;
    world.delete("a", "p").await;
    world.capture().await;
    next_second().await;
    // Neither follower delivers these changes.
    world.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    world.delete("d", "p").await;
    let at = next_second().await.to_string();
    next_second().await;
    world.delete("a", "p").await;
    world.put(json!({"id": "a", "pk": "p", "n": 3})).await;
    let second =
        async || world.run(&["follow", "--name", "second", "--mode", "all-versions", "--until-caught-up"]).await.code;
    assert_eq!(second().await, 0);
    world.put(json!({"id": "c", "pk": "p", "n": 1})).await;
    assert_eq!(second().await, 0);
    nobody_knows(&world, "a", &at, 2).await;
    // Once the first follower has delivered them, everything is known again.
    world.capture().await;
    world.put(json!({"id": "c", "pk": "p", "n": 2})).await;
    assert_eq!(second().await, 0);
    let planned = plan(&world, &at, &["--delete-newer=9"]).await;
    assert_eq!((planned.code, action(&planned, "a"), action(&planned, "c")), (0, "restore".into(), "delete".into()));
    assert_eq!(action(&planned, "d"), "keep", "{planned:?}");
}

/// No record tells of a document from before capture that nobody saved and that went while nobody captured.
#[tokio::test]
async fn a_creation_after_a_hole_proves_nothing_about_documents_from_before_capture() {
    let app = TestApp::start().await;
    for id in ["old", "never"] {
        app.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    let world = Captured::with(app, "all-versions").await;
    world.put(json!({"id": "first", "pk": "p", "n": 1})).await;
    world.capture().await;
    let at = next_second().await.to_string();
    next_second().await;
    delete_positions(&world.app, "true").await;
    for id in ["old", "never", "first"] {
        world.delete(id, "p").await;
    }
    next_second().await;
    world.capture().await;
    world.put(json!({"id": "old", "pk": "p", "n": 2})).await;
    world.capture().await;
    nobody_knows(&world, "old", &at, 2).await;
    let planned = plan(&world, &at, &[]).await;
    assert!(planned.stderr.contains("others may have existed"), "{planned:?}");
    // After the hole a creation does prove it.
    let after = next_second().await.to_string();
    next_second().await;
    world.put(json!({"id": "new", "pk": "p", "n": 1})).await;
    world.capture().await;
    let planned = plan(&world, &after, &["--delete-newer=9"]).await;
    assert_eq!(action(&planned, "new"), "delete", "{planned:?}");
    assert!(!planned.stderr.contains("others may have existed"), "{planned:?}");
}

/// Not even when nothing has changed since, so that no version shows when capture began.
#[tokio::test]
async fn readers_that_have_delivered_nothing_prove_nothing_about_the_time_before() {
    let app = TestApp::start().await;
    for id in ["gone", "stays"] {
        app.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    let at = next_second().await.to_string();
    next_second().await;
    app.events().await.delete(&PartitionKey::parse("p").unwrap(), "gone", None).await.unwrap();
    next_second().await;
    let world = Captured::with(app, "all-versions").await;
    let planned = plan(&world, &at, &["--delete-newer"]).await;
    assert_eq!((planned.code, action(&planned, "stays")), (0, "keep".into()), "{planned:?}");
    assert!(planned.stderr.contains("others may have existed"), "{planned:?}");
}
