//! Two readers of one feed, one of which does not see everything.

use cosmos_rewind::{change::key::PartitionKey, cosmos::FeedRange};
use serde_json::{Value, json};

use super::{
    captured::{Captured, action, next_second},
    lost::{dry_run, follow, forget},
};

#[tokio::test]
async fn a_latest_mode_reader_does_not_hide_what_waits_for_an_all_versions_reader() {
    let world = Captured::start("all-versions").await;
    for id in ["replaced", "replaced-twice", "deleted", "had-been-deleted", "still", "goes-later"] {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    world.delete("had-been-deleted", "p").await;
    world.capture().await;
    next_second().await;
    // Only the newest versions are captured from here on.
    follow(&world, "latest", "latest").await;
    for id in ["replaced", "replaced-twice", "had-been-deleted"] {
        world.put(json!({"id": id, "pk": "p", "n": 2})).await;
    }
    world.delete("deleted", "p").await;
    let at = next_second().await;
    next_second().await;
    world.put(json!({"id": "replaced-twice", "pk": "p", "n": 3})).await;
    world.delete("had-been-deleted", "p").await;
    world.delete("goes-later", "p").await;
    next_second().await;
    follow(&world, "latest", "latest").await;

    let status = world.run(&["status", "--format", "json"]).await.json();
    assert_ne!(status["history"]["complete_until"], "now", "{status}");
    let planned = dry_run(&world, at).await;
    let told: Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!((planned.code, &told["plan"]["beyond"]), (3, &json!(true)), "{planned:?}");
    let ids = ["replaced", "replaced-twice", "deleted", "had-been-deleted", "still"];
    let expected = ["keep", "unknown", "unknown", "unknown", "keep"].map(String::from);
    assert_eq!(ids.map(|id| action(&planned, id)), expected, "{planned:?}");
    for id in ["replaced-twice", "deleted", "had-been-deleted"] {
        let shown = world.run(&["show", "--id", id, "--pk", "p", "--at", &at.to_string(), "--format", "json"]).await;
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap_or_else(|_| panic!("{shown:?}"));
        assert!(shown["doubt"].as_str().is_some_and(|doubt| doubt.contains("the history ends at")), "{id}: {shown}");
    }

    // Once every version is captured, everything is known.
    world.capture().await;
    let planned = dry_run(&world, at).await;
    let expected = ["keep", "restore", "keep", "recreate", "keep"].map(String::from);
    assert_eq!((planned.code, ids.map(|id| action(&planned, id))), (0, expected), "{planned:?}");
    assert_eq!(action(&planned, "goes-later"), "recreate", "{planned:?}");
}

#[tokio::test]
async fn an_abandoned_feed_range_is_known_only_up_to_its_last_capture() {
    tokio::join!(is_known_up_to_its_last_capture(false), is_known_up_to_its_last_capture(true));
}

/// With a merge, the range is part of a physical partition that has a reader in its other part.
async fn is_known_up_to_its_last_capture(merged: bool) {
    let world = Captured::start("all-versions").await;
    let leases = world.app.cosmos.container("dev", "leases").await.unwrap();
    let checkpoint = async || {
        let found = leases.query_all("SELECT * FROM c", &[], None).await.unwrap();
        serde_json::from_str::<Value>(found[0].get()).unwrap()
    };
    // One document in the feed range that will be left out, and one in another range.
    let ranges = checkpoint().await["ranges"].as_array().unwrap().clone();
    let events = world.app.events().await;
    let place = |pk: &str| {
        let key = PartitionKey::parse(pk).unwrap();
        let of = events.range_of(&key).unwrap();
        ranges.iter().position(|range| {
            let range = FeedRange::parse(range["min"].as_str().unwrap(), range["max"].as_str().unwrap()).unwrap();
            range.intersection(&of).is_some()
        })
    };
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    let out = keys.iter().find(|pk| place(pk) == Some(0)).unwrap();
    let kept = keys.iter().find(|pk| place(pk) == Some(1)).unwrap();
    for (id, pk) in [("out", out), ("out-lives", out), ("kept", kept)] {
        world.put(json!({"id": id, "pk": pk, "n": 1})).await;
    }
    world.capture().await;
    next_second().await;
    let mut left = checkpoint().await;
    left["ranges"].as_array_mut().unwrap().remove(0);
    let id = left["id"].as_str().unwrap().to_owned();
    let whose = PartitionKey::parse(&json!([id]).to_string()).unwrap();
    leases.upsert(&whose, &id, left.to_string().into_bytes()).await.unwrap();
    if merged {
        let physical = world.app.local.ranges("dev", "events").await.unwrap();
        world.app.local.merge("dev", "events", &physical[0], &physical[1]).await.unwrap();
    }
    world.delete("out", out).await;
    world.put(json!({"id": "out-lives", "pk": out, "n": 2})).await;
    let at = next_second().await;
    next_second().await;
    world.put(json!({"id": "out-lives", "pk": out, "n": 3})).await;
    world.put(json!({"id": "later", "pk": kept, "n": 1})).await;
    // Capture goes on for the other ranges.
    let later = json!({"id": "later", "pk": kept, "n": 1, "_etag": "\"l\"", "_ts": at + 2, "_rid": "l"});
    world.app.capture(&[later]).await;
    let planned = dry_run(&world, at).await;
    assert_eq!(planned.code, 3, "{planned:?}");
    assert_eq!((action(&planned, "out"), action(&planned, "kept")), ("unknown".to_owned(), "keep".to_owned()));
    let told: Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!(told["plan"]["beyond"], true, "{planned:?}");
}

#[tokio::test]
async fn a_document_that_vanished_without_capture_is_not_claimed_to_have_existed() {
    let world = Captured::start("all-versions").await;
    for id in ["gone", "told", "lives"] {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    world.capture().await;
    let at = next_second().await;
    next_second().await;
    world.put(json!({"id": "lives", "pk": "p", "n": 2})).await;
    world.delete("told", "p").await;
    world.capture().await;
    next_second().await;
    forget(&world).await;
    world.delete("gone", "p").await;
    let planned = dry_run(&world, at).await;
    let actions = ["gone", "told", "lives"].map(|id| action(&planned, id));
    assert_eq!((planned.code, actions), (3, ["unknown", "recreate", "restore"].map(String::from)), "{planned:?}");
    assert!(planned.stdout.contains("no lease or checkpoint"), "{planned:?}");
    // An explicit request overrides the doubt.
    let restore = ["restore", "--all", "--at", &at.to_string(), "--recreate-deleted", "--dry-run", "--format", "json"];
    let planned = world.run(&restore).await;
    assert_eq!((planned.code, action(&planned, "gone")), (0, "recreate".to_owned()), "{planned:?}");
}

/// What the reader of every version has yet to deliver lies between two versions that the other one captured.
#[tokio::test]
async fn a_document_is_not_shown_as_it_was_while_a_version_of_it_waits_for_an_all_versions_reader() {
    let world = Captured::start("all-versions").await;
    follow(&world, "latest", "latest").await;
    world.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    follow(&world, "latest", "latest").await;
    next_second().await;
    world.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    let at = next_second().await;
    next_second().await;
    world.put(json!({"id": "a", "pk": "p", "n": 3})).await;
    follow(&world, "latest", "latest").await;
    let planned = dry_run(&world, at).await;
    assert_eq!((planned.code, action(&planned, "a")), (3, "unknown".to_owned()), "{planned:?}");
    let show = ["show", "--id", "a", "--pk", "p", "--at", &at.to_string(), "--format", "json"];
    let shown = world.run(&show).await.json();
    assert!(shown["doubt"].is_string(), "{shown}");
    world.capture().await;
    let shown = world.run(&show).await.json();
    assert_eq!((&shown["document"]["n"], shown["doubt"].is_null()), (&json!(2), true), "{shown}");
}
