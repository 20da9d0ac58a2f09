//! One suite for every kind of dead-letter store: a folder, and a blob container in Azurite.

use std::time::Duration;

use cosmos_rewind::{
    causes::chain,
    config::{Credential, DeadLetterLocation},
    dead_letters::{DeadLetter, DeadLetterStore},
};
use serde_json::{Value, json, value::RawValue};

use crate::support::{
    ClosedPort, Fault, Output, TestApp, feed_document,
    peers::{Azurite, signatures},
};

fn open(text: &str) -> DeadLetterStore {
    let location = DeadLetterLocation::parse("REWIND_DEAD_LETTERS", text, std::path::Path::new(".")).unwrap();
    DeadLetterStore::open(&location, &Credential::Developer).unwrap()
}

fn letter(function: &str, item: &str) -> DeadLetter {
    DeadLetter {
        v: 1,
        at: "2026-11-20T15:00:00.000Z".into(),
        function: function.into(),
        invocation: "11111111-2222-3333-4444-555555555555".into(),
        id: Some("a".into()),
        status: "400".into(),
        reason: "too odd".into(),
        partial: None,
        delivery: None,
        source: None,
        via: None,
        item: RawValue::from_string(item.into()).unwrap(),
    }
}

/// The contract of every store. The store is empty at the start and at the end.
async fn contract(store: &DeadLetterStore) {
    assert_eq!(store.list().await.unwrap(), Vec::<String>::new());

    // Text that parsing would alter, and an id with characters of many scripts.
    let item = r#"{"id":"a","n":1.10,"n":100000000000000000000000000,"text":"Köln 😀 \u0041"}"#;
    let first = letter("CaptureChanges", item);
    store.put(&first).await.unwrap();
    assert_eq!(store.list().await.unwrap(), [first.name()]);
    let found = store.get(&first.name()).await.unwrap();
    assert_eq!(found.item.get(), item);
    assert_eq!(serde_json::to_value(&found).unwrap(), serde_json::to_value(&first).unwrap());

    // The same item again is the same letter, with the latest reason.
    let again = DeadLetter { reason: "still too odd".into(), ..letter("CaptureChanges", item) };
    store.put(&again).await.unwrap();
    assert_eq!(store.list().await.unwrap(), [first.name()]);
    assert_eq!(store.get(&first.name()).await.unwrap().reason, "still too odd");

    // Listed in sorted order, whatever the order of writing.
    let mut names = vec![first.name()];
    for n in 0..20 {
        let another = letter(["Orders", "CaptureChanges"][n % 2], &format!("{{\"id\":\"{n}\"}}"));
        store.put(&another).await.unwrap();
        names.push(another.name());
    }
    names.sort();
    assert_eq!(store.list().await.unwrap(), names);

    // Concurrently, like the batches of several leases.
    let same = letter("CaptureChanges", r#"{"id":"same"}"#);
    for done in futures::future::join_all((0..8).map(|_| store.put(&same))).await {
        done.unwrap();
    }
    assert_eq!(store.list().await.unwrap().len(), names.len() + 1);

    // A large letter.
    let large = letter("CaptureChanges", &format!("{{\"id\":\"large\",\"text\":\"{}\"}}", "x".repeat(5 << 20)));
    store.put(&large).await.unwrap();
    assert_eq!(store.get(&large.name()).await.unwrap().item.get(), large.item.get());

    let missing = store.get("CaptureChanges-nothing.json").await.unwrap_err();
    assert!(missing.to_string().starts_with("read dead letter in "), "{missing}");

    for name in store.list().await.unwrap() {
        store.delete(&name).await.unwrap();
        store.delete(&name).await.unwrap();
    }
    assert_eq!(store.list().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_directory_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    // The folder is created on first use.
    let path = folder.path().join("deep/down");
    let store = open(path.to_str().unwrap());
    contract(&store).await;
    // Other files are not letters, and neither is one that is still being written.
    std::fs::write(path.join("README.txt"), "").unwrap();
    std::fs::write(path.join(".CaptureChanges-1.json.part"), "").unwrap();
    assert_eq!(store.list().await.unwrap(), Vec::<String>::new());
    std::fs::write(path.join("broken.json"), "{").unwrap();
    assert!(chain(&store.get("broken.json").await.unwrap_err()).contains("is not a dead letter"));
}

#[tokio::test]
async fn a_blob_container_keeps_the_contract() {
    let Some(azurite) = Azurite::start() else { return };
    azurite.create("letters").await;
    contract(&open(&azurite.container("letters"))).await;
}

#[tokio::test]
async fn a_blob_container_s_problems_are_named_without_the_signature() {
    let Some(azurite) = Azurite::start() else { return };
    azurite.create("letters").await;
    let whole = azurite.container("letters");
    let refusals = [
        // A missing container is never created here: that is not up to the handler.
        (azurite.container("nowhere"), "404: there is no such container"),
        (whole.replace("sig=", "sig=AAAA"), "refuses the caller"),
        (azurite.read_only("letters"), "refuses the caller"),
    ];
    for (url, reason) in refusals {
        let store = open(&url);
        let error = store.put(&letter("CaptureChanges", "{}")).await.unwrap_err();
        let (shown, debug) = (chain(&error), format!("{error:?} {store:?}"));
        assert!(shown.contains(reason) && shown.contains(url.split('?').next().unwrap()), "{shown}");
        for part in [&signatures(&url)[..], &["sig=".to_owned()]].concat() {
            assert!(!shown.contains(&part) && !debug.contains(&part), "{shown}\n{debug}");
        }
    }
    assert_eq!(open(&whole).list().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_says_so() {
    let closed = ClosedPort::take();
    let port = closed.address().port();
    let url = format!("http://127.0.0.1:{port}/account/letters?sp=rw&sig=abc%2Fdef");
    let store = open(&url);
    let error = store.put(&letter("CaptureChanges", "{}")).await.unwrap_err();
    let place = format!("http://127.0.0.1:{port}/account/letters");
    assert_eq!(chain(&error), format!("write dead letter in {place}: the store cannot be reached: connection refused"));
    assert!(!format!("{error:?} {store:?}").contains("sig"), "{error:?} {store:?}");
}

#[tokio::test]
async fn an_unusable_blob_container_ends_serve_and_the_check_leaves_nothing_in_a_good_one() {
    let Some(azurite) = Azurite::start() else { return };
    azurite.create("letters").await;
    let app = TestApp::start().await;
    let whole = azurite.container("letters");
    for place in [azurite.container("nowhere"), whole.replace("sig=", "sig=AAAA"), azurite.read_only("letters")] {
        let mut handler = app.answering(&[("REWIND_DEAD_LETTERS", &place), ("REWIND_DEADLINE_SECONDS", "1")]).await;
        assert_eq!(handler.exit_code(Duration::from_secs(60)).await, Some(2), "{:?}", handler.log());
        let stderr = handler.stderr().join("\n");
        assert!(stderr.contains("REWIND_DEAD_LETTERS: look at dead letter"), "{stderr}");
        assert!(!stderr.contains("sig="), "{stderr}");
    }
    let handler = app.answering(&[("REWIND_DEAD_LETTERS", &whole)]).await;
    handler.wait_for_log("ready").await;
    assert!(!handler.log().iter().any(|line| line.contains("cannot look")), "{:?}", handler.log());
    assert_eq!(open(&whole).list().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn poison_goes_to_a_blob_container_and_is_replayed_from_it() {
    let Some(azurite) = Azurite::start() else { return };
    azurite.create("letters").await;
    let url = azurite.container("letters");
    let app = TestApp::start().await;
    // All possible log lines, including those of the client libraries.
    let log = "trace,azure_core=trace,azure_data_cosmos=trace,azure_data_cosmos_driver=trace,typespec_client_core=trace,\
               azure_identity=trace,hyper=trace,reqwest=trace,h2=trace";
    let handler = app.handler(&[("REWIND_DEAD_LETTERS", &url), ("REWIND_LOG", log)]).await;
    app.proxy.fail_always(Some(Fault::Reject(403, 1014)));
    let batch: Vec<Value> =
        (0..3).map(|i| feed_document(&format!("doc-{i}"), "k", i)).chain([json!({"no": "id"})]).collect();
    let (status, answer) = handler.deliver(&batch).await;
    assert_eq!(status, 200, "{answer}");
    app.proxy.fail_always(None);
    assert!(app.dead_letters().is_empty() && app.history().await.is_empty());

    let settings = [("REWIND_DEAD_LETTERS", url.as_str()), ("REWIND_LOG", log)];
    let listed = app.run_with_settings(&["replay", "--list", "--format", "json"], &settings).await;
    assert_eq!(listed.json().as_array().unwrap().len(), 4);
    let replayed = app.run_with_settings(&["replay", "--format", "json"], &settings).await;
    // The letter without an id stays, and the exit code reports that.
    assert_eq!(replayed.code, 3, "{replayed:?}");
    assert_eq!(app.history().await.len(), 3);
    let store = open(&url);
    let left = store.list().await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(store.get(&left[0]).await.unwrap().item.get(), r#"{"no":"id"}"#);

    // A wrong signature fails the batch, so that the host delivers it again.
    let wrong = app.handler(&[("REWIND_DEAD_LETTERS", &url.replace("sig=", "sig=AAAA")), ("REWIND_LOG", log)]).await;
    let (status, answer) = wrong.deliver(&[json!({"no": "id"})]).await;
    assert_eq!(status, 500, "{answer}");
    wrong.wait_for_log("REWIND_DEAD_LETTERS").await;

    let said = [handler.log().join("\n"), wrong.log().join("\n"), format!("{listed:?}{replayed:?}{answer}")].join("\n");
    for signature in signatures(&url) {
        assert!(!said.contains(&signature), "the signature is in the output");
    }
}

/// The JSON on stdout, whatever the exit code.
fn printed(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// The number of entries in the default store that count as letters.
fn left(app: &TestApp) -> usize {
    std::fs::read_dir(app.folder.path().join(".dead-letters")).unwrap().count()
}

#[tokio::test]
async fn concurrent_replays_take_no_letter_for_unreadable() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    app.proxy.fail_always(Some(Fault::Reject(403, 1014)));
    let batch: Vec<Value> = (0..40).map(|i| feed_document(&format!("doc-{i}"), "k", i)).collect();
    assert_eq!(handler.deliver(&batch).await.0, 200);
    app.proxy.fail_always(None);
    let letters = app.folder.path().join(".dead-letters");
    // A letter that is listed but gone when it is read.
    std::os::unix::fs::symlink("gone", letters.join("CaptureChanges-gone.json")).unwrap();
    let replays = futures::future::join_all((0..3).map(|_| app.run(&["replay", "--format", "jsonl"]))).await;
    for replayed in replays {
        assert_eq!(replayed.code, 0, "{replayed:?}");
        assert!(!replayed.stdout.contains("gone"), "{replayed:?}");
    }
    assert_eq!((left(&app), app.history().await.len()), (1, 40));
}

#[tokio::test]
async fn a_letter_is_never_stored_in_the_history_of_another_container() {
    let app = TestApp::start().await;
    for name in ["orders", "order-changes"] {
        let paths: &[&str] = if name == "orders" { &["/pk"] } else { &["/pk", "/_originalId"] };
        let kind = if paths.len() > 1 { "MultiHash" } else { "Hash" };
        let description = json!({"id": name, "partitionKey": {"paths": paths, "kind": kind, "version": 2}});
        assert!(app.local.create_container("dev", description).await.unwrap());
    }
    let handler = app.handler(&[]).await;
    app.proxy.fail_always(Some(Fault::Reject(403, 1014)));
    assert_eq!(handler.deliver(&[feed_document("a", "k", 1)]).await.0, 200);
    app.proxy.fail_always(None);
    assert_eq!(app.dead_letters()[0]["source"], "dev/events");

    // As on a machine without the function's settings.
    let elsewhere = ["replay", "--source", "orders", "--changes", "order-changes", "--format", "json"];
    let replayed = app.run(&elsewhere).await;
    assert_eq!((replayed.code, &printed(&replayed)[0]["outcome"]), (3, &json!("kept")), "{replayed:?}");
    assert!(replayed.stdout.contains("CaptureChanges__COSMOS_SOURCE_CONTAINER"), "{replayed:?}");
    let wrong = app.cosmos.container("dev", "order-changes").await.unwrap();
    assert!(wrong.query_all("SELECT * FROM c", &[], None).await.unwrap().is_empty());

    assert_eq!(app.run(&["replay"]).await.code, 0);
    assert_eq!((left(&app), app.history().await.len()), (0, 1));
}

#[tokio::test]
async fn a_still_refused_letter_stays_one_letter_after_redaction_was_added() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    app.proxy.fail_always(Some(Fault::Reject(403, 1014)));
    assert_eq!(handler.deliver(&[feed_document("a", "k", 1)]).await.0, 200);
    let item = app.dead_letters()[0]["item"].clone();
    app.proxy.fail_always(Some(Fault::Reject(413, 0)));
    let settings: Vec<(String, String)> = app.settings();
    let mut settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    settings.push(("REWIND_REDACT", "/n"));
    let replayed = app.run_with_settings(&["replay", "--format", "json"], &settings).await;
    assert_eq!((replayed.code, &printed(&replayed)[0]["outcome"]), (3, &json!("kept")), "{replayed:?}");
    app.proxy.fail_always(None);
    let letters = app.dead_letters();
    assert_eq!(letters.len(), 1, "{letters:#?}");
    assert_eq!((&letters[0]["item"], &letters[0]["status"]), (&item, &json!("413")), "today's reason: {letters:#?}");
}
