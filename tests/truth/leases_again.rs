//! The trigger begins again without its leases, more than once. What lived and died in between is in no record, and no
//! command denies it.

use std::time::Duration;

use cosmos_rewind::{
    change::key::PartitionKey,
    local::trigger::{FunctionBinding, HandlerProgram, Trigger, TriggerMode, TriggerOptions},
};
use serde_json::{Value, json};

use super::captured::{action, delete_positions, next_second};
use crate::support::{Handler as Process, TestApp, eventually};

pub(super) async fn trigger(app: &TestApp, handler: &Process) -> Trigger {
    trigger_in(app, handler, TriggerMode::AllVersions).await
}

pub(super) async fn trigger_in(app: &TestApp, handler: &Process, mode: TriggerMode) -> Trigger {
    let mut options = TriggerOptions::new(app.folder.path().to_owned());
    options.handler = HandlerProgram::Running(handler.url("").parse().unwrap());
    options.binding = Some(FunctionBinding::capture_changes(&[]));
    options.mode = Some(mode);
    options.poll_delay = Some(Duration::from_millis(20));
    Trigger::start(&app.local, options).await.unwrap()
}

/// Puts a document with an own key in each feed range, under ids that begin like this.
async fn put(app: &TestApp, name: &str, n: i64) {
    for place in 0..24 {
        let id = format!("{name}-{place}");
        app.put(json!({"id": id, "pk": id, "n": n})).await;
    }
}

async fn delete(app: &TestApp, id: &str) {
    app.events().await.delete(&PartitionKey::parse(id).unwrap(), id, None).await.unwrap();
}

async fn captured(trigger: Trigger) {
    trigger.wait_until_drained(Duration::from_secs(30)).await.unwrap();
    trigger.stop().await;
}

pub(super) async fn lose(app: &TestApp) {
    delete_positions(app, "true").await;
}

/// Asserts that no command says that the document did not exist at a moment.
async fn nobody_denies(app: &TestApp, id: &str, at: i64) {
    let text = at.to_string();
    let restore = ["restore", "--all", "--at", &text, "--delete-newer=99", "--dry-run", "--format", "json"];
    let planned = app.run(&restore).await;
    assert_eq!((planned.code, action(&planned, id)), (3, "unknown".to_owned()), "{id} at {at}: {planned:?}");
    let shown = app.run(&["show", "--id", id, "--at", &text, "--format", "json"]).await;
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap_or_else(|_| panic!("{shown:?}"));
    assert!(shown["doubt"].as_str().is_some_and(|doubt| doubt.contains("not known")), "{id} at {at}: {shown}");
    let out = format!("{}.jsonl", std::fs::read_dir(app.folder.path()).unwrap().count());
    let saved = app.run(&["backup", "--all", "--at", &text, "--out", &out, "--format", "json"]).await;
    let report: Value = serde_json::from_str(&saved.stdout).unwrap();
    assert!(saved.code == 3 && report["unknown"].as_u64() > Some(0), "{at}: {saved:?}");
    assert!(saved.stderr.contains("may be missing from the history"), "{at}: {saved:?}");
    let mut program = app.start_program(&["at", &text]);
    program.line().await;
    let loaded: Value = serde_json::from_str(&program.line().await).unwrap();
    assert!(loaded["unknown"].as_u64() > Some(0), "{loaded}");
    let holes = app.run(&["status", "--format", "json"]).await.json()["history"]["holes"].take();
    let second = |end: &Value| chrono::DateTime::parse_from_rfc3339(end.as_str().unwrap()).unwrap().timestamp();
    let has_it = |hole: &Value| second(&hole["after"]) < at && at < second(&hole["before"]);
    assert!(holes.as_array().unwrap().iter().any(has_it), "{at}: {holes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lived_and_died_while_the_leases_were_lost_is_not_denied() {
    let app = TestApp::start().await;
    let mut moments = Vec::new();
    let mut known = 0;
    for round in 0..3 {
        // The host starts the handler anew as well.
        let handler = app.handler(&[("REWIND_FIDELITY", "payload")]).await;
        let trigger = trigger(&app, &handler).await;
        put(&app, "lives", round).await;
        let ghost = format!("ghost-{}", round - 1);
        if round > 0 {
            app.put(json!({"id": ghost, "pk": ghost, "n": 2})).await;
        }
        trigger.wait_until_drained(Duration::from_secs(30)).await.unwrap();
        // The handler, which may not ask the history, notes when this trigger began.
        let noted = async || {
            let changes = app.changes().await;
            let mark = changes.query_all("SELECT * FROM c WHERE c.id = 'restore~removals~mark'", &[], None).await;
            let mark: Value = serde_json::from_str(mark.unwrap().first()?.get()).unwrap();
            (mark["_restore"]["begun"].as_array()?.len() == round as usize + 1).then_some(())
        };
        eventually("the handler has noted it", noted).await;
        known = next_second().await;
        next_second().await;
        put(&app, "later", round).await;
        captured(trigger).await;
        next_second().await;
        lose(&app).await;
        let ghost = format!("ghost-{round}");
        app.put(json!({"id": ghost, "pk": ghost, "n": 1})).await;
        moments.push((ghost.clone(), next_second().await));
        next_second().await;
        delete(&app, &ghost).await;
        next_second().await;
        for (ghost, at) in moments.iter().take(round as usize) {
            nobody_denies(&app, ghost, *at).await;
        }
    }
    // While the trigger was there, everything is known.
    let args = ["restore", "--all", "--at", &known.to_string(), "--delete-newer=99", "--dry-run", "--format", "json"];
    let planned = app.run(&args).await;
    assert_eq!(action(&planned, "ghost-1"), "keep", "{planned:?}");
}
