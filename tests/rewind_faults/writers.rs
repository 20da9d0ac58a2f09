//! Other writers that write at the same time, or did so before.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chrono::Utc;
use cosmos_rewind::change::{VersionFidelity, key::PartitionKey};
use serde_json::json;

use super::{Damage, fates, report};
use crate::support::TestApp;

#[tokio::test]
async fn a_faster_writer_loses_no_write_and_every_conflict_is_reported() {
    let damage = Damage::done(6).await;
    let events = damage.app.events().await;
    let moves = Arc::new(AtomicUsize::new(0));
    let counted = moves.clone();
    // Another writer changes every second document just before the restore writes it, including one that did not exist.
    damage.app.proxy.before_live_writes(Some(Arc::new(move |path| {
        let (events, moves) = (events.clone(), counted.clone());
        Box::pin(async move {
            // The path of a create does not contain the id; the next test covers `deleted-*`.
            let Some(id) = path.rsplit_once("/docs/").map(|(_, id)| id.to_owned()) else { return };
            if id[id.len() - 1..].parse::<u32>().unwrap() % 2 == 0 {
                let key = PartitionKey::parse(&id).unwrap();
                let newer =
                    json!({"id": id, "pk": id, "city_name": "Quicker", "moves": moves.fetch_add(1, Ordering::SeqCst)});
                events.upsert(&key, &id, newer.to_string().into_bytes()).await.unwrap();
            }
        })
    })));
    let restored = damage.app.run_through_proxy(&damage.args(&["--yes"])).await;
    assert_eq!(restored.code, 3, "{restored:?}");
    assert!(restored.stderr.contains("12 written, 0 already up to date, 6 conflicts, 0 failed"), "{restored:?}");
    assert_eq!(moves.load(Ordering::SeqCst), 6, "each document was tried once");
    let told = report(&restored);
    let live = damage.live().await;
    for outcome in told["outcomes"].as_array().unwrap() {
        let id = outcome["id"].as_str().unwrap();
        let moved = !id.starts_with("deleted") && id[id.len() - 1..].parse::<u32>().unwrap() % 2 == 0;
        assert_eq!(outcome["fate"], if moved { "conflict" } else { "done" }, "{outcome}");
        if moved {
            assert_eq!(live[id]["city_name"], "Quicker", "{id}: a newer write is lost");
            assert!(outcome["message"].as_str().unwrap().contains("changed"), "{outcome}");
        } else {
            assert_eq!(live.get(id), damage.good.get(id));
        }
    }

    // The undo runs against the same writer: documents that it changes again stay as they are, the others are reverted.
    let id = told["restore"].as_str().unwrap();
    let before_undo = live;
    let undone = damage.app.run_through_proxy(&["undo", id, "--yes", "--format", "json"]).await;
    let live = damage.live().await;
    let mut conflicts = 0;
    for outcome in report(&undone)["outcomes"].as_array().unwrap() {
        let id = outcome["id"].as_str().unwrap();
        if outcome["fate"] == "conflict" {
            conflicts += 1;
            assert_eq!(live[id]["city_name"], "Quicker");
        } else {
            assert_eq!(live.get(id), damage.before.get(id), "{outcome}");
        }
    }
    assert_eq!((undone.code, conflicts), (3, 3), "every second of the documents that the restore changed: {undone:?}");
    for (id, document) in before_undo.iter().filter(|(_, d)| d["city_name"] == "Quicker") {
        assert_eq!(live.get(id), Some(document), "the undo wrote a document that the restore had not written");
    }
}

#[tokio::test]
async fn a_document_created_by_another_writer_first_is_a_conflict() {
    let damage = Damage::done(3).await;
    let events = damage.app.events().await;
    damage.app.proxy.before_live_writes(Some(Arc::new(move |path| {
        let events = events.clone();
        Box::pin(async move {
            if path.ends_with("/docs") {
                for n in 0..3 {
                    let id = format!("deleted-{n:02}");
                    let key = PartitionKey::parse(&id).unwrap();
                    // The first create only: one that fails because the document already exists is fine.
                    let own = json!({"id": id, "pk": id, "city_name": "Quicker"});
                    let _ = events.create(&key, &id, own.to_string().into_bytes()).await;
                }
            }
        })
    })));
    let restored = damage.app.run_through_proxy(&damage.args(&["--yes", "--concurrency", "1"])).await;
    assert_eq!(restored.code, 3, "{restored:?}");
    assert!(restored.stderr.contains("6 written, 0 already up to date, 3 conflicts"), "{restored:?}");
    let live = damage.live().await;
    for n in 0..3 {
        assert_eq!(live[&format!("deleted-{n:02}")]["city_name"], "Quicker");
    }
}

#[tokio::test]
async fn a_saved_plan_finds_everything_up_to_date_on_its_second_use() {
    let damage = Damage::done(2).await;
    let file = damage.app.folder.path().join("plan");
    let path = file.to_str().unwrap();
    let planned = damage.app.run(&damage.args(&["--dry-run", "--plan-out", path])).await;
    assert_eq!(planned.code, 0, "{planned:?}");
    for fate in ["done", "already"] {
        let applied = damage.app.run(&["restore", "--plan", path, "--yes", "--format", "json"]).await;
        assert_eq!(applied.code, 0, "{applied:?}");
        assert_eq!(fates(&report(&applied)), BTreeMap::from([(fate, 6)]));
        assert_eq!(damage.live().await, damage.good);
    }
    // Each use has its own journal: the second one wrote nothing, and the first is undone exactly.
    let uses = damage.app.run(&["undo", "--list", "--format", "json"]).await.json();
    let ids: Vec<&str> = uses.as_array().unwrap().iter().map(|use_of| use_of["restore"].as_str().unwrap()).collect();
    let [first, second] = ids[..] else { panic!("{uses}") };
    for (id, expected) in [(second, &damage.good), (first, &damage.before)] {
        let undone = damage.app.run(&["undo", id, "--yes"]).await;
        assert_eq!(undone.code, 0, "{undone:?}");
        assert_eq!(damage.live().await, *expected);
    }
}

#[tokio::test]
async fn a_version_that_was_captured_with_altered_dates_is_saved_exactly_before_it_is_overwritten() {
    let app = TestApp::start().await;
    let now = Utc::now().timestamp();
    let exact = json!({"id": "a", "pk": "a", "day": "2020-01-01T00:00:00+02:00"});
    let stored = app.put(exact.clone()).await;
    let etag = stored["_etag"].as_str().unwrap().to_owned();
    let key = PartitionKey::parse(r#"["a","a"]"#).unwrap();
    for (record_id, ts, lsn, fidelity, day, etag) in [
        ("a~e1".to_owned(), now - 1200, 1, "exact", "2019-01-01", "\"e1\"".to_owned()),
        // The date as the host rewrites it.
        (format!("a~{}", etag.trim_matches('"')), now - 300, 2, "normalized", "2019-12-31T22:00:00Z", etag.clone()),
    ] {
        let op = if lsn == 1 { "create" } else { "replace" };
        let record = json!({"id": record_id, "pk": "a", "day": day, "_originalId": "a",
            "_change": {"v": 1, "op": op, "ts": ts, "lsn": lsn, "etag": etag, "via": "trigger", "fidelity": fidelity}});
        app.changes().await.upsert(&key, &record_id, record.to_string().into_bytes()).await.unwrap();
    }
    let at = (now - 600).to_string();
    for scope in [&["--all"][..], &["--id", "a"]] {
        let restored =
            app.run(&[&["restore", "--at", &at, "--no-stamp", "--yes", "--format", "json"], scope].concat()).await;
        assert_eq!(restored.code, 0, "{restored:?}");
        let undone = app.run(&["undo", report(&restored)["restore"].as_str().unwrap(), "--yes"]).await;
        assert_eq!(undone.code, 0, "{undone:?}");
        let live = app.run(&["query", "SELECT c.id, c.pk, c.day FROM c", "--format", "json"]).await.json();
        assert_eq!(live, json!([exact]), "{scope:?}");
    }
    // The record keeps the time and the order of that version.
    let versions = app.versions("a").await;
    let kept = versions.iter().find(|v| v.etag.as_ref() == Some(&etag)).unwrap();
    assert_eq!(
        (kept.ts, kept.lsn, kept.fidelity.as_ref().map(VersionFidelity::as_str)),
        (now - 300, Some(2), Some("exact"))
    );
    assert_eq!(kept.document.as_deref(), Some(exact.to_string().as_str()));
}

#[tokio::test]
async fn two_concurrent_restores_write_each_document_once_and_both_can_be_undone() {
    let damage = Damage::done(6).await;
    let other = tempfile::tempdir().unwrap();
    let other = other.path().to_str().unwrap();
    // With a stamp, so that the two restores write different texts.
    let args = ["restore", "--all", "--at", &damage.at, "--delete-newer=99", "--format", "json", "--yes"];
    let first = damage.app.start_through_proxy(&args);
    let second = damage.app.start_through_proxy(&[&args[..], &["--journal", other]].concat());
    let told = [first.ended().await, second.ended().await];
    let good = async || {
        let mut live = damage.live().await;
        live.values_mut().for_each(|d| drop(d.as_object_mut().unwrap().shift_remove("restored_at")));
        live
    };
    assert_eq!(good().await, damage.good, "{told:?}");
    for output in &told {
        assert!([0, 3].contains(&output.code), "{output:?}");
    }
    let last_first = told.iter().rev().map(report);
    for one in last_first.filter(|one| !one["outcomes"].as_array().unwrap().is_empty()) {
        let undone = damage.app.run(&["undo", one["restore"].as_str().unwrap(), "--yes"]).await;
        assert!([0, 3].contains(&undone.code), "{undone:?}");
    }
    assert_eq!(damage.live().await, damage.before, "{told:?}");
}
