//! Capture end to end: the host's requests in, the history out.

use std::time::{Duration, Instant};

use cosmos_rewind::change::{Op, VersionFidelity};
use serde_json::{Value, json};

use crate::support::{Fault, Kind, Letterbox, TestApp, When, body_of, eventually, feed_document};

/// 30 documents with keys of their own, and 30 versions that share one key.
fn mixed_batch() -> Vec<Value> {
    (0..30)
        .map(|i| feed_document(&format!("doc-{i}"), &format!("key-{i}"), 100 + i))
        .chain((0..30).map(|i| feed_document("hot", "hot", 200 + i)))
        .collect()
}

#[tokio::test]
async fn a_batch_becomes_one_record_for_each_version() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let batch: Vec<Value> =
        (1..=3).map(|v| feed_document("28035", "28035", v)).chain([feed_document("28036", "28036", 4)]).collect();
    let (status, body) = handler.deliver(&batch).await;
    assert_eq!((status, &body["Outputs"]), (200, &json!({})), "{body} {:#?}", handler.log());
    assert!(body["Logs"][0].as_str().unwrap().contains("4 items, 4 records"), "{body}");
    let versions = app.versions("28035").await;
    assert_eq!(versions.iter().map(|v| v.lsn.unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    let document: Value = serde_json::from_str(versions[2].document.as_ref().unwrap()).unwrap();
    assert_eq!(document, json!({"id": "28035", "pk": "28035", "version": 3, "text": "x".repeat(100)}));
    assert_eq!(app.history().await.len(), 4);
}

#[tokio::test]
async fn the_same_batch_twice_in_another_order_and_with_duplicates_gives_the_same_history() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let mut batch = mixed_batch();
    assert_eq!(handler.deliver(&batch).await.0, 200);
    let first = app.history().await;
    assert_eq!(first.len(), 60);
    batch.reverse();
    let doubled: Vec<Value> = batch.iter().chain(&batch).cloned().collect();
    let (status, body) = handler.deliver(&doubled).await;
    assert_eq!(status, 200);
    assert!(body["Logs"][0].as_str().unwrap().contains("120 items, 60 records"), "{body}");
    assert_eq!(app.history().await, first);
}

#[tokio::test]
async fn records_that_share_a_full_key_travel_together_and_others_alone() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&mixed_batch()).await.0, 200);
    assert_eq!(app.proxy.writes(), 30 + 1);
}

#[tokio::test]
async fn all_three_payload_shapes_are_captured_as_text() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    // Number spellings and key order that a value tree would not keep.
    let array = |id: &str| {
        format!(r#"[{{"pk":"p","z":1,"a":12345678901234567890,"id":"{id}","_etag":"\"e\"","_ts":5,"_lsn":6}}]"#)
    };
    let once = |id| Value::from(array(id)).to_string();
    for (id, body) in [
        ("plain", format!(r#"{{"Data":{{"documents":{}}}}}"#, array("plain"))),
        ("string", format!(r#"{{"Data":{{"documents":{}}}}}"#, once("string"))),
        ("doubly", body_of(&array("doubly"))),
    ] {
        assert_eq!(handler.post("CaptureChanges", body).await.0, 200, "{id}");
        let versions = app.versions(id).await;
        assert_eq!(
            versions[0].document.as_deref().unwrap(),
            format!(r#"{{"pk":"p","z":1,"a":12345678901234567890,"id":"{id}"}}"#)
        );
    }
    // Routes ignore case, as the host's do.
    assert_eq!(handler.post("capturechanges", body_of(&array("case"))).await.0, 200);
}

#[tokio::test]
async fn envelopes_become_versions_tombstones_and_healed_versions() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let image =
        |v: u64| json!({"id": "x", "pk": "p", "v": v, "_rid": "r", "_etag": format!("\"e{v}\""), "_ts": 1000 + v});
    let metadata =
        |op: &str, lsn: u64| json!({"operationType": op, "lsn": lsn, "crts": 1000 + lsn, "previousImageLSN": lsn - 1});
    let mut deleted = metadata("delete", 4);
    deleted["id"] = "x".into();
    deleted["partitionKey"] = json!({"pk": "p"});
    let mut expired = deleted.clone();
    expired["lsn"] = 9.into();
    expired["crts"] = 1009.into();
    expired["timeToLiveExpired"] = true.into();
    let (status, body) = handler
        .deliver(&[
            // Version 1 was never delivered: the image before version 2 heals it.
            json!({"current": image(2), "previous": image(1), "metadata": metadata("replace", 2)}),
            json!({"current": image(3), "previous": image(2), "metadata": metadata("replace", 3)}),
            json!({"previous": image(3), "metadata": deleted}),
            json!({"current": {}, "metadata": expired}),
        ])
        .await;
    assert_eq!(status, 200, "{body}");
    let versions = app.versions("x").await;
    let seen: Vec<_> = versions.iter().map(|v| (v.op.unwrap(), v.ts, v.lsn.unwrap(), v.prev_lsn)).collect();
    assert_eq!(
        seen,
        [
            (Op::Upsert, 1001, 1, None),
            (Op::Replace, 1002, 2, Some(1)),
            (Op::Replace, 1003, 3, Some(2)),
            (Op::Delete, 1004, 4, Some(3)),
            (Op::Expire, 1009, 9, Some(3)),
        ]
    );
    // The version delivered late, as itself, replaces the healed one; healing again does not replace it back.
    let late = json!({"current": image(1), "metadata": metadata("create", 1)});
    assert_eq!(handler.deliver(&[late]).await.0, 200);
    let again = json!({"current": image(2), "previous": image(1), "metadata": metadata("replace", 2)});
    assert_eq!(handler.deliver(&[again]).await.0, 200);
    assert_eq!(app.versions("x").await[0].op, Some(Op::Create));
}

#[tokio::test]
async fn a_handler_killed_in_mid_batch_loses_and_doubles_nothing() {
    let app = TestApp::start().await;
    let mut handler = app.handler(&[("REWIND_MAX_WRITES", "2")]).await;
    app.proxy.fail_always(Some(Fault::RespondSlowly(Duration::from_millis(40))));
    let batch = mixed_batch();
    let request = handler.request("CaptureChanges", body_of(&Value::from(batch.clone()).to_string()));
    let delivery = tokio::spawn(request.send());
    while app.proxy.writes() < 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handler.kill();
    assert!(delivery.await.unwrap().is_err());
    app.proxy.fail_always(None);
    let half = app.history().await.len();
    assert!(half > 0 && half < 60, "{half}");

    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&batch).await.0, 200);
    let after = app.history().await;
    assert_eq!(after.len(), 60);
    // The same as if nothing had happened.
    let quiet = TestApp::start().await;
    let undisturbed = quiet.handler(&[]).await;
    assert_eq!(undisturbed.deliver(&batch).await.0, 200);
    assert_eq!(after, quiet.history().await);
}

#[tokio::test]
async fn a_caller_that_disconnects_does_not_cut_a_batch_in_half() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    app.proxy.fail_always(Some(Fault::RespondSlowly(Duration::from_millis(100))));
    let request = handler.request("CaptureChanges", body_of(&Value::from(mixed_batch()).to_string()));
    let delivery = tokio::spawn(request.send());
    while app.proxy.writes() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    delivery.abort();
    handler.wait_for_log("batch stored").await;
    assert_eq!(app.history().await.len(), 60, "{:#?}", handler.log());
}

#[tokio::test]
async fn sigterm_finishes_what_was_taken_and_takes_nothing_more() {
    let app = TestApp::start().await;
    let mut handler = app.handler(&[]).await;
    app.proxy.fail_always(Some(Fault::RespondSlowly(Duration::from_millis(400))));
    let request = handler.request("CaptureChanges", body_of(&Value::from(mixed_batch()).to_string()));
    let delivery = tokio::spawn(request.send());
    while app.proxy.writes() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handler.terminate();
    assert_eq!(delivery.await.unwrap().unwrap().status().as_u16(), 200);
    // 200: "start me again, uncounted"; 0 would mean never again.
    assert_eq!(handler.exit_code(Duration::from_secs(10)).await, Some(200));
    assert_eq!(app.history().await.len(), 60);
    handler.wait_for_log("\"drained\":true").await;
}

#[tokio::test]
async fn transient_failures_are_retried_within_the_invocation() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    // A first write, so that the connection's own metadata calls are done.
    assert_eq!(handler.deliver(&[feed_document("first", "first", 1)]).await.0, 200);
    for status in [(429, 3200), (449, 0), (410, 1007), (408, 0)] {
        app.proxy.fail_next(std::iter::repeat_n(Fault::Reject(status.0, status.1), 5));
    }
    let (status, body) = handler.deliver(&mixed_batch()).await;
    assert_eq!(status, 200, "{body} {:#?}", handler.log());
    assert!(app.proxy.all_used());
    assert!(!body["Logs"][0].as_str().unwrap().contains(" 0 retries"), "{body}");
    assert_eq!(app.history().await.len(), 61);
    assert_eq!(app.dead_letters(), Vec::<Value>::new());
}

#[tokio::test]
async fn an_unavailable_service_is_retried_too() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    app.proxy.fail_next(std::iter::repeat_n(Fault::Reject(503, 0), 6));
    let (status, body) = handler.deliver(&mixed_batch()).await;
    assert_eq!(status, 200, "{body} {:#?}", handler.log());
    assert_eq!(app.history().await.len(), 60);
}

#[tokio::test]
async fn a_failure_after_the_write_and_a_cut_connection_double_nothing() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    app.proxy.fail_next([Fault::FailAfterWrite, Fault::Cut, Fault::FailAfterWrite, Fault::Cut, Fault::FailAfterWrite]);
    let (status, body) = handler.deliver(&mixed_batch()).await;
    assert_eq!(status, 200, "{body} {:#?}", handler.log());
    let history = app.history().await;
    assert_eq!(history.len(), 60);
}

#[tokio::test]
async fn an_answer_that_never_comes_in_time_is_not_waited_for_and_doubles_nothing() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&[feed_document("first", "first", 1)]).await.0, 200);
    // Longer than the client library waits for an answer (6 s); the write itself was done at once.
    app.proxy.fail_next([Fault::RespondSlowly(Duration::from_secs(12))]);
    let (status, body) = handler.deliver(&mixed_batch()).await;
    assert_eq!(status, 200, "{body} {:#?}", handler.log());
    assert_eq!(app.history().await.len(), 61);
    assert_eq!(app.dead_letters(), Vec::<Value>::new());
}

#[tokio::test]
async fn when_the_deadline_passes_the_host_is_asked_to_deliver_again() {
    let app = TestApp::start().await;
    let handler = app.handler(&[("REWIND_DEADLINE_SECONDS", "1")]).await;
    app.proxy.fail_always(Some(Fault::Reject(429, 3200)));
    let (status, body) = handler.deliver(&[feed_document("x", "x", 1)]).await;
    assert_eq!(status, 500, "{body}");
    assert!(body["error"].as_str().unwrap().contains("429/3200"), "{body}");
    app.proxy.fail_always(None);
    assert_eq!(handler.deliver(&[feed_document("x", "x", 1)]).await.0, 200);
    assert_eq!(app.versions("x").await.len(), 1);
}

#[tokio::test]
async fn a_refused_caller_is_no_poison() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    app.proxy.fail_always(Some(Fault::Reject(403, 5300)));
    let (status, body) = handler.deliver(&mixed_batch()).await;
    assert_eq!(status, 500, "{body}");
    assert!(app.dead_letters().is_empty());
    handler.wait_for_log("identity's role").await;
}

#[tokio::test]
async fn a_split_during_capture_loses_nothing() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let batches: Vec<Vec<Value>> = (0..20)
        .map(|b| (0..20).map(|i| feed_document(&format!("doc-{b}-{i}"), &format!("key-{i}"), 1 + b)).collect())
        .collect();
    let deliver = async {
        for batch in &batches {
            let (status, body) = handler.deliver(batch).await;
            assert_eq!(status, 200, "{body} {:#?}", handler.log());
        }
    };
    let split = async {
        for round in 0..3 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            let ranges = app.local.ranges("dev", "changes").await.unwrap();
            app.local.split("dev", "changes", &ranges[round % ranges.len()]).await.unwrap();
        }
    };
    tokio::join!(deliver, split);
    assert_eq!(app.local.ranges("dev", "changes").await.unwrap().len(), 4 + 3);
    assert_eq!(app.history().await.len(), 400);
}

#[tokio::test]
async fn one_poison_record_does_not_hold_up_the_rest() {
    // Keyed `/pk` only, so that poison and the others travel in one transactional batch.
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
    // Delivered again: the same letters, not more of them.
    assert_eq!(handler.deliver(&batch).await.0, 200);
    assert_eq!(app.dead_letters().len(), 5);
}

/// The client library notices by itself only when the new key has another number of paths.
#[tokio::test]
async fn a_history_made_again_with_a_key_of_the_same_length_is_written_on_and_nothing_is_buried() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&[feed_document("before", "p", 1)]).await.0, 200);
    assert!(app.local.delete_container("dev", "changes").await.unwrap());
    let key = json!({"paths": ["/_originalId", "/pk"], "kind": "MultiHash", "version": 2});
    assert!(app.local.create_container("dev", json!({"id": "changes", "partitionKey": key})).await.unwrap());
    // Also of a payload of one item, of which everything is nearly everything.
    assert_eq!(handler.deliver(&[feed_document("one", "p", 2)]).await.0, 200, "{:#?}", handler.log());
    let batch: Vec<Value> = (3..40).map(|n| feed_document(&format!("doc-{n}"), "p", n)).collect();
    let (status, answer) = handler.deliver(&batch).await;
    assert_eq!(status, 200, "{answer} {:#?}", handler.log());
    assert_eq!((app.dead_letters().len(), app.history().await.len()), (0, 38));
}

#[tokio::test]
async fn what_is_refused_nearly_as_a_whole_is_the_containers_fault() {
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
    // Nine of ten are nearly all of them; eight are not.
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
    // What says that it is the record, is the record's: too large, or its partition is full.
    for status in [(413, 0), (403, 1014)] {
        app.proxy.fail_always(Some(Fault::Reject(status.0, status.1)));
        assert_eq!(handler.deliver(&mixed(10)).await.0, 200, "{status:?}");
    }
}

#[tokio::test]
async fn an_account_that_hangs_holds_no_lease_up_longer_than_its_own_deadline() {
    let app = TestApp::start().await;
    // From the first look on: the start does not wait for it for long.
    app.proxy.fail_always_of(Kind::Definition, Some(Fault::Hold(When::Before, Duration::from_secs(20))));
    let handler = app.handler(&[("REWIND_DEADLINE_SECONDS", "3")]).await;
    let begun = Instant::now();
    let leases = futures::future::join_all((0..16).map(|n| {
        let handler = &handler;
        async move { handler.deliver(&[feed_document(&format!("doc-{n}"), "p", n)]).await }
    }));
    let answers = leases.await;
    assert!(answers.iter().all(|(status, _)| *status == 500), "{answers:?}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    // A write that hangs is one that may have been done: it is delivered again, and is there once.
    app.proxy.fail_always_of(Kind::Definition, None);
    eventually("the account answers again", async || {
        (handler.deliver(&[feed_document("doc-0", "p", 0)]).await.0 == 200).then_some(())
    })
    .await;
    app.proxy.fail_always(Some(Fault::Hold(When::After, Duration::from_secs(20))));
    let begun = Instant::now();
    assert_eq!(handler.deliver(&[feed_document("doc-1", "p", 1)]).await.0, 500);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    app.proxy.fail_always(None);
    assert_eq!(handler.deliver(&[feed_document("doc-1", "p", 1)]).await.0, 200);
    assert_eq!(app.history().await.len(), 2);
}

#[tokio::test]
async fn the_letters_of_a_large_batch_are_put_away_side_by_side() {
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
    std::fs::write(app.folder.path().join("occupied"), "a file").unwrap();
    let handler = app.handler(&[("REWIND_DEAD_LETTERS", "occupied")]).await;
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
    assert_eq!(history.len(), 2);
    let versions = app.versions("large").await;
    let document: Value = serde_json::from_str(versions[0].document.as_ref().unwrap()).unwrap();
    assert_eq!(document["text"], large["text"]);
    let letters = app.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["id"], "hopeless");
    assert!(letters[0]["reason"].as_str().unwrap().contains("413"), "{}", letters[0]["reason"]);
}

#[tokio::test]
async fn documents_that_the_host_may_have_altered_are_read_again_while_they_have_not_moved_on() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let date = "2026-11-20T15:00:00.000Z";
    let current = app.put(json!({"id": "current", "pk": "p", "when": date, "_lsn": 5})).await;
    let moved = app.put(json!({"id": "moved", "pk": "p", "when": date})).await;
    app.put(json!({"id": "moved", "pk": "p", "when": "later"})).await;
    let gone = feed_document("gone", "p", 3);
    let plain = app.put(json!({"id": "plain", "pk": "p", "when": "2026-11-20 15:00:00"})).await;
    let delivered: Vec<Value> = [current, moved, gone]
        .into_iter()
        .map(|mut d| {
            // As the host rewrites it.
            d["when"] = "2026-11-20T15:00:00Z".into();
            d["_lsn"] = 77.into();
            d
        })
        .chain([plain])
        .collect();
    let before = app.proxy.reads();
    let (status, body) = handler.deliver(&delivered).await;
    assert_eq!(status, 200, "{body}");
    assert!(body["Logs"][0].as_str().unwrap().contains("4 records, 3 re-reads, 2 normalized"), "{body}");
    // Those that are not there as delivered are looked at again: a replica may be behind. One that is surely later is not.
    assert!([6, 9].contains(&(app.proxy.reads() - before)), "{}", app.proxy.reads() - before);
    let fidelity = async |id: &str| app.versions(id).await[0].fidelity.as_ref().unwrap().to_string();
    let document = async |id: &str| app.versions(id).await[0].document.clone().unwrap();
    assert_eq!(fidelity("current").await, "exact");
    assert_eq!(document("current").await, format!(r#"{{"id":"current","pk":"p","when":"{date}","_lsn":5}}"#));
    assert_eq!(app.versions("current").await[0].lsn, Some(77));
    for id in ["moved", "gone"] {
        assert_eq!(fidelity(id).await, "normalized");
    }
    assert_eq!(fidelity("plain").await, "exact");

    // Delivered again after it moved on: the exact record is not replaced by a normalized one.
    app.put(json!({"id": "current", "pk": "p", "when": "later"})).await;
    assert_eq!(handler.deliver(&delivered[..1]).await.0, 200);
    assert_eq!(fidelity("current").await, "exact");

    let payload = app.handler(&[("REWIND_FIDELITY", "payload")]).await;
    let before = app.proxy.reads();
    assert_eq!(payload.deliver(&delivered).await.0, 200);
    assert_eq!(app.proxy.reads(), before);
}

#[tokio::test]
async fn a_replica_that_is_behind_or_refuses_for_a_moment_costs_no_exactness_and_one_that_goes_on_is_told() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let date = "2026-11-20T15:00:00.000Z";
    let altered = async |id: &str| {
        let mut document = app.put(json!({"id": id, "pk": "p", "when": date})).await;
        document["when"] = "2026-11-20T15:00:00Z".into();
        document
    };
    for (id, faults) in [
        ("behind", vec![Fault::Reject(404, 0), Fault::Reject(404, 0)]),
        ("refused", vec![Fault::Reject(403, 0)]),
        ("both", vec![Fault::Reject(403, 0), Fault::Reject(404, 0), Fault::Reject(403, 0)]),
    ] {
        let document = altered(id).await;
        app.proxy.fail_next_of(Kind::LiveRead, faults);
        assert_eq!(handler.deliver(&[document]).await.0, 200);
        assert_eq!(app.versions(id).await[0].fidelity.as_ref().map(VersionFidelity::as_str), Some("exact"), "{id}");
    }
    let warned = |text: &str| handler.log().iter().filter(|l| l.contains("WARN") && l.contains(text)).count();
    assert_eq!(warned("storing payloads as delivered"), 0, "{:#?}", handler.log());
    for (id, status, told) in [
        ("never there", 404, "the source has no version that is surely later"),
        ("never allowed", 403, "the source refuses to be read again"),
    ] {
        let document = altered(id).await;
        app.proxy.fail_always_of(Kind::LiveRead, Some(Fault::Reject(status, 0)));
        assert_eq!(handler.deliver(&[document]).await.0, 200);
        app.proxy.fail_always_of(Kind::LiveRead, None);
        assert_eq!(
            app.versions(id).await[0].fidelity.as_ref().map(VersionFidelity::as_str),
            Some("normalized"),
            "{id}"
        );
        assert_eq!(warned(told), 1, "{id}: {:#?}", handler.log());
    }
}

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
    // And it still works.
    assert_eq!(handler.deliver(&[feed_document("x", "x", 1)]).await.0, 200);
}

#[tokio::test]
async fn a_refusal_arrives_while_the_body_is_still_being_sent_and_the_connection_goes_on() {
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
async fn a_document_a_thousand_levels_deep_is_kept_one_way_or_the_other() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let deep =
        format!(r#"[{{"id":"deep","pk":"p","d":{}1{},"_etag":"\"e\"","_ts":1}}]"#, "[".repeat(1000), "]".repeat(1000));
    let (status, body) = handler.deliver_text(&deep).await;
    assert_eq!(status, 200, "{body}");
    // The service refuses such depth, so it is a dead letter with every level in it.
    let entry = std::fs::read_dir(app.folder.path().join(".dead-letters")).unwrap().next().unwrap().unwrap();
    let letter = std::fs::read_to_string(entry.path()).unwrap();
    assert!(letter.contains(&format!("{}1{}", "[".repeat(1000), "]".repeat(1000))));
}

#[tokio::test]
async fn a_body_of_64_megabytes_sent_in_chunks_is_stored() {
    let app = TestApp::start().await;
    // A few at a time: 64 writes of half a megabyte at once take this debug build longer than the client waits.
    let handler = app.handler(&[("REWIND_MAX_WRITES", "4")]).await;
    // Quotes swell to four bytes each on the way, so fewer bytes of documents make such a body.
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
    let handler = app.handler(&[("COSMOS_CHANGES_CONTAINER", "nowhere")]).await;
    let (status, body) = handler.deliver(&[feed_document("x", "x", 1)]).await;
    assert_eq!(status, 500);
    assert!(body["error"].as_str().unwrap().contains("nowhere"), "{body}");
    handler.wait_for_log("cosmos-rewind provision").await;
}

#[tokio::test]
async fn a_container_made_again_under_the_same_name_is_noticed() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&[feed_document("x", "x", 1)]).await.0, 200);
    let client = app.cosmos.client().await.unwrap();
    client.database_client("dev").container_client("changes", None).await.unwrap().delete(None).await.unwrap();
    let description = json!({"id": "changes", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    assert!(app.local.create_container("dev", description).await.unwrap());
    // The host delivers until it is stored.
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
