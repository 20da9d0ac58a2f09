//! One collection: the existing documents first, then every change, with every byte.

use std::{collections::BTreeSet, time::Duration};

use base64::Engine as _;
use bson::{Document, bson, doc};
use futures::TryStreamExt as _;
use serde_json::json;

use super::{Work, client, each, of, ops, prove, standing_before, write};
use crate::support::mongo_server::MongoServer;

#[tokio::test]
async fn a_collection_is_read_and_then_followed_with_every_byte() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let (log, source, orders) = (work.path("log.jsonl"), server.uri(), of("shop", "orders"));
    write(&server, ("shop", "orders"), &log, 60, 1).await;
    let args = [&orders[..], &["--from", "beginning"]].concat();
    work.catch_up(&source, &args).await;
    assert!(each(&work.events(), "op").iter().all(|op| *op == "baseline"), "{:#?}", work.events());
    let began_with = work.events().len();
    // Without writes there are no events.
    work.catch_up(&source, &args).await;
    assert_eq!(work.events().len(), began_with);
    for round in 2..5 {
        write(&server, ("shop", "orders"), &log, 60, round).await;
        work.catch_up(&source, &args).await;
    }
    let given = ["--ns", "shop.orders", "--baseline", "60"];
    assert_eq!(prove(&log, &work.path("events.jsonl"), &given).await, (began_with + 180, 0));
}

#[tokio::test]
async fn from_now_skips_earlier_changes() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let orders = client(&server.uri()).await.database("shop").collection::<Document>("orders");
    orders.insert_one(doc! { "_id": "before" }).await.unwrap();
    let args = [&of("shop", "orders")[..], &["--from", "now"]].concat();
    work.catch_up(&server.uri(), &args).await;
    assert!(work.events().is_empty());
    let oid = bson::oid::ObjectId::new();
    orders.insert_one(doc! { "_id": oid, "n": 1, "price": 2.5 }).await.unwrap();
    orders.insert_one(doc! { "_id": 7 }).await.unwrap();
    orders.insert_one(doc! { "_id": 8_i64 }).await.unwrap();
    orders.replace_one(doc! { "_id": 7 }, doc! { "b": 1, "a": 2 }).await.unwrap();
    orders.delete_one(doc! { "_id": 8_i64 }).await.unwrap();
    work.catch_up(&server.uri(), &args).await;
    let events = work.events();
    let hex = oid.to_hex();
    let wanted = [("create", hex.as_str()), ("create", "7"), ("create", "8"), ("replace", "7"), ("delete", "8")];
    assert_eq!(ops(&events), wanted);
    assert_eq!(events[0]["doc"]["_id"], json!({"$oid": hex}));
    assert_eq!(events[1]["doc"]["_id"], json!({"$numberInt": "7"}));
    assert_eq!(events[2]["doc"]["_id"], json!({"$numberLong": "8"}));
    assert_eq!((&events[4]["doc"], &events[4]["bson"]), (&json!(null), &json!(null)));
    assert!(each(&events, "ns").iter().all(|ns| *ns == "shop.orders"));
    let names: Vec<&String> = events[3]["doc"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["id", "_id", "b", "a"]);
    // The seconds of the changes, and LSNs that never decrease.
    let now = chrono::Utc::now().timestamp();
    assert!(events.iter().all(|event| (now - event["ts"].as_i64().unwrap()).abs() < 60), "{events:#?}");
    let versions: BTreeSet<&str> = each(&events, "version").into_iter().collect();
    assert_eq!(versions.len(), events.len());
}

#[tokio::test]
async fn from_a_time_skips_earlier_changes() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let orders = client(&server.uri()).await.database("shop").collection::<Document>("orders");
    orders.insert_one(doc! { "_id": "before" }).await.unwrap();
    // The server's clock has whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    orders.insert_one(doc! { "_id": "after" }).await.unwrap();
    let args = [&of("shop", "orders")[..], &["--from", &time]].concat();
    work.catch_up(&server.uri(), &args).await;
    assert_eq!(ops(&work.events()), [("create", "after")]);
}

/// A number and its digits as a string, or an ObjectId and its hex digits, are different documents.
#[tokio::test]
async fn documents_with_ids_that_look_alike_are_kept_apart() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let orders = client(&server.uri()).await.database("shop").collection::<Document>("orders");
    let args = [&of("shop", "orders")[..], &["--from", "now"]].concat();
    work.catch_up(&server.uri(), &args).await;
    let oid = bson::oid::ObjectId::new();
    let ids =
        [bson!(5), bson!("5"), bson!(oid), bson!(oid.to_hex()), bson!(true), bson!("true"), bson!(null), bson!("")];
    for id in &ids {
        orders.insert_one(doc! { "_id": id.clone() }).await.unwrap();
    }
    for id in &ids {
        orders.delete_one(doc! { "_id": id.clone() }).await.unwrap();
    }
    work.catch_up(&server.uri(), &args).await;
    let events = work.events();
    let (created, deleted) = events.split_at(ids.len());
    let apart: BTreeSet<&str> = each(created, "id").into_iter().collect();
    assert_eq!((apart.len(), each(created, "id")), (ids.len(), each(deleted, "id")));
}

/// An update event with both the changed fields and the whole document can exceed the server's message limit.
#[tokio::test]
async fn a_change_larger_than_a_message_arrives_complete() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let orders = client(&server.uri()).await.database("shop").collection::<Document>("orders");
    let args = [&of("shop", "orders")[..], &["--from", "now"]].concat();
    work.catch_up(&server.uri(), &args).await;
    let text = |letter: &str| letter.repeat(9 << 20);
    orders.insert_one(doc! { "_id": "big", "text": text("x") }).await.unwrap();
    orders.update_one(doc! { "_id": "big" }, doc! { "$set": { "text": text("y") } }).await.unwrap();
    orders.insert_one(doc! { "_id": "small" }).await.unwrap();
    work.catch_up(&server.uri(), &args).await;
    let events = work.events();
    assert_eq!(ops(&events), [("create", "big"), ("update", "big"), ("create", "small")]);
    assert!(events[1]["doc"]["text"] == text("y").as_str());
    let bytes = base64::engine::general_purpose::STANDARD.decode(events[1]["bson"].as_str().unwrap()).unwrap();
    assert!(bytes == doc! { "_id": "big", "text": text("y") }.to_vec().unwrap());
}

/// MongoDB sends each fragment of such an event in a separate response, so a response with the first fragment contains
/// no complete change.
#[tokio::test]
async fn a_follower_is_not_caught_up_with_a_fragment_of_a_change() {
    let Some(server) = MongoServer::start() else { return };
    let (_child, source) = standing_before(&server, "parts_apart.py", &[]).await;
    let work = Work::new();
    let orders = client(&server.uri()).await.database("shop").collection::<Document>("orders");
    let args = [&of("shop", "orders")[..], &["--from", "beginning"]].concat();
    let text = |letter: &str| letter.repeat(9 << 20);
    orders.insert_one(doc! { "_id": "big", "text": text("x") }).await.unwrap();
    work.catch_up(&source, &args).await;
    orders.update_one(doc! { "_id": "big" }, doc! { "$set": { "text": text("y") } }).await.unwrap();
    work.catch_up(&source, &args).await;
    let events = work.events();
    assert_eq!(ops(&events), [("baseline", "big"), ("update", "big")]);
    assert!(events[1]["doc"]["text"] == text("y").as_str());
}

#[tokio::test]
async fn a_filter_selects_deletes_or_overdrawn_accounts() {
    let Some(server) = MongoServer::start() else { return };
    let (deletes, overdrawn) = (Work::new(), Work::new());
    let accounts = client(&server.uri()).await.database("bank").collection::<Document>("accounts");
    let args = |filter| [&of("bank", "accounts")[..], &["--from", "now", "--filter", filter]].concat();
    let (by_op, by_balance) = (args("op == \"delete\""), args("doc.balance < 0"));
    deletes.catch_up(&server.uri(), &by_op).await;
    overdrawn.catch_up(&server.uri(), &by_balance).await;
    let balances = [("a", bson!(250)), ("b", bson!(-20.5)), ("c", bson!(-3_i64)), ("d", bson!(-1))];
    for (id, balance) in balances {
        accounts.insert_one(doc! { "_id": id, "balance": balance }).await.unwrap();
    }
    accounts.update_one(doc! { "_id": "a" }, doc! { "$inc": { "balance": -300 } }).await.unwrap();
    accounts.insert_one(doc! { "_id": "no balance" }).await.unwrap();
    accounts.delete_one(doc! { "_id": "b" }).await.unwrap();
    deletes.catch_up(&server.uri(), &by_op).await;
    overdrawn.catch_up(&server.uri(), &by_balance).await;
    assert_eq!(ops(&deletes.events()), [("delete", "b")]);
    let wanted = [("create", "b"), ("create", "c"), ("create", "d"), ("update", "a")];
    assert_eq!(ops(&overdrawn.events()), wanted);
}

/// `--source` is a collection of a replica set. Its changes have the numbers that the server assigned within one
/// transaction.
#[tokio::test]
async fn a_transaction_arrives_complete_and_in_order() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let client = client(&server.uri().replace("directConnection=true", "replicaSet=secantus")).await;
    let orders = client.database("shop").collection::<Document>("orders");
    orders.insert_one(doc! { "_id": "first" }).await.unwrap();
    let args = [&of("shop", "orders")[..], &["--from", "now"]].concat();
    work.catch_up(&server.uri(), &args).await;
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    for n in 0..20 {
        orders.insert_one(doc! { "_id": n }).session(&mut session).await.unwrap();
    }
    orders.replace_one(doc! { "_id": 3 }, doc! { "n": 1 }).session(&mut session).await.unwrap();
    session.commit_transaction().await.unwrap();
    work.catch_up(&server.uri(), &args).await;
    let events = work.events();
    let ids: Vec<String> = (0..20).chain([3]).map(|n| n.to_string()).collect();
    assert_eq!(each(&events, "id"), ids);
    // All have the same time, but their versions differ.
    let versions: BTreeSet<&str> = each(&events, "version").into_iter().collect();
    assert_eq!(versions.len(), 21);
    let left: Vec<Document> = orders.find(doc! {}).await.unwrap().try_collect().await.unwrap();
    assert_eq!(left.len(), 21);
}
