//! Records of other layouts, of the original demo and of repairs among those of capture.

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use super::captured::{Captured, next_second};
use crate::support::TestApp;

#[tokio::test]
async fn every_layout_of_the_history_keeps_a_delete_with_its_document() {
    for paths in [&["/_originalId"][..], &["/id"], &["/pk", "/_originalId"]] {
        let world = Captured { app: TestApp::with_changes_key(paths).await, mode: "all-versions" };
        let mut tokens = world.feed().await;
        world.put(json!({"id": "a", "pk": "gone"})).await;
        world.put(json!({"id": "a", "pk": "stays"})).await;
        world.put(json!({"id": "b", "pk": "gone"})).await;
        world.capture_by_hand(&mut tokens).await;
        next_second().await;
        world.delete("a", "gone").await;
        world.delete("b", "gone").await;
        world.capture_by_hand(&mut tokens).await;
        let at = next_second().await.to_string();
        next_second().await;
        world.put(json!({"id": "clock", "pk": "later"})).await;
        world.capture_by_hand(&mut tokens).await;
        let restored = world.run(&["restore", "--all", "--at", &at, "--yes"]).await;
        assert_eq!(restored.code, 0, "{paths:?}: {restored:?}");
        assert_eq!(world.live("a", "gone").await, None, "{paths:?}");
        assert_eq!(world.live("b", "gone").await, None, "{paths:?}");
        assert!(world.live("a", "stays").await.is_some(), "{paths:?}");

        // Old records do not contain the source's partition key. The chain of versions tells which document a delete
        // belongs to; otherwise the restore must report it as unknown.
        let changes = world.app.changes().await;
        for record in changes.query_all("SELECT * FROM c WHERE IS_DEFINED(c._change)", &[], None).await.unwrap() {
            let mut record: Value = serde_json::from_str(record.get()).unwrap();
            let tombstone = record["_change"]["op"] == "delete";
            let known = record["_change"]["key"].as_array().is_some_and(|key| key.len() == 1 && key[0].is_string());
            assert!(known, "{paths:?}: the key of {record} is unknown");
            record
                .as_object_mut()
                .unwrap()
                .retain(|name, _| !["_rid", "_self", "_etag", "_attachments", "_ts"].contains(&name.as_str()));
            record["_change"].as_object_mut().unwrap().remove("key");
            if tombstone && record["_originalId"] == "a" {
                record["_change"].as_object_mut().unwrap().remove("prevLsn");
                record["_change"].as_object_mut().unwrap().remove("rid");
            }
            let id = record["id"].as_str().unwrap().to_owned();
            let parts = paths.iter().map(|path| record[&path[1..]].clone()).collect::<Vec<_>>();
            let key = PartitionKey::parse(&Value::from(parts).to_string()).unwrap();
            changes.upsert(&key, &id, record.to_string().into_bytes()).await.unwrap();
        }
        let restored = world.run(&["restore", "--all", "--at", &at, "--yes", "--format", "json"]).await;
        let expected = if paths.contains(&"/pk") { 0 } else { 3 };
        assert_eq!(restored.code, expected, "{paths:?}: {restored:?}");
        assert_eq!(world.live("a", "gone").await, None, "{paths:?}");
        assert_eq!(world.live("b", "gone").await, None, "{paths:?}");
    }
}

#[tokio::test]
async fn a_copy_of_the_original_demo_hides_no_record() {
    let world = Captured::start("latest").await;
    let first = world.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    world.capture().await;
    next_second().await;
    world.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    world.capture().await;
    let changes = world.app.changes().await;
    let lsn = world.app.versions("a").await[0].lsn.unwrap();
    // The demo copies the first version late, so the copy's time lies after the second version.
    next_second().await;
    let copy = json!({"id": "0a1b", "pk": "p", "n": 1, "_originalId": "a", "_lsn": lsn, "was": first["_ts"]});
    let key = changes.key_paths().segments().len();
    let place = if key == 1 { json!(["p"]) } else { json!(["p", "a"]) };
    let place = PartitionKey::parse(&place.to_string()).unwrap();
    changes.upsert(&place, "0a1b", copy.to_string().into_bytes()).await.unwrap();
    let at = next_second().await.to_string();
    next_second().await;
    let shown = world.run(&["show", "--id", "a", "--pk", "p", "--at", &at]).await;
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["n"], 2);
    world.put(json!({"id": "a", "pk": "p", "n": 3})).await;
    world.capture().await;
    let restored = world.run(&["restore", "--all", "--at", &at, "--yes", "--no-stamp"]).await;
    assert_eq!((restored.code, &world.live("a", "p").await.unwrap()["n"]), (0, &json!(2)), "{restored:?}");
}

#[tokio::test]
async fn a_repaired_version_follows_the_creation_in_its_second() {
    let world = Captured::start("all-versions").await;
    let created = world.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    world.capture().await;
    let mut second = world.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    // Both versions carry the same second, whatever the clock did.
    let ts = created["_ts"].as_i64().unwrap();
    let [etag, rid] = ["_etag", "_rid"].map(|name| second[name].clone());
    second.as_object_mut().unwrap().retain(|name, _| !name.starts_with('_'));
    let mut record = second.clone();
    let id = format!("a~{}", etag.as_str().unwrap().trim_matches('"'));
    record["id"] = id.clone().into();
    record["_originalId"] = "a".into();
    let at = format!("{}.900Z", chrono::DateTime::from_timestamp(ts, 0).unwrap().format("%Y-%m-%dT%H:%M:%S"));
    record["_change"] = json!({"v": 1, "op": "upsert", "ts": ts, "etag": etag, "rid": rid, "via": "backfill",
        "fidelity": "exact", "at": at, "key": ["p"]});
    let changes = world.app.changes().await;
    let parts: Vec<Value> =
        changes.key_paths().segments().iter().map(|p| if p[0] == "pk" { "p".into() } else { "a".into() }).collect();
    let place = PartitionKey::parse(&Value::from(parts).to_string()).unwrap();
    changes.create(&place, &id, record.to_string().into_bytes()).await.unwrap();
    next_second().await;
    world.put(json!({"id": "a", "pk": "p", "n": 3})).await;
    next_second().await;
    let restored =
        world.run(&["restore", "--id", "a", "--pk", "p", "--at", &ts.to_string(), "--yes", "--no-stamp"]).await;
    assert_eq!(world.live("a", "p").await.unwrap()["n"], 2, "{restored:?}");
    // Any version can be named, whatever its position in the order.
    for (named, n) in [(id.as_str(), 2), (created["_etag"].as_str().unwrap(), 1)] {
        let shown = world.run(&["show", "--id", "a", "--pk", "p", "--version", named]).await;
        assert_eq!(serde_json::from_str::<Value>(&shown.stdout).unwrap()["n"], n, "{shown:?}");
        let restore = ["restore", "--id", "a", "--pk", "p", "--version", named, "--yes", "--no-stamp"];
        let restored = world.run(&restore).await;
        assert_eq!((restored.code, &world.live("a", "p").await.unwrap()["n"]), (0, &json!(n)), "{restored:?}");
        assert!(restored.stderr.contains(" to the version that is named: "), "{restored:?}");
    }
    let diff = world.run(&["diff", "--id", "a", "--pk", "p", "--version", &id, "--format", "json"]).await;
    assert_eq!(diff.json()[0], json!({"op": "replace", "path": "/n", "value": 1}), "{diff:?}");
    let none = world.run(&["show", "--id", "a", "--pk", "p", "--version", "nonsense"]).await;
    assert!(none.code == 1 && none.stderr.contains("no such version"), "{none:?}");
}
