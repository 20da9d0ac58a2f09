//! The common contract of MongoDB sources. The built-in RU server is only as good as this.

use base64::Engine as _;
use bson::{Document, RawDocumentBuf, doc};
use mongodb::Collection;

use super::{Work, client, each, of};
use crate::support::{eventually, mongo_ru::MongoRu, mongo_server::MongoServer};

/// A source, and the names of its changes for new and for existing documents.
struct Source {
    uri: String,
    dialect: &'static str,
    created: &'static str,
    replaced: &'static str,
}

impl Source {
    fn args(&self) -> Vec<&str> {
        [&of("shop", "orders")[..], &["--dialect", self.dialect, "--from", "beginning"]].concat()
    }

    async fn orders(&self) -> Collection<Document> {
        client(&self.uri).await.database("shop").collection("orders")
    }
}

/// Checks the contract for both servers; for SecantusDB only where it is installed.
async fn holds_for_both(contract: impl AsyncFn(Source)) {
    let ru = MongoRu::start().await;
    contract(Source { uri: ru.uri(), dialect: "cosmos-ru", created: "upsert", replaced: "upsert" }).await;
    let Some(server) = MongoServer::start() else { return };
    contract(Source { uri: server.uri(), dialect: "mongodb", created: "create", replaced: "replace" }).await;
}

/// The bytes of a document as encoded in events.
fn base64_of(document: &Document) -> String {
    let raw = RawDocumentBuf::try_from(document).unwrap();
    base64::engine::general_purpose::STANDARD.encode(raw.as_bytes())
}

#[tokio::test]
async fn the_follower_waits_for_a_missing_collection_and_delivers_its_changes() {
    holds_for_both(async |source: Source| {
        let work = Work::new();
        let orders = source.orders().await;
        let mut follower = work.start(&source.uri, &source.args());
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        orders.insert_one(doc! { "_id": "a", "n": 1, "price": 2.5 }).await.unwrap();
        eventually("the insert has arrived", async || (work.events().len() == 1).then_some(())).await;
        orders.replace_one(doc! { "_id": "a" }, doc! { "_id": "a", "n": 2_i64 }).await.unwrap();
        eventually("the replacement has arrived", async || (work.events().len() == 2).then_some(())).await;
        follower.signal("TERM");
        assert!(follower.ended().await.success(), "{:#?}", follower.log());
        let events = work.events();
        assert_eq!(each(&events, "op"), [source.created, source.replaced]);
        assert_eq!((each(&events, "id"), each(&events, "ns")), (vec!["a"; 2], vec!["shop.orders"; 2]));
        let wanted = [doc! { "_id": "a", "n": 1, "price": 2.5 }, doc! { "_id": "a", "n": 2_i64 }];
        assert_eq!(each(&events, "bson"), wanted.map(|document| base64_of(&document)));
        assert_ne!(events[0]["version"], events[1]["version"]);
    })
    .await;
}

#[tokio::test]
async fn a_run_continues_where_the_previous_one_ended() {
    holds_for_both(async |source: Source| {
        let work = Work::new();
        let orders = source.orders().await;
        orders.insert_one(doc! { "_id": 1 }).await.unwrap();
        work.catch_up(&source.uri, &source.args()).await;
        assert_eq!(each(&work.events(), "id"), ["1"]);
        for n in 2..5 {
            orders.insert_one(doc! { "_id": n }).await.unwrap();
            work.catch_up(&source.uri, &source.args()).await;
            work.catch_up(&source.uri, &source.args()).await;
        }
        orders.replace_one(doc! { "_id": 2 }, doc! { "n": 1 }).await.unwrap();
        work.catch_up(&source.uri, &source.args()).await;
        let events = work.events();
        assert_eq!(each(&events, "id"), ["1", "2", "3", "4", "2"]);
        assert_eq!(each(&events[1..], "op"), [source.created, source.created, source.created, source.replaced]);
    })
    .await;
}

/// The comparison on which conditional writes rely.
#[tokio::test]
async fn a_document_is_found_by_its_whole_content() {
    holds_for_both(async |source: Source| {
        let orders = source.orders().await;
        let odd = doc! { "_id": "a", "nested": { "$x": 1, "a.b": [1, 2.5] } };
        orders.insert_one(odd.clone()).await.unwrap();
        let same = |document: &Document| doc! { "_id": "a", "$expr": { "$eq": ["$$ROOT", { "$literal": document }] } };
        let other = doc! { "_id": "a", "nested": { "$x": 2 } };
        assert_eq!(orders.delete_one(same(&other)).await.unwrap().deleted_count, 0);
        assert_eq!(orders.find_one(same(&odd)).await.unwrap(), Some(odd.clone()));
        assert_eq!(orders.replace_one(same(&odd), doc! { "n": 1 }).await.unwrap().modified_count, 1);
        assert_eq!(orders.delete_one(same(&doc! { "_id": "a", "n": 1 })).await.unwrap().deleted_count, 1);
    })
    .await;
}
