//! A collection that is dropped or renamed. The stream reports that, but no deletes of its documents. The history must
//! record that they are gone.

use bson::{Document, doc, oid::ObjectId};
use futures::TryStreamExt as _;
use mongodb::Collection;

use super::{
    back::{Back, found, orders, undo_of},
    text,
};
use crate::support::mongo_server::MongoServer;

/// The operation of each row.
pub fn ops_of(rows: &[serde_json::Value]) -> Vec<String> {
    rows.iter().map(|row| row["op"].as_str().unwrap().to_owned()).collect()
}

pub async fn all(orders: &Collection<Document>) -> Vec<Document> {
    orders.find(doc! {}).sort(doc! { "n": 1 }).await.unwrap().try_collect().await.unwrap()
}

#[tokio::test]
async fn documents_of_a_dropped_collection_are_deleted_in_the_history() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let first = [doc! { "_id": "a", "n": 1 }, doc! { "_id": ObjectId::new(), "n": 2 }, doc! { "_id": 7_i64, "n": 3 }];
    orders.insert_many(&first).await.unwrap();
    back.capture().await;
    // Deleted before the drop, so it has only one tombstone.
    orders.insert_one(doc! { "_id": "early" }).await.unwrap();
    orders.delete_one(doc! { "_id": "early" }).await.unwrap();
    back.capture().await;
    let before = crate::support::moment().await;
    orders.drop().await.unwrap();
    back.capture().await;
    let dropped = crate::support::moment().await;
    let new = doc! { "_id": "a", "n": 9 };
    orders.insert_one(&new).await.unwrap();
    back.capture().await;

    for id in ["a", "7"] {
        let rows = back.ends(0, &["history", "--id", id, "--format", "jsonl"]).await.lines();
        let ops: Vec<_> = rows.iter().map(|row| row["op"].as_str().unwrap().to_owned()).collect();
        let again: &[&str] = if id == "a" { &["create"] } else { &[] };
        assert_eq!(ops, [&["baseline", "delete"], again].concat(), "{rows:?}");
    }
    let early = back.ends(0, &["history", "--id", "early", "--format", "jsonl"]).await.lines();
    assert_eq!(early.len(), 2, "{early:?}");
    // After the drop the collection was empty: later documents are deleted, and no document comes back.
    let plan = back.ends(0, &["restore", "--all", "--at", &dropped, "--delete-newer=1", "--dry-run"]).await;
    assert!(plan.stderr.contains(": 0 restore, 0 recreate, 1 delete, 3 keep, 0 unknown"), "{plan:?}");
    // Before the drop, all documents existed.
    let restore = ["restore", "--all", "--at", &before, "--no-stamp", "--yes"];
    let output = back.ends(0, &restore).await;
    assert_eq!(all(&orders).await, first);
    back.ends(0, &["undo", &undo_of(&output), "--yes"]).await;
    assert_eq!(all(&orders).await, [new]);
    back.ends(0, &["verify"]).await;
}

#[tokio::test]
async fn a_document_with_an_undelivered_delete_is_not_claimed_to_have_existed() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    orders.insert_many([doc! { "_id": "lost" }, doc! { "_id": "told" }]).await.unwrap();
    back.capture().await;
    orders.delete_one(doc! { "_id": "lost" }).await.unwrap();
    let at = crate::support::moment().await;
    // Another follower starts after the delete, and the first one never resumes.
    let second = ["follow", "--name", "second", "--from", "now", "--until-caught-up", "--poll", "50"];
    back.ends(0, &second).await;
    orders.delete_one(doc! { "_id": "told" }).await.unwrap();
    back.ends(0, &second).await;
    let restore = ["restore", "--all", "--at", &at, "--no-stamp"];
    let plan = back.ends(3, &[&restore[..], &["--dry-run"]].concat()).await;
    assert!(plan.stderr.contains(": 0 restore, 1 recreate, 0 delete, 0 keep, 1 unknown"), "{plan:?}");
    // The first follower stands before that delete.
    assert!(
        plan.stdout.contains("whether it was changed or deleted before the point in time is not known"),
        "{plan:?}"
    );
    back.ends(3, &[&restore[..], &["--yes"]].concat()).await;
    assert_eq!(all(&orders).await, [doc! { "_id": "told" }]);
}

#[tokio::test]
async fn a_drop_that_is_delivered_again_changes_nothing() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    orders.insert_one(doc! { "_id": "keep-the-stream" }).await.unwrap();
    let start = crate::support::moment().await;
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    orders.drop().await.unwrap();
    orders.insert_one(doc! { "_id": "b", "n": 2 }).await.unwrap();
    let versions = async || {
        let mut ids = Vec::new();
        for id in ["a", "b"] {
            let rows = back.ends(0, &["history", "--id", id, "--format", "jsonl"]).await.lines();
            ids.extend(rows.iter().map(|row| row["record"].to_string()));
        }
        ids
    };
    let follow = async |name: &str| {
        back.ends(0, &["follow", "--name", name, "--from", &start, "--until-caught-up", "--poll", "50"]).await;
    };
    follow("one").await;
    let first = versions().await;
    assert_eq!(first.len(), 3, "a, its delete, b: {first:?}");
    follow("two").await;
    assert_eq!(versions().await, first);
    assert_eq!(found(&orders, "b").await, Some(doc! { "_id": "b", "n": 2 }));
}

#[tokio::test]
async fn documents_of_a_renamed_collection_are_deleted_under_the_old_name() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    back.capture().await;
    let before = crate::support::moment().await;
    let rename = doc! { "renameCollection": "shop.orders", "to": "shop.old" };
    orders.client().database("admin").run_command(rename).await.unwrap();
    back.capture().await;
    let after = crate::support::moment().await;
    back.ends(0, &["restore", "--all", "--at", &after, "--yes"]).await;
    assert_eq!(found(&orders, "a").await, None);
    back.ends(0, &["restore", "--all", "--at", &before, "--no-stamp", "--yes"]).await;
    assert_eq!(found(&orders, "a").await, Some(doc! { "_id": "a", "n": 1 }));
}

#[tokio::test]
async fn an_archive_records_that_documents_of_a_dropped_collection_are_gone() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    std::fs::create_dir(back.path("archive")).unwrap();
    let archive = text(&back.path("archive"));
    let sink = format!("file:{archive}/events.jsonl");
    let archived = async || {
        let follow = ["follow", "--name", "archive", "--from", "beginning", "--until-caught-up", "--poll", "50"];
        back.ends(0, &[&follow[..], &["--sink", &sink]].concat()).await;
    };
    let first = [doc! { "_id": "a", "n": 1 }, doc! { "_id": "b", "n": 2 }];
    orders.insert_many(&first).await.unwrap();
    archived().await;
    let before = crate::support::moment().await;
    orders.drop().await.unwrap();
    archived().await;
    let dropped = crate::support::moment().await;
    let restore = |at: &str| {
        ["restore", "--from-archive", &archive, "--all", "--at", at, "--no-stamp", "--yes"].map(str::to_owned).to_vec()
    };
    let run = async |args: Vec<String>| back.ends(0, &args.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let output = run(restore(&dropped)).await;
    assert!(output.stderr.contains(": 0 restore, 0 recreate, 0 delete, 2 keep"), "{output:?}");
    assert_eq!(all(&orders).await, Vec::<Document>::new());
    run(restore(&before)).await;
    assert_eq!(all(&orders).await, first);
}

/// A second initial read returns the content of the first one; the version in between is not the newest.
#[tokio::test]
async fn repeated_content_is_the_newest_version_after_another_initial_read() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let follow = async |name: &str| {
        back.ends(0, &["follow", "--name", name, "--from", "beginning", "--until-caught-up", "--poll", "50"]).await;
    };
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    follow("one").await;
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 2 }).await.unwrap();
    follow("one").await;
    crate::support::moment().await;
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 1 }).await.unwrap();
    crate::support::moment().await;
    follow("two").await;
    let now = crate::support::moment().await;
    let rows = back.ends(0, &["history", "--id", "a", "--format", "jsonl"]).await.lines();
    assert_eq!(ops_of(&rows), ["baseline", "replace", "baseline"], "{rows:?}");
    // The first follower stands before a change that nobody captured, so the history is not complete up to then. The
    // document is known, because its version is later than that change.
    let plan = back.ends(3, &["restore", "--all", "--at", &now, "--dry-run"]).await;
    assert!(plan.stderr.contains(": 0 restore, 0 recreate, 0 delete, 1 keep, 0 unknown"), "{plan:?}");
    assert!(plan.stderr.contains("the history ends at"), "{plan:?}");
}
