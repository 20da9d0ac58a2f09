//! `demo`, as a person runs it.

use serde_json::Value;

use crate::support::{Output, run};

/// Runs it with a directory for temporary files of its own, which must be empty afterwards.
async fn demo(args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let settings = [("TMPDIR".to_owned(), temporary.to_str().unwrap().to_owned())];
    let output = run(folder.path(), &[&["demo"], args].concat(), &settings, "").await;
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "it left files behind: {output:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "it left files behind: {output:?}");
    output
}

/// Timeline and summary of `--format json`.
fn parts(output: &Output) -> (Vec<Value>, Value) {
    let summary = output.json();
    (summary["timeline"].as_array().unwrap().clone(), summary)
}

#[tokio::test]
async fn the_demo_captures_every_version_and_its_summary_says_so() {
    let output = demo(&["--count", "300", "--format", "json"]).await;
    let (timeline, summary) = parts(&output);
    assert_eq!((&summary["versions_written"], &summary["versions_captured"]), (&300.into(), &300.into()));
    let documents = summary["documents"].as_u64().unwrap();
    assert!((1..300).contains(&documents), "{summary}");
    assert!(summary["ru_of_capture"].as_f64().unwrap() > 300.0, "{summary}");
    assert!(summary["invocations"].as_u64().unwrap() > 0, "{summary}");
    let said = format!("each of the 300 versions of {documents} documents is in the history exactly once, in order");
    assert!(output.stderr.contains(&said), "{output:?}");

    // The document with the most versions: created, then replaced, each pointing at the one before.
    assert!(timeline.len() > 1, "{timeline:?}");
    for (i, version) in timeline.iter().enumerate() {
        assert_eq!(version["version"], i + 1);
        assert_eq!(version["op"], if i == 0 { "create" } else { "replace" });
        assert_eq!(version["fidelity"], "exact");
        let before = if i == 0 { &Value::Null } else { &timeline[i - 1]["lsn"] };
        assert_eq!(&version["prev_lsn"], before);
    }
}

#[tokio::test]
async fn in_latest_mode_the_last_version_of_each_document_is_captured() {
    let (timeline, summary) = parts(&demo(&["--count", "300", "--mode", "latest", "--format", "json"]).await);
    let of = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(of("versions_written"), 300);
    assert!((of("documents")..=300).contains(&of("versions_captured")), "{summary}");
    assert!(timeline.iter().all(|version| version["op"] == "upsert"), "{timeline:?}");
}

#[tokio::test]
async fn the_same_seed_writes_the_same_documents() {
    let mut counts = Vec::new();
    for seed in ["1", "1", "2"] {
        let (timeline, summary) =
            parts(&demo(&["--count", "200", "--seed", seed, "--partitions", "1", "--format", "json"]).await);
        let picks: Vec<Value> = timeline.iter().map(|version| version["seq"].clone()).collect();
        counts.push((summary["documents"].clone(), picks));
    }
    assert_eq!(counts[0], counts[1]);
    assert_ne!(counts[0], counts[2]);
}

#[tokio::test]
async fn a_demo_that_does_not_see_everything_fails_and_says_what_is_missing() {
    let output = demo(&["--count", "500", "--patience", "0"]).await;
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("changes were not delivered within 0 s"), "{output:?}");
    assert!(!output.stderr.contains("proved"), "{output:?}");
}
