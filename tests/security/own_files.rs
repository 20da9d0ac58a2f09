//! The files that the program leaves on disk.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use super::hostile_files::{plan_head, signed};
use crate::{
    follow::{ALL, catch_up, put},
    support::{TestApp, files_below},
};

/// The journal's local file is appended to, so following a link would append to an unrelated file.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_not_written_through_a_symbolic_link() {
    let app = TestApp::start().await;
    put(&app, "x", 1).await;
    let folder = app.folder.path();
    let head = plan_head(&app).await;
    let step = r#"{"id":"x","pk":"key-x","action":"delete"}"#;
    std::fs::write(folder.join("one.plan"), signed(&format!("{head}\n{step}\n"))).unwrap();
    let id = head["_plan"]["id"].clone();
    let precious = folder.join("precious");
    std::fs::write(&precious, "mine").unwrap();
    let journals = folder.join(".rewind");
    std::fs::create_dir_all(&journals).unwrap();
    std::os::unix::fs::symlink(&precious, journals.join(format!("{}.jsonl", id.as_str().unwrap()))).unwrap();
    // The journal's name comes from the use of the plan and cannot be predicted; an id in the plan does not affect it.
    let args = ["restore", "--yes", "--plan", "one.plan", "--max-deletes", "1", "--journal", ".rewind"];
    let used = app.run(&args).await;
    assert!([0, 3].contains(&used.code), "{used:?}");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
}

#[tokio::test]
async fn every_file_with_document_data_is_readable_only_by_its_owner() {
    let app = TestApp::start().await;
    let folder = app.folder.path();
    let mine = files_below(folder);
    catch_up(&app, &ALL).await;
    put(&app, "x", 1).await;
    put(&app, "y", 1).await;
    let sinks = ["--sink", "changes", "--sink", "file:events.jsonl", "--checkpoint-file", "follower.json"];
    catch_up(&app, &[&["--name", "files", "--from", "beginning"], &sinks[..]].concat()).await;
    let past = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    app.captured_from_now().await;
    put(&app, "x", 2).await;
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver_text(r#"[{"id":7,"pk":"p"}]"#).await.0, 200);
    for args in [
        vec!["backup", "--all", "--out", "all.jsonl"],
        vec!["backup", "--all", "--out", "all.jsonl.gz"],
        vec!["restore", "--all", "--at", &past, "--dry-run", "--plan-out", "made.plan"],
        vec!["restore", "--yes", "--plan", "made.plan"],
    ] {
        let output = app.run(&args).await;
        assert_eq!(output.code, 0, "{args:?} {output:?}");
    }
    // `erase` also rewrites an archive's file.
    std::fs::create_dir(folder.join("archive")).unwrap();
    std::fs::copy(folder.join("events.jsonl"), folder.join("archive/events.jsonl")).unwrap();
    let erased = app.run(&["erase", "--id", "x", "--pk", "key-x", "--archive", "archive", "--yes"]).await;
    assert!([0, 3].contains(&erased.code), "{erased:?}");
    let made: BTreeSet<PathBuf> = &files_below(folder) - &mine;
    for name in ["events.jsonl", "follower.json", "all.jsonl", "all.jsonl.gz", "made.plan", ".dead-letters", "archive"]
    {
        assert!(made.iter().any(|path| path.strip_prefix(folder).unwrap().starts_with(name)), "{name}: {made:#?}");
    }
    let journals =
        made.iter().filter(|path| path.parent() != Some(folder) && path.extension().is_some_and(|e| e == "jsonl"));
    assert!(journals.count() >= 2, "a journal and the archive: {made:#?}");
    for path in made {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{} {mode:o}", path.display());
    }
}
