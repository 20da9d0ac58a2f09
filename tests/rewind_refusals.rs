//! Impossible requests are refused before anything is written, with a message that says what to do.

use chrono::Utc;
use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use crate::support::{Fault, Kind, Output, TestApp};

/// A document that was good ten minutes ago and has been ruined since; its newest version is not captured.
async fn ruined() -> (TestApp, String) {
    let app = TestApp::start().await;
    let now = Utc::now().timestamp();
    let record = json!({"id": "a~e1", "pk": "a", "city_name": "Davidson", "_originalId": "a",
        "_change": {"v": 1, "op": "create", "ts": now - 1200, "lsn": 1, "etag": "\"e1\""}});
    let key = PartitionKey::parse(r#"["a","a"]"#).unwrap();
    app.changes().await.upsert(&key, "a~e1", record.to_string().into_bytes()).await.unwrap();
    app.captured_from_now().await;
    app.put(json!({"id": "a", "pk": "a", "city_name": "Ruined"})).await;
    (app, (now - 600).to_string())
}

/// Everything in both containers with system properties, so that two results are equal only if nothing was written.
async fn everything(app: &TestApp) -> Vec<String> {
    let mut all = Vec::new();
    for container in [app.events().await, app.changes().await] {
        let found = container.query_all("SELECT * FROM c", &[], None).await.unwrap();
        all.extend(found.iter().map(|raw| raw.get().to_owned()));
    }
    all.sort();
    all
}

/// Checks the exit code, and that the error and the hint contain these words.
#[track_caller]
fn is_refused(output: &Output, code: i32, words: &str, hint: &str) {
    assert_eq!(output.code, code, "{output:?}");
    let line = |start: &str| output.stderr.lines().filter(|l| l.starts_with(start)).collect::<Vec<_>>().join("\n");
    assert!(line("error: ").contains(words), "no {words:?} in {output:?}");
    assert!(line("hint: ").contains(hint), "no {hint:?} in {output:?}");
    assert!(!output.stderr.contains("panicked"), "{output:?}");
}

#[tokio::test]
async fn an_invalid_moment_is_refused_by_every_command_that_takes_one() {
    let (app, _) = ruined().await;
    let before = everything(&app).await;
    let file = app.folder.path().join("b.jsonl");
    let file = file.to_str().unwrap();
    for (at, words, hint) in [
        ("2026-11-20T14:05:00", "has no zone", "2026-11-20T14:05:00Z"),
        ("2126-11-20T14:05:00Z", "in the future", ""),
        ("14:05Z", "which day", "today"),
        ("2026-11-20T14:05:00 CET", "zone", "+02:00"),
        ("1795257651000", "milliseconds", "1795257651"),
        ("tomorrow", "", ""),
        ("", "", ""),
        ("-5m", "", ""),
        ("2026-02-30T00:00:00Z", "", ""),
    ] {
        for args in [
            vec!["show", "--id", "a", "--at", at],
            vec!["restore", "--all", "--yes", "--at", at],
            vec!["backup", "--all", "--out", file, "--at", at],
            vec!["diff", "--id", "a", "--from", at],
        ] {
            // A flag's value may begin with a dash only after an equals sign.
            let (value, rest) = args.split_last().unwrap();
            let (flag, rest) = rest.split_last().unwrap();
            let last = format!("{flag}={value}");
            let args = [rest, &[last.as_str()]].concat();
            let output = app.run(&args).await;
            is_refused(&output, 2, words, hint);
            assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
        }
    }
    assert_eq!(everything(&app).await, before);
    assert!(!std::path::Path::new(file).exists());
}

#[tokio::test]
async fn before_the_first_version_nothing_is_guessed_and_a_creation_is_believed() {
    let (app, at) = ruined().await;
    let now = Utc::now().timestamp();
    // The first version of this document is not a creation, so the document may have existed before.
    let record = json!({"id": "b~e1", "pk": "b", "city_name": "Davidson", "_originalId": "b",
        "_change": {"v": 1, "op": "replace", "ts": now - 1200, "lsn": 2, "etag": "\"e1\""}});
    let key = PartitionKey::parse(r#"["b","b"]"#).unwrap();
    app.changes().await.upsert(&key, "b~e1", record.to_string().into_bytes()).await.unwrap();
    // Capture of all versions was running before the other document was created.
    let first = json!({"id": "c~e1", "pk": "c", "_originalId": "c",
        "_change": {"v": 1, "op": "create", "ts": now - 7200, "lsn": 0, "etag": "\"e1\""}});
    let its_key = PartitionKey::parse(r#"["c","c"]"#).unwrap();
    app.changes().await.upsert(&its_key, "c~e1", first.to_string().into_bytes()).await.unwrap();
    app.put(json!({"id": "b", "pk": "b", "city_name": "Ruined"})).await;
    let before = everything(&app).await;
    let restore = async |id: &str, at: &str| {
        let args = ["restore", "--id", id, "--at", at, "--yes", "--format", "json"];
        let output = app.run(&args).await;
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        (output.code, report["plan"]["steps"][0]["action"].as_str().unwrap().to_owned())
    };
    assert_eq!(restore("a", "1h").await, (0, "keep".to_owned()), "it did not exist, and --delete-newer is not given");
    assert_eq!(restore("a", "1d").await, (3, "unknown".to_owned()), "the time before the first change is unknown");
    assert_eq!(restore("b", "1d").await, (3, "unknown".to_owned()));
    is_refused(&app.run(&["show", "--id", "b", "--at", "1d"]).await, 1, "the earliest known", "");
    assert_eq!(everything(&app).await, before);
    assert_eq!(restore("b", &at).await, (0, "restore".to_owned()));
}

#[tokio::test]
async fn a_plan_applies_only_to_the_containers_it_was_made_for() {
    let (app, at) = ruined().await;
    let path = app.folder.path().join("plan");
    let path = path.to_str().unwrap();
    let made = app.run(&["restore", "--all", "--at", &at, "--dry-run", "--plan-out", path]).await;
    assert_eq!(made.code, 0, "{made:?}");
    // The same names in another database, and other containers in the same one.
    assert!(app.local.create_database("other").await.unwrap());
    let create = async |database: &str, name: &str| {
        let description = json!({"id": name, "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
        assert!(app.local.create_container(database, description).await.unwrap());
    };
    for (database, name) in [("other", "events"), ("other", "changes"), ("dev", "events2"), ("dev", "changes2")] {
        create(database, name).await;
    }
    let before = everything(&app).await;
    let apply = ["restore", "--plan", path, "--yes"];
    for other in [["--database", "other"], ["--source", "events2"], ["--changes", "changes2"], ["--into", "events2"]] {
        let refused = app.run(&[&apply[..], &other[..]].concat()).await;
        is_refused(&refused, 2, "was made for", "--plan-out");
    }
    // Another account with the same names.
    let elsewhere = TestApp::start().await;
    let foreign = everything(&elsewhere).await;
    is_refused(&elsewhere.run(&apply).await, 2, "was made for", "--plan-out");
    assert_eq!(everything(&elsewhere).await, foreign);
    assert_eq!(everything(&app).await, before);
    // A missing file, a folder, and a file of another kind.
    for bad in ["none", ".", "host.json"] {
        std::fs::write(app.folder.path().join("host.json"), "{\"version\":\"2.0\"}").unwrap();
        is_refused(&app.run(&["restore", "--plan", bad, "--yes"]).await, 2, bad, "--plan-out");
    }
    // A changed byte is noticed anywhere in the file.
    let good = std::fs::read(path).unwrap();
    for at in (0..good.len()).step_by(good.len() / 40 + 1) {
        let mut bad = good.clone();
        bad[at] = if bad[at] == b'0' { b'1' } else { b'0' };
        std::fs::write(path, &bad).unwrap();
        let refused = app.run(&apply).await;
        assert_eq!(refused.code, 2, "byte {at}: {refused:?}");
        assert!(refused.stderr.contains("hint: "), "byte {at}: {refused:?}");
    }
    for cut in [0, 1, good.len() / 2, good.len() - 2] {
        std::fs::write(path, &good[..cut]).unwrap();
        assert_eq!(app.run(&apply).await.code, 2, "cut to {cut} bytes");
    }
    std::fs::write(path, [&good[..], &good[..]].concat()).unwrap();
    assert_eq!(app.run(&apply).await.code, 2, "twice");
    assert_eq!(everything(&app).await, before);
    std::fs::write(path, &good).unwrap();
    assert_eq!(app.run(&apply).await.code, 0);
}

#[tokio::test]
async fn without_a_history_every_command_reports_that_and_writes_nothing() {
    let app = TestApp::start().await;
    app.put(json!({"id": "a", "pk": "a"})).await;
    let before = everything(&app).await;
    let file = app.folder.path().join("b.jsonl");
    let file = file.to_str().unwrap();
    for (args, code, words, hint) in [
        (vec!["history", "--id", "a"], 1, "no version of document \"a\"", "before capture began"),
        (vec!["show", "--id", "a", "--at", "10m"], 1, "no version of document \"a\"", "before capture began"),
        (vec!["diff", "--id", "a", "--from", "10m"], 1, "no version of document \"a\"", "before capture began"),
        (vec!["restore", "--id", "a", "--at", "10m", "--yes"], 1, "not in the history", "before capture began"),
        (vec!["restore", "--where", "true", "--at", "10m", "--yes"], 1, "no document in scope", "history"),
        (vec!["undo", "none", "--yes"], 1, "there is no restore", "undo --list"),
    ] {
        is_refused(&app.run(&args).await, code, words, hint);
    }
    // With these, every existing document is unknown: not an error, but not a success either.
    for args in [
        vec!["restore", "--all", "--at", "10m", "--yes"],
        vec!["restore", "--id", "a", "--pk", "a", "--at", "10m", "--yes"],
        vec!["backup", "--all", "--at", "10m", "--out", file],
    ] {
        let output = app.run(&args).await;
        assert_eq!(output.code, 3, "{args:?}: {output:?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(
            said.contains("no version in the history") || said.contains("nothing is known"),
            "{args:?}: {output:?}"
        );
    }
    // Without the source container as well.
    for args in [
        vec!["history", "--id", "a"],
        vec!["show", "--id", "a"],
        vec!["diff", "--id", "a", "--from", "10m"],
        vec!["restore", "--all", "--at", "10m", "--yes"],
        vec!["undo", "--list"],
    ] {
        is_refused(&app.run(&[&args[..], &["--changes", "nowhere"]].concat()).await, 1, "nowhere", "provision");
    }
    assert_eq!(everything(&app).await, before);
}

#[tokio::test]
async fn a_caller_without_permission_is_told_which_one_is_missing() {
    let (app, at) = ruined().await;
    let before = everything(&app).await;
    let file = app.folder.path().join("b.jsonl");
    let file = file.to_str().unwrap();
    let commands = [
        vec!["history", "--id", "a"],
        vec!["show", "--id", "a"],
        vec!["diff", "--id", "a", "--from", &at],
        vec!["restore", "--all", "--at", &at, "--yes"],
        vec!["undo", "--list"],
        vec!["backup", "--all", "--out", file],
        vec!["load", "--no-trailer", "good.json"],
        vec!["query", "SELECT * FROM c"],
        vec!["truncate", "source", "--yes"],
    ];
    std::fs::write(app.folder.path().join("good.json"), r#"{"id":"x","pk":"x"}"#).unwrap();
    let all = [Kind::Definition, Kind::Query, Kind::LiveRead, Kind::LiveWrite, Kind::HistoryRead, Kind::HistoryWrite];
    // A wrong key is refused at the first request; a role without a permission, only where that is needed.
    for (status, kinds) in [(401, &all[..]), (403, &all[1..])] {
        for kind in kinds {
            app.proxy.fail_always_of(*kind, Some(Fault::Reject(status, 0)));
        }
        for args in &commands {
            is_refused(
                &app.run_through_proxy(args).await,
                1,
                &status.to_string(),
                "check the key or the identity's role",
            );
        }
        for kind in kinds {
            app.proxy.fail_always_of(*kind, None);
        }
    }
    assert_eq!(everything(&app).await, before);
    assert!(!std::path::Path::new(file).exists());

    // With read access only, the restore does not begin, because it cannot write its journal.
    let restore = ["restore", "--all", "--at", &at, "--yes", "--format", "json"];
    app.proxy.fail_always_of(Kind::HistoryWrite, Some(Fault::Reject(403, 0)));
    is_refused(&app.run_through_proxy(&restore).await, 1, "403", "journal");
    assert_eq!(everything(&app).await, before);
    app.proxy.fail_always_of(Kind::HistoryWrite, None);

    // With write access to the history only, each document is reported and stays unchanged.
    app.proxy.fail_always_of(Kind::LiveWrite, Some(Fault::Reject(403, 0)));
    let failed = app.run_through_proxy(&restore).await;
    assert_eq!(failed.code, 3, "{failed:?}");
    let report: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(report["outcomes"][0]["fate"], "failed", "{report}");
    assert!(report["outcomes"][0]["message"].as_str().unwrap().contains("403"), "{report}");
    app.proxy.fail_always_of(Kind::LiveWrite, None);
    let live = app.run(&["query", "SELECT c.city_name FROM c", "--format", "json"]).await.json();
    assert_eq!(live, json!([{"city_name": "Ruined"}]));
    // With the permission, the same command succeeds.
    assert_eq!(app.run_through_proxy(&restore).await.code, 0);
}

// Other platforms ask the system's certificate store instead of a file.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_machine_without_certificate_authorities_is_told_what_to_install() {
    let app = TestApp::start().await;
    let none = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/dev/null")];
    let output = app.run_with_settings(&["undo", "--list"], &none).await;
    is_refused(&output, 1, "HTTP client", "ca-certificates");
}
