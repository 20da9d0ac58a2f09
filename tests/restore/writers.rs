//! Restores next to concurrent writers, and by several machines.

use std::time::Duration;

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use super::story::Story;

#[tokio::test]
async fn no_newer_write_is_lost_to_a_restore() {
    let story = Story::start().await;
    let ids: Vec<String> = (0..30).map(|i| format!("doc-{i:02}")).collect();
    for (minutes, n) in [(20, 1), (5, 2)] {
        for id in &ids {
            story.put(minutes, json!({"id": id, "pk": id, "n": n, "writes": 0})).await;
        }
    }
    // A careful writer (read, add one, replace if unchanged) updates each document while restores run.
    let events = story.app.events().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let writers: Vec<_> = ids
        .iter()
        .cloned()
        .map(|id| {
            let (events, stop) = (events.clone(), stop.clone());
            tokio::spawn(async move {
                let key = PartitionKey::parse(&id).unwrap();
                let mut landed: Vec<String> = Vec::new();
                while !stop.is_cancelled() && landed.len() < 40 {
                    let text = events.read(&key, &id).await.unwrap().unwrap();
                    let mut document: Value = serde_json::from_slice(&text).unwrap();
                    let etag = document["_etag"].as_str().unwrap().to_owned();
                    document["writes"] = json!(document["writes"].as_u64().unwrap() + 1);
                    if let Ok(written) = events.replace(&key, &id, document.to_string().into_bytes(), &etag).await {
                        landed.push(written.etag.unwrap());
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (id, landed)
            })
        })
        .collect();
    let mut journals = Vec::new();
    for _ in 0..2 {
        let output = story.run(&["restore", "--all", "--at", "10m", "--yes", "--format", "json"]).await;
        assert!([0, 3].contains(&output.code), "{output:?}");
        journals.push(serde_json::from_str::<Value>(&output.stdout).unwrap());
    }
    stop.cancel();
    for writer in writers {
        let (id, landed) = writer.await.unwrap();
        let overwritten: Vec<&str> = journals
            .iter()
            .flat_map(|j| j["outcomes"].as_array().unwrap())
            .filter(|o| o["id"] == json!(id) && o["fate"] == "done")
            .filter_map(|o| o["before"].as_str())
            .collect();
        let versions = story.app.versions(&id).await;
        for etag in overwritten {
            // Every version that a restore overwrote, including the writer's, is in the history.
            assert!(
                versions.iter().any(|v| v.etag.as_deref() == Some(etag)),
                "{id}: {etag} is lost ({} landed)",
                landed.len()
            );
        }
    }
}

#[tokio::test]
async fn machines_share_a_restore_and_a_backup_by_hash_range() {
    let story = Story::start().await;
    for minutes in [20, 5] {
        for i in 0..24 {
            let id = format!("doc-{i}");
            story.put(minutes, json!({"id": id, "pk": format!("key-{i}"), "good": minutes == 20})).await;
        }
    }
    let (mut restored, mut ids, mut lines) = (0, Vec::new(), Vec::new());
    for share in ["1/3", "2/3", "3/3"] {
        let file = format!("part-{}.jsonl", &share[..1]);
        let backup = ["backup", "--all", "--at", "10m", "--feed-range", share, "--out", &file, "--format", "json"];
        assert_eq!(story.run(&backup).await.json()["unknown"], 0);
        let text = std::fs::read_to_string(story.app.folder.path().join(file)).unwrap();
        lines.extend(text.lines().filter(|l| !l.starts_with("{\"_backup\"")).map(String::from));

        let args = ["restore", "--all", "--at", "10m", "--feed-range", share, "--yes", "--format", "json"];
        let report = story.run(&args).await.json();
        assert_eq!(report["plan"]["feedRange"], share);
        restored += report["outcomes"].as_array().unwrap().len();
        ids.push(report["restore"].as_str().unwrap().to_owned());
    }
    assert_eq!((restored, lines.len()), (24, 24));
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 24, "a document is in two parts");
    for i in 0..24 {
        assert_eq!(story.live(&format!("doc-{i}"), &format!("key-{i}")).await.unwrap()["good"], true, "doc-{i}");
    }
    // A share without any document is not a failure.
    let (from, empty) = (["--from", "30m", "--to", "25m"], ["--feed-range", "1/9999", "--yes", "--format", "json"]);
    for args in [[&["restore", "--all", "--at", "10m"][..], &empty].concat(), [&["revert"], &from[..], &empty].concat()]
    {
        let report = story.run(&args).await;
        assert_eq!(report.code, 0, "{args:?}: {report:?}");
        assert_eq!(report.json()["outcomes"], json!([]), "{report:?}");
    }
    // Each share has its own undo.
    let undone = story.run(&["undo", &ids[1], "--yes", "--format", "json"]).await.json();
    let back = undone["outcomes"].as_array().unwrap().len();
    let mut bad = 0;
    for i in 0..24 {
        bad += usize::from(story.live(&format!("doc-{i}"), &format!("key-{i}")).await.unwrap()["good"] == false);
    }
    assert!(bad == back && bad > 0 && bad < 24, "{bad} of 24, {back} undone");

    for args in [
        &["restore", "--id", "doc-1", "--at", "10m", "--feed-range", "1/2"][..],
        &["restore", "--all", "--at", "10m", "--feed-range", "3/2"],
        &["backup", "--all", "--out", "x.jsonl", "--feed-range", "0/2"],
    ] {
        let refused = story.run(args).await;
        assert!(refused.code == 2 && refused.stderr.contains("--feed-range"), "{args:?}: {refused:?}");
    }
}
