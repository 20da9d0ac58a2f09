//! Which parts of documents are passed on, and documents that cannot be.

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use super::{ALL, captured, catch_up, events, put};
use crate::support::{Fault, FollowerProcess, TestApp};

#[tokio::test]
async fn poison_becomes_a_dead_letter_and_the_rest_is_captured() {
    let app = TestApp::start().await;
    for id in ["good", "bad", "fine"] {
        put(&app, id, 1).await;
    }
    app.proxy.only_if_body_has("key-bad");
    app.proxy.fail_always(Some(Fault::Reject(403, 1014)));
    let mut follower = FollowerProcess::start(&app, &["--from", "beginning", "--until-caught-up"]);
    assert_eq!(follower.ended().await.code(), Some(3), "{:#?}", follower.log());
    assert_eq!(captured(&app).await.into_keys().collect::<Vec<_>>(), ["fine", "good"]);
    assert_eq!(app.dead_letters().len(), 1);
    app.proxy.fail_always(None);
    let replayed = app.run(&["replay"]).await;
    assert_eq!(replayed.code, 0, "{replayed:?}");
    assert_eq!(captured(&app).await.len(), 3);
}

#[tokio::test]
async fn a_filter_passes_matching_changes_and_mistakes_are_shown_with_a_caret() {
    let app = TestApp::start().await;
    catch_up(&app, &ALL).await;
    for (id, balance) in [("a", 10), ("b", -5), ("a", -1), ("b", 3)] {
        app.put(json!({"id": id, "pk": id, "balance": balance})).await;
    }
    app.put(json!({"id": "c", "pk": "c"})).await;
    let filter = r#"op in ["create", "replace"] && doc.balance < 0"#;
    let output =
        catch_up(&app, &[&ALL[..], &["--filter", filter, "--sink", "stdout", "--sink", "changes"]].concat()).await;
    let seen: Vec<_> = events(&output.stdout).iter().map(|e| (e["id"].clone(), e["doc"]["balance"].clone())).collect();
    assert_eq!(
        (seen.len(), seen.contains(&(json!("a"), json!(-1))), seen.contains(&(json!("b"), json!(-5)))),
        (2, true, true)
    );
    assert_eq!(
        app.history().await.len(),
        2 + 1,
        "two documents, and the previous version of one: {:#?}",
        app.history().await
    );
    assert!(
        output.stderr.contains("a field is not there")
            && output.stderr.contains("5 changes read, 2 passed on, 1 without"),
        "{output:?}"
    );

    let output = app.run(&["follow", "--filter", "op == 1 && balanc < 0"]).await;
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("  op == 1 && balanc < 0\n             ^\n"), "{output:?}");
    let output = app.run(&["follow", "--filter", r#"changed("/a")"#]).await;
    assert!(output.code == 2 && output.stderr.contains("--mode all-versions"), "{output:?}");
    app.put(json!({"id": "d", "pk": "d"})).await;
    let wrong = [&ALL[..], &["--until-caught-up", "--filter", "size_of(doc) > 1"]].concat();
    let output = app.run(&[&["follow"], &wrong[..]].concat()).await;
    assert!(output.code == 2 && output.stderr.contains("size_of"), "{output:?}");
    let pretty = catch_up(&app, &[&ALL[..], &["--sink", "stdout", "--pretty"]].concat()).await;
    assert!(pretty.stdout.contains("create   d  d  lsn 6\n  + /id  \"d\"\n"), "{pretty:?}");
}

#[tokio::test]
async fn redacted_fields_reach_no_sink_and_the_record_says_so() {
    let app = TestApp::start().await;
    let args =
        [&ALL[..], &["--fields", "/name,/ssn,/card/number", "--redact", "/ssn", "--redact", "/card/number=hash"]]
            .concat();
    let key = [("REWIND_REDACT_KEY", "of the test")];
    let run = async |more: &[&str]| {
        let args = [&["follow", "--until-caught-up", "--poll", "50"], &args[..], more].concat();
        app.run_with_settings(&args, &key).await
    };
    assert_eq!(run(&[]).await.code, 0);
    let document = json!({"id": "x", "pk": "p", "name": "A", "ssn": "123-45", "card": {"number": "n-4111-n", "cvc": "c-999-c"}, "other": 1});
    app.put(document.clone()).await;
    let mut second = document.clone();
    second["name"] = "B".into();
    app.put(second).await;
    let output = run(&["--sink", "changes", "--sink", "stdout", "--sink", "file:e.jsonl"]).await;
    assert_eq!(output.code, 0, "{output:?}");
    let file = std::fs::read_to_string(app.folder.path().join("e.jsonl")).unwrap();
    let history = app.history().await;
    for text in [&output.stdout, &file, &format!("{history:?}")] {
        assert!(
            !text.contains("123-45")
                && !text.contains("n-4111-n")
                && !text.contains("c-999-c")
                && !text.contains("other"),
            "{text}"
        );
    }
    assert_eq!(history.len(), 2);
    for record in &history {
        assert_eq!(record["_change"]["fidelity"], "partial");
        assert_eq!(
            record["_change"]["partial"],
            json!({"fields": ["/name", "/ssn", "/card/number"], "dropped": ["/ssn"], "hashed": ["/card/number"]})
        );
        assert_eq!(record["card"]["number"], history[0]["card"]["number"]);
    }
    let shown = app.run(&["show", "--id", "x", "--format", "json"]).await.json();
    let caveats: Vec<&str> = shown["caveats"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(caveats, ["partial"]);
    // A follower that sees everything replaces a partial record, and never the other way round.
    let whole = app.history().await[0]["id"].clone();
    for args in [
        vec!["--name", "whole", "--from", "beginning"],
        [&["--name", "again", "--from", "beginning"], &args[2..]].concat(),
    ] {
        let args = [&["follow", "--until-caught-up"], &args[..]].concat();
        let output = app.run_with_settings(&args, &key).await;
        assert_eq!(output.code, 0, "{output:?}");
        let history = app.history().await;
        let newest = history.iter().find(|r| r["_change"]["fidelity"] == "exact").unwrap();
        assert_eq!(newest["ssn"], "123-45", "{whole}");
    }

    for (args, wanted) in [
        (["--redact", "/pk"], "identity"),
        (["--redact", "/a=hash"], "REWIND_REDACT_KEY"),
        (["--redact", "/a=rot13"], "neither hash nor drop"),
        (["--fields", "name"], "name"),
    ] {
        let output = app.run(&[&["follow"], &args[..]].concat()).await;
        assert!(output.code == 2 && output.stderr.contains(wanted), "{args:?}: {output:?}");
    }
}

/// The service allows 128 levels. The trigger's JSON reader gives up at 64, which stops its lease.
#[tokio::test]
async fn documents_of_every_depth_that_the_service_allows_are_captured() {
    let app = TestApp::start().await;
    catch_up(&app, &ALL).await;
    // The document itself is the first level.
    let deep = |id: &str, depth: usize, leaf: &str| {
        let (open, close) = (r#"{"a":"#.repeat(depth - 1), "}".repeat(depth - 1));
        format!(r#"{{"id":"{id}","pk":"p","v":{open}{leaf}{close}}}"#)
    };
    let arrays = |id: &str, depth: usize| {
        format!(r#"{{"id":"{id}","pk":"p","v":{}1{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1))
    };
    let events = app.events().await;
    let key = PartitionKey::parse("p").unwrap();
    let mut written = Vec::new();
    for depth in [63, 64, 65, 100, 127] {
        let id = format!("deep-{depth}");
        for text in [deep(&id, depth, "1"), deep(&id, depth, "2.5"), arrays(&id, depth)] {
            events.upsert(&key, &id, text.clone().into_bytes()).await.unwrap_or_else(|e| panic!("{depth}: {e}"));
            written.push((id.clone(), text));
        }
        events.delete(&key, &id, None).await.unwrap();
    }
    let sinks = ["--sink", "changes", "--sink", "stdout", "--sink", "file:deep.jsonl"];
    let output = catch_up(&app, &[&ALL[..], &sinks].concat()).await;
    assert_eq!(app.dead_letters(), Vec::<Value>::new());
    let mut captured = Vec::new();
    for depth in [63, 64, 65, 100, 127] {
        let id = format!("deep-{depth}");
        let versions = app.versions(&id).await;
        assert_eq!(versions.len(), 4, "{id}");
        captured.extend(versions.into_iter().filter_map(|version| Some((id.clone(), version.document?))));
    }
    assert_eq!(captured, written);
    for (_, text) in &written {
        assert!(output.stdout.contains(&format!("\"doc\":{text}")), "{text}");
    }
    assert_eq!(output.stdout.lines().count(), written.len() + 5);

    // The handler captures them as well, should the host ever deliver them.
    let handler = app.handler(&[]).await;
    let text = deep("by-host", 127, "1").replacen("{\"id\"", "{\"_etag\":\"\\\"e\\\"\",\"_ts\":1,\"id\"", 1);
    assert_eq!(handler.deliver_text(&format!("[{text}]")).await.0, 200, "{:#?}", handler.log());
    assert_eq!(app.versions("by-host").await[0].document.as_deref(), Some(deep("by-host", 127, "1").as_str()));

    // The local account accepts 127 levels, so a document of 128 is delivered as the service's feed would.
    let deepest = |leaf: &str| format!("{}{leaf}{}", r#"{"a":"#.repeat(127), "}".repeat(127));
    app.proxy.rewrite("\"DEEPEST\"", &deepest("1.50"));
    app.put(json!({"id": "deepest", "pk": "p", "n": 1, "v": "DEEPEST"})).await;
    app.put(json!({"id": "deepest", "pk": "p", "n": 2, "v": "DEEPEST"})).await;
    for (more, doc) in [
        (&["--name", "whole"][..], format!(r#"{{"id":"deepest","pk":"p","n":2,"v":{}}}"#, deepest("1.50"))),
        (
            &["--name", "part", "--filter", "doc.n > 1", "--redact", "/v/a/a"],
            r#"{"id":"deepest","pk":"p","n":2,"v":{"a":{}}}"#.into(),
        ),
    ] {
        let args =
            ["follow", "--from", "beginning", "--until-caught-up", "--sink", "stdout", "--sink", "file:deepest.jsonl"];
        let output = app.run_through_proxy(&[&args, more].concat()).await;
        assert!(output.code == 0 && output.stdout.contains(&format!("\"doc\":{doc},")), "{output:?}");
    }
    // With the previous image, which is compared for the differences.
    let args = ["follow", "--mode", "all-versions", "--until-caught-up", "--sink", "stdout"];
    let output = app.run_through_proxy(&args).await;
    assert!(output.code == 0 && output.stdout.contains(r#""changed":["/n"]"#), "{output:?}");
    assert_eq!(app.dead_letters(), Vec::<Value>::new());
}
