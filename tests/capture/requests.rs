//! Requests to the handler's port, and how the handler starts.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{Fault, TestApp, body_of, feed_document, http_client};

#[tokio::test]
async fn bad_input_gets_a_clear_answer_and_loses_nothing() {
    let app = TestApp::start().await;
    let handler = app.handler(&[("REWIND_MAX_BODY_MB", "1")]).await;
    for (body, status, reason) in [
        (b"nonsense".to_vec(), 400, "not the host's JSON"),
        (b"{}".to_vec(), 400, "no Data object"),
        (br#"{"Data":{"other":"[]"}}"#.to_vec(), 400, "no binding \"documents\" (found: other)"),
        (b"{\"Data\":{\"documents\":\"\xff\"}}".to_vec(), 400, "not UTF-8"),
        (br#"{"Data":{"documents":{}}}"#.to_vec(), 400, "not a list"),
        (vec![b' '; (1 << 20) + 1], 413, "REWIND_MAX_BODY_MB"),
    ] {
        let (got, answer) = handler.post("CaptureChanges", body).await;
        assert_eq!(got, status, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(reason), "{answer}");
    }
    let (status, answer) = handler.post("NoSuchFunction", "{}").await;
    assert_eq!(status, 404);
    assert!(answer["error"].as_str().unwrap().contains("CaptureChanges"), "{answer}");
    assert!(app.history().await.is_empty() && app.dead_letters().is_empty());
    // The handler still works.
    assert_eq!(handler.deliver(&[feed_document("x", "x", 1)]).await.0, 200);
}

#[tokio::test]
async fn a_refusal_arrives_while_the_body_is_still_sent_and_the_connection_survives() {
    let app = TestApp::start().await;
    let handler = app.handler(&[("REWIND_MAX_BODY_MB", "1")]).await;
    let chunks = || futures::stream::iter((0..48).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 16])));
    for _ in 0..5 {
        assert_eq!(handler.post("CaptureChanges", vec![b' '; 3 << 20]).await.0, 413);
        assert_eq!(handler.post("CaptureChanges", reqwest::Body::wrap_stream(chunks())).await.0, 413);
        assert_eq!(handler.post("NoSuchFunction", vec![b' '; 3 << 20]).await.0, 404);
    }
}

#[tokio::test]
async fn a_document_a_thousand_levels_deep_becomes_a_dead_letter() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let deep =
        format!(r#"[{{"id":"deep","pk":"p","d":{}1{},"_etag":"\"e\"","_ts":1}}]"#, "[".repeat(1000), "]".repeat(1000));
    let (status, body) = handler.deliver_text(&deep).await;
    assert_eq!(status, 200, "{body}");
    // The service refuses such depth, so the document becomes a dead letter with every level in it.
    let entry = std::fs::read_dir(app.folder.path().join(".dead-letters")).unwrap().next().unwrap().unwrap();
    let letter = std::fs::read_to_string(entry.path()).unwrap();
    assert!(letter.contains(&format!("{}1{}", "[".repeat(1000), "]".repeat(1000))));
}

#[tokio::test]
async fn a_body_of_64_megabytes_sent_in_chunks_is_stored() {
    let app = TestApp::start().await;
    // Few writes at a time: 64 concurrent writes of half a megabyte take this debug build longer than the client waits.
    let handler = app.handler(&[("REWIND_MAX_WRITES", "4")]).await;
    // Each quote grows to four bytes on the way, so fewer bytes of documents produce such a body.
    let documents: Vec<Value> = (0..38)
        .map(|i| {
            let mut document = feed_document(&format!("doc-{i}"), &format!("key-{i}"), i);
            document["text"] = "\"".repeat(230_000).into();
            document
        })
        .collect();
    let body = body_of(&Value::from(documents).to_string());
    assert!(body.len() > 64 << 20, "{}", body.len());
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> =
        body.into_bytes().chunks(1 << 16).map(|c| Ok(c.to_vec())).collect();
    let (status, answer) =
        handler.post("CaptureChanges", reqwest::Body::wrap_stream(futures::stream::iter(chunks))).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(app.history().await.len(), 38);
}

#[tokio::test]
async fn the_port_answers_before_cosmos_is_reached_and_a_missing_container_is_named() {
    let app = TestApp::start().await;
    let mut handler = app.answering(&[("COSMOS_CHANGES_CONTAINER", "nowhere"), ("REWIND_DEADLINE_SECONDS", "3")]).await;
    let (status, body) = handler.deliver(&[feed_document("x", "x", 1)]).await;
    assert_eq!(status, 500);
    assert!(body["error"].as_str().unwrap().contains("nowhere"), "{body}");
    handler.wait_for_log("cosmos-rewind provision").await;
    // The handler waits for a while, because `provision` may be running, and then gives up its start.
    assert_eq!(handler.exit_code(Duration::from_secs(60)).await, Some(2), "{:?}", handler.log());
    assert!(handler.stderr().iter().any(|line| line.contains("dev/nowhere")), "{:?}", handler.stderr());
    assert!(!handler.log().iter().any(|line| line.contains("ready")), "{:?}", handler.log());
}

#[tokio::test]
async fn a_container_recreated_under_the_same_name_is_noticed() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&[feed_document("x", "x", 1)]).await.0, 200);
    let client = app.cosmos.client().await.unwrap();
    client.database_client("dev").container_client("changes", None).await.unwrap().delete(None).await.unwrap();
    let description = json!({"id": "changes", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    assert!(app.local.create_container("dev", description).await.unwrap());
    // The host delivers until the batch is stored.
    let mut status = 0;
    for _ in 0..5 {
        status = handler.deliver(&[feed_document("x", "x", 2)]).await.0;
        if status == 200 {
            break;
        }
    }
    assert_eq!(status, 200, "{:#?}", handler.log());
    assert_eq!(app.dead_letters(), Vec::<Value>::new());
}

/// Nothing is written to a history that does not fit, so no failed write reveals that it was recreated.
#[tokio::test]
async fn a_history_recreated_with_a_fitting_key_is_written_to() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&[feed_document("x", "x", 1)]).await.0, 200);
    let make = async |paths: [&str; 2]| {
        assert!(app.local.delete_container("dev", "changes").await.unwrap());
        let key = json!({"paths": paths, "kind": "MultiHash", "version": 2});
        assert!(app.local.create_container("dev", json!({"id": "changes", "partitionKey": key})).await.unwrap());
    };
    make(["/other", "/_originalId"]).await;
    let (status, answer) = handler.deliver(&[feed_document("x", "x", 2)]).await;
    assert!(status == 500 && answer["error"].as_str().unwrap().contains("/other"), "{answer}");
    make(["/pk", "/_originalId"]).await;
    let (status, answer) = handler.deliver(&[feed_document("x", "x", 2)]).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((app.history().await.len(), app.dead_letters().len()), (1, 0));
}

/// A document with a resource id from the current container `events`: eight bytes of the container's id and eight of
/// its own.
async fn from_events(app: &TestApp, version: u64) -> Value {
    let url = format!("{}dbs/dev/colls/events", app.local.endpoint());
    let answer = http_client().get(url).send().await.unwrap().bytes().await.unwrap();
    let container: Value = serde_json::from_slice(&answer).unwrap();
    let mut rid = STANDARD.decode(container["_rid"].as_str().unwrap().replace('-', "/")).unwrap();
    assert_eq!(rid.len(), 8);
    rid.extend([version as u8, 0, 0, 0, 0, 0, 0, 0]);
    let mut document = feed_document("x", "p", version);
    document["_rid"] = STANDARD.encode(rid).replace('/', "-").into();
    document["tenant"] = "t".into();
    document
}

/// The history fits the old source's key. Only the documents' resource ids show that the source is another container.
#[tokio::test]
async fn a_source_recreated_with_another_key_is_not_taken_for_the_old_one() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let before = from_events(&app, 1).await;
    assert_eq!(handler.deliver(std::slice::from_ref(&before)).await.0, 200);
    let make = async |key: Value| {
        assert!(app.local.delete_container("dev", "events").await.unwrap());
        assert!(app.local.create_container("dev", json!({"id": "events", "partitionKey": key})).await.unwrap());
    };
    make(json!({"paths": ["/pk", "/tenant"], "kind": "MultiHash", "version": 2})).await;
    let (status, answer) = handler.deliver(&[from_events(&app, 2).await]).await;
    assert!(status == 500 && answer["error"].as_str().unwrap().contains("leaves out /tenant"), "{answer}");
    assert_eq!(app.history().await.len(), 1);
    // With its old key the source is captured again, and so are late changes of the first container.
    make(json!({"paths": ["/pk"], "kind": "Hash", "version": 2})).await;
    let after = from_events(&app, 3).await;
    let mut late = before;
    late["_etag"] = "\"late\"".into();
    for document in [after, late] {
        let (status, answer) = handler.deliver(&[document]).await;
        assert_eq!(status, 200, "{answer}");
    }
    let keys: Vec<Value> = app.history().await.iter().map(|record| record["_change"]["key"].clone()).collect();
    assert_eq!(keys, [json!(["p"]), json!(["p"]), json!(["p"])]);
}

/// A refusal reports the needed RU only when throughput was the cause.
#[tokio::test]
async fn needed_request_units_are_reported_when_throttled() {
    let app = TestApp::start().await;
    for (status, told) in [(429, true), (503, false)] {
        let handler = app.handler(&[("REWIND_DEADLINE_SECONDS", "1"), ("REWIND_BULK", "off")]).await;
        app.proxy.only_if_body_has(&format!("late-{status}"));
        app.proxy.fail_always(Some(Fault::Reject(status, 0)));
        let batch = [format!("good-{status}"), format!("late-{status}")].map(|id| feed_document(&id, &id, 1));
        let (answered, answer) = handler.deliver(&batch).await;
        app.proxy.fail_always(None);
        let error = answer["error"].as_str().unwrap();
        assert!(answered == 500 && error.contains("1 of 2 records are stored"), "{error}");
        assert_eq!(error.contains("RU"), told, "{error}");
    }
}

#[tokio::test]
async fn a_wrong_setting_stops_the_start_and_is_named() {
    let app = TestApp::start().await;
    for (name, value) in
        [("REWIND_MAX_WRITES", "lots"), ("CosmosDB", "AccountKey=c2VjcmV0"), ("REWIND_LOG_FORMAT", "xml")]
    {
        let output = app.run_with_settings(&["serve"], &[(name, value)]).await;
        assert_eq!(output.code, 2, "{output:?}");
        assert!(output.stderr.contains(name) && output.stderr.contains("hint: "), "{output:?}");
        assert!(!output.stderr.contains("c2VjcmV0"));
    }
}

#[tokio::test]
async fn no_key_and_no_document_appears_in_the_log() {
    let app = TestApp::start().await;
    let handler = app.handler(&[("REWIND_LOG", "debug")]).await;
    let mut document = feed_document("x", "x", 1);
    document["text"] = "very private".into();
    assert_eq!(handler.deliver(&[document, json!({"secret": "very private"})]).await.0, 200);
    handler.wait_for_log("batch stored").await;
    handler.wait_for_log("dead letter").await;
    let log = handler.log().join("\n");
    assert!(!log.contains("very private") && !log.contains(app.local.key()), "{log}");
}
