//! `restore --from-archive`: the versions come from an archive of `follow`; the rest is like any restore.

use std::time::Duration;

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    follow::{ALL, catch_up, put},
    load_archive::{T, archive, event, live, write_history},
    rewind_faults::{before_or_after, killed_at},
    support::{Output, TestApp, peers::Azurite},
};

/// The moment between the good and the bad versions of `stories`.
const AT: i64 = T + 1500;

fn at() -> String {
    AT.to_string()
}

async fn restore(app: &TestApp, more: &[&str]) -> Output {
    let at = at();
    app.run(&[&["restore", "--from-archive", "a", "--at", &at, "--no-stamp", "--format", "json"], more].concat()).await
}

fn actions(output: &Output) -> Vec<String> {
    let told: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let steps = told["plan"]["steps"].as_array().unwrap();
    let mut actions: Vec<String> =
        steps.iter().map(|s| format!("{} {}", s["id"].as_str().unwrap(), s["action"].as_str().unwrap())).collect();
    actions.sort();
    actions
}

/// An archive of good documents, and a container in which they are damaged; the history is empty.
async fn stories(app: &TestApp) {
    let mut part = event("part", "create", 1000, 9, 1);
    part["partial"] = json!({"dropped": ["/ssn"]});
    let events = [
        event("changed", "create", 1000, 1, 1),
        event("changed", "replace", 1400, 4, 2),
        event("changed", "replace", 1600, 7, 3),
        event("deleted", "create", 1000, 2, 5),
        event("deleted", "delete", 1700, 8, 0),
        event("newer", "create", 1800, 10, 6),
        event("same", "create", 1000, 3, 8),
        part,
    ];
    // A file with many versions, one with a few, and a repeated line.
    let folder = app.folder.path().join("a");
    archive(&folder.join("x"), "1.jsonl", &events[..5]);
    archive(&folder, "2.jsonl", &[&events[5..], &events[..1]].concat());
    for (id, n) in [("changed", 33), ("newer", 6), ("same", 8), ("part", 7), ("unseen", 1)] {
        app.put(json!({"id": id, "pk": "p", "n": n})).await;
    }
}

#[tokio::test]
async fn a_restore_from_an_archive_is_planned_saved_written_and_undone() {
    let app = TestApp::start().await;
    stories(&app).await;
    let before = live(&app).await;
    let expected =
        ["changed restore", "deleted recreate", "newer delete", "part unknown", "same keep", "unseen unknown"];
    let dry = restore(&app, &["--all", "--delete-newer=99", "--dry-run"]).await;
    assert_eq!((dry.code, actions(&dry).as_slice()), (3, expected.map(String::from).as_slice()), "{dry:?}");
    assert!(dry.stderr.contains("9 versions in the archive"), "{dry:?}");
    assert_eq!(live(&app).await, before);
    assert!(app.history().await.is_empty(), "a dry run writes nothing");

    let done = restore(&app, &["--all", "--delete-newer=99", "--yes"]).await;
    // The archive cannot tell the state of two documents.
    assert_eq!(done.code, 3, "{done:?}");
    let now = live(&app).await;
    let document = |id: &str, n: u64| json!({"id": id, "pk": "p", "n": n}).to_string();
    assert_eq!(
        now,
        [
            document("changed", 2),
            document("deleted", 5),
            document("part", 7),
            document("same", 8),
            document("unseen", 1)
        ]
    );
    // The overwritten and deleted versions were not in the history; now they are.
    let saved: Vec<String> = app
        .history()
        .await
        .iter()
        .filter(|r| r.get("_restore").is_none())
        .map(|r| format!("{} {}", r["_originalId"].as_str().unwrap(), r["n"]))
        .collect();
    assert_eq!(saved.len(), 2, "{saved:?}");
    assert!(saved.contains(&"changed 33".to_owned()) && saved.contains(&"newer 6".to_owned()), "{saved:?}");

    let again = restore(&app, &["--all", "--delete-newer=99", "--yes"]).await;
    assert!(!actions(&again).iter().any(|a| a.ends_with("restore") || a.ends_with("create")), "{again:?}");
    let told: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(told["plan"]["archive"], "a");
    let id = told["restore"].as_str().unwrap();
    let undone = app.run(&["undo", id, "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    assert_eq!(live(&app).await, before);
}

#[tokio::test]
async fn a_creation_proves_nothing_about_the_time_before_the_archive() {
    let app = TestApp::start().await;
    stories(&app).await;
    let before = live(&app).await;
    let at = (T + 999).to_string();
    let args = ["restore", "--from-archive", "a", "--at", &at, "--all", "--delete-newer=99", "--format", "json"];
    let planned = app.run(&[&args[..], &["--yes"]].concat()).await;
    assert_eq!(planned.code, 3, "{planned:?}");
    assert!(actions(&planned).iter().all(|action| action.ends_with(" unknown")), "{planned:?}");
    assert_eq!(live(&app).await, before);
}

#[tokio::test]
async fn documents_are_named_or_filtered_and_single_fields_are_merged_into_live_ones() {
    let app = TestApp::start().await;
    stories(&app).await;
    let one = restore(&app, &["--id", "changed", "--pk", "p", "--id", "nobody", "--pk", "p", "--dry-run"]).await;
    assert_eq!(actions(&one), ["changed restore", "nobody unknown"], "{one:?}");
    // The filter applies to the document at the moment, not to the live one.
    let few = restore(&app, &["--filter", "doc.n in [2, 33, 5]", "--dry-run"]).await;
    assert_eq!(actions(&few), ["changed restore", "deleted recreate"], "{few:?}");
    // A part of a document may match: it is not put back, and not passed over in silence.
    let part = restore(&app, &["--filter", "doc.n in [1, 2]", "--dry-run"]).await;
    assert_eq!((part.code, actions(&part)), (3, vec!["changed restore".into(), "part unknown".into()]), "{part:?}");
    // What was left out of it may match as well.
    for filter in ["has(doc.ssn)", "doc.ssn == '1'", "doc.n == 9 && !('ssn' in doc)"] {
        let part = restore(&app, &["--filter", filter, "--dry-run"]).await;
        assert_eq!((part.code, actions(&part)), (3, vec!["part unknown".into()]), "{filter}: {part:?}");
    }
    let odd = restore(&app, &["--filter", "doc.gone == 1", "--dry-run"]).await;
    assert_eq!(odd.code, 1, "{odd:?}");
    assert!(odd.stderr.contains("--filter has no answer about 4 versions"), "{odd:?}");
    assert!(odd.stderr.contains("no document in scope"), "{odd:?}");

    let key = PartitionKey::parse("p").unwrap();
    let now = r#"{"id":"changed","pk":"p","n":33,"own":true}"#;
    app.events().await.upsert(&key, "changed", now.into()).await.unwrap();
    let field = restore(&app, &["--id", "changed", "--pk", "p", "--only", "/n", "--yes"]).await;
    assert_eq!(field.code, 0, "{field:?}");
    assert!(live(&app).await.contains(&r#"{"id":"changed","pk":"p","n":2,"own":true}"#.to_owned()));
}

#[tokio::test]
async fn a_saved_plan_needs_its_archive_and_a_changed_archive_is_not_written() {
    let app = TestApp::start().await;
    stories(&app).await;
    let folder = app.folder.path();
    let planned = restore(&app, &["--filter", "id != 'part'", "--plan-out", "p.plan", "--dry-run"]).await;
    assert_eq!(planned.code, 0, "{planned:?}");
    let run = async |args: &[&str]| app.run(&[&["restore", "--plan", "p.plan", "--yes"], args].concat()).await;

    let without = run(&[]).await;
    assert_eq!((without.code, without.stderr.contains("come from the archive a")), (2, true), "{without:?}");
    // A copy elsewhere works as well, unless its content differs.
    let text = std::fs::read_to_string(folder.join("a/x/1.jsonl")).unwrap();
    std::fs::create_dir_all(folder.join("b/x")).unwrap();
    std::fs::copy(folder.join("a/2.jsonl"), folder.join("b/2.jsonl")).unwrap();
    std::fs::write(folder.join("b/x/1.jsonl"), text.replace("\"n\":2", "\"n\":4")).unwrap();
    let before = live(&app).await;
    let changed = run(&["--from-archive", "b", "--format", "json"]).await;
    assert_eq!(changed.code, 3, "{changed:?}");
    assert!(changed.stdout.contains("not the one that was planned"), "{changed:?}");
    assert!(!live(&app).await.contains(&json!({"id": "changed", "pk": "p", "n": 4}).to_string()));
    // The same content in another spelling.
    std::fs::write(folder.join("b/x/1.jsonl"), text.replace("\"n\":2", "\"n\" : 2")).unwrap();
    let done = run(&["--from-archive", "b"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let now = live(&app).await;
    assert!(now != before && now.contains(&json!({"id": "changed", "pk": "p", "n": 2}).to_string()), "{now:?}");

    // A plan with a path that leaves the archive.
    let plan = std::fs::read_to_string(folder.join("p.plan")).unwrap();
    let body = plan.replace("\"x/1.jsonl\"", "\"../../etc/passwd\"");
    let body = &body[..body.rfind("{\"_end\"").unwrap()];
    let steps = body.lines().count() - 1;
    let sum = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    std::fs::write(folder.join("p.plan"), format!("{body}{}\n", json!({"_end": {"steps": steps, "sha256": sum}})))
        .unwrap();
    let out = run(&["--from-archive", "a"]).await;
    assert_eq!((out.code, out.stderr.contains("is not a file of an archive")), (2, true), "{out:?}");
    let at = at();
    let history = app.run(&["restore", "--all", "--at", &at, "--plan-out", "h.plan", "--dry-run"]).await;
    assert_eq!(history.code, 3, "{history:?}");
    let mixed = app.run(&["restore", "--plan", "h.plan", "--from-archive", "a", "--yes"]).await;
    assert_eq!((mixed.code, mixed.stderr.contains("come from the history")), (2, true), "{mixed:?}");
}

#[tokio::test]
async fn a_file_that_is_not_an_archive_stops_the_restore_before_any_write() {
    let app = TestApp::start().await;
    let folder = app.folder.path();
    let mut other = event("x", "create", 1000, 1, 1);
    other["pk"] = json!(["p", "q"]);
    archive(&folder.join("key"), "1.jsonl", &[other]);
    let mut stolen = event("x", "create", 1000, 1, 1);
    stolen["doc"]["id"] = "y".into();
    archive(&folder.join("stolen"), "1.jsonl", &[stolen]);
    archive(&folder.join("damaged"), "1.jsonl", &[json!({"id": "SECRET"}), event("x", "create", 1000, 1, 1)]);
    let at = at();
    for (place, more, code, wanted) in [
        ("key", &["--all"][..], 1, "partition key of 2 components"),
        ("damaged", &["--all"], 1, "line 1 is not an event of follow"),
        ("stolen", &["--all", "--recreate-deleted"], 3, "of another id"),
        ("nowhere", &["--all"], 2, "--from-archive nowhere"),
        ("key", &["--where", "c.n = 1"], 2, "cannot be used with"),
        ("key", &["--filter", "doc.n ="], 2, "--filter"),
        ("key", &["--filter", "true", "--all"], 2, "cannot be used with"),
    ] {
        let args = [&["restore", "--from-archive", place, "--at", &at, "--dry-run"], more].concat();
        let output = app.run(&args).await;
        let told = format!("{}{}", output.stdout, output.stderr);
        assert_eq!((output.code, told.contains(wanted)), (code, true), "{args:?}: {output:?}");
        assert!(!told.contains("SECRET"), "{output:?}");
    }
    let alone = app.run(&["restore", "--filter", "true", "--at", &at]).await;
    assert_eq!((alone.code, alone.stderr.contains("--from-archive")), (2, true), "{alone:?}");
}

#[tokio::test]
async fn a_restore_from_an_archive_killed_at_any_write_is_undone_or_finished() {
    let app = TestApp::start().await;
    stories(&app).await;
    let before = live(&app).await;
    let at = at();
    let args =
        ["restore", "--from-archive", "a", "--at", &at, "--filter", "id != 'part'", "--yes", "--concurrency", "1"];
    let mut kills = 0;
    loop {
        let when = format!("write {kills}, {:?}", before_or_after(kills));
        if !killed_at(&app, &args, kills, before_or_after(kills)).await {
            break;
        }
        let told = app.run(&["undo", "--list", "--format", "jsonl"]).await;
        let mut restores: Vec<String> =
            told.lines().iter().map(|row| row["restore"].as_str().unwrap().to_owned()).collect();
        restores.sort();
        if kills % 2 == 1 {
            let again = app.run(&args).await;
            assert_eq!(again.code, 0, "{when}: {again:?}");
            let told = app.run(&["undo", "--list", "--format", "jsonl"]).await;
            restores = told.lines().iter().map(|row| row["restore"].as_str().unwrap().to_owned()).collect();
            restores.sort();
        }
        // Newest first. Earlier rounds are already undone, so only the restores of this round count.
        for id in restores.iter().rev() {
            let undone = app.run(&["undo", id, "--yes"]).await;
            assert!(matches!(undone.code, 0 | 3), "{when}: {undone:?}");
            if live(&app).await == before {
                break;
            }
        }
        assert_eq!(live(&app).await, before, "{when}");
        kills += 1;
    }
    assert!(kills >= 4, "two documents, one version saved, the journal: only {kills} writes");
}

#[tokio::test]
async fn an_archive_of_follow_restores_the_documents_of_a_moment() {
    let app = TestApp::start().await;
    std::fs::create_dir(app.folder.path().join("archive")).unwrap();
    catch_up(&app, &ALL).await;
    write_history(&app).await;
    let good = live(&app).await;
    let at = chrono::Utc::now().timestamp().to_string();
    // The next version belongs to a later second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for id in 0..12 {
        put(&app, &format!("doc-{id}"), 666).await;
    }
    catch_up(&app, &[&ALL[..], &["--sink", "file:archive/events.jsonl"]].concat()).await;
    let args =
        ["restore", "--from-archive", "archive", "--all", "--at", &at, "--delete-newer=99", "--no-stamp", "--yes"];
    let restored = app.run(&args).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(live(&app).await, good);
}

#[tokio::test]
async fn a_restore_reads_blobs_and_segments() {
    let Some(azurite) = Azurite::start() else { return };
    let app = TestApp::start().await;
    for name in ["single", "segments"] {
        azurite.create(name).await;
    }
    let signed = |name: &str| format!("blob:{}", azurite.container(name).replacen('?', "/a/b?", 1));
    let segments = ["--name", "segments", "--segments", "--sink"];
    catch_up(&app, &ALL).await;
    catch_up(&app, &[&ALL[..], &segments[..2]].concat()).await;
    write_history(&app).await;
    let good = live(&app).await;
    catch_up(&app, &[&ALL[..], &["--sink", &signed("single")]].concat()).await;
    catch_up(&app, &[&ALL[..], &segments[..], &[&signed("segments")]].concat()).await;
    for name in ["single", "segments"] {
        assert_eq!(app.run(&["truncate", "source", "--yes"]).await.code, 0);
        let archive = signed(name);
        let planned = app
            .run(&[
                "restore",
                "--from-archive",
                &archive,
                "--all",
                "--at",
                "now",
                "--no-stamp",
                "--plan-out",
                name,
                "--dry-run",
            ])
            .await;
        assert_eq!(planned.code, 0, "{planned:?}");
        let plan = std::fs::read_to_string(app.folder.path().join(name)).unwrap();
        assert!(!plan.contains("sig=") && plan.contains("\"archive\":\"blob:http"), "{plan}");
        let restored = app.run(&["restore", "--from-archive", &archive, "--plan", name, "--yes"]).await;
        assert_eq!(restored.code, 0, "{restored:?}");
        assert_eq!(live(&app).await, good, "{name}");
    }
}
