//! Backup and load, end to end: the real binary on the local account.

use std::path::PathBuf;

use chrono::Utc;
use cosmos_rewind::change::{key::PartitionKey, record};
use serde_json::{Value, json};

use crate::support::{BINARY, TestApp, eventually};

/// A document with many kinds of values; numbers are spelled as the service returns them.
fn exact(id: &str) -> String {
    format!(r#"{{"id":"{id}","pk":"p","price":1.25,"when":"2020-01-01T00:00:00.000Z","ü":"\u00e9\n"}}"#)
}

fn file(app: &TestApp, name: &str) -> (PathBuf, String) {
    let path = app.folder.path().join(name);
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

fn trailer(text: &str) -> Value {
    serde_json::from_str::<Value>(text.lines().last().unwrap()).unwrap()["_backup"].clone()
}

/// The text of every live document without system properties, sorted.
async fn live(app: &TestApp) -> Vec<String> {
    let found = app.events().await.query_all("SELECT * FROM c", &[], None).await.unwrap();
    let mut texts: Vec<String> = found.iter().map(|d| record::own_text(d.get()).unwrap()).collect();
    texts.sort();
    texts
}

async fn put_text(app: &TestApp, id: &str, text: String) {
    let key = PartitionKey::parse("p").unwrap();
    app.events().await.upsert(&key, id, text.into_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_backup_is_loaded_exactly() {
    let app = TestApp::start().await;
    for n in 0..250 {
        let id = format!("d{n}");
        put_text(&app, &id, exact(&id)).await;
    }
    let before = live(&app).await;
    let key = PartitionKey::parse("p").unwrap();
    let stored = app.events().await.read(&key, "d7").await.unwrap().unwrap();
    let stored = record::own_text(std::str::from_utf8(&stored).unwrap()).unwrap();
    for name in ["all.jsonl", "all.jsonl.gz"] {
        let (path, text) = file(&app, name);
        let summary = app.run(&["backup", "--all", "--out", &text, "--format", "json"]).await.json();
        assert_eq!((&summary["documents"], &summary["at"]), (&json!(250), &json!(null)), "{summary}");
        assert!(summary["ru"].as_f64().unwrap() > 0.0);
        assert!(!path.with_file_name(format!("{name}.part")).exists());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.starts_with(&[0x1f, 0x8b]), name.ends_with(".gz"));
        if name.ends_with("jsonl") {
            let lines = String::from_utf8(bytes).unwrap();
            let trailer = trailer(&lines);
            assert_eq!((&trailer["documents"], &trailer["source"]), (&json!(250), &json!("dev/events")), "{trailer}");
            assert!(lines.lines().any(|line| line == stored), "the backup does not contain the document's exact text");
        }
        assert_eq!(app.run(&["truncate", "source", "--yes"]).await.code, 0);
        let loaded = app.run(&["load", &text, "--format", "json"]).await.json();
        let figures =
            |l: &Value| ["written", "created", "updated", "skipped", "failed"].map(|f| l[f].as_u64().unwrap());
        assert_eq!(figures(&loaded), [250, 250, 0, 0, 0]);
        assert_eq!(live(&app).await, before);
        // A second load is harmless.
        let again = app.run(&["load", &text, "--format", "json"]).await.json();
        assert_eq!(figures(&again), [0, 0, 0, 250, 0]);
        let again = app.run(&["load", &text, "--mode", "upsert", "--format", "json"]).await.json();
        assert_eq!(figures(&again), [250, 0, 250, 0, 0]);
        assert_eq!(live(&app).await, before);
    }
    // An existing file is never overwritten.
    let (path, text) = file(&app, "all.jsonl");
    let old = std::fs::read(&path).unwrap();
    let refused = app.run(&["backup", "--all", "--out", &text]).await;
    assert!(refused.code == 2 && refused.stderr.contains("exists already"), "{refused:?}");
    assert_eq!(std::fs::read(&path).unwrap(), old);
    // Neither is one called - written, which elsewhere is standard input.
    let refused = app.run(&["backup", "--all", "--out", "-"]).await;
    assert!(refused.code == 2 && refused.stderr.contains("standard output"), "{refused:?}");
    assert!(!app.folder.path().join("-").exists());

    let (_, some) = file(&app, "some.jsonl");
    let args = ["backup", "--where", "c.id = @id -- one", "--param", "id=d7", "--out", &some, "--format", "json"];
    assert_eq!(app.run(&args).await.json()["documents"], 1);
}

#[tokio::test]
async fn a_moment_is_backed_up_from_the_history() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let now = Utc::now().timestamp();
    let capture = async |minutes: i64, op: &str, lsn: i64, document: Value| {
        let mut stored = app.put(document).await;
        let ts = now - minutes * 60;
        stored["_ts"] = ts.into();
        let item = json!({"current": stored, "metadata": {"operationType": op, "lsn": lsn, "crts": ts}});
        assert_eq!(handler.deliver(&[item]).await.0, 200);
    };
    capture(30, "create", 1, json!({"id": "a", "pk": "p", "city": "Davidson", "n": 1})).await;
    capture(30, "create", 2, json!({"id": "gone", "pk": "p", "city": "Davidson", "n": 1})).await;
    capture(30, "create", 3, json!({"id": "other", "pk": "p", "city": "Cornelius", "n": 1})).await;
    capture(5, "replace", 4, json!({"id": "a", "pk": "p", "city": "Ruined", "n": 2})).await;
    capture(5, "create", 5, json!({"id": "newer", "pk": "p", "city": "Davidson", "n": 1})).await;
    let key = PartitionKey::parse("p").unwrap();
    app.events().await.delete(&key, "gone", None).await.unwrap();
    let metadata =
        json!({"operationType": "delete", "lsn": 6, "crts": now - 240, "id": "gone", "partitionKey": {"pk": "p"}});
    assert_eq!(handler.deliver(&[json!({"current": {}, "metadata": metadata})]).await.0, 200);

    let (path, text) = file(&app, "then.jsonl");
    let summary = app.run(&["backup", "--all", "--at", "10m", "--out", &text, "--format", "json"]).await.json();
    assert_eq!((&summary["documents"], &summary["unknown"]), (&json!(3), &json!(0)), "{summary}");
    let lines = std::fs::read_to_string(&path).unwrap();
    let documents: Vec<&str> = lines.lines().take(3).collect();
    assert_eq!(
        documents,
        [
            r#"{"id":"a","pk":"p","city":"Davidson","n":1}"#,
            r#"{"id":"gone","pk":"p","city":"Davidson","n":1}"#,
            r#"{"id":"other","pk":"p","city":"Cornelius","n":1}"#
        ]
    );
    assert_eq!(trailer(&lines)["at"], summary["at"]);

    let (_, some) = file(&app, "some.jsonl");
    let args = ["backup", "--where", "c.city = 'Davidson'", "--at", "10m", "--out", &some, "--format", "json"];
    assert_eq!(app.run(&args).await.json()["documents"], 2);

    assert_eq!(app.run(&["truncate", "source", "--yes"]).await.code, 0);
    assert_eq!(app.run(&["load", &text]).await.code, 0);
    assert_eq!(live(&app).await, documents);

    // The state of a document that was never captured is unknown.
    app.put(json!({"id": "unseen", "pk": "p"})).await;
    let (path, text) = file(&app, "unknown.jsonl");
    let incomplete = app.run(&["backup", "--all", "--at", "10m", "--out", &text]).await;
    assert!(incomplete.code == 3 && incomplete.stderr.contains("\"unseen\""), "{incomplete:?}");
    assert_eq!(trailer(&std::fs::read_to_string(path).unwrap())["documents"], 3);
}

#[tokio::test]
async fn a_damaged_file_is_refused_before_anything_is_written() {
    let app = TestApp::start().await;
    for id in ["a", "b"] {
        put_text(&app, id, exact(id)).await;
    }
    let before = live(&app).await;
    let (path, text) = file(&app, "good.jsonl");
    assert_eq!(app.run(&["backup", "--all", "--out", &text]).await.code, 0);
    let (zipped, gz) = file(&app, "good.jsonl.gz");
    assert_eq!(app.run(&["backup", "--all", "--out", &gz]).await.code, 0);
    assert_eq!(app.run(&["truncate", "source", "--yes"]).await.code, 0);

    let good = std::fs::read_to_string(&path).unwrap();
    let gz = std::fs::read(&zipped).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let without_last = format!("{}\n{}\n", lines[0], lines[1]);
    for (what, bytes, words) in [
        ("changed", good.replacen("1.25", "1.75", 1).into_bytes(), "checksum"),
        ("a line less", format!("{}\n{}\n", lines[0], lines[2]).into_bytes(), "its trailer says 2"),
        ("no trailer", without_last.into_bytes(), "--no-trailer"),
        ("more", format!("{good}{{}}\n").into_bytes(), "after its trailer"),
        ("newer", good.replacen("\"v\":1", "\"v\":2", 1).into_bytes(), "format 2"),
        ("cut gzip", gz[..gz.len() / 2].to_vec(), "cannot be read"),
        ("empty", Vec::new(), "no trailer"),
        ("an array", b"[{\"id\":\"a\",\"pk\":\"p\"}]".to_vec(), "--no-trailer"),
    ] {
        let (path, text) = file(&app, "bad");
        std::fs::write(path, bytes).unwrap();
        let refused = app.run(&["load", &text]).await;
        assert!(refused.code == 1 && refused.stderr.contains(words), "{what}: {refused:?}");
        assert!(live(&app).await.is_empty(), "{what}: something was written");
    }
    // The end of standard input is not known in advance, so damage is only noticed at the end.
    let streamed = app.run_with_input(&["load", "-"], &good.replacen("1.25", "1.75", 1)).await;
    assert!(streamed.code == 3 && streamed.stderr.contains("checksum"), "{streamed:?}");
    // Existing documents are left alone unless requested: the damaged pipe has overwritten nothing.
    assert_eq!(app.run_with_input(&["load", "-"], &good).await.code, 0);
    assert_ne!(live(&app).await, before);
    assert_eq!(app.run_with_input(&["load", "-", "--mode", "upsert"], &good).await.code, 0);
    assert_eq!(live(&app).await, before);
}

#[tokio::test]
async fn existing_documents_are_treated_according_to_the_mode() {
    let app = TestApp::start().await;
    for id in ["a", "b"] {
        app.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    let (_, text) = file(&app, "b.jsonl");
    assert_eq!(app.run(&["backup", "--all", "--out", &text]).await.code, 0);
    let key = PartitionKey::parse("p").unwrap();
    app.events().await.delete(&key, "b", None).await.unwrap();
    app.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    let newer = [r#"{"id":"a","pk":"p","n":2}"#, r#"{"id":"b","pk":"p","n":1}"#];
    for mode in ["create-only", "if-newer"] {
        for created in [1, 0] {
            let loaded = app.run(&["load", &text, "--mode", mode, "--format", "json"]).await.json();
            assert_eq!(
                (&loaded["created"], &loaded["updated"], &loaded["skipped"]),
                (&json!(created), &json!(0), &json!(2 - created)),
                "{mode}"
            );
            assert_eq!(live(&app).await, newer);
        }
        app.events().await.delete(&key, "b", None).await.unwrap();
    }
    // The same file with a later time: the live documents are older.
    let lines = std::fs::read_to_string(&text).unwrap();
    let (later, later_text) = file(&app, "later.jsonl");
    std::fs::write(later, lines.replace("\"at\":null", "\"at\":\"2100-01-01T00:00:00Z\"")).unwrap();
    let loaded = app.run(&["load", &later_text, "--mode", "if-newer", "--format", "json"]).await.json();
    assert_eq!((&loaded["created"], &loaded["updated"]), (&json!(1), &json!(1)));
    assert_eq!(live(&app).await, [r#"{"id":"a","pk":"p","n":1}"#, r#"{"id":"b","pk":"p","n":1}"#]);
}

#[tokio::test]
async fn the_array_of_the_original_demo_is_loaded_without_its_system_properties() {
    let app = TestApp::start().await;
    let (path, text) = file(&app, "demo.json");
    let array = r#"[
  {
    "id": "28036", "pk": "28036",
    "price": 1.25,
    "_rid": "x==", "_self": "dbs/x", "_etag": "\"e\"", "_attachments": "attachments/", "_ts": 1592926509,
    "_lsn": 7, "_originalId": "o"
  },
  {"pk": "no id"},
  {"id": "28035", "pk": "28035"}
]"#;
    std::fs::write(path, array).unwrap();
    let refused = app.run(&["load", &text]).await;
    assert!(refused.code == 1 && refused.stderr.contains("--no-trailer"), "{refused:?}");
    // Advice that was followed is not given again.
    let (torn, torn_text) = file(&app, "torn.json");
    std::fs::write(torn, "{\"id\":").unwrap();
    let refused = app.run(&["load", "--no-trailer", &torn_text]).await;
    let hint = refused.stderr.lines().find(|line| line.starts_with("hint:")).unwrap_or_default();
    assert!(refused.code != 0 && !hint.contains("--no-trailer"), "{refused:?}");
    // Whoever names the wrong file is not told of each of its lines.
    let (other, other_text) = file(&app, "other.jsonl");
    std::fs::write(other, "{\"n\":1}\n".repeat(30)).unwrap();
    let loaded = app.run(&["load", "--no-trailer", &other_text]).await;
    assert!(loaded.code == 3 && loaded.stderr.contains("and 10 more documents that cannot be loaded"), "{loaded:?}");
    assert_eq!(loaded.stderr.matches("has no id").count(), 20, "{loaded:?}");
    let loaded = app.run(&["load", "--no-trailer", &text, "--format", "json"]).await;
    assert!(loaded.code == 3 && loaded.stderr.contains("document 2"), "{loaded:?}");
    let summary: Value = serde_json::from_str(&loaded.stdout).unwrap();
    assert_eq!((&summary["created"], &summary["failed"]), (&json!(2), &json!(1)));
    assert_eq!(
        live(&app).await,
        [r#"{"id":"28035","pk":"28035"}"#, r#"{"id":"28036","pk":"28036","price":1.25,"_lsn":7,"_originalId":"o"}"#]
    );
}

#[tokio::test]
async fn wrong_flags_are_refused_and_leave_nothing() {
    let app = TestApp::start().await;
    let (_, out) = file(&app, "x.jsonl");
    let nowhere = format!("{}/none/x.jsonl", app.folder.path().display());
    for args in [
        vec!["backup", "--out", &out],
        vec!["backup", "--all"],
        vec!["backup", "--all", "--where", "true", "--out", &out],
        vec!["backup", "--all", "--at", "2026-01-01", "--out", &out],
        vec!["backup", "--all", "--out", &nowhere],
        vec!["backup", "--where", "c.id = = 1", "--out", &out],
        vec!["load", &nowhere],
        vec!["load", "."],
        vec!["load", "-", "--mode", "if-newer"],
        vec!["load", "-", "--mode", "if-newer", "--no-trailer"],
        vec!["load", "-", "--mode", "replace"],
    ] {
        let refused = app.run(&args).await;
        assert_eq!(refused.code, 2, "{args:?}: {refused:?}");
        let left: Vec<String> = std::fs::read_dir(app.folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.contains("jsonl"))
            .collect();
        assert!(left.is_empty(), "{args:?} left {left:?}");
    }
}

#[tokio::test]
async fn the_remains_of_a_killed_backup_are_reported_and_kept() {
    let app = TestApp::start().await;
    let (path, text) = file(&app, "x.jsonl");
    let part = app.folder.path().join("x.jsonl.part");
    std::fs::write(&part, "half").unwrap();
    let refused = app.run(&["backup", "--all", "--out", &text]).await;
    assert!(refused.code == 2 && refused.stderr.contains("x.jsonl.part"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&part).unwrap(), "half");
    assert!(!path.exists());
    std::fs::remove_file(part).unwrap();
    // A backup of zero documents is valid.
    assert_eq!(app.run(&["backup", "--all", "--out", &text, "--format", "json"]).await.json()["documents"], 0);
    assert_eq!(app.run(&["load", &text, "--format", "json"]).await.json()["written"], 0);
}

/// Kills a backup when its first checkpoint exists, and runs it again.
async fn interrupted(app: &TestApp, name: &str, ru_limit: &str, more: &[&str]) -> Vec<String> {
    let (path, text) = file(app, name);
    let whole = app.folder.path().join(format!("whole-{name}"));
    let args: Vec<&str> =
        ["backup", "--all", "--out", &text, "--format", "json"].into_iter().chain(more.iter().copied()).collect();
    let mut child = std::process::Command::new(BINARY)
        .args(&args)
        // Slow enough to be caught in progress.
        .args(["--ru-limit", ru_limit])
        .current_dir(app.folder.path())
        .env("CosmosDB", app.local.connection_string())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let progress = app.folder.path().join(format!("{name}.part.json"));
    let documents = eventually("a checkpoint exists", async || {
        let state: Value = serde_json::from_slice(&std::fs::read(&progress).ok()?).ok()?;
        state["documents"].as_u64().filter(|n| *n > 0)
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!path.exists());

    // The checkpoint belongs to this backup only.
    let other = app.run(&["backup", "--where", "true", "--out", &text]).await;
    assert!(other.code == 2 && other.stderr.contains("of another backup"), "{other:?}");

    let resumed = app.run(&args).await;
    assert!(resumed.stderr.contains("are in it already"), "{resumed:?}");
    let summary = resumed.json();
    assert!(summary["documents"].as_u64().unwrap() > documents, "{summary}");
    assert!(!progress.exists());
    let loaded = app.run(&["load", &text, "--mode", "create-only", "--format", "json"]).await.json();
    assert_eq!((&loaded["skipped"], &loaded["failed"]), (&summary["documents"], &json!(0)), "the file is incomplete");

    let all = whole.to_str().unwrap();
    let args: Vec<&str> =
        ["backup", "--all", "--out", all, "--format", "json"].into_iter().chain(more.iter().copied()).collect();
    app.run(&args).await.json();
    let sorted = |path: &std::path::Path| {
        let mut text = Vec::new();
        let bytes = std::fs::read(path).unwrap();
        let mut input: Box<dyn std::io::Read> = if name.ends_with(".gz") {
            Box::new(flate2::read::MultiGzDecoder::new(bytes.as_slice()))
        } else {
            Box::new(bytes.as_slice())
        };
        input.read_to_end(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let mut lines: Vec<String> =
            text.lines().filter(|l| !l.starts_with("{\"_backup\"")).map(String::from).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&path), sorted(&whole));
    sorted(&path)
}

#[tokio::test]
async fn a_killed_backup_resumes_at_its_checkpoint() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let text = "x".repeat(300_000);
    for batch in 0..4 {
        let mut stored = Vec::new();
        for i in 0..12 {
            let id = format!("doc-{}", batch * 12 + i);
            stored.push(app.put(json!({"id": id, "pk": id, "text": text})).await);
        }
        assert_eq!(handler.deliver(&stored).await.0, 200);
    }
    let lines = interrupted(&app, "live.jsonl", "12", &[]).await;
    assert_eq!(lines.len(), 48);
    app.captured_from_now().await;
    let at = Utc::now().timestamp().to_string();
    // Versions are first read one by one, and large ones are expensive.
    let lines = interrupted(&app, "past.jsonl.gz", "8000", &["--at", &at]).await;
    assert_eq!(lines.len(), 48);
}
