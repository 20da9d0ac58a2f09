//! Unusual documents and records.

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use super::captured::{Captured, next_second};
use crate::support::TestApp;

#[tokio::test]
async fn unusual_documents_are_restored_like_others() {
    let world = Captured::start("all-versions").await;
    // The first captured change: from here on, a creation proves that the document did not exist before.
    world.put(json!({"id": "first", "pk": "p"})).await;
    let before = next_second().await;
    next_second().await;
    let ids = ["..", ".", "a/b", "a\\b", "tab\there", "line\nend", "../../..", "%2e%2e", "q?x#y", "\u{fc}\u{2028}"];
    for id in ids {
        world
            .put(json!({"id": id, "pk": "p", "n": 1, "_restore": {"kind": "part"}, "_lsn": 7, "restored_at": 5}))
            .await;
    }
    world.capture().await;
    let at = next_second().await.to_string();
    next_second().await;
    for id in ids {
        world.put(json!({"id": id, "pk": "p", "n": 2})).await;
    }
    world.capture().await;
    let restored = world.run(&["restore", "--all", "--at", &at, "--yes"]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    for id in ids {
        let expected = json!({"id": id, "pk": "p", "n": 1, "_restore": {"kind": "part"}, "_lsn": 7, "restored_at": 5});
        assert_eq!(world.live(id, "p").await, Some(expected), "{id:?}");
    }
    world.capture().await;
    // The container must survive an undo and deletes.
    let id = restored.stderr.split("cosmos-rewind undo ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let undone = world.run(&["undo", &id, "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    world.capture().await;
    let verified = world.run(&["verify", "--grace", "0s", "--deep", "100"]).await;
    assert_eq!(verified.code, 0, "{verified:?}");
    let gone = world.run(&["restore", "--all", "--at", &before.to_string(), "--delete-newer=100", "--yes"]).await;
    // Unescaped in a URL, `.` and `..` would have addressed the container.
    assert_eq!(gone.code, 0, "{gone:?}");
    for id in ids {
        assert_eq!(world.live(id, "p").await, None, "{id:?}: {gone:?}");
    }
    world.put(json!({"id": "after", "pk": "p"})).await;
}

#[tokio::test]
async fn one_unreadable_record_stops_no_command() {
    let world = Captured::start("all-versions").await;
    let at = world.changed(&["good"]).await;
    let changes = world.app.changes().await;
    for (id, record) in [
        ("op", json!({"_originalId": "x", "_change": {"v": 1, "op": "merge", "ts": 1_700_000_000}})),
        ("ts", json!({"_originalId": "x", "_change": {"v": 1, "op": "upsert", "ts": 1_700_000_000.5}})),
        ("stray", json!({"hello": "world"})),
    ] {
        let mut record = record;
        record["id"] = id.into();
        record["pk"] = "p".into();
        let parts: Vec<Value> = changes
            .key_paths()
            .segments()
            .iter()
            .map(|p| record.get(&p[0]).cloned().unwrap_or_else(|| json!({})))
            .collect();
        let place = PartitionKey::parse(&Value::from(parts).to_string()).unwrap();
        changes.create(&place, id, record.to_string().into_bytes()).await.unwrap();
    }
    for args in [
        &["verify"][..],
        &["backup", "--all", "--at", &at, "--out", "b.jsonl"],
        &["prune", "--older-than", "1d", "--dry-run"],
        &["coverage"],
        &["find", "--when", "doc.n == 1"],
        &["restore", "--all", "--at", &at, "--yes"],
    ] {
        let output = world.run(args).await;
        assert_eq!(output.code, 3, "{args:?}: {output:?}");
        for id in ["op", "ts", "stray"] {
            assert!(output.stderr.contains(&format!("\"{id}\"")), "{args:?} names {id}: {output:?}");
        }
    }
    assert_eq!(world.live("good", "p").await.unwrap()["n"], 1);
}

#[tokio::test]
async fn an_unreadable_record_is_reported_even_without_other_versions_of_its_document() {
    let app = TestApp::start().await;
    let record = json!({"id": "odd~1", "pk": "p", "_originalId": "odd", "_change": {"v": 1, "op": "sleep", "ts": 1}});
    let changes = app.changes().await;
    let parts = changes.key_paths().segments().iter().map(|path| record[&path[0]].clone()).collect::<Vec<_>>();
    let at = PartitionKey::parse(&Value::from(parts).to_string()).unwrap();
    changes.upsert(&at, "odd~1", record.to_string().into_bytes()).await.unwrap();
    let done = app.run(&["restore", "--id", "odd", "--at", "now", "--dry-run"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("odd~1") && done.stderr.contains("it is set aside"), "{done:?}");
    assert!(done.stderr.contains("is not in the history"), "{done:?}");
}
