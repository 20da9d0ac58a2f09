//! Versions that are counted or listed as more, or as less, than they are.

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use super::captured::{Captured, next_second};
use crate::support::TestApp;

async fn follow(app: &TestApp, more: &[&str]) {
    let output = app.run(&[&["follow", "--until-caught-up"], more].concat()).await;
    assert_eq!(output.code, 0, "{output:?}");
}

#[tokio::test]
async fn what_two_readers_know_of_a_version_is_not_counted_as_a_feed_of_every_version() {
    let latest = ["--name", "latest", "--mode", "latest", "--from", "beginning"];
    let filtered = ["--name", "filtered", "--mode", "all-versions", "--filter", "doc.n > 1"];
    for order in [[&latest[..], &filtered], [&filtered, &latest]] {
        let app = TestApp::start().await;
        follow(&app, &filtered).await;
        for n in 1..=3 {
            app.put(json!({"id": "a", "pk": "p", "n": n})).await;
        }
        for reader in order {
            follow(&app, reader).await;
        }
        let days = app.run(&["coverage", "--format", "json"]).await.json();
        let count = |what: &str| days.as_array().unwrap().iter().map(|day| day[what].as_u64().unwrap()).sum::<u64>();
        // The first version is the one before the first that passed the filter.
        assert_eq!((count("versions"), count("all_versions"), count("filtered")), (3, 0, 3), "{days}");
        // What happened is known all the same.
        let rows = app.run(&["history", "--id", "a", "--format", "json"]).await.json();
        let ops: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["op"].as_str().unwrap()).collect();
        assert_eq!(ops[1..], ["replace", "replace"], "{rows}");
    }
}

#[tokio::test]
async fn a_part_of_a_document_is_not_counted_as_rebuilt() {
    let app = TestApp::start().await;
    let reader = ["--mode", "all-versions", "--redact", "/secret"];
    follow(&app, &reader).await;
    for n in 1..=3 {
        app.put(json!({"id": "a", "pk": "p", "n": n, "secret": "s"})).await;
    }
    follow(&app, &reader).await;
    app.put(json!({"id": "whole", "pk": "p"})).await;
    follow(&app, &["--name", "whole", "--mode", "latest", "--from", "beginning"]).await;
    let told = app.run(&["verify", "--deep", "100", "--grace", "0s", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&told.stdout).unwrap();
    // The newest version of each document is there as a whole.
    assert_eq!((&report["versions"], &report["sampled"]), (&json!(4), &json!(2)), "{report}");
}

#[tokio::test]
async fn a_list_goes_on_after_a_version_that_cannot_be_read() {
    let world = Captured::start("all-versions").await;
    let noise = "x".repeat(1_200_000);
    for id in ["a", "broken", "z"] {
        for n in 1..=2 {
            world.put(json!({"id": id, "pk": "p", "n": n, "noise": noise})).await;
        }
    }
    world.capture().await;
    next_second().await;
    let changes = world.app.changes().await;
    let found = changes.query_all("SELECT * FROM c WHERE c._originalId = 'broken' AND c.n = 1", &[], None).await;
    let mut record: Value = serde_json::from_str(found.unwrap()[0].get()).unwrap();
    record
        .as_object_mut()
        .unwrap()
        .retain(|name, _| !["_rid", "_self", "_etag", "_attachments", "_ts"].contains(&name.as_str()));
    record["_change"]["body"] = json!({"encoding": "gzip", "size": 5, "sha256": "00", "data": "AAAA"});
    let id = record["id"].as_str().unwrap().to_owned();
    let place: Vec<Value> = changes.key_paths().segments().iter().map(|path| record[&path[0]].clone()).collect();
    let place = PartitionKey::parse(&Value::from(place).to_string()).unwrap();
    changes.upsert(&place, &id, record.to_string().into_bytes()).await.unwrap();

    let ids = ["a", "broken", "z"].map(|id| json!({"id": id, "pk": "p"}).to_string()).join("\n");
    std::fs::write(world.app.folder.path().join("ids.jsonl"), ids).unwrap();
    for which in [&["--ids-file", "ids.jsonl"][..], &["--where", "c.pk = 'p'", "--changes-of", "/n"]] {
        let listed = world.run(&[&["history", "--format", "jsonl"], which].concat()).await;
        assert_eq!(listed.code, 3, "{which:?}: {}", listed.stderr);
        assert!(listed.stderr.contains(&id), "{which:?}: {}", listed.stderr);
        let of = |id: &str| listed.lines().iter().filter(|row| row["id"] == id).count();
        let broken = if which.contains(&"--changes-of") { 1 } else { 2 };
        assert_eq!(["a", "broken", "z"].map(of), [2, broken, 2], "{which:?}: {}", listed.stdout);
    }
}
