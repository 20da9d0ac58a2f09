//! Sharded collections: every write has the shard key of the document that is there, and an `_id` is unique only together
//! with it.

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt as _;
use mongodb::Collection;
use serde_json::{Value, json};

use super::{
    back::{Back, orders, undo_of},
    client, standing_before, text,
};
use crate::support::{mongo_ru::MongoRu, mongo_server::MongoServer};

/// The bytes of all documents, in the order of their numbers.
async fn bytes(orders: &Collection<Document>) -> Vec<Vec<u8>> {
    let all = orders.clone_with_type::<RawDocumentBuf>().find(doc! {}).await.unwrap();
    let all: Vec<RawDocumentBuf> = all.try_collect().await.unwrap();
    let mut all: Vec<Vec<u8>> = all.into_iter().map(RawDocumentBuf::into_bytes).collect();
    all.sort();
    all
}

fn sorted(documents: &[Document]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = documents.iter().map(|document| document.to_vec().unwrap()).collect();
    all.sort();
    all
}

/// A filter as the log of the router has it: the `_id`, and the fields of the shard key.
fn filter(id: Bson, customer: Bson, city: Bson, n: Bson) -> Value {
    let filter = doc! { "_id": { "$eq": id }, "customer": customer, "place.city": city, "n": n };
    Bson::Document(filter).into_canonical_extjson()
}

#[tokio::test]
async fn every_write_has_the_shard_key_of_the_document_that_is_there() {
    let Some(server) = MongoServer::start() else { return };
    let admin = client(&server.uri()).await;
    let key = doc! { "_id": "shop.orders", "key": { "customer": "hashed", "place.city": 1, "_id": 1, "n": 1 } };
    admin.database("config").collection("collections").insert_one(key).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.jsonl");
    let (_child, source) = standing_before(&server, "router.py", &[&text(&log)]).await;
    let back = Back::of(source).await;
    // The shard key changed; parts of it are missing, null, documents, or behind something that is no document.
    let then = [
        doc! { "_id": 1, "customer": "a", "place": { "city": "Oslo" }, "n": 1, "v": 1 },
        doc! { "_id": 2, "customer": "b", "v": 1 },
        doc! { "_id": 3, "customer": null, "place": { "city": null }, "n": 5_i64, "v": 1 },
        doc! { "_id": 4, "customer": { "b": 1, "a": 2.5 }, "place": "Rome", "n": f64::NAN, "v": 1 },
        doc! { "_id": 5, "customer": "e", "v": 1 },
        doc! { "_id": 6, "customer": "f", "n": 1, "v": 1 },
    ];
    let now = [
        doc! { "_id": 1, "customer": "z", "place": { "city": "Bonn" }, "n": 2, "v": 2 },
        doc! { "_id": 2, "customer": "b", "v": 2 },
        doc! { "_id": 3, "customer": null, "place": { "city": null }, "n": 5_i64, "v": 2 },
        doc! { "_id": 4, "customer": { "b": 1, "a": 2.5 }, "place": "Rome", "n": f64::NAN, "v": 2 },
        // Deleted: 5. The same `_id` as another number: 6. New: 7.
        doc! { "_id": 6.0, "customer": "f", "n": 1, "v": 2 },
        doc! { "_id": 7, "customer": "g", "place": { "city": "Rome" }, "v": 2 },
    ];
    let orders = admin.database("shop").collection::<Document>("orders");
    let put = async |documents: &[Document]| {
        orders.delete_many(doc! {}).await.unwrap();
        orders.insert_many(documents).await.unwrap();
        back.capture().await;
    };
    put(&then).await;
    let at = crate::support::moment().await;
    put(&now).await;
    let logged = || -> Vec<Value> {
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::write(&log, "").unwrap();
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.sort_by_key(ToString::to_string);
        lines
    };
    let same = [
        ("update", filter(2.into(), "b".into(), Bson::Null, Bson::Null)),
        ("update", filter(3.into(), Bson::Null, Bson::Null, 5_i64.into())),
        ("update", filter(4.into(), doc! { "b": 1, "a": 2.5 }.into(), Bson::Null, f64::NAN.into())),
    ];
    let expected = |lines: &[(&str, Value)]| -> Vec<Value> {
        let lines = same.iter().chain(lines);
        let mut lines: Vec<Value> =
            lines.map(|(op, q)| json!({ "op": op, "q": q, "inTransaction": *op != "insert" })).collect();
        // The document whose `_id` is another number now is deleted and inserted in one transaction.
        lines.push(json!({ "op": "insert", "q": null, "inTransaction": true }));
        lines.sort_by_key(ToString::to_string);
        lines
    };
    assert_eq!(logged(), Vec::<Value>::new(), "capturing writes nothing");
    let output = back.ends(0, &["restore", "--all", "--at", &at, "--delete-newer=1", "--no-stamp", "--yes"]).await;
    assert_eq!(bytes(&orders).await, sorted(&then));
    let wanted = expected(&[
        ("update", filter(1.into(), "z".into(), "Bonn".into(), 2.into())),
        ("insert", Value::Null),
        ("delete", filter(6.into(), "f".into(), Bson::Null, 1.into())),
        ("delete", filter(7.into(), "g".into(), "Rome".into(), Bson::Null)),
    ]);
    assert_eq!(logged(), wanted);
    back.ends(0, &["undo", &undo_of(&output), "--yes"]).await;
    assert_eq!(bytes(&orders).await, sorted(&now));
    let wanted = expected(&[
        ("update", filter(1.into(), "a".into(), "Oslo".into(), 1.into())),
        ("insert", Value::Null),
        ("delete", filter(6.into(), "f".into(), Bson::Null, 1.into())),
        ("delete", filter(5.into(), "e".into(), Bson::Null, Bson::Null)),
    ]);
    assert_eq!(logged(), wanted);
}

/// A server takes the same `_id` once for each shard key.
#[tokio::test]
async fn a_document_that_came_under_another_shard_key_is_not_doubled() {
    let server = MongoRu::start().await;
    for name in ["scratch", "orders"] {
        server.create("shop", name, "customer", 2);
    }
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    // Customers whose documents may have the same `_id`.
    let scratch = orders.client().database("shop").collection::<Document>("scratch");
    let mut customers = Vec::new();
    for n in 0.. {
        let customer = format!("c-{n}");
        if scratch.insert_one(doc! { "_id": 1, "customer": &customer }).await.is_ok() {
            customers.push(customer);
        }
        if customers.len() == 2 {
            break;
        }
    }
    orders.insert_one(doc! { "_id": 1, "customer": &customers[0], "v": 1 }).await.unwrap();
    let other = doc! { "_id": 2, "customer": &customers[1], "v": 1 };
    orders.insert_one(&other).await.unwrap();
    back.capture().await;
    let at = crate::support::moment().await;
    orders.delete_one(doc! { "_id": 1 }).await.unwrap();
    let plan = text(&back.path("plan.jsonl"));
    let restore = ["restore", "--all", "--at", &at, "--recreate-deleted", "--no-stamp"];
    let planned = back.run(&[&restore[..], &["--plan-out", &plan, "--dry-run"]].concat()).await;
    assert!(planned.stderr.contains(" 1 recreate"), "{planned:?}");
    let theirs = doc! { "_id": 1, "customer": &customers[1], "v": 9 };
    orders.insert_one(&theirs).await.unwrap();
    let applied = back.ends(3, &["restore", "--plan", &plan, "--yes"]).await;
    assert!(applied.stderr.contains("1 conflict"), "{applied:?}");
    assert_eq!(bytes(&orders).await, sorted(&[other, theirs]));
}
