//! One collection: what is there first, then every change, with every byte.

use bson::{Document, doc};
use futures::TryStreamExt as _;
use serde_json::json;

use super::{Work, client, each, of, ops, prove, write};
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
    // Nothing is written: nothing comes.
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
async fn from_now_on_there_is_nothing_of_before() {
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
    // Seconds of the change, and no number that goes back.
    let now = chrono::Utc::now().timestamp();
    assert!(events.iter().all(|event| (now - event["ts"].as_i64().unwrap()).abs() < 60), "{events:#?}");
    let versions: std::collections::BTreeSet<&str> = each(&events, "version").into_iter().collect();
    assert_eq!(versions.len(), events.len());
}

#[tokio::test]
async fn a_filter_passes_deletes_alone_or_what_is_overdrawn() {
    let Some(server) = MongoServer::start() else { return };
    let (deletes, overdrawn) = (Work::new(), Work::new());
    let accounts = client(&server.uri()).await.database("bank").collection::<Document>("accounts");
    let args = |filter| [&of("bank", "accounts")[..], &["--from", "now", "--filter", filter]].concat();
    let (by_op, by_balance) = (args("op == \"delete\""), args("doc.balance < 0"));
    deletes.catch_up(&server.uri(), &by_op).await;
    overdrawn.catch_up(&server.uri(), &by_balance).await;
    let balances =
        [("a", bson::bson!(250)), ("b", bson::bson!(-20.5)), ("c", bson::bson!(-3_i64)), ("d", bson::bson!(-1))];
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

/// `--source` is a collection of a replica set; its changes carry the numbers that the server gave them in one transaction.
#[tokio::test]
async fn a_transaction_comes_whole_and_in_order() {
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
    // All of them have one time; their versions differ all the same.
    let versions: std::collections::BTreeSet<&str> = each(&events, "version").into_iter().collect();
    assert_eq!(versions.len(), 21);
    let left: Vec<Document> = orders.find(doc! {}).await.unwrap().try_collect().await.unwrap();
    assert_eq!(left.len(), 21);
}
