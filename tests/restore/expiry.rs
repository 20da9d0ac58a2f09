//! A plan's notes about documents that will expire.

use chrono::Utc;
use serde_json::{Value, json};

use crate::support::TestApp;

/// The notes of a plan that recreates three documents: one without a time to live, one with one, and one that never
/// expires.
async fn notes(default_ttl: Option<i64>) -> Vec<(String, bool)> {
    let mut events = json!({"partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    if let Some(seconds) = default_ttl {
        events["defaultTtl"] = seconds.into();
    }
    let app = TestApp::with_events(&["/pk", "/_originalId"], events).await;
    let ago = Utc::now().timestamp() - 1200;
    let mut items = Vec::new();
    for (n, (id, ttl)) in [("none", Value::Null), ("own", 60.into()), ("for-ever", (-1).into())].into_iter().enumerate()
    {
        let mut document = json!({"id": id, "pk": "p", "_etag": format!("\"{n}\""), "_ts": ago});
        if !ttl.is_null() {
            document["ttl"] = ttl;
        }
        let at = |op: &str, lsn: usize, ts: i64| json!({"operationType": op, "lsn": lsn, "crts": ts});
        items.push(json!({"current": document, "metadata": at("create", 2 * n + 1, ago)}));
        let mut gone = at("delete", 2 * n + 2, ago + 600);
        (gone["id"], gone["partitionKey"]) = (id.into(), json!({"pk": "p"}));
        items.push(json!({"current": {}, "metadata": gone}));
    }
    app.capture(&items).await;
    let planned = app.run(&["restore", "--all", "--at", "15m", "--dry-run", "--format", "json"]).await;
    let plan: Value = serde_json::from_str(&planned.stdout).unwrap_or_else(|e| panic!("{e}: {planned:?}"));
    let steps = plan["plan"]["steps"].as_array().unwrap_or_else(|| panic!("{planned:?}"));
    let of = |step: &Value| (step["id"].as_str().unwrap().to_owned(), step["notes"].to_string().contains("expires"));
    let mut notes: Vec<(String, bool)> = steps.iter().map(of).collect();
    notes.sort();
    notes
}

#[tokio::test]
async fn a_plan_reports_documents_that_will_expire_including_by_the_containers_ttl() {
    for (default_ttl, expected) in
        [(Some(3600), [false, true, true]), (Some(-1), [false, false, true]), (None, [false; 3])]
    {
        let names = ["for-ever", "none", "own"].map(str::to_owned);
        assert_eq!(notes(default_ttl).await, names.into_iter().zip(expected).collect::<Vec<_>>(), "{default_ttl:?}");
    }
}
