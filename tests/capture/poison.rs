//! Records that can never be stored, and failures that only look like them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Fault, Letterbox, TestApp, feed_document};

#[tokio::test]
async fn one_poison_record_does_not_hold_up_the_rest() {
    // Keyed by `/pk` only, so that poison and the other records share a transactional batch.
    let app = TestApp::with_changes_key(&["/pk"]).await;
    let handler = app.handler(&[]).await;
    app.proxy.only_if_body_has("doc-7~");
    app.proxy.fail_always(Some(Fault::Reject(403, 1014)));
    let mut batch: Vec<Value> = (0..10).map(|i| feed_document(&format!("doc-{i}"), "one key", i)).collect();
    batch.extend([json!(17), json!({"pk": "no id"}), json!({"id": 7}), json!([])]);
    let (status, body) = handler.deliver(&batch).await;
    assert_eq!(status, 200, "{body} {:#?}", handler.log());
    assert!(
        body["Logs"][0].as_str().unwrap().contains("14 items, 9 records, 0 re-reads, 0 normalized, 5 dead letters"),
        "{body}"
    );
    assert_eq!(app.history().await.len(), 9);
    let mut letters: Vec<(String, Value)> =
        app.dead_letters().iter().map(|l| (l["reason"].as_str().unwrap().to_owned(), l["item"].clone())).collect();
    letters.sort_by_key(|(reason, _)| reason.clone());
    assert_eq!(letters.len(), 5);
    assert!(letters.iter().any(|(reason, item)| reason.contains("403/1014") && *item == batch[7]));
    assert!(letters.iter().any(|(reason, item)| reason.contains("no id") && *item == batch[11]));
    // A second delivery writes the same letters, not more.
    assert_eq!(handler.deliver(&batch).await.0, 200);
    assert_eq!(app.dead_letters().len(), 5);
}

/// The client library only notices the new key itself when the number of paths has changed.
#[tokio::test]
async fn a_history_recreated_with_a_key_of_the_same_length_gets_no_dead_letters() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&[feed_document("before", "p", 1)]).await.0, 200);
    assert!(app.local.delete_container("dev", "changes").await.unwrap());
    let key = json!({"paths": ["/_originalId", "/pk"], "kind": "MultiHash", "version": 2});
    assert!(app.local.create_container("dev", json!({"id": "changes", "partitionKey": key})).await.unwrap());
    // Also for a payload of a single item, in which one refusal is nearly all.
    assert_eq!(handler.deliver(&[feed_document("one", "p", 2)]).await.0, 200, "{:#?}", handler.log());
    let batch: Vec<Value> = (3..40).map(|n| feed_document(&format!("doc-{n}"), "p", n)).collect();
    let (status, answer) = handler.deliver(&batch).await;
    assert_eq!(status, 200, "{answer} {:#?}", handler.log());
    assert_eq!((app.dead_letters().len(), app.history().await.len()), (0, 38));
}

#[tokio::test]
async fn refusing_nearly_a_whole_batch_is_the_containers_fault() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let batch = |n: u64| -> Vec<Value> { (1..=n).map(|v| feed_document(&format!("doc-{v}"), "p", v)).collect() };
    app.proxy.fail_always(Some(Fault::Reject(400, 0)));
    for n in [5, 100] {
        let (status, answer) = handler.deliver(&batch(n)).await;
        assert_eq!(status, 500, "{answer}");
        let said = format!("{n} of {n} records are refused alike, so it is the container's fault");
        assert!(answer["error"].as_str().unwrap().contains(&said), "{answer}");
        assert!(app.dead_letters().is_empty(), "{n}");
        handler.wait_for_log("look at the history container").await;
    }
    // Nine of ten count as nearly all; eight do not.
    app.proxy.fail_always(None);
    app.proxy.only_if_body_has("bad~");
    app.proxy.fail_always(Some(Fault::Reject(400, 0)));
    let mixed = |bad: u64| -> Vec<Value> {
        let bad_ones = (0..bad).map(|v| feed_document("bad", &format!("k{v}"), v));
        bad_ones.chain((bad..10).map(|v| feed_document("good", &format!("k{v}"), v))).collect()
    };
    assert_eq!(handler.deliver(&mixed(9)).await.0, 500);
    assert!(app.dead_letters().is_empty());
    assert_eq!(handler.deliver(&mixed(8)).await.0, 200);
    assert_eq!(app.dead_letters().len(), 8);
    // These statuses blame the record: it is too large, or its logical partition is full.
    for status in [(413, 0), (403, 1014)] {
        app.proxy.fail_always(Some(Fault::Reject(status.0, status.1)));
        assert_eq!(handler.deliver(&mixed(10)).await.0, 200, "{status:?}");
    }
}

#[tokio::test]
async fn the_letters_of_a_large_batch_are_written_concurrently() {
    let (app, letterbox) = (TestApp::start().await, Letterbox::start().await);
    let handler = app.handler(&[("REWIND_DEAD_LETTERS", letterbox.url())]).await;
    letterbox.slow(Duration::from_millis(200));
    let batch: Vec<Value> = (0..64).map(|n| json!({"id": n})).collect();
    let begun = Instant::now();
    assert_eq!(handler.deliver(&batch).await.0, 200, "{:#?}", handler.log());
    assert_eq!(letterbox.texts().len(), 64);
    // One after the other they would take 13 s.
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn when_the_dead_letter_store_fails_the_batch_fails() {
    let app = TestApp::start().await;
    let handler = app.handler(&[("REWIND_DEAD_LETTERS", "occupied")]).await;
    // If it had existed before, the handler would not have started.
    std::fs::write(app.folder.path().join("occupied"), "a file").unwrap();
    let (status, body) = handler.deliver(&[feed_document("x", "x", 1), json!(17)]).await;
    assert_eq!(status, 500, "{body}");
    assert!(body["error"].as_str().unwrap().contains("dead letter"), "{body}");
}

#[tokio::test]
async fn dead_letters_are_listed_and_replayed_when_the_cause_is_gone() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    app.proxy.fail_always(Some(Fault::Reject(403, 1014)));
    let batch: Vec<Value> =
        (0..3).map(|i| feed_document(&format!("doc-{i}"), "k", i)).chain([json!({"no": "id"})]).collect();
    assert_eq!(handler.deliver(&batch).await.0, 200);
    app.proxy.fail_always(None);

    let listed = app.run(&["replay", "--list", "--format", "json"]).await.json();
    assert_eq!(listed.as_array().unwrap().len(), 4);
    assert!(listed.as_array().unwrap().iter().all(|l| l["outcome"] == "waiting"));
    assert!(app.history().await.is_empty());

    let replayed = app.run(&["replay", "--format", "json"]).await;
    assert_eq!(replayed.code, 3, "{replayed:?}");
    let rows: Value = serde_json::from_str(&replayed.stdout).unwrap();
    let kept: Vec<&Value> = rows.as_array().unwrap().iter().filter(|r| r["outcome"] == "kept").collect();
    assert_eq!(kept.len(), 1, "{rows:#}");
    assert!(kept[0]["reason"].as_str().unwrap().contains("no id"));
    assert_eq!(app.history().await.len(), 3);
    assert_eq!(app.dead_letters().len(), 1);
}

#[tokio::test]
async fn a_record_over_two_megabytes_is_stored_compressed_and_hopeless_ones_are_dead_letters() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let mut large = feed_document("large", "p", 1);
    large["text"] = "lorem ipsum dolor ".repeat(115_000).into();
    let mut noise = String::with_capacity(4 << 20);
    let mut state = 7u64;
    while noise.len() < 4 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.push(char::from(b' ' + 3 + (state >> 40) as u8 % 57));
    }
    let mut hopeless = feed_document("hopeless", "p", 2);
    hopeless["text"] = noise.into();
    let (status, body) = handler.deliver(&[large.clone(), hopeless, feed_document("small", "p", 3)]).await;
    assert_eq!(status, 200, "{body} {:#?}", handler.log());
    let history = app.history().await;
    assert_eq!(history.len(), 3);
    // The hopeless version has a record that says only that it existed.
    let absent = app.versions("hopeless").await;
    assert!(absent.len() == 1 && absent[0].is_absent(), "{absent:?}");
    let versions = app.versions("large").await;
    let document: Value = serde_json::from_str(versions[0].document.as_ref().unwrap()).unwrap();
    assert_eq!(document["text"], large["text"]);
    let letters = app.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["id"], "hopeless");
    assert!(letters[0]["reason"].as_str().unwrap().contains("413"), "{}", letters[0]["reason"]);
}
