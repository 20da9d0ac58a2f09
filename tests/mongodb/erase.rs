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

/// Under another spelling nothing is found, and that must not look as if nothing were left.
#[tokio::test]
async fn an_id_that_is_spelled_as_no_document_is_known_is_refused_with_the_right_spelling() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let id = bson::oid::ObjectId::parse_str("abcdef0123456789abcdef01").unwrap();
    orders.insert_one(doc! { "_id": id }).await.unwrap();
    orders.insert_one(doc! { "_id": 5 }).await.unwrap();
    back.capture().await;
    orders.delete_many(doc! {}).await.unwrap();
    back.capture().await;
    let known = id.to_hex();
    for (id, right) in [(known.to_uppercase().as_str(), known.as_str()), ("5.0", "5"), ("\"x\"", "x")] {
        let output = back.ends(2, &["erase", "--id", id, "--pk", right, "--yes"]).await;
        assert!(output.stderr.contains(&format!("--id={right}:")), "{output:?}");
    }
    for id in [known.as_str(), "5"] {
        let output =
            back.ends(0, &["erase", "--id", id, "--pk", id, "--settle", "1s", "--yes", "--format", "json"]).await;
        assert_eq!(output.lines()[0]["versions"], 2, "{output:?}");
    }
}

/// The text of such an `_id` is in quotes, and a key in quotes is the text between them. The journal of the restore must
/// not be changed for a document that nobody has.
#[tokio::test]
async fn a_key_that_no_document_with_this_id_can_have_is_refused_with_the_right_one() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    orders.insert_one(doc! { "_id": "12", "n": 1 }).await.unwrap();
    back.capture().await;
    let at = crate::support::moment().await;
    orders.replace_one(doc! { "_id": "12" }, doc! { "n": 2 }).await.unwrap();
    back.capture().await;
    back.ends(0, &["restore", "--all", "--at", &at, "--yes"]).await;
    back.capture().await;
    let erase = ["erase", "--id", r#""12""#, "--settle", "1s", "--yes", "--format", "json", "--pk"];
    let refused = back.ends(2, &[&erase[..], &[r#""12""#]].concat()).await;
    assert!(refused.stderr.contains(r#"--pk '["\"12\""]'"#), "{refused:?}");
    let receipt = &back.ends(0, &[&erase[..], &[r#"["\"12\""]"#]].concat()).await.lines()[0];
    assert_eq!((&receipt["versions"], &receipt["journals"], &receipt["left"]), (&3.into(), &2.into(), &0.into()));
}
