//! Removes old versions, while kept moments have the same answers as before: the real binary on the local account.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::support::{Fault, Kind, Output, TestApp, eventually};

const DAY: i64 = 86_400;

struct Life {
    app: TestApp,
    now: i64,
}

impl Life {
    /// A document with a version a day for thirty days, one deleted 20 days ago, one deleted and recreated, and one
    /// that never changed.
    async fn start(paths: &[&str]) -> Self {
        let app = TestApp::with_changes_key(paths).await;
        let now = Utc::now().timestamp();
        let handler = app.handler(&[]).await;
        let mut items = Vec::new();
        let mut lsn = 0;
        let mut add = |id: &str, days: i64, op: &str, n: i64| {
            lsn += 1;
            let ts = now - days * DAY - 100;
            let metadata = json!({"operationType": op, "lsn": lsn, "crts": ts, "id": id, "partitionKey": {"pk": "p"}});
            let current = match op {
                "delete" => json!({}),
                _ => json!({"id": id, "pk": "p", "n": n, "_ts": ts, "_etag": format!("\"{id}-{lsn}\"")}),
            };
            items.push(json!({"current": current, "metadata": metadata}));
        };
        for day in (0..30).rev() {
            add("busy", day, if day == 29 { "create" } else { "replace" }, day);
        }
        add("gone", 30, "create", 1);
        add("gone", 20, "delete", 0);
        add("again", 30, "create", 1);
        add("again", 20, "delete", 0);
        add("again", 15, "create", 2);
        add("quiet", 40, "create", 1);
        add("quiet", 35, "replace", 2);
        assert_eq!(handler.deliver(&items).await.0, 200);
        Self { app, now }
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.app.run(&[&["prune", "--format", "json"], args].concat()).await
    }

    /// The state of each document this many days ago, according to `show`.
    async fn answers(&self, days: i64) -> Vec<(String, Value)> {
        let at = (self.now - days * DAY).to_string();
        let mut all = Vec::new();
        for id in ["busy", "gone", "again", "quiet"] {
            let shown = self.app.run(&["show", "--id", id, "--at", &at, "--format", "json"]).await;
            let state = serde_json::from_str::<Value>(&shown.stdout)
                .map_or(Value::Null, |v| json!([v["state"], v["document"], v["ts"]]));
            all.push((id.to_owned(), state));
        }
        all
    }

    async fn counts(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for id in ["busy", "gone", "again", "quiet"] {
            counts.push(self.app.versions(id).await.len());
        }
        counts
    }
}

fn figures(summary: &Value) -> [u64; 4] {
    ["versions", "kept", "removed", "failed"].map(|f| summary[f].as_u64().unwrap())
}

#[tokio::test]
async fn the_kept_window_has_the_same_answers() {
    for paths in [&["/pk", "/_originalId"][..], &["/pk"]] {
        let life = Life::start(paths).await;
        let mut before = Vec::new();
        for days in [0, 1, 5, 9, 10] {
            before.push((days, life.answers(days).await));
        }
        let args = ["--older-than", "10d"];
        let plan = life.run(&[&args[..], &["--dry-run"]].concat()).await;
        assert!(plan.stderr.contains("nothing was removed"), "{plan:?}");
        let plan = plan.json();
        assert_eq!(plan["dry_run"], true);
        assert_eq!(life.counts().await, [30, 2, 3, 2], "a dry run removes nothing");
        let refused = life.run(&args).await;
        assert!(refused.code == 2 && refused.stderr.contains("--yes"), "{refused:?}");
        assert_eq!(life.counts().await, [30, 2, 3, 2]);

        let done = life.run(&[&args[..], &["--yes"]].concat()).await.json();
        assert_eq!(figures(&done), figures(&plan), "{paths:?}");
        // Ten days plus the version in force before them; the tombstone without earlier versions; the new life and the
        // marker of the earlier one; the version that is still in force.
        assert_eq!(life.counts().await, [11, 1, 2, 1], "{paths:?} {done}");
        for (days, answers) in before {
            assert_eq!(life.answers(days).await, answers, "{days} days ago");
        }
        // `quiet` has an older version, which proves nothing about the other documents.
        let status = life.app.run(&["status", "--format", "json"]).await.json();
        let from = status["history"]["restorable_from"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        assert!((0..=60).contains(&(from.timestamp() - (life.now - 10 * DAY))), "{status}");
        // Nothing is claimed about removed versions.
        assert_eq!(
            life.answers(25).await,
            ["busy", "gone", "again"]
                .map(|id| (id.to_owned(), json!(["unknown", null, null])))
                .into_iter()
                .chain(life.answers(25).await.into_iter().skip(3))
                .collect::<Vec<_>>()
        );
        let again = life.run(&[&args[..], &["--yes"]].concat()).await.json();
        assert_eq!(figures(&again)[2], 0, "{again}");
        let forgotten = life.run(&[&args[..], &["--drop-deleted", "--yes"]].concat()).await.json();
        assert_eq!((&forgotten["forgotten"], &forgotten["removed"]), (&json!(1), &json!(1)));
        assert_eq!(life.counts().await, [11, 0, 2, 1]);
    }
}

#[tokio::test]
async fn the_last_versions_of_days_stay_and_machines_share_the_work() {
    let life = Life::start(&["/pk", "/_originalId"]).await;
    let policy = ["--keep-within", "2d", "--keep-daily", "5d", "--keep-monthly", "1y", "--yes"];
    let mut sum = 0;
    for share in ["1/2", "2/2"] {
        let done = life.run(&[&policy[..], &["--feed-range", share, "--ru-limit", "100000"]].concat()).await.json();
        sum += done["removed"].as_u64().unwrap();
    }
    let left = life.counts().await;
    assert_eq!(37 - sum, left.iter().sum::<usize>() as u64);
    let busy = life.app.versions("busy").await;
    // The last version of each of the last five days is kept, and of each month.
    for days in 0..5 {
        let end = (life.now - days * DAY).div_euclid(DAY) * DAY - 1;
        let in_force = busy.iter().rfind(|v| v.ts <= end).unwrap();
        assert!(end - in_force.ts < DAY, "{days}: {}", in_force.ts);
    }
    assert!((6..=10).contains(&busy.len()), "{left:?}");
}

#[tokio::test]
async fn journals_of_old_restores_are_pruned_and_others_stay() {
    let life = Life::start(&["/pk", "/_originalId"]).await;
    let restored = life.app.run(&["restore", "--id", "quiet", "--pk", "p", "--at", "38d", "--yes"]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    let listed = async || life.app.run(&["undo", "--list", "--format", "json"]).await.json();
    assert_eq!(listed().await.as_array().unwrap().len(), 1);
    let young = life.run(&["--older-than", "1h", "--yes"]).await.json();
    assert_eq!(young["journals"], 0, "{young}");
    let id = listed().await[0]["restore"].as_str().unwrap().to_owned();
    let undone = life.app.run(&["undo", &id, "--dry-run"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    eventually("the restore lies in an earlier second", async || {
        let done = life.run(&["--older-than", "0s", "--yes"]).await.json();
        (done["journals"] == 1).then_some(())
    })
    .await;
    assert_eq!(listed().await, json!([]));
}

#[tokio::test]
async fn an_impossible_prune_is_refused() {
    let app = TestApp::with_changes_key(&["/city"]).await;
    let keyed = app.run(&["prune", "--older-than", "1d", "--yes"]).await;
    assert!(keyed.code == 2 && keyed.stderr.contains("/city"), "{keyed:?}");
    for (args, named) in [
        (&["prune", "--yes"][..], "--keep-within"),
        (&["prune", "--older-than", "soon"], "--older-than"),
        (&["prune", "--older-than", "1d", "--keep-within", "1d"], "--keep-within"),
        (&["prune", "--older-than", "1d", "--keep-daily", "1d"], "--keep-"),
        (&["prune", "--keep-within", "-1d"], "--keep-within"),
    ] {
        let refused = app.run(args).await;
        assert!(refused.code == 2 && refused.stderr.contains(named), "{args:?}: {refused:?}");
    }
}

/// The function folder from docs/operate/prune.md.
fn add_timer(app: &TestApp) {
    let text = std::fs::read_to_string("docs/operate/prune.md").unwrap();
    let (_, rest) = text.split_once("```json PruneHistory/function.json\n").unwrap();
    let folder = app.folder.path().join("PruneHistory");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("function.json"), rest.split_once("```").unwrap().0).unwrap();
}

/// The body that the host sends at each tick.
fn tick() -> String {
    let timer = json!({"Schedule": {"AdjustForDST": true}, "ScheduleStatus": {"Last": "2026-11-21T00:00:00Z"}, "IsPastDue": false});
    json!({"Data": {"timer": timer.to_string()}, "Metadata": {"sys": {"MethodName": "PruneHistory"}}}).to_string()
}

#[tokio::test]
async fn a_timer_function_prunes_like_the_command_while_capture_continues() {
    let life = Life::start(&["/pk", "/_originalId"]).await;
    add_timer(&life.app);
    let dry = life.app.handler(&[("REWIND_PRUNE", "--older-than 10d --dry-run")]).await;
    let (status, answer) = dry.post("PruneHistory", tick()).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["Logs"][0].as_str().unwrap().contains("dry run: 22 of 37 versions of 4 documents"), "{answer}");
    assert_eq!(life.counts().await, [30, 2, 3, 2]);

    let settings =
        [("REWIND_PRUNE", "--older-than 1d"), ("PruneHistory__REWIND_PRUNE", "--older-than 10d --ru-limit 5000")];
    let handler = life.app.handler(&settings).await;
    let document = json!({"id": "late", "pk": "p", "_ts": life.now, "_etag": "\"late\"", "_lsn": 900});
    let documents = [document];
    let (pruned, captured) = tokio::join!(handler.post("prunehistory", tick()), handler.deliver(&documents));
    assert_eq!((pruned.0, captured.0), (200, 200), "{pruned:?} {captured:?}");
    assert_eq!(life.counts().await, [11, 1, 2, 1]);
    let line = pruned.1["Logs"][0].as_str().unwrap();
    assert!(line.contains("PruneHistory: 22 of ") && line.contains("the whole history was looked at"), "{line}");
    handler.wait_for_log("pruned: 22 of ").await;
    // Every tick starts a new round.
    let (_, again) = handler.post("PruneHistory", "").await;
    assert!(again["Logs"][0].as_str().unwrap().contains(": 0 of 16 versions of 5 documents"), "{again}");
}

#[tokio::test]
async fn a_tick_waits_until_the_containers_were_checked() {
    let life = Life::start(&["/pk", "/_originalId"]).await;
    add_timer(&life.app);
    let proxy = &life.app.proxy;
    proxy.fail_always_of(Kind::Definition, Some(Fault::Reject(503, 0)));
    let handler = life.app.answering(&[("REWIND_PRUNE", "--older-than 10d")]).await;
    let account = async {
        assert_eq!(handler.health().await, "starting");
        proxy.fail_always_of(Kind::Definition, None);
    };
    let ((status, answer), ()) = tokio::join!(handler.post("PruneHistory", tick()), account);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(life.counts().await, [11, 1, 2, 1]);
}

#[tokio::test]
async fn a_tick_that_runs_out_of_time_is_continued_by_the_next_one() {
    let life = Life::start(&["/pk", "/_originalId"]).await;
    add_timer(&life.app);
    // Slow: a round has 64 parts, and each costs at least one request unit to read.
    let settings = [("REWIND_PRUNE", "--older-than 10d --ru-limit 20"), ("REWIND_PRUNE_SECONDS", "2")];
    let handler = life.app.handler(&settings).await;
    let mut left = Vec::new();
    eventually("the round is over", async || {
        let (status, answer) = handler.post("PruneHistory", tick()).await;
        assert_eq!(status, 200, "{answer}");
        let line = answer["Logs"][0].as_str().unwrap().to_owned();
        match line.split_once("; ").unwrap().1.split_once(" of 64 parts are left") {
            Some((n, _)) => {
                left.push((n.parse::<u32>().unwrap(), life.counts().await.iter().sum::<usize>()));
                None
            }
            None => Some(()),
        }
    })
    .await;
    // Every tick gets on: with a part, or with the versions of one that costs more than a tick may.
    assert!(left.len() > 1 && left.is_sorted_by(|a, b| a > b), "{left:?}");
    assert_eq!(life.counts().await, [11, 1, 2, 1]);
}

#[tokio::test]
async fn a_failing_timer_reports_it_and_does_not_disturb_capture() {
    let life = Life::start(&["/pk", "/_originalId"]).await;
    add_timer(&life.app);
    let handler =
        life.app.handler(&[("REWIND_PRUNE", "--older-than 10d --ru-limit 30"), ("REWIND_PRUNE_SECONDS", "30")]).await;
    let busy = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        handler.post("PruneHistory", tick()).await
    };
    let (first, second) = tokio::join!(handler.post("PruneHistory", tick()), busy);
    assert_eq!((first.0, second.0), (200, 200));
    assert!(second.1["Logs"][0].as_str().unwrap().contains("is not done yet"), "{second:?}");
    assert_eq!(life.counts().await, [11, 1, 2, 1]);
    // Without permission to delete, the tick fails with a message, and capture continues.
    life.app.proxy.fail_always_of(Kind::HistoryWrite, Some(Fault::Reject(403, 0)));
    let strict = life.app.handler(&[("REWIND_PRUNE", "--older-than 1s")]).await;
    let (status, answer) = strict.post("PruneHistory", tick()).await;
    assert_eq!(status, 500, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("403"), "{answer}");
    strict.wait_for_log("not pruned, the next tick goes on").await;
    assert_eq!(life.counts().await, [11, 1, 2, 1]);
    life.app.proxy.fail_always_of(Kind::HistoryWrite, None);
    assert_eq!(strict.post("PruneHistory", tick()).await.0, 200);
    assert_eq!(life.counts().await, [1, 1, 2, 1]);
    drop(handler);

    for (setting, value, wanted) in [
        ("REWIND_PRUNE", "", "is missing, and PruneHistory/function.json has a timer trigger"),
        ("REWIND_PRUNE", "--keep-daily 5d", "REWIND_PRUNE"),
        ("REWIND_PRUNE", "--older-than soon", "--older-than"),
        ("REWIND_PRUNE", "--older-than 1d --endpoint http://127.0.0.1:1/", "--endpoint"),
        ("REWIND_PRUNE_SECONDS", "0", "REWIND_PRUNE_SECONDS"),
    ] {
        let mut settings = vec![("REWIND_PRUNE", "--older-than 1d")];
        settings.retain(|(name, _)| *name != setting);
        settings.push((setting, value));
        let output = life.app.run_with_settings(&["serve"], &settings).await;
        let told = format!("{}{}", output.stdout, output.stderr);
        assert_eq!((output.code, told.contains(wanted) && told.contains("hint: ")), (2, true), "{value}: {output:?}");
    }
}

/// For example a replayed dead letter, after later versions and the delete were dropped.
#[tokio::test]
async fn a_version_delivered_after_its_document_was_dropped_does_not_bring_it_back() {
    let app = TestApp::start().await;
    let now = Utc::now().timestamp();
    let metadata = |op: &str, lsn: i64, ts: i64| json!({"operationType": op, "lsn": lsn, "crts": ts, "id": "a", "partitionKey": {"pk": "p"}});
    let document = json!({"id": "a", "pk": "p", "_etag": "\"1\"", "_ts": now - 10 * DAY});
    let created = json!({"current": document, "metadata": metadata("create", 1, now - 10 * DAY)});
    let deleted = json!({"current": {}, "metadata": metadata("delete", 2, now - 9 * DAY)});
    app.capture(&[created.clone(), deleted]).await;
    let forgotten = app.run(&["prune", "--older-than", "5d", "--drop-deleted", "--yes", "--format", "json"]).await;
    assert_eq!(forgotten.json()["forgotten"], 1, "{forgotten:?}");
    app.capture(&[created]).await;
    app.captured_from_now().await;

    let plan = ["restore", "--at", "1d", "--dry-run", "--format", "json"];
    for (more, action) in [
        (&["--all"][..], "unknown"),
        (&["--all", "--recreate-deleted"], "recreate"),
        (&["--id", "a", "--pk", "p"], "recreate"),
    ] {
        let planned = app.run(&[&plan[..], more].concat()).await;
        let plan: Value = serde_json::from_str(&planned.stdout).unwrap_or_else(|e| panic!("{e}: {planned:?}"));
        let step = &plan["plan"]["steps"][0];
        assert_eq!(step["action"], action, "{planned:?}");
        assert!(step["notes"].to_string().contains("--drop-deleted"), "{planned:?}");
    }
}

/// All commands agree about the document in question, one that was created later, and an unchanged one.
#[tokio::test]
async fn all_commands_agree_on_a_version_delivered_after_its_document_was_dropped() {
    let app = TestApp::start().await;
    let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
    assert!(app.local.create_container("dev", json!({"id": "elsewhere", "partitionKey": key})).await.unwrap());
    let now = Utc::now().timestamp();
    let item = |id: &str, op: &str, lsn: i64, days: i64, etag: &Value| {
        let ts = now - days * DAY;
        let metadata = json!({"operationType": op, "lsn": lsn, "crts": ts, "id": id, "partitionKey": {"pk": "p"}});
        let current = if op == "delete" { json!({}) } else { json!({"id": id, "pk": "p", "_etag": etag, "_ts": ts}) };
        json!({"current": current, "metadata": metadata})
    };
    let etag = async |id: &str| app.put(json!({"id": id, "pk": "p"})).await["_etag"].clone();
    let created = item("a", "create", 1, 10, &json!("\"1\""));
    let kept = item("kept", "create", 3, 20, &etag("kept").await);
    let later = item("later", "create", 4, 2, &etag("later").await);
    app.capture(&[created.clone(), item("a", "delete", 2, 9, &Value::Null), kept, later]).await;
    let forgotten = app.run(&["prune", "--older-than", "5d", "--drop-deleted", "--yes", "--format", "json"]).await;
    assert_eq!(forgotten.json()["forgotten"], 1, "{forgotten:?}");
    app.capture(&[created]).await;
    app.captured_from_now().await;

    for (id, at, doubt) in
        [("a", "1d", "may have been deleted"), ("kept", "1d", ""), ("later", "6d", "whether it existed before")]
    {
        let said = |output: &Output| output.stderr.contains("--drop-deleted");
        let shown = app.run(&["show", "--id", id, "--at", at]).await;
        assert!(shown.stderr.contains(doubt) && said(&shown) != doubt.is_empty(), "{id}: {shown:?}");
        let compared = app.run(&["diff", "--id", id, "--from", at, "--to", "now"]).await;
        assert!(compared.stderr.contains(doubt) && said(&compared) != doubt.is_empty(), "{id}: {compared:?}");
    }
    let file = app.folder.path().join("then.jsonl");
    let backup = ["backup", "--all", "--at", "1d", "--out", file.to_str().unwrap(), "--format", "json"];
    let saved = app.run(&backup).await;
    let summary: Value = serde_json::from_str(&saved.stdout).unwrap();
    let counts = (saved.code, &summary["documents"], &summary["unknown"]);
    assert_eq!(counts, (3, &json!(2), &json!(1)), "{saved:?}");
    let mut past = app.start_program(&["at", "1d"]);
    let _ready = past.line().await;
    let loaded: Value = serde_json::from_str(&past.line().await).unwrap();
    assert_eq!((&loaded["documents"], &loaded["unknown"]), (&json!(2), &json!(1)), "{loaded}");
    past.kill().await;
    // In another container as well, the state of an unchanged document is certain.
    let plan = ["restore", "--all", "--at", "1d", "--into", "elsewhere", "--dry-run", "--format", "json"];
    let planned = app.run(&plan).await;
    let plan: Value = serde_json::from_str(&planned.stdout).unwrap_or_else(|e| panic!("{e}: {planned:?}"));
    let action = |id: &str| {
        let steps = plan["plan"]["steps"].as_array().unwrap();
        steps.iter().find(|step| step["id"] == id).map(|step| step["action"].clone()).unwrap()
    };
    assert_eq!(["a", "kept", "later"].map(action), ["unknown", "recreate", "recreate"].map(Value::from), "{planned:?}");
    // At an earlier moment, other documents may be missing entirely.
    let early = app.run(&["restore", "--all", "--at", "6d", "--dry-run"]).await;
    assert!(early.stderr.contains("others may have existed"), "{early:?}");
}
