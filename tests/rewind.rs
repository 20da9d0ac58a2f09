//! What a document was, and what changed: `show`, `diff`, `history --changes-of`, on histories that the handler wrote.

use std::fmt::Write as _;

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use crate::support::{Handler, Output, TestApp, feed_document};

/// 2023-11-14T22:13:20Z, the second in which the stories begin.
const START: i64 = 1_700_000_000;

/// A change of the all-versions feed, `seconds` into the story; `previous` is the LSN of the version before.
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

/// Delivers text as it is.
async fn deliver(handler: &Handler, changes: &[String]) {
    let (status, body) = handler.deliver_text(&format!("[{}]", changes.join(","))).await;
    assert_eq!(status, 200, "{body}");
}

async fn deliver_all(handler: &Handler, changes: &[Value]) {
    deliver(handler, &changes.iter().map(Value::to_string).collect::<Vec<_>>()).await;
}

/// The life of document `28036`: created, replaced twice within a second, deleted, created again.
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

/// Code, stdout and stderr, without the line of RU and seconds.
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
async fn the_fields_that_differ_are_shown_between_any_two_moments() {
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
    // Deleted at one end: every field comes or goes.
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
    // The patch leads from one to the other, says a library that does nothing else.
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
async fn the_live_document_is_compared_and_what_history_lacks_is_said() {
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

    // In another second: what is live in the same one was in force in it.
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

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_known_is_said() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let document = |id: &str, n: i64| json!({"id": id, "pk": "p", "n": n});
    deliver_all(
        &handler,
        &[
            change("create", 0, 1, None, document("gap", 1)),
            change("replace", 100, 9, Some(5), document("gap", 2)),
            // Not in the source, so that it cannot be read again.
            change("create", 0, 2, None, json!({"id": "dates", "pk": "p", "day": "2023-11-14T22:13:20+00:00"})),
            change("replace", 100, 3, Some(1), document("late", 1)),
        ],
    )
    .await;
    deliver_all(&handler, &[feed_document("latest", "p", 1), feed_document("latest", "p", 7)]).await;
    let notes = async |id: &str, at: &str| {
        let output = app.run(&["show", "--id", id, "--at", at]).await;
        (output.code, output.stderr)
    };
    for (id, at, code, said) in [
        ("gap", "1700000050", 0, "(LSN 5); it lies between this one and 2023-11-14T22:15:00Z"),
        ("dates", "1700000050", 0, "may have rewritten date strings"),
        ("latest", "1700000003", 0, "captured in latest-version mode"),
        ("latest", "now", 0, "captured in latest-version mode"),
        ("late", "1700000050", 1, "the earliest known is of 2023-11-14T22:15:00Z (replace)"),
        ("nobody", "now", 1, "what was written before capture began"),
    ] {
        let (got, stderr) = notes(id, at).await;
        assert!(got == code && stderr.contains(said), "{id} {at}: {got} {stderr}");
    }
    let (_, stderr) = notes("gap", "now").await;
    assert!(!stderr.contains("note:"), "{stderr}");
    let history = app.run(&["history", "--id", "gap"]).await;
    assert!(history.stderr.contains("after the version of 2023-11-14T22:13:20Z: a version is missing"), "{history:?}");
    // What was there before the first version is not guessed.
    let diff = app.run(&["diff", "--id", "late", "--from", "1700000050", "--to", "now"]).await;
    assert_eq!((diff.code, diff.stdout.as_str()), (1, ""), "{diff:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_cannot_be_used_is_refused_before_anything_is_asked() {
    let app = TestApp::start().await;
    let show = async |at: &str| shown(&app.run(&["show", "--id", "a", "--at", at]).await);
    insta::assert_snapshot!(show("14:05Z").await, @r#"
    exit 2
    ! error: --at: time "14:05Z" does not say which day
    ! hint: write "today 14:05:00Z" or "yesterday 14:05:00Z"
    "#);
    insta::assert_snapshot!(show("9999-01-01T00:00Z\u{1b}").await, @r#"
    exit 2
    ! error: --at: time "9999-01-01T00:00Z\u{1b}" has a zone that is not understood; names of zones mean different things at different times and places
    ! hint: write "9999-01-01T00:00:00Z" (UTC) or with your own offset, such as "9999-01-01T00:00:00+02:00"
    "#);
    let naive = app.run_with_settings(&["diff", "--id", "a", "--from", "2023-11-14 14:05"], &[("TZ", "UTC")]).await;
    insta::assert_snapshot!(shown(&naive), @r#"
    exit 2
    ! error: --from: time "2023-11-14 14:05" has no zone
    ! hint: write "2023-11-14T14:05:00Z" (UTC) or with your own offset, such as "2023-11-14T14:05:00+02:00"
    "#);
    let future = app.run(&["show", "--id", "a", "--at", "9999-01-01T00:00:00Z"]).await;
    assert!(future.code == 2 && future.stderr.contains("is in the future"), "{future:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_key_names_its_own_document() {
    let app = TestApp::start().await;
    for (name, paths) in [("orders", json!(["/t", "/n"])), ("parts", json!(["/t", "/n", "/x"]))] {
        let key = json!({"paths": paths, "kind": "MultiHash", "version": 2});
        assert!(app.local.create_container("dev", json!({"id": name, "partitionKey": key})).await.unwrap());
    }
    for source in ["orders", "parts"] {
        let changes = format!("{source}-changes");
        let on = ["--source", source, "--changes", &changes];
        let provisioned = app.run(&[&["provision"], &on[..]].concat()).await;
        assert_eq!(provisioned.code, 0, "{provisioned:?}");
        let handler = app.handler(&[("COSMOS_SOURCE_CONTAINER", source), ("COSMOS_CHANGES_CONTAINER", &changes)]).await;
        // One id under many keys. A component that is missing is undefined, which is not null.
        let documents = [
            json!({"id": "a", "t": "t1", "n": 42, "x": null, "v": "number"}),
            json!({"id": "a", "t": "t1", "n": "42", "v": "text"}),
            json!({"id": "a", "t": "t1", "n": null, "x": true, "v": "null"}),
            json!({"id": "a", "t": "t1", "v": "undefined"}),
            json!({"id": "a", "t": "t2", "n": false, "x": -0.5, "v": "other"}),
        ];
        let changes: Vec<Value> =
            (0..).zip(&documents).map(|(i, d)| change("create", i, i + 1, None, d.clone())).collect();
        deliver_all(&handler, &changes).await;

        let ask =
            async |command: &str, key: &str| app.run(&[&[command, "--id", "a", "--pk", key], &on[..]].concat()).await;
        let third = if source == "orders" { ["", "", "", ""] } else { [",null", ",{}", ",true", ",{}"] };
        for (key, expected) in [
            (format!(r#"["t1",42{}]"#, third[0]), &documents[0]),
            (format!(r#"["t1","42"{}]"#, third[1]), &documents[1]),
            (format!(r#"["t1",null{}]"#, third[2]), &documents[2]),
            (format!(r#"["t1",{{}}{}]"#, third[3]), &documents[3]),
            // The first component is enough when it names one document.
            ("t2".to_owned(), &documents[4]),
        ] {
            assert_eq!(&ask("show", &key).await.json(), expected, "{source} {key}");
            let history =
                app.run(&[&["history", "--id", "a", "--pk", &key, "--format", "json"], &on[..]].concat()).await;
            assert_eq!(history.json().as_array().unwrap().len(), 1, "{source} {key}");
        }
        let several = ask("show", "t1").await;
        assert_eq!(several.code, 2, "{several:?}");
        for key in [r#"["t1",42"#, r#"["t1","42""#, r#"["t1",null"#, r#"["t1",{}"#] {
            assert!(several.stderr.contains(&format!("--pk '{key}")), "{key}: {several:?}");
        }
        let nobody = ask("show", r#"["t1",43]"#).await;
        assert_eq!(nobody.code, 1, "{nobody:?}");
        let many = ask("history", r#"["t1",42,null,{}]"#).await;
        assert!(many.code == 2 && many.stderr.contains("has 4 components"), "{many:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_the_original_demo_are_read_with_the_time_of_the_copy() {
    let app = TestApp::with_changes_key(&["/pk"]).await;
    let changes = app.changes().await;
    let key = PartitionKey::parse("28035").unwrap();
    for (id, city, lsn) in [("guid-1", "Davidson", 7), ("guid-2", "Ruined", 8)] {
        let copy = json!({"id": id, "pk": "28035", "city": city, "_originalId": "28035", "_lsn": lsn});
        changes.upsert(&key, id, copy.to_string().into_bytes()).await.unwrap();
        // Copies have whole seconds, and nothing else to tell them apart.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    }
    let times = app.run(&["history", "--id", "28035", "--format", "json"]).await.json();
    let first = times[0]["ts"].to_string();
    let show = app.run(&["show", "--id", "28035", "--at", &first]).await;
    assert_eq!(show.stdout, "{\"id\":\"28035\",\"pk\":\"28035\",\"city\":\"Davidson\"}\n");
    assert!(show.stderr.contains("its time is the copy's") && show.stderr.contains("(legacy)"), "{show:?}");
    let diff = app.run(&["diff", "--id", "28035", "--from", &first, "--to", "now"]).await;
    assert_eq!(diff.stdout, "~ /city  \"Davidson\" -> \"Ruined\"\n");
    assert!(diff.stderr.contains("its time is the copy's"), "{diff:?}");
}

/// Three documents: one damaged and repaired by another value, one left alone, one created later.
async fn a_town(app: &TestApp) {
    let handler = app.handler(&[]).await;
    let document = |id: &str, city: &str| json!({"id": id, "pk": id, "city": city});
    let changes = [
        change("create", 0, 1, None, document("a", "Davidson")),
        change("create", 0, 2, None, document("b", "Davidson")),
        change("replace", 60, 3, Some(1), document("a", "Ruined")),
        change("create", 90, 4, None, document("c", "Davidson")),
        change("replace", 120, 5, Some(3), document("a", "Huntersville")),
    ];
    deliver_all(&handler, &changes).await;
}

#[tokio::test]
async fn several_documents_are_shown_by_list_or_predicate() {
    let app = TestApp::start().await;
    a_town(&app).await;
    let at = (START + 30).to_string();
    let ids = |output: &Output| -> Vec<String> {
        output.lines().iter().map(|v| v["id"].as_str().unwrap().to_owned()).collect()
    };
    // Of the town at that time, not of today.
    let where_at =
        |at: &str| ["show", "--where", "c.city = @city", "--param", "city=Davidson", "--at", at].map(String::from);
    for (seconds, expected) in [(30, vec!["a", "b"]), (60, vec!["b"]), (90, vec!["b", "c"])] {
        let args = where_at(&(START + seconds).to_string());
        let shown = app.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!((shown.code, ids(&shown)), (0, expected.iter().map(|s| (*s).to_owned()).collect()), "{shown:?}");
    }
    // One object a line, with what is known of the version.
    let objects = app.run(&["show", "--where", "c.city = 'Davidson'", "--at", &at, "--format", "json"]).await;
    assert!(objects.lines().iter().all(|o| o["state"] == "document" && o["document"]["city"] == "Davidson"));

    // Of a list each one is accounted for: c did not exist then, and nobody knows of x.
    let list = "{\"id\":\"a\",\"pk\":\"a\"}\n{\"id\":\"c\",\"pk\":[\"c\"]}\n\n{\"id\":\"x\",\"pk\":\"x\"}\n";
    let shown = app.run_with_input(&["show", "--ids-file", "-", "--at", &at], list).await;
    assert_eq!((shown.code, ids(&shown)), (3, vec!["a".to_owned()]), "{shown:?}");
    assert!(shown.stderr.contains(r#"document "x" (x): no version"#), "{shown:?}");
    assert!(shown.stderr.contains("it was created at"), "{shown:?}");

    for (args, input, code, says) in [
        (&["show", "--where", "c.city = 'Nowhere'"][..], "", 1, "no document of the history matched"),
        (&["show", "--where", "c.city = ="], "", 2, "--where"),
        (&["show"], "", 2, "no document is named"),
        (&["show", "--ids-file", "-"], "{\"id\":1}", 2, "line 1"),
        (&["show", "--ids-file", "-"], "\n", 2, "names no document"),
        (&["show", "--ids-file", "-"], "{\"id\":\"x\",\"pk\":\"x\"}", 1, "no version of 1 document"),
        (&["show", "--ids-file", "/nowhere"], "", 2, "/nowhere"),
        (&["show", "--id", "a", "--where", "true"], "", 2, "cannot be used with"),
    ] {
        let refused = app.run_with_input(args, input).await;
        assert_eq!(refused.code, code, "{args:?}: {refused:?}");
        assert!(refused.stderr.contains(says), "{args:?}: {refused:?}");
    }
}

#[tokio::test]
async fn several_documents_are_compared_and_their_fields_followed() {
    let app = TestApp::start().await;
    a_town(&app).await;
    let from = (START + 30).to_string();
    let to = (START + 200).to_string();
    let base = ["diff", "--where", "c.city = 'Davidson'", "--from", &from, "--to", &to];
    let lines = app.run(&base).await;
    assert_eq!(lines.code, 0, "{lines:?}");
    assert_eq!(lines.stdout, "\"a\" (a)\n~ /city  \"Davidson\" -> \"Huntersville\"\n");
    assert!(lines.stderr.contains("1 difference in 1 of 2 documents"), "{lines:?}");
    let patches = app.run(&[&base[..], &["--format", "json"]].concat()).await.json();
    let patch = json!([{"op": "replace", "path": "/city", "value": "Huntersville"}]);
    assert_eq!(patches, json!([{"id": "a", "pk": "a", "patch": patch}]));
    let rows = app.run(&[&base[..], &["--format", "csv"]].concat()).await;
    assert_eq!(
        rows.stdout,
        "id,pk,path,op,before,after\na,a,/city,replace,\"\"\"Davidson\"\"\",\"\"\"Huntersville\"\"\"\n"
    );

    // When did it change, in all documents that ever were ruined.
    let changes =
        app.run(&["history", "--where", "c.city = 'Ruined'", "--changes-of", "/city", "--format", "json"]).await;
    let rows: Vec<(Value, Value, Value)> = changes
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["id"].clone(), r["ts"].clone(), r["after"].clone()))
        .collect();
    let row = |seconds: i64, city: &str| (json!("a"), json!(START + seconds), json!(city));
    assert_eq!(rows, [row(0, "Davidson"), row(60, "Ruined"), row(120, "Huntersville")]);

    let list = "{\"id\":\"c\",\"pk\":\"c\"}\n{\"id\":\"a\",\"pk\":\"a\"}\n";
    let versions = app.run_with_input(&["history", "--ids-file", "-", "--format", "jsonl"], list).await;
    let ids: Vec<String> = versions.lines().iter().map(|v| v["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((versions.code, ids), (0, ["c", "a", "a", "a"].map(String::from).to_vec()));
}
