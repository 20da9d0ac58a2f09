//! Capture end to end: the host's requests go in, the history comes out.

mod faults;
mod poison;
mod requests;
mod rereads;
mod starting;

use cosmos_rewind::change::Op;
use serde_json::{Value, json};

use crate::support::{TestApp, body_of, feed_document};

/// 30 documents with different keys, and 30 versions that share one key.
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
async fn records_travel_together_by_key_and_by_physical_partition() {
    // Thirty records of one key are one transactional batch; thirty records of different keys are packed, with one
    // request per physical partition.
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&mixed_batch()).await.0, 200);
    let partitions = app.changes().await.feed_ranges(true).await.unwrap().len();
    assert_eq!(app.proxy.writes(), 1 + partitions);
    assert_eq!(app.history().await.len(), 60);
    // Without packing, each key is a separate request.
    let app = TestApp::start().await;
    let handler = app.handler(&[("REWIND_BULK", "off")]).await;
    assert_eq!(handler.deliver(&mixed_batch()).await.0, 200);
    assert_eq!(app.proxy.writes(), 30 + 1);
    assert_eq!(app.history().await.len(), 60);
}

#[tokio::test]
async fn all_three_payload_shapes_are_captured_as_text() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    // Number spellings and a key order that a parsed value would not preserve.
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
    // Routes are case-insensitive, as in the host.
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
            // Version 1 was never delivered; the previous image of version 2 heals it.
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
    // The late delivery of the version itself replaces the healed record, and healing again does not revert that.
    let late = json!({"current": image(1), "metadata": metadata("create", 1)});
    assert_eq!(handler.deliver(&[late]).await.0, 200);
    let again = json!({"current": image(2), "previous": image(1), "metadata": metadata("replace", 2)});
    assert_eq!(handler.deliver(&[again]).await.0, 200);
    assert_eq!(app.versions("x").await[0].op, Some(Op::Create));
}
