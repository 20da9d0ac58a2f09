//! How far the history of a collection is known to be complete.

use bson::{Document, doc};

use super::{
    back::{Back, found, orders},
    of,
};
use crate::support::{ClosedPort, FollowerProcess, mongo_server::MongoServer};

/// What is read first has the time of its reading: that nothing older waits proves nothing, for nothing of the stream was read.
#[tokio::test]
async fn a_first_reading_that_never_ended_makes_no_history_complete() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    orders.insert_many([doc! { "_id": "a" }, doc! { "_id": "b" }]).await.unwrap();
    back.capture().await;
    // A second one begins to read, and what it reads never becomes durable everywhere.
    let port = ClosedPort::take();
    let nowhere = format!("blob:http://{}/devstoreaccount1/versions", port.address());
    let args = ["--source", &back.source, "--name", "second", "--from", "beginning", "--sink", "changes", "--sink"];
    let args = [&args[..], &[&nowhere], &of("shop", "orders")].concat();
    let mut second = FollowerProcess::start_in(back.folder(), &args, &back.settings());
    second.wait_for_log("start of every range saved").await;
    second.kill();
    // The server of the tests may give a change the very time that it named before.
    Back::moment().await;
    orders.delete_one(doc! { "_id": "a" }).await.unwrap();
    let at = Back::moment().await;
    let plan = ["restore", "--all", "--at", &at, "--dry-run"];
    let behind = back.ends(3, &plan).await;
    assert!(behind.stderr.contains(": 0 restore, 0 recreate, 0 delete, 1 keep, 1 unknown"), "{behind:?}");
    assert!(behind.stderr.contains("the history ends at"), "{behind:?}");
    // The first one goes on: that a document is gone is known.
    back.capture().await;
    let plan = back.ends(0, &plan).await;
    assert!(plan.stderr.contains(": 0 restore, 0 recreate, 0 delete, 2 keep, 0 unknown"), "{plan:?}");
    assert_eq!(found(&orders, "a").await, None::<Document>);
}
