//! What a document was and what changed: `show`, `diff` and `history --changes-of` on histories that the handler wrote.

mod several;
mod unknown;

use std::fmt::Write as _;

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use crate::support::{Handler, Kind, Output, TestApp};

/// 2023-11-14T22:13:20Z, the second in which each history begins.
const START: i64 = 1_700_000_000;

/// A change of the all-versions feed, `seconds` after the start; `previous` is the LSN of the previous version.
fn change(op: &str, seconds: i64, lsn: i64, previous: Option<i64>, mut document: Value) -> Value {
    let id = document["id"].clone();
    let mut metadata = json!({"operationType": op, "lsn": lsn, "crts": START + seconds, "id": id});
    if let Some(previous) = previous {
        metadata["previousImageLSN"] = previous.into();
    }
    if op == "delete" {
        metadata["partitionKey"] = json!({"pk": document["pk"]});
        return json!({"current": {}, "previous": document, "metadata": metadata});
    }
    document["_etag"] = format!("\"etag-{lsn}\"").into();
    document["_ts"] = (START + seconds).into();
    json!({"current": document, "metadata": metadata})
}

/// Delivers changes as text.
async fn deliver(handler: &Handler, changes: &[String]) {
    let (status, body) = handler.deliver_text(&format!("[{}]", changes.join(","))).await;
    assert_eq!(status, 200, "{body}");
}

async fn deliver_all(handler: &Handler, changes: &[Value]) {
    deliver(handler, &changes.iter().map(Value::to_string).collect::<Vec<_>>()).await;
}

/// The history of document `28036`: created, replaced twice within a second, deleted, created again.
async fn a_life(handler: &Handler) {
    let document = |city: &str, more: &str| {
        format!(r#"{{"id":"28036","pk":"28036","city":"{city}","price":1.10,"big":12345678901234567890{more}}}"#)
    };
    let change = |op: &str, seconds: i64, lsn: i64, previous: &str, text: String| {
        let ts = START + seconds;
        let text = text.replacen('}', &format!(r#","_etag":"\"etag-{lsn}\"","_ts":{ts}}}"#), 1);
        format!(
            r#"{{"current":{text},"metadata":{{"operationType":"{op}","lsn":{lsn},"crts":{ts},"id":"28036"{previous}}}}}"#
        )
    };
    deliver(
        handler,
        &[
            change("create", 0, 1, "", document("Davidson", "")),
            change("replace", 60, 2, r#","previousImageLSN":1"#, document("Davidson", r#","seq":1"#)),
            change("replace", 60, 3, r#","previousImageLSN":2"#, document("Ruined", r#","seq":2"#)),
            format!(
                r#"{{"current":{{}},"previous":{},"metadata":{{"operationType":"delete","lsn":4,"crts":{},"id":"28036","partitionKey":{{"pk":"28036"}},"previousImageLSN":3}}}}"#,
                document("Ruined", r#","seq":2"#),
                START + 120
            ),
            change("create", 180, 5, "", r#"{"id":"28036","pk":"28036","city":"New","price":1.1}"#.to_owned()),
        ],
    )
    .await;
}

/// Exit code, stdout and stderr, without the line that reports request units and seconds.
fn shown(output: &Output) -> String {
    let mut text = format!("exit {}\n", output.code);
    for line in output.stdout.lines() {
        let _ = writeln!(text, "{line}");
    }
    for line in output.stderr.lines().filter(|l| !l.ends_with(" s") || !l.contains(" RU, ")) {
        let _ = writeln!(text, "! {line}");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_shown_as_it_was_at_every_moment_of_its_life() {
    let app = TestApp::start().await;
    a_life(&app.handler(&[]).await).await;
    let show = async |at: &str| shown(&app.run(&["show", "--id", "28036", "--pk", "28036", "--at", at]).await);

    insta::assert_snapshot!(show("2023-11-14T22:13:19Z").await, @r#"
    exit 1
    ! warning: document "28036": was created later, but every version is in the history only from 2023-11-14T22:13:20Z on: whether it existed before is not known
    ! error: no version of document "28036" at or before 2023-11-14T22:13:19Z: it was created at 2023-11-14T22:13:20Z
    ! hint: --at 2023-11-14T22:13:20Z has it as of then
    "#);
    insta::assert_snapshot!(show("1700000000").await, @r#"
    exit 0
    {"id":"28036","pk":"28036","city":"Davidson","price":1.1,"big":12345678901234567890}
    ! document "28036": version of 2023-11-14T22:13:20Z (create, via trigger, exact), in that very second
    "#);
    insta::assert_snapshot!(show("2023-11-15T00:14:30+02:00").await, @r#"
    exit 0
    {"id":"28036","pk":"28036","city":"Ruined","price":1.1,"big":12345678901234567890,"seq":2}
    ! document "28036": version of 2023-11-14T22:14:20Z (replace, via trigger, exact), 10s before 2023-11-14T22:14:30Z
    "#);
    insta::assert_snapshot!(show("2023-11-14 22:15:30Z").await, @r#"
    exit 1
    ! error: document "28036" does not exist at 2023-11-14T22:15:30Z: it was deleted at 2023-11-14T22:15:20Z
    ! hint: --at 2023-11-14T22:14:20Z has the document as it was before that
    "#);
    insta::assert_snapshot!(show("now").await, @r#"
    exit 0
    {"id":"28036","pk":"28036","city":"New","price":1.1}
    ! warning: document "28036": the history ends at 2023-11-14T22:16:19Z: whether it was changed or deleted before the point in time is not known
    ! document "28036": version of 2023-11-14T22:16:20Z (create, via trigger, exact), the newest
    "#);

    let pretty = app.run(&["show", "--id", "28036", "--at", "1700000000", "--pretty"]).await;
    insta::assert_snapshot!(pretty.stdout, @r#"
    {
      "id": "28036",
      "pk": "28036",
      "city": "Davidson",
      "price": 1.1,
      "big": 12345678901234567890
    }
    "#);

    let mut object = app.run(&["show", "--id", "28036", "--at", "1700000090", "--format", "json"]).await.json();
    assert!(object["captured"].take().is_string());
    insta::assert_snapshot!(object, @r#"{"state":"document","id":"28036","pk":"28036","at":"2023-11-14T22:14:50Z","time":"2023-11-14T22:14:20Z","ts":1700000060,"op":"replace","lsn":3,"etag":"\"etag-3\"","via":"trigger","fidelity":"exact","captured":null,"record":"28036~etag-3","distance":30,"next":"2023-11-14T22:15:20Z","caveats":[],"doubt":null,"document":{"id":"28036","pk":"28036","city":"Ruined","price":1.1,"big":12345678901234567890,"seq":2}}"#);
    let gone = app.run(&["show", "--id", "28036", "--at", "1700000130", "--format", "json"]).await;
    assert_eq!(gone.code, 1);
    let gone: Value = serde_json::from_str(&gone.stdout).unwrap();
    assert_eq!((&gone["state"], &gone["document"], &gone["op"]), (&json!("deleted"), &Value::Null, &json!("delete")));
}

#[tokio::test(flavor = "multi_thread")]
async fn diff_shows_the_fields_that_differ_between_any_two_moments() {
    let app = TestApp::start().await;
    a_life(&app.handler(&[]).await).await;
    let diff = async |args: &[&str]| app.run(&[&["diff", "--id", "28036"], args].concat()).await;

    insta::assert_snapshot!(shown(&diff(&["--from", "1700000000", "--to", "1700000060"]).await), @r#"
    exit 0
    ~ /city  "Davidson" -> "Ruined"
    + /seq   2
    ! from: version of 2023-11-14T22:13:20Z (create, via trigger, exact), in that very second
    ! to: version of 2023-11-14T22:14:20Z (replace, via trigger, exact), in that very second
    "#);
    insta::assert_snapshot!(shown(&diff(&["--from", "1700000060", "--to", "now"]).await), @r#"
    exit 0
    ~ /city  "Ruined" -> "New"
    - /big   12345678901234567890
    - /seq   2
    ! from: version of 2023-11-14T22:14:20Z (replace, via trigger, exact), in that very second
    ! to: version of 2023-11-14T22:16:20Z (create, via trigger, exact), the newest
    "#);
    // One end is a delete, so every field appears or disappears.
    insta::assert_snapshot!(shown(&diff(&["--from", "1700000130", "--to", "1700000200"]).await), @r#"
    exit 0
    + /id     "28036"
    + /pk     "28036"
    + /city   "New"
    + /price  1.1
    ! from: no document since 2023-11-14T22:15:20Z (delete, via trigger, exact), 10s before 2023-11-14T22:15:30Z
    ! warning: to: the history ends at 2023-11-14T22:16:19Z: whether it was changed or deleted before the point in time is not known
    ! to: version of 2023-11-14T22:16:20Z (create, via trigger, exact), 20s before 2023-11-14T22:16:40Z
    "#);
    insta::assert_snapshot!(shown(&diff(&["--from", "1700000060", "--to", "1700000061"]).await), @r#"
    exit 0
    ! from: version of 2023-11-14T22:14:20Z (replace, via trigger, exact), in that very second
    ! to: version of 2023-11-14T22:14:20Z (replace, via trigger, exact), 1s before 2023-11-14T22:14:21Z
    "#);
    insta::assert_snapshot!(shown(&diff(&["--from", "1700000000", "--to", "1700000060", "--format", "csv"]).await), @r#"
    exit 0
    path,op,before,after
    /city,replace,"""Davidson""","""Ruined"""
    /seq,add,,2
    ! from: version of 2023-11-14T22:13:20Z (create, via trigger, exact), in that very second
    ! to: version of 2023-11-14T22:14:20Z (replace, via trigger, exact), in that very second
    "#);

    let text = diff(&["--from", "1700000000", "--to", "now", "--format", "json"]).await.stdout;
    insta::assert_snapshot!(text, @r#"
    [
    {"op":"replace","path":"/city","value":"New"},
    {"op":"remove","path":"/big"}
    ]
    "#);
    // An independent JSON Patch library confirms that the patch turns one document into the other.
    let document = async |at: &str| app.run(&["show", "--id", "28036", "--at", at]).await.json();
    let mut patched = document("1700000000").await;
    json_patch::patch(&mut patched, &serde_json::from_str::<json_patch::Patch>(&text).unwrap()).unwrap();
    assert_eq!(patched["city"], document("now").await["city"]);
    assert_eq!(patched.get("big"), None);
    let text = diff(&["--from", "1700000130", "--to", "now", "--format", "json"]).await.stdout;
    let mut patched = Value::Null;
    json_patch::patch(&mut patched, &serde_json::from_str::<json_patch::Patch>(&text).unwrap()).unwrap();
    assert_eq!(patched, document("now").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn diff_compares_the_live_document_and_reports_what_the_history_lacks() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let mut stored = app.put(json!({"id": "a", "pk": "p", "n": 1, "_lsn": "the user's own"})).await;
    let ts = stored["_ts"].as_i64().unwrap();
    deliver_all(&handler, &[json!({"current": stored, "metadata": {"operationType": "create", "lsn": 1, "crts": ts}})])
        .await;
    let diff = async || app.run(&["diff", "--id", "a", "--from", &ts.to_string()]).await;

    let same = diff().await;
    assert_eq!((same.code, same.stdout.as_str()), (0, ""), "{same:?}");
    assert!(same.stderr.contains("no difference") && !same.stderr.contains("not in the history"), "{same:?}");
    // Both states are judged by one read of it.
    app.run_through_proxy(&["diff", "--id", "a", "--from", &ts.to_string()]).await;
    assert_eq!(app.proxy.seen(Kind::LiveRead), 1);

    // A live version that changes within the same second would count as in force then.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    stored = app.put(json!({"id": "a", "pk": "p", "n": 2, "_lsn": "the user's own"})).await;
    assert_eq!(stored["n"], 2);
    let moved = diff().await;
    assert_eq!(moved.stdout, "~ /n  1 -> 2\n");
    assert!(moved.stderr.contains("the live version is not in the history (yet)"), "{moved:?}");

    app.events().await.delete(&PartitionKey::parse("p").unwrap(), "a", None).await.unwrap();
    let gone = diff().await;
    assert!(gone.stdout.contains("- /n     1\n"), "{gone:?}");
    assert!(gone.stderr.contains("no live document") && gone.stderr.contains("its delete is not"), "{gone:?}");

    let elsewhere = app.run(&["diff", "--id", "a", "--from", &ts.to_string(), "--source", "none"]).await;
    assert_eq!(elsewhere.code, 1, "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("--to now"), "{elsewhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fields_changes_are_listed_through_deletes_and_creations() {
    let app = TestApp::start().await;
    a_life(&app.handler(&[]).await).await;
    let changes = async |path: &str, format: &str| {
        app.run(&["history", "--id", "28036", "--changes-of", path, "--format", format]).await
    };
    insta::assert_snapshot!(shown(&changes("/city", "table").await), @r#"
    exit 0
    time                  op       lsn  before      after
    2023-11-14T22:13:20Z  create   1                "Davidson"
    2023-11-14T22:14:20Z  replace  3    "Davidson"  "Ruined"
    2023-11-14T22:15:20Z  delete   4    "Ruined"
    2023-11-14T22:16:20Z  create   5                "New"
    ! note: the history ends at 2023-11-14T22:16:19Z: whether it was changed or deleted before the point in time is not known
    "#);
    insta::assert_snapshot!(shown(&changes("/price", "jsonl").await), @r#"
    exit 0
    {"time":"2023-11-14T22:13:20Z","ts":1700000000,"op":"create","lsn":1,"after":1.1,"record":"28036~etag-1"}
    {"time":"2023-11-14T22:15:20Z","ts":1700000120,"op":"delete","lsn":4,"before":1.1,"record":"28036~del-4-1700000120"}
    {"time":"2023-11-14T22:16:20Z","ts":1700000180,"op":"create","lsn":5,"after":1.1,"record":"28036~etag-5"}
    ! note: the history ends at 2023-11-14T22:16:19Z: whether it was changed or deleted before the point in time is not known
    "#);
    insta::assert_snapshot!(shown(&changes("/none", "csv").await), @r#"
    exit 0
    time,ts,op,lsn,before,after,record
    ! note: no version has a field /none
    ! note: the history ends at 2023-11-14T22:16:19Z: whether it was changed or deleted before the point in time is not known
    "#);
    let wrong = changes("city", "table").await;
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.stderr.contains("/city_name"), "{wrong:?}");
}
