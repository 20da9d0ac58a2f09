//! Unknown states, invalid requests, and documents that are hard to name.

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use super::{change, deliver_all, shown};
use crate::support::{TestApp, feed_document};

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
            // Not in the source, so it cannot be read again.
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
    // The creation of `gap` is known, that of `late` is not.
    for (id, state) in [("gap", "not-yet"), ("late", "unknown")] {
        let shown = app.run(&["show", "--id", id, "--at", "1699999999", "--format", "json"]).await;
        let object: Value = serde_json::from_str(&shown.stdout).unwrap();
        assert_eq!((shown.code, &object["state"]), (1, &json!(state)), "{shown:?}");
    }
    let (_, stderr) = notes("gap", "now").await;
    assert!(!stderr.contains("note:"), "{stderr}");
    let history = app.run(&["history", "--id", "gap"]).await;
    assert!(history.stderr.contains("after the version of 2023-11-14T22:13:20Z: a version is missing"), "{history:?}");
    // The state before the first version is not guessed.
    let diff = app.run(&["diff", "--id", "late", "--from", "1700000050", "--to", "now"]).await;
    assert_eq!((diff.code, diff.stdout.as_str()), (1, ""), "{diff:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_time_is_refused_before_the_first_request() {
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
async fn every_kind_of_key_addresses_its_own_document() {
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
        // One id under many keys. A missing component is undefined, not null.
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
            // The first component is enough when it identifies a single document.
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
async fn records_of_the_original_demo_have_the_time_of_their_copy() {
    let app = TestApp::with_changes_key(&["/pk"]).await;
    let changes = app.changes().await;
    let key = PartitionKey::parse("28035").unwrap();
    for (id, city, lsn) in [("guid-1", "Davidson", 7), ("guid-2", "Ruined", 8)] {
        let copy = json!({"id": id, "pk": "28035", "city": city, "_originalId": "28035", "_lsn": lsn});
        changes.upsert(&key, id, copy.to_string().into_bytes()).await.unwrap();
        // Records of the original demo have whole seconds, and nothing else orders them.
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
