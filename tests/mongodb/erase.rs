//! What is left of a document of MongoDB after it was erased.

use bson::doc;

use super::back::{Back, orders};
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
