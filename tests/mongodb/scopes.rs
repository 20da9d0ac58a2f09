//! A whole database, a whole deployment, and the end of a stream.

use std::collections::BTreeSet;

use bson::{Document, doc};

use super::{Work, back::Back, client, each, gone::all, of, ops, prove, text, write};
use crate::support::mongo_server::MongoServer;

/// The namespace and the id of every event.
fn places(work: &Work) -> BTreeSet<(String, String)> {
    let events = work.events();
    each(&events, "ns").into_iter().map(str::to_owned).zip(each(&events, "id").into_iter().map(str::to_owned)).collect()
}

fn owned(wanted: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    wanted.iter().map(|(ns, id)| ((*ns).to_owned(), (*id).to_owned())).collect()
}

#[tokio::test]
async fn a_database_is_followed_with_all_of_its_collections() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let (one, two) = (work.path("one.jsonl"), work.path("two.jsonl"));
    write(&server, ("shop", "one"), &one, 20, 1).await;
    let args = ["--database", "shop", "--from", "beginning"];
    work.catch_up(&server.uri(), &args).await;
    // A collection created later is included, but none of another database.
    write(&server, ("shop", "two"), &two, 40, 2).await;
    write(&server, ("shop", "one"), &one, 20, 3).await;
    write(&server, ("elsewhere", "two"), &work.path("other.jsonl"), 20, 4).await;
    work.catch_up(&server.uri(), &args).await;
    let events = work.path("events.jsonl");
    prove(&one, &events, &["--ns", "shop.one", "--baseline", "20"]).await;
    prove(&two, &events, &["--ns", "shop.two"]).await;
    let found = work.events();
    assert_eq!(each(&found, "ns").into_iter().collect::<BTreeSet<_>>(), ["shop.one", "shop.two"].into());
}

#[tokio::test]
async fn a_deployment_is_followed_with_all_of_its_databases() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let client = client(&server.uri()).await;
    let put = async |database: &str, collection: &str, id: &str| {
        client.database(database).collection::<Document>(collection).insert_one(doc! { "_id": id }).await.unwrap();
    };
    put("shop", "orders", "a").await;
    let args = ["--from", "beginning"];
    work.catch_up(&server.uri(), &args).await;
    // The server's internal databases are not included.
    assert_eq!(places(&work), owned(&[("shop.orders", "a")]));
    put("shop", "orders", "b").await;
    put("bank", "accounts", "a").await;
    put("shop", "baskets", "a").await;
    work.catch_up(&server.uri(), &args).await;
    let wanted = [("shop.orders", "a"), ("shop.orders", "b"), ("bank.accounts", "a"), ("shop.baskets", "a")];
    assert_eq!(places(&work), owned(&wanted));
}

/// Consumers, and blob containers, identify a version by its id.
#[tokio::test]
async fn one_document_in_several_collections_is_a_version_in_each() {
    let Some(server) = MongoServer::start() else { return };
    let client = client(&server.uri()).await;
    let places = [("shop", "one"), ("shop", "two"), ("bank", "one")];
    for (database, collection) in places {
        client.database(database).collection::<Document>(collection).insert_one(doc! { "_id": 1 }).await.unwrap();
    }
    for redacted in [&[][..], &["--redact", "/secret"]] {
        let work = Work::new();
        work.catch_up(&server.uri(), &[&["--from", "beginning"], redacted].concat()).await;
        let events = work.events();
        let versions: BTreeSet<&str> = each(&events, "version").into_iter().collect();
        assert_eq!((events.len(), versions.len()), (places.len(), places.len()), "{versions:?}");
    }
}

#[tokio::test]
async fn a_drop_is_reported_and_later_changes_are_not_lost() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let orders = client(&server.uri()).await.database("shop").collection::<Document>("orders");
    orders.insert_one(doc! { "_id": "a" }).await.unwrap();
    let args = [&of("shop", "orders")[..], &["--from", "beginning"]].concat();
    work.catch_up(&server.uri(), &args).await;
    orders.insert_one(doc! { "_id": "b" }).await.unwrap();
    orders.drop().await.unwrap();
    // The drop ends the stream. Whether that is an error is up to the program; the test checks its events.
    work.follow(&server.uri(), &args).await;
    let events = work.events();
    assert_eq!(each(&events, "op"), ["baseline", "create", "drop", "invalidate"]);
    assert_eq!(events[2]["ns"], "shop.orders");
    orders.insert_one(doc! { "_id": "c" }).await.unwrap();
    work.catch_up(&server.uri(), &args).await;
    let events = work.events();
    assert_eq!(ops(&events[4..]), [("create", "c")]);
}

#[tokio::test]
async fn a_dropped_database_and_a_renamed_collection_are_reported() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let client = client(&server.uri()).await;
    let shop = client.database("shop");
    shop.collection::<Document>("orders").insert_one(doc! { "_id": "a" }).await.unwrap();
    let args = ["--database", "shop", "--from", "now"];
    work.catch_up(&server.uri(), &args).await;
    let rename = doc! { "renameCollection": "shop.orders", "to": "shop.old" };
    client.database("admin").run_command(rename).await.unwrap();
    shop.collection::<Document>("old").insert_one(doc! { "_id": "b" }).await.unwrap();
    shop.drop().await.unwrap();
    work.follow(&server.uri(), &args).await;
    let events = work.events();
    assert_eq!(each(&events, "op"), ["rename", "create", "drop", "dropDatabase", "invalidate"]);
    assert_eq!((&events[0]["ns"], &events[1]["ns"]), (&"shop.orders".into(), &"shop.old".into()));
    assert!(events[3]["ns"] == "shop" && events.iter().all(|event| event["op"] == "create" || event["doc"].is_null()));
}

/// No event lists the documents of a renamed collection: they are read under the new name, and changes in between are
/// unknown.
#[tokio::test]
async fn documents_of_a_renamed_collection_are_captured_under_its_new_name() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let client = client(&server.uri()).await;
    let collection = |name: &str| client.database("shop").collection::<Document>(name);
    std::fs::create_dir(back.path("archive")).unwrap();
    let archive = text(&back.path("archive"));
    let (sink, checkpoint) = (format!("file:{archive}/events.jsonl"), text(&back.path("checkpoint.json")));
    let follow = ["follow", "--source", &back.source, "--database", "shop", "--from", "beginning", "--until-caught-up"];
    let follow = [&follow[..], &["--sink", &sink, "--checkpoint-file", &checkpoint, "--poll", "50"]].concat();
    let follow = async || assert_eq!(back.run_plain(&follow).await.code, 0);
    collection("orders").insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    follow().await;
    let new = [doc! { "_id": "a", "n": 2 }, doc! { "_id": "b", "n": 3 }];
    collection("staged").insert_many(&new).await.unwrap();
    let rename = doc! { "renameCollection": "shop.staged", "to": "shop.orders", "dropTarget": true };
    client.database("admin").run_command(rename).await.unwrap();
    let between = crate::support::moment().await;
    follow().await;
    let after = crate::support::moment().await;
    let restore = |at: &str, into: &str| {
        let restore =
            ["restore", "--from-archive", &archive, "--all", "--at", at, "--into", into, "--no-stamp", "--yes"];
        restore.map(str::to_owned).to_vec()
    };
    let run = async |code: i32, args: Vec<String>| {
        back.ends(code, &args.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    run(0, restore(&after, "after")).await;
    assert_eq!(all(&collection("after")).await, new);
    let plan = run(3, restore(&between, "between")).await;
    assert!(plan.stderr.contains("0 keep, 2 unknown"), "{plan:?}");
    // Nothing is delivered twice.
    let told =
        || Work::events_in(&back.path("archive/events.jsonl")).into_iter().filter(|e| e["ns"] == "shop.orders").count();
    let before = told();
    follow().await;
    assert_eq!((before, told()), (4, 4));
}

/// Nobody read what came with the first rename: it was gone again with the second one.
#[tokio::test]
async fn what_was_in_a_collection_between_two_renames_that_nobody_read_is_unknown() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let client = client(&server.uri()).await;
    let collection = |name: &str| client.database("shop").collection::<Document>(name);
    let rename = async |from: &str, to: &str| {
        let rename =
            doc! { "renameCollection": format!("shop.{from}"), "to": format!("shop.{to}"), "dropTarget": true };
        client.database("admin").run_command(rename).await.unwrap();
    };
    std::fs::create_dir(back.path("archive")).unwrap();
    let archive = text(&back.path("archive"));
    let (sink, checkpoint) = (format!("file:{archive}/events.jsonl"), text(&back.path("checkpoint.json")));
    let follow = ["follow", "--source", &back.source, "--database", "shop", "--from", "beginning", "--until-caught-up"];
    let follow = [&follow[..], &["--sink", &sink, "--checkpoint-file", &checkpoint, "--poll", "50"]].concat();
    let follow = async || assert_eq!(back.run_plain(&follow).await.code, 0);
    let early = [doc! { "_id": "a", "n": 1 }, doc! { "_id": "b", "n": 1 }];
    collection("orders").insert_many(&early).await.unwrap();
    collection("staged").insert_one(doc! { "_id": "a", "n": 2 }).await.unwrap();
    follow().await;
    let before = crate::support::moment().await;
    rename("staged", "orders").await;
    let between = crate::support::moment().await;
    rename("orders", "old").await;
    let gone = crate::support::moment().await;
    follow().await;
    let late = [doc! { "_id": "a", "n": 3 }, doc! { "_id": "b", "n": 3 }];
    collection("orders").insert_many(&late).await.unwrap();
    let restore = async |code: i32, at: &str| {
        let args = ["restore", "--from-archive", &archive, "--all", "--at", at, "--delete-newer=300", "--dry-run"];
        back.ends(code, &args).await.stderr
    };
    let plan = restore(0, &before).await;
    assert!(plan.contains(": 2 restore, 0 recreate, 0 delete, 0 keep, 0 unknown"), "{plan}");
    let plan = restore(3, &between).await;
    assert!(plan.contains(": 0 restore, 0 recreate, 0 delete, 0 keep, 2 unknown"), "{plan}");
    let plan = restore(0, &gone).await;
    assert!(plan.contains(": 0 restore, 0 recreate, 2 delete, 0 keep, 0 unknown"), "{plan}");
    for (at, failed) in [(&between, 2), (&gone, 0)] {
        let load = back.run_plain(&["load", "--archive", &archive, "--at", at, "--format", "json"]).await;
        let report: serde_json::Value = serde_json::from_str(&load.stdout).unwrap();
        assert_eq!((&report["written"], &report["failed"]), (&0.into(), &failed.into()), "{load:?}");
    }
}
