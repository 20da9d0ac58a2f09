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
