//! The way back of documents whose history has the newest texts alone.

use serde_json::Value;

use super::{back::Back, ru::put};
use crate::support::mongo_ru::MongoRu;

/// An etag comes back with the text, so that the live document has that of the version in force proves nothing about
/// what lay between them.
#[tokio::test]
async fn a_document_that_is_kept_because_its_text_came_back_says_what_may_be_missing() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "_id", 1);
    let back = Back::of(server.uri()).await;
    put(&server, 0..2, 1);
    back.capture().await;
    crate::support::moment().await;
    // Nobody captures this text.
    put(&server, 0..1, 2);
    let at = crate::support::moment().await;
    for version in [3, 1] {
        put(&server, 0..1, version);
        back.capture().await;
        crate::support::moment().await;
    }
    let plan = back.ends(0, &["restore", "--all", "--at", &at, "--dry-run", "--format", "json"]).await;
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    let notes = |place: usize| plan["plan"]["steps"][place]["notes"].to_string();
    assert!(notes(0).contains("and deletes, may be missing"), "{plan}");
    // Of this one nothing came later.
    assert_eq!((notes(1).as_str(), &plan["plan"]["steps"][1]["action"]), ("[]", &"keep".into()), "{plan}");
}

/// Between two kept days an older version would pass for the one in force.
#[tokio::test]
async fn single_days_of_a_history_without_predecessors_are_not_kept() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "_id", 1);
    let back = Back::of(server.uri()).await;
    for version in 1..3 {
        put(&server, 0..1, version);
        back.capture().await;
        crate::support::moment().await;
    }
    for flag in ["--keep-daily", "--keep-monthly"] {
        for run in ["--dry-run", "--yes"] {
            let refused = back.ends(2, &["prune", "--keep-within", "1s", flag, "300d", run]).await;
            assert!(refused.stderr.contains("name no predecessor"), "{refused:?}");
            assert!(refused.stderr.contains("--older-than"), "{refused:?}");
        }
    }
    let pruned = back.ends(0, &["prune", "--older-than", "0s", "--yes", "--format", "json"]).await;
    assert_eq!((&pruned.json()["versions"], &pruned.json()["removed"]), (&2.into(), &1.into()), "{pruned:?}");
}
