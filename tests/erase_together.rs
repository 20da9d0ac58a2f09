//! Several runs of `erase` on one history and one archive: at the same time, and after a kill.

use chrono::Utc;
use serde_json::{Value, json};

use crate::{
    follow,
    rewind_faults::killed_at,
    support::{Output, TestApp, When, eventually, peers::Azurite},
};

/// Two versions of each of these documents, and a restore to the first one; its id.
async fn restored(app: &TestApp, ids: &[String]) -> String {
    let ago = Utc::now().timestamp() - 3600;
    let mut items = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let lsn = 1 + 2 * n;
        let first = json!({"id": id, "pk": "p", "n": 1, "_etag": format!("\"{n}\""), "_ts": ago});
        let metadata = |op: &str, lsn: usize, ts: i64| json!({"operationType": op, "lsn": lsn, "crts": ts});
        items.push(json!({"current": first, "metadata": metadata("create", lsn, ago)}));
        let second = app.put(json!({"id": id, "pk": "p", "n": 2})).await;
        items.push(json!({"current": second, "metadata": metadata("replace", lsn + 1, ago + 60)}));
    }
    app.capture(&items).await;
    let done = app.run(&["restore", "--all", "--at", "3570s", "--yes", "--format", "json"]).await.json();
    done["restore"].as_str().unwrap().to_owned()
}

fn erase(id: &str) -> Vec<&str> {
    vec!["erase", "--id", id, "--pk", "p", "--yes", "--format", "json"]
}

fn assert_nothing_left(output: &Output) {
    assert_eq!(output.json()["left"], 0, "{output:?}");
}

/// Whose steps an undo of the restore takes back.
async fn undone(app: &TestApp, restore: &str) -> Vec<String> {
    let undo = app.run(&["undo", restore, "--yes", "--format", "json"]).await;
    let outcomes = undo.json()["outcomes"].as_array().unwrap().clone();
    outcomes.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

/// All items of the history that name a document.
async fn naming(app: &TestApp, id: &str) -> Vec<String> {
    let all = app.changes().await.query_all("SELECT * FROM c", &[], None).await.unwrap();
    all.iter().map(|item| item.get().to_owned()).filter(|text| text.contains(id)).collect()
}

#[tokio::test]
async fn runs_at_the_same_time_leave_journals_whole() {
    let ids = ["first-4711", "second-4711", "third-4711"].map(String::from);
    for passing in 0.. {
        let app = TestApp::start().await;
        let restore = restored(&app, &ids).await;
        // The first run is held up before one of its writes, and the second one passes it.
        let reached = app.proxy.hold_after(passing, When::Before);
        let mut first = app.start_through_proxy(&erase(&ids[0]));
        let held = tokio::select! {
            held = reached => held.unwrap(),
            code = first.code() => {
                assert_eq!((code, passing > 3), (Some(0), true));
                break;
            }
        };
        assert_nothing_left(&app.run(&erase(&ids[1])).await);
        drop(held);
        assert_nothing_left(&first.ended().await);
        for id in &ids[..2] {
            assert_eq!(naming(&app, id).await, Vec::<String>::new(), "write {passing}");
        }
        assert_eq!(undone(&app, &restore).await, [ids[2].as_str()], "write {passing}");
    }
}

#[tokio::test]
async fn another_document_can_be_erased_after_a_kill() {
    // A plan of several parts.
    let ids: Vec<String> = (0..60).map(|n| format!("{n:03}-{}", "x".repeat(900))).collect();
    for passing in 0.. {
        let app = TestApp::start().await;
        let restore = restored(&app, &ids).await;
        if !killed_at(&app, &erase(&ids[0]), passing, When::Before).await {
            assert!(passing > 5, "{passing}");
            break;
        }
        // The restore can be undone in the meantime, but for the document that is being erased.
        let planned = app.run(&["undo", &restore, "--dry-run", "--format", "json"]).await;
        let plan: Value =
            serde_json::from_str(&planned.stdout).unwrap_or_else(|_| panic!("write {passing}: {planned:?}"));
        let steps = plan["plan"]["steps"].as_array().map_or(0, Vec::len);
        assert!([59, 60].contains(&steps) && [0, 3].contains(&planned.code), "write {passing}: {planned:?}");
        assert_nothing_left(&app.run(&erase(&ids[59])).await);
        let again = app.run(&erase(&ids[0])).await;
        assert_nothing_left(&again);
        for id in [&ids[0], &ids[59]] {
            assert_eq!(naming(&app, id).await, Vec::<String>::new(), "write {passing}");
        }
        assert_eq!(naming(&app, "\"erasing\"").await, Vec::<String>::new(), "write {passing}");
        assert_eq!(undone(&app, &restore).await.len(), 58, "write {passing}");
    }
}

#[tokio::test]
async fn the_local_journal_of_a_restore_that_runs_is_not_replaced() {
    let app = TestApp::start().await;
    let ids: Vec<String> = (0..8).map(|n| format!("doc-{n}")).collect();
    let first = restored(&app, &ids).await;
    let reached = app.proxy.hold_after(6, When::Before);
    let running = app.start_through_proxy(&["undo", &first, "--yes", "--concurrency", "1", "--format", "json"]);
    let held = reached.await.unwrap();
    let early = app.run(&erase("doc-0")).await;
    assert!(early.code == 1 && early.stderr.contains("another process has it locked"), "{early:?}");
    assert!(early.stderr.contains("run the command again when that has ended"), "{early:?}");
    drop(held);
    let ended = running.ended().await;
    let outcomes = ended.json()["outcomes"].as_array().unwrap().len();
    assert_eq!((ended.code, outcomes), (0, 8), "{ended:?}");
    assert_nothing_left(&app.run(&erase("doc-0")).await);
}

/// It has the letter's text, and nothing in the store shows it.
#[tokio::test]
async fn a_replay_that_has_read_a_letter_brings_nothing_back() {
    let app = TestApp::start().await;
    let folder = app.folder.path().join(".dead-letters");
    std::fs::create_dir_all(&folder).unwrap();
    let letter = folder.join("CaptureChanges-1.json");
    let item = json!({"id": "doc", "pk": "p", "n": 1, "_etag": "\"1\"", "_ts": Utc::now().timestamp() - 60});
    let text = json!({"v": 1, "at": "2026-11-20T15:00:00.000Z", "function": "CaptureChanges", "invocation": "1",
        "id": "doc", "status": "413", "reason": "-", "source": "dev/events", "item": item});
    std::fs::write(&letter, text.to_string()).unwrap();

    let reached = app.proxy.hold_after(0, When::Before);
    let running = app.start_through_proxy(&["replay", "--format", "json"]);
    let held = reached.await.unwrap();
    let erase = [&erase("doc")[..], &["--settle", "5s"]].concat();
    let (erased, replayed) = tokio::join!(app.run(&erase), async {
        eventually("the letter is removed", async || (!letter.exists()).then_some(())).await;
        drop(held);
        let replayed = running.ended().await;
        assert_eq!(naming(&app, "doc~1").await.len(), 1, "{replayed:?}");
        replayed
    });
    assert_eq!((erased.code, &erased.json()["versions"]), (0, &json!(1)), "{erased:?}");
    assert_nothing_left(&erased);
    assert_eq!(naming(&app, "doc~1").await, Vec::<String>::new());
    assert!(replayed.code == 0 && replayed.stdout.contains("erase it again"), "{replayed:?}");
}

#[tokio::test]
async fn runs_at_the_same_time_bring_nothing_back_in_a_segment() {
    let Some(azurite) = Azurite::start() else { return };
    let app = TestApp::start().await;
    azurite.create("segments").await;
    let url = format!("blob:{}", azurite.container("segments").replacen('?', "/a?", 1));
    let follow_all = ["--mode", "all-versions", "--segments", "--sink", &url];
    follow::catch_up(&app, &follow_all).await;
    let ids: Vec<String> = (0..5).map(|n| format!("doc-{n}")).collect();
    for id in &ids {
        // Large enough that reading and writing the segment takes its time.
        let noise: String = (0..200_000).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
        app.put(json!({"id": id, "pk": "p", "noise": noise})).await;
    }
    follow::catch_up(&app, &follow_all).await;
    let runs = ids[..4].iter().map(|id| {
        let args = [&erase(id)[..], &["--archive", &url]].concat();
        let app = &app;
        async move { app.run(&args).await }
    });
    let receipts: Vec<Value> = futures::future::join_all(runs).await.iter().map(Output::json).collect();
    assert!(receipts.iter().all(|receipt| receipt["archived"] == 1 && receipt["left"] == 0), "{receipts:?}");
    let load = app.run(&["load", "--archive", &url, "--mode", "upsert", "--format", "json"]).await;
    assert_eq!((load.code, &load.json()["written"]), (0, &json!(1)), "{load:?}");
}

#[tokio::test]
async fn folders_that_are_named_after_the_document_go_with_it() {
    let app = TestApp::start().await;
    let archive = app.folder.path().join("archive");
    for (id, pk) in [("jane-doe", "p"), ("other", "p"), ("jane-doe", "q")] {
        let folder = archive.join(pk).join(id);
        std::fs::create_dir_all(&folder).unwrap();
        let event = json!({"op": "create", "id": id, "pk": pk, "ts": 1_700_000_000, "lsn": 1, "version": "v",
            "doc": {"id": id, "pk": pk}, "previous": null, "changed": null});
        std::fs::write(folder.join("v.json"), event.to_string()).unwrap();
    }
    assert_nothing_left(&app.run(&[&erase("jane-doe")[..], &["--archive", "archive"]].concat()).await);
    let left = ["p/jane-doe", "p/other/v.json", "q/jane-doe/v.json"].map(|path| archive.join(path).exists());
    assert_eq!(left, [false, true, true]);
    for id in [["--id", "other", "--pk", "p"], ["--id", "jane-doe", "--pk", "q"]] {
        let erase = [&["erase", "--yes", "--archive", "archive", "--format", "json"][..], &id].concat();
        assert_nothing_left(&app.run(&erase).await);
    }
    assert_eq!(std::fs::read_dir(&archive).unwrap().count(), 0);
}
