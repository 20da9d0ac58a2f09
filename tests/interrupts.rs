//! Ctrl-C and SIGTERM in the middle of a command: work in progress is finished, the report counts what was done, the
//! exit code shows that something is left, and the same command finishes it. The account itself confirms the counts.

#![cfg(unix)]

use chrono::Utc;
use cosmos_rewind::{
    config::{Credential, DeadLetterLocation},
    dead_letters::{DeadLetter, DeadLetterStore},
};
use serde_json::{Value, json, value::RawValue};

use crate::support::{Kind, Output, Running, TestApp, When, eventually, feed_document};

const DOCUMENTS: usize = 12;

/// Both signals that ask a program to stop.
const SIGNALS: [fn(&Running); 2] = [Running::interrupt, Running::terminate];

/// An account with documents that are not in the history.
async fn uncaptured() -> TestApp {
    let app = TestApp::start().await;
    for n in 0..DOCUMENTS {
        app.put(json!({"id": format!("d{n:02}"), "pk": "p", "n": n})).await;
    }
    app
}

/// Starts a command, holds up its write after `passing` others, and sends the signal at that point.
async fn stopped_at(app: &TestApp, args: &[&str], passing: usize, signal: fn(&Running)) -> Output {
    let reached = app.proxy.hold_after(passing, When::Before);
    let running = app.start_through_proxy(args);
    let held = reached.await.unwrap();
    signal(&running);
    // The signal must arrive before the write gets its response.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    drop(held);
    running.ended().await
}

/// Starts a command that reads very slowly, and sends the signal after its first reads.
async fn stopped_reading(app: &TestApp, args: &[&str], signal: fn(&Running)) -> Output {
    let before = app.proxy.seen(Kind::Query);
    let running = app.start_through_proxy(&[args, &["--ru-limit", "1", "--format", "json"]].concat());
    eventually("a query was sent", async || (app.proxy.seen(Kind::Query) > before).then_some(())).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    signal(&running);
    running.ended().await
}

async fn live(app: &TestApp) -> usize {
    app.events().await.query_all("SELECT c.id FROM c", &[], None).await.unwrap().len()
}

/// The printed JSON, whatever the exit code.
fn told(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn count(output: &Output, name: &str) -> usize {
    told(output)[name].as_u64().unwrap_or_else(|| panic!("{output:?}")).try_into().unwrap()
}

#[tokio::test]
async fn a_stopped_backfill_reports_what_it_saved_and_is_finished_by_the_next() {
    for signal in SIGNALS {
        let app = uncaptured().await;
        let args = ["backfill", "--all", "--concurrency", "1", "--format", "json"];
        let stopped = stopped_at(&app, &args, 3, signal).await;
        assert_eq!(stopped.code, 3, "{stopped:?}");
        let saved = app.history().await.len();
        assert!((1..DOCUMENTS).contains(&saved), "{saved}");
        assert_eq!(count(&stopped, "written"), saved, "{stopped:?}");
        assert!(stopped.stderr.contains("stopped before the end"), "{stopped:?}");
        let again = app.run(&args).await;
        assert_eq!((again.code, count(&again, "written"), count(&again, "existed")), (0, DOCUMENTS - saved, saved));
        assert_eq!(app.history().await.len(), DOCUMENTS);
    }
}

#[tokio::test]
async fn a_stopped_repair_reports_what_it_saved_and_that_it_is_incomplete() {
    for signal in SIGNALS {
        let app = uncaptured().await;
        let args = ["verify", "--repair", "--grace", "0s", "--concurrency", "1", "--format", "json"];
        let stopped = stopped_at(&app, &args, 3, signal).await;
        assert_eq!(stopped.code, 3, "{stopped:?}");
        let saved = app.history().await.len();
        assert!((1..DOCUMENTS).contains(&saved), "{saved}");
        assert_eq!((count(&stopped, "repaired"), told(&stopped)["stopped"].clone()), (saved, json!(true)));
        assert_ne!(told(&stopped)["result"], "OK");
        let again = app.run(&args).await;
        assert_eq!((again.code, count(&again, "repaired")), (0, DOCUMENTS - saved), "{again:?}");
        assert_eq!(app.history().await.len(), DOCUMENTS);
    }
}

#[tokio::test]
async fn a_reading_command_ends_at_once_and_claims_nothing_about_the_rest() {
    let app = uncaptured().await;
    assert_eq!(app.run(&["backfill", "--all"]).await.code, 0);
    for signal in SIGNALS {
        for args in [&["verify"][..], &["verify", "--content"]] {
            let verified = stopped_reading(&app, args, signal).await;
            assert_eq!(verified.code, 3, "{verified:?}");
            let told = told(&verified);
            assert_eq!((told["result"].as_str(), told["stopped"].as_bool()), (Some("WARNING"), Some(true)));
        }
        let found = stopped_reading(&app, &["find", "--when", "doc.n >= 0"], signal).await;
        assert!(found.code == 3 && found.stderr.contains("stopped before the end"), "{found:?}");
        let several = ["find", "--when", "doc.n >= 0", "--containers", "events=changes,others=more"];
        let found = stopped_reading(&app, &several, signal).await;
        assert!(found.code == 3 && !found.stderr.contains("container  others"), "nothing new is started: {found:?}");
        let covered = stopped_reading(&app, &["coverage"], signal).await;
        assert!(covered.code == 1 && covered.stderr.contains("stopped before everything was read"), "{covered:?}");
    }
}

#[tokio::test]
async fn a_stopped_prune_reports_what_it_removed_and_is_finished_by_the_next() {
    for signal in SIGNALS {
        let app = TestApp::start().await;
        let ago = Utc::now().timestamp() - 100_000;
        let version = |n: i64| {
            let metadata =
                json!({"operationType": if n == 0 { "create" } else { "replace" }, "lsn": n + 1, "crts": ago + n});
            json!({"current": {"id": "a", "pk": "p", "n": n, "_ts": ago + n, "_etag": format!("\"{n}\"")},
                "metadata": metadata})
        };
        app.capture(&(0..10).map(version).collect::<Vec<_>>()).await;
        let args = ["prune", "--older-than", "1h", "--yes", "--concurrency", "1", "--format", "json"];
        // The first write records the time of the removal.
        let stopped = stopped_at(&app, &args, 4, signal).await;
        assert_eq!(stopped.code, 3, "{stopped:?}");
        let left = app.versions("a").await;
        assert!((2..10).contains(&left.len()), "{left:?}");
        assert_eq!(count(&stopped, "removed"), 10 - left.len(), "{stopped:?}");
        assert_eq!(left.last().map(|v| v.ts), Some(ago + 9), "the version in force stays");
        let again = app.run(&args).await;
        assert_eq!((again.code, app.versions("a").await.len()), (0, 1), "{again:?}");
    }
}

#[tokio::test]
async fn a_stopped_truncate_reports_how_many_are_left() {
    for signal in SIGNALS {
        let app = uncaptured().await;
        let args = ["truncate", "events", "--yes", "--concurrency", "1", "--format", "json"];
        let stopped = stopped_at(&app, &args, 3, signal).await;
        let left = live(&app).await;
        assert!(stopped.code == 3 && (1..DOCUMENTS).contains(&left), "{left} left: {stopped:?}");
        assert_eq!(count(&stopped, "deleted"), DOCUMENTS - left);
        assert!(stopped.stderr.contains(&format!("{left} document")), "{stopped:?}");
        assert_eq!((app.run(&args).await.code, live(&app).await), (0, 0));
    }
}

#[tokio::test]
async fn a_stopped_load_counts_what_it_wrote() {
    for (signal, args) in SIGNALS.into_iter().zip([&["populate", "--file"][..], &["load", "--no-trailer"]]) {
        let app = TestApp::start().await;
        let lines: String =
            (0..DOCUMENTS).map(|n| json!({"id": format!("d{n}"), "pk": "p"}).to_string() + "\n").collect();
        std::fs::write(app.folder.path().join("all.jsonl"), lines).unwrap();
        let args = [args, &["all.jsonl", "--concurrency", "1", "--format", "json"]].concat();
        let stopped = stopped_at(&app, &args, 3, signal).await;
        let written = live(&app).await;
        assert!(stopped.code == 3 && (1..DOCUMENTS).contains(&written), "{written} written: {stopped:?}");
        assert_eq!(count(&stopped, "written"), written);
        assert!(stopped.stderr.contains("stopped before everything was"), "{stopped:?}");
        assert_eq!((app.run(&args).await.code, live(&app).await), (0, DOCUMENTS));
    }
}

#[tokio::test]
async fn a_stopped_replay_keeps_the_letters_that_it_did_not_reach() {
    for signal in SIGNALS {
        let app = TestApp::start().await;
        let location = DeadLetterLocation::parse("REWIND_DEAD_LETTERS", ".dead-letters", app.folder.path()).unwrap();
        let store = DeadLetterStore::open(&location, &Credential::Developer).unwrap();
        for n in 0..6 {
            let item = feed_document(&format!("d{n}"), "p", 1).to_string();
            let letter = DeadLetter {
                v: 1,
                at: "2026-11-20T15:00:00.000Z".into(),
                function: "CaptureChanges".into(),
                invocation: "11111111-2222-3333-4444-555555555555".into(),
                id: Some(format!("d{n}")),
                status: "400".into(),
                reason: "too odd".into(),
                partial: None,
                delivery: None,
                source: None,
                via: None,
                item: RawValue::from_string(item).unwrap(),
            };
            store.put(&letter).await.unwrap();
        }
        let args = ["replay", "--format", "json"];
        let stopped = stopped_at(&app, &args, 2, signal).await;
        let (stored, kept) = (app.history().await.len(), app.dead_letters().len());
        assert!(stopped.code == 3 && (1..6).contains(&stored), "{stored} stored: {stopped:?}");
        assert_eq!(stored + kept, 6);
        let rows = told(&stopped);
        let told = rows.as_array().unwrap().iter().filter(|one| one["outcome"] == "stored").count();
        assert_eq!(told, stored, "{stopped:?}");
        assert!(stopped.stderr.contains(&format!("stopped before {kept} letter")), "{stopped:?}");
        assert_eq!((app.run(&args).await.code, app.history().await.len(), app.dead_letters().len()), (0, 6, 0));
    }
}

/// The second signal ends a command that waits for something that never comes.
#[tokio::test]
async fn the_second_signal_ends_a_command_at_once() {
    let app = uncaptured().await;
    let reached = app.proxy.hold_after(2, When::Before);
    let mut running = app.start_through_proxy(&["backfill", "--all", "--concurrency", "1"]);
    let held = reached.await.unwrap();
    running.interrupt();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    running.terminate();
    assert_eq!(running.code().await, Some(1));
    drop(held);
    let again = app.run(&["backfill", "--all"]).await;
    assert_eq!((again.code, app.history().await.len()), (0, DOCUMENTS), "{again:?}");
}
