//! A collection that takes the name of a followed one, as `$out` does: the stream reports that, but none of its
//! documents.

use bson::{Document, doc};
use mongodb::Collection;

use super::{
    back::{Back, orders},
    gone::{all, ops_of},
    standing_before, text,
};
use crate::support::mongo_server::MongoServer;

#[tokio::test]
async fn documents_of_a_collection_renamed_onto_a_followed_one_are_captured() {
    let Some(server) = MongoServer::start() else { return };
    let (_child, source) = standing_before(&server, "rename_onto.py", &["shop", "orders"]).await;
    let back = Back::of(source).await;
    let orders = orders(&back.source).await;
    let new: Collection<Document> = orders.client().database("shop").collection("orders_new");
    let first = [doc! { "_id": "a", "n": 1 }, doc! { "_id": "b", "n": 2 }];
    let second = [doc! { "_id": "b", "n": 3 }, doc! { "_id": "c", "n": 4 }];
    orders.insert_many(&first).await.unwrap();
    std::fs::create_dir(back.path("archive")).unwrap();
    let archive = text(&back.path("archive"));
    let sink = format!("file:{archive}/events.jsonl");
    let follow = async || {
        back.capture().await;
        let args = ["follow", "--name", "archive", "--sink", &sink, "--from", "beginning", "--until-caught-up"];
        back.ends(0, &args).await;
    };
    follow().await;
    let before = crate::support::moment().await;
    new.insert_many(&second).await.unwrap();
    let rename = doc! { "renameCollection": "shop.orders_new", "to": "shop.orders", "dropTarget": true };
    orders.client().database("admin").run_command(rename).await.unwrap();
    follow().await;
    let after = crate::support::moment().await;
    orders.update_many(doc! {}, doc! { "$set": { "n": 0 } }).await.unwrap();
    follow().await;

    let history = async |id: &str| {
        let rows = back.ends(0, &["history", "--id", id, "--format", "jsonl"]).await.lines();
        ops_of(&rows)
    };
    let versions = (history("a").await, history("b").await, history("c").await);
    assert_eq!(versions.0, ["baseline", "delete"]);
    assert_eq!(versions.1, ["baseline", "delete", "baseline", "update"]);
    assert_eq!(versions.2, ["baseline", "update"]);
    // A repeated event reads the current documents again, with the current time.
    back.ends(0, &["follow", "--name", "two", "--from", &before, "--until-caught-up", "--poll", "50"]).await;
    assert_eq!(history("a").await, versions.0);
    assert_eq!(history("c").await, ["baseline", "update", "baseline"]);
    back.ends(0, &["verify", "--grace", "1s"]).await;
    let restore = |at: &str, more: &[&str]| {
        let args = [&["restore", "--all", "--at", at, "--no-stamp", "--delete-newer=5", "--yes"], more].concat();
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = async |code: i32, args: Vec<String>| {
        back.ends(code, &args.iter().map(String::as_str).collect::<Vec<_>>()).await;
    };
    run(0, restore(&after, &[])).await;
    assert_eq!(all(&orders).await, second);
    // Whether the documents found there existed before is unknown: they stay and are reported.
    run(3, restore(&before, &[])).await;
    assert_eq!(all(&orders).await, [&first[..], &second[1..]].concat());
    run(0, restore(&after, &["--from-archive", &archive])).await;
    assert_eq!(all(&orders).await, second);
}

/// The follower comes to the first of two such renames when the documents that it brought are gone again.
#[tokio::test]
async fn what_was_there_between_two_renames_onto_a_followed_collection_is_unknown() {
    let Some(server) = MongoServer::start() else { return };
    let (_child, source) = standing_before(&server, "rename_onto.py", &["shop", "orders"]).await;
    let back = Back::of(source).await;
    let orders = orders(&back.source).await;
    let new: Collection<Document> = orders.client().database("shop").collection("orders_new");
    let rename_onto = async |document: Document| {
        new.insert_one(document).await.unwrap();
        let rename = doc! { "renameCollection": "shop.orders_new", "to": "shop.orders", "dropTarget": true };
        orders.client().database("admin").run_command(rename).await.unwrap();
        crate::support::moment().await
    };
    orders.insert_many([doc! { "_id": "a", "n": 1 }, doc! { "_id": "b", "n": 1 }]).await.unwrap();
    back.capture().await;
    let before = crate::support::moment().await;
    let between = rename_onto(doc! { "_id": "a", "n": 2 }).await;
    rename_onto(doc! { "_id": "z", "n": 3 }).await;
    back.capture().await;
    let after = crate::support::moment().await;

    let shown = async |at: &str| {
        let shown = back.run(&["show", "--id", "a", "--at", at, "--format", "json"]).await;
        serde_json::from_str::<serde_json::Value>(&shown.stdout).unwrap()
    };
    let there = shown(&between).await;
    assert!(there["doubt"].as_str().is_some_and(|doubt| doubt.contains("may be missing")), "{there}");
    let file = text(&back.path("between.jsonl"));
    let saved = back.ends(3, &["backup", "--all", "--at", &between, "--out", &file]).await;
    assert!(saved.stderr.contains("others may have existed"), "{saved:?}");
    // Before and after, everything is known.
    for at in [&before, &after] {
        assert_eq!(shown(at).await["doubt"], serde_json::Value::Null, "{at}");
    }
    back.ends(0, &["backup", "--all", "--at", &after, "--out", &text(&back.path("after.jsonl"))]).await;
}
