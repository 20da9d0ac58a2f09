//! `erase` beside a document of the same id of which a part of the key is missing.

use cosmos_rewind::change::key::PartitionKey;
use serde_json::json;

use crate::support::{TestApp, moment};

const NAMED: &str = r#"["a","x"]"#;
const NAMELESS: &str = r#"[{},"x"]"#;

/// Older tombstones, which name no key, lie where this document does. Its own ones name it.
#[tokio::test]
async fn a_document_with_a_missing_key_value_keeps_its_deletes_and_its_journals() {
    let description = json!({"partitionKey": {"paths": ["/t", "/id"], "kind": "MultiHash", "version": 2}});
    let app = TestApp::with_events(&["/t", "/_originalId"], description).await;
    let follow = ["follow", "--mode", "all-versions", "--from", "now", "--until-caught-up"];
    let capture = async || assert_eq!(app.run(&follow).await.code, 0);
    let key = |text: &str| PartitionKey::parse(text).unwrap();
    let put = async |key_text: &str, n: u64| {
        let mut document = json!({"id": "x", "n": n});
        if key_text == NAMED {
            document["t"] = json!("a");
        }
        app.events().await.upsert(&key(key_text), "x", document.to_string().into_bytes()).await.unwrap();
    };
    let write_both = async |n: u64| {
        put(NAMED, n).await;
        put(NAMELESS, n).await;
        capture().await;
    };
    capture().await;
    write_both(1).await;
    let at = moment().await;
    write_both(2).await;
    let restored = app.run(&["restore", "--all", "--at", &at, "--yes", "--format", "json"]).await.json();
    let restore = restored["restore"].as_str().unwrap();
    capture().await;
    let before = moment().await;
    app.events().await.delete(&key(NAMELESS), "x", None).await.unwrap();
    capture().await;
    let after = moment().await;

    let erase = ["erase", "--id", "x", "--pk", NAMED, "--yes", "--format", "json"];
    let receipt = app.run(&erase).await.json();
    assert_eq!((&receipt["versions"], &receipt["left"]), (&json!(3), &json!(0)), "{receipt}");
    assert_eq!(receipt["journals"], 2, "{receipt}");

    // The other one was deleted, and still is.
    let show = async |at: &str| app.run(&["show", "--id", "x", "--pk", NAMELESS, "--at", at]).await;
    assert_eq!(show(&before).await.code, 0);
    let shown = show(&after).await;
    assert!(shown.code == 1 && shown.stderr.contains("it was deleted at"), "{shown:?}");
    // Its part of the restore can still be undone.
    put(NAMELESS, 1).await;
    let undone = app.run(&["undo", restore, "--dry-run", "--force", "--format", "json"]).await;
    assert!(undone.stdout.contains(r#""pk":[{},"x"]"#) && !undone.stdout.contains(r#""pk":["a","x"]"#), "{undone:?}");
}
