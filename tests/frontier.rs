//! How far the history is known to be complete, as reported by `status` and used by `--wait`.

use chrono::Utc;
use serde_json::json;

use crate::support::{Local, eventually};

/// Such a lease has no position in the feed: the trigger stores one after its first delivery.
#[tokio::test]
async fn a_feed_range_without_documents_does_not_delay_the_frontier() {
    let local = Local::start(&["--mode", "latest", "--partitions", "4"]).await;
    let file = local.folder().join("one.jsonl");
    std::fs::write(&file, json!({"id": "a", "pk": "p", "n": 1}).to_string()).unwrap();
    let written = local.run(&["populate", "--file", file.to_str().unwrap()]).await;
    assert_eq!(written.code, 0, "{written:?}");
    local.wait_for_count("changes", 1).await;
    eventually("nothing waits", async || {
        let status = local.run(&["status", "--format", "json"]).await.json();
        (status["history"]["complete_until"] == "now").then_some(())
    })
    .await;
    // Later than every captured change.
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    let at = (Utc::now().timestamp() - 1).to_string();
    let restore = ["restore", "--all", "--at", &at, "--dry-run", "--wait", "--format", "json"];
    let planned = tokio::time::timeout(std::time::Duration::from_secs(30), local.run(&restore)).await;
    let planned = planned.expect("the wait ends at once");
    assert_eq!(planned.code, 0, "{planned:?}");
}
