//! What is left of a document of MongoDB after it was erased.

use bson::{Document, doc};

use super::{
    Work,
    back::{Back, orders},
    client, each,
};
use crate::support::mongo_server::MongoServer;

/// A restore saves a version before capture delivers it, so the history has it twice.
#[tokio::test]
async fn a_version_that_the_history_has_twice_is_erased_at_once() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    back.capture().await;
    let at = crate::support::moment().await;
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 2 }).await.unwrap();
    back.ends(0, &["restore", "--id", "a", "--pk", "a", "--at", &at, "--yes"]).await;
    back.capture().await;
    let erase = ["erase", "--id", "a", "--pk", "a", "--live", "--settle", "1s", "--yes", "--format", "json"];
    let receipt = &back.ends(0, &erase).await.lines()[0];
    assert_eq!((&receipt["versions"], &receipt["left"]), (&4.into(), &0.into()), "{receipt}");
}

/// Documents of two collections may share an id; one of them is erased.
#[tokio::test]
async fn in_an_archive_of_several_collections_only_the_documents_own_events_are_erased() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let others = client(&back.source).await.database("shop").collection::<Document>("others");
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    others.insert_one(doc! { "_id": "a", "n": 2 }).await.unwrap();
    let archive = back.archive_database().await;
    back.capture().await;
    back.ends(0, &["erase", "--id", "a", "--pk", "a", "--archive", &archive, "--yes"]).await;
    let events = Work::events_in(&back.path("archive").join("events.jsonl"));
    assert_eq!(each(&events, "ns"), ["shop.others"], "{events:?}");
}
