//! `demo`, as a user runs it.

use serde_json::Value;

use crate::support::{Output, run};

/// Runs it with its own folder for temporary files, which must be empty afterwards.
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

/// The timeline and the summary of `--format json`.
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

    // The document with the most versions: created, then replaced, each version with a link to the previous one.
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

/// Checks the result of the incident after the proof of capture, with this many damaged documents and this many honest
/// writes.
fn assert_incident(output: &Output, damaged: u64, honest: u64) {
    assert_eq!(output.code, 0, "{output:?}");
    let summary = output.json();
    let incident = &summary["incident"];
    assert_eq!((incident["proved"].as_bool(), &incident["problems"]), (Some(true), &Value::Array(Vec::new())));
    for step in ["damaged", "found", "planned", "reverted", "undone"] {
        assert_eq!(incident[step], damaged, "{step}: {output:?}");
    }
    assert_eq!(incident["honest_writes"], honest, "{output:?}");
    // Reported in this order, after the proof of capture.
    let mut rest = output.stderr.as_str();
    for line in [
        "proved ",
        "damage ",
        "find ",
        "plan ",
        "/city_name: \"Nowhere\" -> \"",
        "reverted ",
        "proved ",
        "undone ",
        "proved ",
    ] {
        let at = rest.find(line).unwrap_or_else(|| panic!("no {line:?} in its place: {output:?}"));
        rest = &rest[at + line.len()..];
    }
}

#[tokio::test]
async fn an_incident_is_found_reverted_without_the_work_of_others_and_undone() {
    let output = demo(&["--count", "300", "--format", "json"]).await;
    assert_incident(&output, 20, 50);
    let documents = output.json()["documents"].as_u64().unwrap();
    assert!(output.stderr.contains(&format!("{documents} documents: every honest value is there, and no wrong one")));
    assert!(
        output.stderr.contains(&format!("{documents} documents: byte for byte as before the revert")),
        "{output:?}"
    );
    assert!(output.stderr.contains("20 restore, 0 keep, 0 unknown, 0 in conflict"), "{output:?}");
}

#[tokio::test]
async fn an_incident_ends_well_in_latest_mode_and_with_one_document_too() {
    assert_incident(&demo(&["--count", "300", "--mode", "latest", "--format", "json"]).await, 20, 50);
    assert_incident(&demo(&["--count", "1", "--format", "jsonl"]).await, 1, 1);
}

#[tokio::test]
async fn the_table_of_capture_stands_before_the_incident() {
    let output = demo(&["--count", "50", "--partitions", "1"]).await;
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains("versions_captured") && !output.stdout.contains("incident"), "{output:?}");
    assert_eq!(output.stderr.matches("\nproved ").count(), 3, "{output:?}");
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
    assert!(!output.stderr.contains("damage"), "without a complete history there is no incident: {output:?}");
}
