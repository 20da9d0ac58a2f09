//! The port answers before the containers have been checked, and nothing that the check would detect is lost by that.

use std::time::Duration;

use serde_json::json;

use crate::support::{Fault, Kind, TestApp, feed_document};

/// Ample time for work that takes milliseconds.
const EXIT_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_batch_before_the_containers_are_checked_waits_and_is_stored() {
    let app = TestApp::start().await;
    app.proxy.fail_always_of(Kind::Definition, Some(Fault::Reject(503, 0)));
    let handler = app.answering(&[]).await;
    let documents = [feed_document("x", "p", 1)];
    let account = async {
        assert_eq!(handler.health().await, "starting");
        assert!(!handler.log().iter().any(|line| line.contains("ready")), "{:?}", handler.log());
        app.proxy.fail_always_of(Kind::Definition, None);
    };
    let ((status, answer), ()) = tokio::join!(handler.deliver(&documents), account);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(app.history().await.len(), 1);
    handler.wait_for_log("ready").await;
    assert_eq!(handler.health().await, "ok");
}

#[tokio::test]
async fn wrong_containers_end_the_process_and_earlier_batches_are_not_stored() {
    let app = TestApp::with_changes_key(&["/_originalId"]).await;
    app.proxy.fail_always_of(Kind::Definition, Some(Fault::Reject(503, 0)));
    let mut handler = app.answering(&[("REWIND_DRAIN_SECONDS", "20")]).await;
    let body = crate::support::body_of(&json!([feed_document("x", "p", 1)]).to_string());
    let account = async { app.proxy.fail_always_of(Kind::Definition, None) };
    let (answer, ()) = tokio::join!(handler.request("CaptureChanges", body).send(), account);
    // The handler may have exited by then.
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status().is_server_error()));
    assert_eq!(handler.exit_code(EXIT_TIMEOUT).await, Some(2), "{:?}", handler.log());
    handler.wait_for_log("hint: run `cosmos-rewind doctor`").await;
    let stderr = handler.stderr().join("\n");
    assert!(stderr.contains("capture would not be right") && stderr.contains("leaves out /pk"), "{stderr}");
    assert!(!handler.log().iter().any(|line| line.contains("ready")), "{:?}", handler.log());
    assert!(app.history().await.is_empty() && app.dead_letters().is_empty());
}

#[tokio::test]
async fn an_account_that_hangs_delays_neither_the_host_nor_the_exit() {
    let app = TestApp::start().await;
    // It accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let account = format!("AccountEndpoint=http://{}/;AccountKey=c2VjcmV0;", silent.local_addr().unwrap());
    let hurried = app.answering(&[("CosmosDB", &account), ("REWIND_DEADLINE_SECONDS", "1")]).await;
    let (status, answer) = hurried.deliver(&[feed_document("x", "p", 1)]).await;
    assert_eq!(status, 500, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("not answered before the deadline"), "{answer}");
    let mut patient = app.answering(&[("CosmosDB", &account)]).await;
    assert_eq!(patient.health().await, "starting", "{:?}", patient.log());
    patient.terminate();
    assert_eq!(patient.exit_code(EXIT_TIMEOUT).await, Some(200), "{:?}", patient.log());
    assert!(
        !patient.log().iter().any(|line| line.contains("ready") || line.contains("panicked")),
        "{:?}",
        patient.log()
    );
}

/// The handler waits for missing containers no longer than for its response to the host.
const HURRIED: (&str, &str) = ("REWIND_DEADLINE_SECONDS", "1");

/// Errors that `doctor` reports as failures and that only the account can detect.
#[tokio::test]
async fn missing_containers_and_permanent_refusals_end_the_process() {
    let app = TestApp::start().await;
    let stranger = format!("AccountEndpoint={};AccountKey=c2VjcmV0;", app.local.endpoint());
    let cases = [
        ("COSMOS_SOURCE_CONTAINER", "nowhere", "dev/nowhere"),
        ("COSMOS_DATABASE", "nowhere", "nowhere/"),
        ("CosmosDB", &stranger, "check the key"),
    ];
    for (setting, value, told) in cases {
        let mut handler = app.answering(&[(setting, value), HURRIED]).await;
        assert_eq!(handler.exit_code(EXIT_TIMEOUT).await, Some(2), "{setting}: {:?}", handler.log());
        let stderr = handler.stderr().join("\n");
        assert!(stderr.contains("capture would not be right") && stderr.contains(told), "{setting}: {stderr}");
        assert!(!stderr.contains("c2VjcmV0"), "{stderr}");
    }
}

#[tokio::test]
async fn a_container_created_during_the_wait_is_captured_into() {
    let app = TestApp::start().await;
    let handler = app.answering(&[("COSMOS_CHANGES_CONTAINER", "later")]).await;
    handler.wait_for_log("waiting for what is missing").await;
    let told = handler.log().join("\n");
    assert!(told.contains("CaptureChanges: open container dev/later") && !told.contains("store batch"), "{told}");
    assert_eq!(handler.deliver(&[feed_document("x", "p", 1)]).await.0, 500);
    let description = json!({"id": "later", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    assert!(app.local.create_container("dev", description).await.unwrap());
    handler.wait_for_log("ready").await;
    assert_eq!(handler.deliver(&[feed_document("x", "p", 1)]).await.0, 200);
}

/// A role assignment takes time to propagate. A handler that exits would be restarted three times in vain.
#[tokio::test]
async fn a_caller_without_permission_yet_keeps_running() {
    let app = TestApp::start().await;
    app.proxy.fail_always_of(Kind::Definition, Some(Fault::Reject(403, 0)));
    let handler = app.answering(&[]).await;
    handler.wait_for_log("cannot look at the containers yet").await;
    assert_eq!(handler.deliver(&[feed_document("x", "p", 1)]).await.0, 500);
    app.proxy.fail_always_of(Kind::Definition, None);
    assert_eq!(handler.deliver(&[feed_document("x", "p", 1)]).await.0, 200, "{:?}", handler.log());
}

#[tokio::test]
async fn an_unusable_dead_letter_store_ends_the_process() {
    let app = TestApp::start().await;
    let file = app.folder.path().join("letters");
    std::fs::write(&file, "a file").unwrap();
    for place in [file.to_str().unwrap(), "/proc/letters"] {
        let mut handler = app.answering(&[("REWIND_DEAD_LETTERS", place)]).await;
        assert_eq!(handler.exit_code(EXIT_TIMEOUT).await, Some(2), "{:?}", handler.log());
        let stderr = handler.stderr().join("\n");
        assert!(stderr.contains("REWIND_DEAD_LETTERS") && stderr.contains(place), "{stderr}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a file");
    // A folder that does not exist yet is created when it is needed.
    let new = app.folder.path().join("new/letters");
    let handler = app.answering(&[("REWIND_DEAD_LETTERS", new.to_str().unwrap())]).await;
    handler.wait_for_log("ready").await;
    assert!(!new.exists());
}
