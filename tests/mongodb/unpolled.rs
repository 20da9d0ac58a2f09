//! Reads that nobody polls, as in `crate::unpolled`.

use std::time::Duration;

use bson::{Document, doc};
use cosmos_rewind::{
    change::key::PartitionKey,
    cosmos::Items as _,
    mongo::{Address, Dialect, Mongo, MongoCollection},
};
use futures::{future::join_all, poll};
use tokio::time::{sleep, timeout};

use super::client;
use crate::support::mongo_ru::MongoRu;

#[tokio::test]
async fn a_read_that_nobody_polls_keeps_no_connection_from_others() {
    let server = MongoRu::start().await;
    let documents = client(&server.uri()).await.database("shop").collection::<Document>("orders");
    documents.insert_one(doc! { "_id": "a" }).await.unwrap();
    let address = Address::parse(&format!("{}&maxPoolSize=2", server.uri())).unwrap();
    let mongo = Mongo::connect(address, Some(Dialect::CosmosRu)).await.unwrap();
    let orders = MongoCollection::open(mongo, "shop", "orders").await.unwrap();
    let key = PartitionKey::parse("a").unwrap();
    // They stand still a little later each time.
    for polls in 1..20 {
        let mut standing = join_all([orders.read(&key, "a"), orders.read(&key, "a")]);
        for _ in 0..polls {
            if poll!(&mut standing).is_ready() {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        let other = timeout(Duration::from_secs(10), orders.read(&key, "a")).await;
        let other = other.unwrap_or_else(|_| panic!("after {polls} polls, another one waits for ever"));
        assert!(other.unwrap().is_some());
    }
}
