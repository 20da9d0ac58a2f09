//! Documents whose `_id`s are equal for the server but differ in their bytes.

use std::collections::BTreeMap;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt as _;

use super::{
    back::{Back, orders, undo_of},
    client,
};
use crate::support::mongo_server::MongoServer;

/// The bytes of the documents by their number.
async fn bytes(source: &str) -> BTreeMap<i32, Vec<u8>> {
    let orders = client(source).await.database("shop").collection::<RawDocumentBuf>("orders");
    let all: Vec<RawDocumentBuf> = orders.find(doc! {}).await.unwrap().try_collect().await.unwrap();
    all.into_iter().map(|document| (document.get_i32("n").unwrap(), document.into_bytes())).collect()
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

#[tokio::test]
async fn a_document_whose_id_has_another_number_type_is_restored_and_undone() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let then: [Bson; 4] = [5.into(), (-0.0).into(), decimal("7.50"), doc! { "a": 1 }.into()];
    let now: [Bson; 4] = [5.0.into(), 0.0.into(), 7.5.into(), doc! { "a": 1.0 }.into()];
    let put = async |ids: &[Bson]| {
        orders.delete_many(doc! {}).await.unwrap();
        let documents = (1..).zip(ids).map(|(n, id)| doc! { "_id": id.clone(), "n": n, "of": ids.len() as i64 });
        orders.insert_many(documents).await.unwrap();
        back.capture().await;
        bytes(&back.source).await
    };
    let before = put(&then).await;
    let at = crate::support::moment().await;
    let after = put(&now).await;
    assert!(before.iter().zip(&after).all(|(one, other)| one != other));
    let output = back.ends(0, &["restore", "--all", "--at", &at, "--no-stamp", "--yes"]).await;
    assert!(bytes(&back.source).await == before, "{:?}", orders.find_one(doc! {}).await);
    back.ends(0, &["undo", &undo_of(&output), "--yes"]).await;
    assert!(bytes(&back.source).await == after, "{:?}", orders.find_one(doc! {}).await);
    back.capture().await;
    back.ends(0, &["verify", "--grace", "1s"]).await;
}

/// An LSN tells 32 changes of a transaction apart; those after them are ordered by the id of their record. That of a
/// document with a long `_id` does not hold all of it.
#[tokio::test]
async fn the_last_of_many_versions_of_one_transaction_is_restored_whatever_its_id() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let client = client(&back.source.replace("directConnection=true", "replicaSet=secantus")).await;
    let orders = client.database("shop").collection::<Document>("orders");
    let ids = ["short".to_owned(), "x".repeat(2000)];
    for id in &ids {
        orders.insert_one(doc! { "_id": id, "n": 0 }).await.unwrap();
    }
    back.capture().await;
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    for n in 1..40 {
        for id in &ids {
            orders.replace_one(doc! { "_id": id }, doc! { "n": n }).session(&mut session).await.unwrap();
        }
    }
    session.commit_transaction().await.unwrap();
    back.capture().await;
    let at = crate::support::moment().await;
    orders.update_many(doc! {}, doc! { "$set": { "n": -1 } }).await.unwrap();
    back.ends(0, &["restore", "--all", "--at", &at, "--no-stamp", "--yes"]).await;
    for id in ids {
        let found = orders.find_one(doc! { "_id": &id }).await.unwrap();
        assert_eq!(found, Some(doc! { "_id": id, "n": 39 }));
    }
}
