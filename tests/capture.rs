//! Capture end to end: the host's requests in, the history out.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Fault, TestApp, body_of, feed_document};

#[tokio::test]
async fn a_batch_becomes_one_record_for_each_version() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let batch: Vec<Value> = (1..=3).map(|v| feed_document("28035", "28035", v)).chain([feed_document("28036", "28036", 4)]).collect();
    let (status, body) = handler.deliver(&batch).await;
    assert_eq!((status, &body["Outputs"]), (200, &json!({})), "{body} {:#?}", handler.log());
    assert!(body["Logs"][0].as_str().unwrap().contains("4 items, 4 records"), "{body}");
    let versions = app.versions("28035").await;
    assert_eq!(versions.iter().map(|v| v.lsn.unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    let document: Value = serde_json::from_str(versions[2].document.as_ref().unwrap()).unwrap();
    assert_eq!(document, json!({"id": "28035", "pk": "28035", "version": 3, "text": "x".repeat(100)}));
    assert_eq!(app.history().await.len(), 4);
}
