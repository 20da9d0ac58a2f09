//! Deletes that nobody captured: a reader lost its position and started over, so nothing in the history shows the hole.

use serde_json::{Value, json};

use super::captured::{Captured, action, delete_positions, next_second};
use crate::support::Output;

/// Deletes the follower's checkpoint, as if the lease container had been recreated.
pub(super) async fn forget(world: &Captured) {
    delete_positions(&world.app, "true").await;
}

/// Deletes `lost` while nothing captures, and `kept` after capture has caught up again.
async fn lives(world: &Captured) -> String {
    for id in ["lost", "kept", "waits"] {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    world.capture().await;
    next_second().await;
    forget(world).await;
    world.delete("lost", "p").await;
    let at = next_second().await.to_string();
    next_second().await;
    world.capture().await;
    world.put(json!({"id": "later", "pk": "p", "n": 1})).await;
    world.delete("kept", "p").await;
    world.capture().await;
    next_second().await;
    // This delete still waits in the feed, which tells its time.
    world.delete("waits", "p").await;
    at
}

#[tokio::test]
async fn a_document_with_an_uncaptured_delete_is_not_claimed_to_have_existed() {
    let world = Captured::start("all-versions").await;
    let at = lives(&world).await;
    let planned = world.run(&["restore", "--all", "--at", &at, "--dry-run", "--format", "json"]).await;
    let actions = ["lost", "kept", "waits"].map(|id| action(&planned, id));
    assert_eq!((planned.code, actions), (3, ["unknown", "recreate", "recreate"].map(String::from)), "{planned:?}");
    assert!(planned.stdout.contains("its delete was not captured"), "{planned:?}");
    // An explicit request overrides the doubt.
    for more in [&["--all", "--recreate-deleted"][..], &["--id", "lost", "--pk", "p"]] {
        let args = [&["restore", "--at", &at, "--dry-run", "--format", "json"], more].concat();
        let planned = world.run(&args).await;
        // `later` may have had another life before, of which nobody captured anything.
        let code = if more.contains(&"--all") { 3 } else { 0 };
        assert_eq!((planned.code, action(&planned, "lost")), (code, "recreate".to_owned()), "{planned:?}");
        assert!(planned.stdout.contains("its delete was not captured"), "{planned:?}");
    }
    let saved = world.run(&["backup", "--all", "--at", &at, "--out", "then.jsonl", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&saved.stdout).unwrap();
    assert_eq!((saved.code, &report["documents"], &report["unknown"]), (3, &json!(2), &json!(2)), "{saved:?}");
    let shown = world.run(&["show", "--id", "lost", "--pk", "p", "--at", &at, "--format", "json"]).await;
    let doubt = serde_json::from_str::<Value>(&shown.stdout).unwrap()["doubt"].take();
    assert!(doubt.as_str().is_some_and(|doubt| doubt.contains("not captured")), "{shown:?}");
    let mut program = world.app.start_program(&["at", &at]);
    program.line().await;
    let loaded: Value = serde_json::from_str(&program.line().await).unwrap();
    assert_eq!((&loaded["documents"], &loaded["unknown"]), (&json!(2), &json!(2)), "{loaded}");
}

#[tokio::test]
async fn a_document_deleted_while_latest_mode_captured_is_not_claimed_to_have_existed() {
    let world = Captured::start("all-versions").await;
    world.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    world.capture().await;
    next_second().await;
    forget(&world).await;
    world.delete("a", "p").await;
    let world = Captured { mode: "latest", ..world };
    world.capture().await;
    let at = next_second().await.to_string();
    next_second().await;
    forget(&world).await;
    let world = Captured { mode: "all-versions", ..world };
    world.capture().await;
    world.put(json!({"id": "later", "pk": "p", "n": 1})).await;
    world.capture().await;
    let planned = world.run(&["restore", "--all", "--at", &at, "--dry-run", "--format", "json"]).await;
    assert_eq!((planned.code, action(&planned, "a")), (3, "unknown".to_owned()), "{planned:?}");
}

#[tokio::test]
async fn a_recreated_container_has_no_document_of_the_earlier_one() {
    let world = Captured::start("all-versions").await;
    let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
    for id in ["only-before", "in-both"] {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    world.capture().await;
    let before = next_second().await.to_string();
    next_second().await;
    assert!(world.app.local.delete_container("dev", "events").await.unwrap());
    assert!(world.app.local.create_container("dev", json!({"id": "events", "partitionKey": key})).await.unwrap());
    let follow = ["follow", "--name", "second", "--mode", "all-versions", "--until-caught-up"];
    assert_eq!(world.run(&follow).await.code, 0);
    world.put(json!({"id": "first", "pk": "p", "n": 1})).await;
    let at = next_second().await.to_string();
    next_second().await;
    world.put(json!({"id": "in-both", "pk": "p", "n": 2})).await;
    assert_eq!(world.run(&follow).await.code, 0);
    let plan = async |at: &str| world.run(&["restore", "--all", "--at", at, "--dry-run", "--format", "json"]).await;
    // The first write to today's container shows that the earlier one was gone by then.
    let planned = plan(&at).await;
    let actions = ["only-before", "in-both", "first"].map(|id| action(&planned, id));
    assert_eq!((planned.code, actions), (3, ["unknown", "unknown", "keep"].map(String::from)), "{planned:?}");
    assert!(planned.stdout.contains("its container was deleted, and made again before"), "{planned:?}");
    for id in ["only-before", "in-both"] {
        let shown = world.run(&["show", "--id", id, "--pk", "p", "--at", &at, "--format", "json"]).await;
        let doubt = serde_json::from_str::<Value>(&shown.stdout).unwrap()["doubt"].take();
        assert!(doubt.as_str().is_some_and(|doubt| doubt.contains("made again")), "{shown:?}");
    }
    let saved = world.run(&["backup", "--all", "--at", &at, "--out", "then.jsonl", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&saved.stdout).unwrap();
    assert_eq!((saved.code, &report["documents"], &report["unknown"]), (3, &json!(1), &json!(2)), "{saved:?}");
    // Before that, the documents existed.
    let planned = plan(&before).await;
    let actions = ["only-before", "in-both"].map(|id| action(&planned, id));
    assert_eq!(actions, ["recreate", "restore"].map(String::from), "{planned:?}");
}

/// Deletes today's container and recreates it under its name.
pub(super) async fn make_again(world: &Captured) {
    let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
    assert!(world.app.local.delete_container("dev", "events").await.unwrap());
    assert!(world.app.local.create_container("dev", json!({"id": "events", "partitionKey": key})).await.unwrap());
}

/// Captures with a follower of this name, which is new to the recreated container.
pub(super) async fn follow(world: &Captured, name: &str, mode: &str) {
    let output = world.run(&["follow", "--name", name, "--mode", mode, "--until-caught-up"]).await;
    assert_eq!(output.code, 0, "{output:?}");
}

pub(super) async fn dry_run(world: &Captured, at: i64) -> Output {
    world.run(&["restore", "--all", "--at", &at.to_string(), "--dry-run", "--format", "json"]).await
}

#[tokio::test]
async fn each_of_three_containers_of_one_name_has_its_own_documents() {
    let world = Captured::start("all-versions").await;
    let mut moments = Vec::new();
    for (name, ids) in
        [("one", ["a", "in-first-and-third"]), ("two", ["b", "b2"]), ("three", ["c", "in-first-and-third"])]
    {
        if name != "one" {
            make_again(&world).await;
        }
        follow(&world, name, "all-versions").await;
        for id in ids {
            world.put(json!({"id": id, "pk": "p", "in": name})).await;
        }
        follow(&world, name, "all-versions").await;
        moments.push(next_second().await);
        next_second().await;
    }
    let plans =
        [dry_run(&world, moments[0]).await, dry_run(&world, moments[1]).await, dry_run(&world, moments[2]).await];
    let actions = |id| plans.each_ref().map(|planned| action(planned, id));
    // At the first two moments nobody captured: the follower had caught up before, and the next one began later.
    assert_eq!(plans.each_ref().map(|planned| planned.code), [3, 3, 3], "{plans:?}");
    assert_eq!(actions("a"), ["recreate", "unknown", "unknown"], "{plans:?}");
    assert_eq!(actions("in-first-and-third"), ["restore", "unknown", "keep"], "{plans:?}");
    assert_eq!(actions("b"), ["unknown", "recreate", "unknown"], "{plans:?}");
    assert_eq!(actions("c"), ["unknown", "unknown", "keep"], "{plans:?}");
}

#[tokio::test]
async fn latest_mode_records_of_an_earlier_container_do_not_prove_existence() {
    let world = Captured::start("latest").await;
    follow(&world, "one", "latest").await;
    for id in ["deleted", "stayed"] {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    follow(&world, "one", "latest").await;
    world.delete("deleted", "p").await;
    let before = next_second().await;
    next_second().await;
    make_again(&world).await;
    follow(&world, "two", "all-versions").await;
    world.put(json!({"id": "b", "pk": "p", "n": 1})).await;
    follow(&world, "two", "all-versions").await;
    let at = next_second().await;
    next_second().await;
    world.put(json!({"id": "later", "pk": "p", "n": 1})).await;
    follow(&world, "two", "all-versions").await;
    // That today's reader sees deletes proves nothing about the earlier container.
    let planned = dry_run(&world, before).await;
    let actions = ["deleted", "stayed"].map(|id| action(&planned, id));
    assert_eq!((planned.code, actions), (3, ["unknown", "unknown"].map(String::from)), "{planned:?}");
    let planned = dry_run(&world, at).await;
    let actions = ["deleted", "stayed", "b"].map(|id| action(&planned, id));
    assert_eq!((planned.code, actions), (3, ["unknown", "unknown", "keep"].map(String::from)), "{planned:?}");
    let saved = world.run(&["backup", "--all", "--at", &at.to_string(), "--out", "t.jsonl", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&saved.stdout).unwrap();
    assert_eq!((saved.code, &report["documents"], &report["unknown"]), (3, &json!(1), &json!(2)), "{saved:?}");
}

/// Capture ran in all-versions mode and then changed to latest-version mode.
#[tokio::test]
async fn a_delete_after_a_switch_to_latest_mode_is_not_assumed_to_be_known() {
    let world = Captured::start("all-versions").await;
    for id in ["a", "b"] {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    world.capture().await;
    next_second().await;
    world.delete("b", "p").await;
    world.capture().await;
    let before = next_second().await.to_string();
    next_second().await;
    // The feed of every version had delivered everything up to here.
    world.put(json!({"id": "last", "pk": "p", "n": 1})).await;
    world.capture().await;
    next_second().await;
    forget(&world).await;
    let world = Captured { mode: "latest", ..world };
    world.capture().await;
    next_second().await;
    world.delete("a", "p").await;
    // A life that no version tells of.
    world.put(json!({"id": "b", "pk": "p", "n": 2})).await;
    let at = next_second().await.to_string();
    next_second().await;
    world.delete("b", "p").await;
    world.put(json!({"id": "later", "pk": "p", "n": 1})).await;
    world.capture().await;
    for (at, b) in [(&before, "keep"), (&at, "unknown")] {
        let planned = world.run(&["restore", "--all", "--at", at, "--dry-run", "--format", "json"]).await;
        let actions = ["a", "b"].map(|id| action(&planned, id));
        assert_eq!((planned.code, actions), (3, ["unknown", b].map(String::from)), "{planned:?}");
        assert!(planned.stdout.contains("latest-version mode does not see deletes"), "{planned:?}");
    }
    let saved = world.run(&["backup", "--all", "--at", &at, "--out", "then.jsonl", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&saved.stdout).unwrap();
    assert_eq!((saved.code, &report["unknown"]), (3, &json!(3)), "{saved:?}");
    for (id, why) in [("a", "does not see deletes"), ("b", "the last change from a feed that has deletes")] {
        let shown = world.run(&["show", "--id", id, "--pk", "p", "--at", &at, "--format", "json"]).await;
        let doubt = serde_json::from_str::<Value>(&shown.stdout).unwrap()["doubt"].take();
        assert!(doubt.as_str().is_some_and(|doubt| doubt.contains(why)), "{shown:?}");
    }
    // While it is behind, it has not delivered what there is, and will not deliver what was deleted again.
    world.put(json!({"id": "waits", "pk": "p", "n": 1})).await;
    let at = next_second().await.to_string();
    let planned = world.run(&["restore", "--all", "--at", &at, "--dry-run", "--format", "json"]).await;
    assert_eq!((planned.code, action(&planned, "b")), (3, "unknown".to_owned()), "{planned:?}");
    assert!(planned.stdout.contains("whether it was made again"), "{planned:?}");
}
