//! Writes that nobody captured. A version of MongoDB does not name the one before, so nothing in a history looks missing.

use std::collections::BTreeMap;

use bson::doc;

use super::back::{Back, found, orders};
use crate::support::{moment, mongo_server::MongoServer};

const FOLLOW: [&str; 4] = ["follow", "--until-caught-up", "--poll", "50"];

/// How nobody captures: another follower takes over, or the same one passes on only what a filter lets through.
const WAYS: [&[&[&str]]; 2] = [
    &[&["--name", "second", "--from", "now"]],
    &[&["--name", "first", "--filter", "op == 'drop'"], &["--name", "first"]],
];

#[tokio::test]
async fn a_revert_leaves_a_document_alone_that_somebody_wrote_unseen() {
    let Some(server) = MongoServer::start() else { return };
    for way in WAYS {
        let back = Back::of(server.uri()).await;
        let orders = orders(&back.source).await;
        orders.drop().await.unwrap();
        for id in ["a", "b"] {
            orders.insert_one(doc! { "_id": id, "price": 1, "city": "Oslo", "by": "ann" }).await.unwrap();
        }
        back.ends(0, &[&FOLLOW[..], &["--name", "first", "--from", "beginning"]].concat()).await;
        moment().await;
        orders.replace_one(doc! { "_id": "a" }, doc! { "price": 1, "city": "Bergen", "by": "ann" }).await.unwrap();
        for more in way {
            back.ends(0, &[&FOLLOW[..], more].concat()).await;
        }
        let from = moment().await;
        for (id, city) in [("a", "Bergen"), ("b", "Oslo")] {
            orders.replace_one(doc! { "_id": id }, doc! { "price": -1, "city": city, "by": "job" }).await.unwrap();
        }
        back.ends(0, &[&FOLLOW[..], &way[way.len() - 1][..2]].concat()).await;
        let revert = ["revert", "--from", &from, "--to", "now", "--filter", "doc.by == \"job\"", "--yes"];
        let reverted = back.ends(3, &revert).await;
        assert!(reverted.stdout.contains("unknown  a "), "{way:?}: {reverted:?}");
        assert_eq!(found(&orders, "a").await.unwrap().get_str("city").unwrap(), "Bergen", "{way:?}");
        back.run(&[&revert[..], &["--id", "b", "--pk", "b", "--assume-no-gaps"]].concat()).await;
        assert_eq!(found(&orders, "b").await.unwrap().get_i32("price").unwrap(), 1, "{way:?}");
    }
}

/// An update that was read late has the text of a later one, whose changes nobody may take for its own.
#[tokio::test]
async fn a_revert_does_not_take_a_later_writers_change_for_that_of_an_update_that_was_looked_up() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    for id in ["a", "b", "c"] {
        orders.insert_one(doc! { "_id": id, "price": 1, "city": "Oslo" }).await.unwrap();
    }
    back.capture().await;
    orders.update_one(doc! { "_id": "c" }, doc! { "$set": { "city": "Bergen" } }).await.unwrap();
    let from = moment().await;
    orders.update_many(doc! {}, doc! { "$set": { "price": -1 } }).await.unwrap();
    let to = moment().await;
    orders.update_one(doc! { "_id": "a" }, doc! { "$set": { "city": "Bergen" } }).await.unwrap();
    back.capture().await;
    let reverted = back.ends(3, &["revert", "--from", &from, "--to", &to, "--yes"]).await;
    for id in ["a", "c"] {
        assert_eq!(
            found(&orders, id).await.unwrap(),
            doc! { "_id": id, "price": -1, "city": "Bergen" },
            "{reverted:?}"
        );
    }
    assert_eq!(found(&orders, "b").await.unwrap(), doc! { "_id": "b", "price": 1, "city": "Oslo" }, "{reverted:?}");
    assert_eq!(reverted.stdout.matches("was looked up after the next one").count(), 2, "{reverted:?}");
    assert!(reverted.stdout.contains("may be of a later one"), "{reverted:?}");
}

/// Such a text does not tell who wrote it, either.
#[tokio::test]
async fn a_filter_has_no_answer_about_an_update_that_was_looked_up_after_the_next_one() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    for id in ["a", "b"] {
        orders.insert_one(doc! { "_id": id, "price": 1, "city": "Oslo", "by": "ann" }).await.unwrap();
    }
    back.capture().await;
    let from = moment().await;
    for (id, [first, second]) in [("a", ["ann", "job"]), ("b", ["job", "ann"])] {
        for by in [first, second] {
            let field = if by == "ann" {
                doc! { "city": "Bergen", "by": by }
            } else {
                doc! { "price": -1, "by": by }
            };
            orders.update_one(doc! { "_id": id }, doc! { "$set": field }).await.unwrap();
        }
    }
    back.capture().await;
    let revert = ["revert", "--from", &from, "--to", "now", "--filter", "doc.by == \"job\"", "--yes"];
    let reverted = back.ends(3, &revert).await;
    for id in ["a", "b"] {
        assert_eq!(found(&orders, id).await.unwrap().get_str("city").unwrap(), "Bergen", "{id}: {reverted:?}");
    }
    assert!(reverted.stderr.contains("--filter has no answer about 2 writes"), "{reverted:?}");
}

#[tokio::test]
async fn a_document_that_was_made_again_unseen_is_not_taken_for_deleted() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    back.ends(0, &[&FOLLOW[..], &["--name", "first", "--from", "beginning"]].concat()).await;
    orders.delete_one(doc! { "_id": "a" }).await.unwrap();
    orders.insert_one(doc! { "_id": "b", "n": 1 }).await.unwrap();
    back.ends(0, &[&FOLLOW[..], &["--name", "first"]].concat()).await;
    moment().await;
    orders.insert_one(doc! { "_id": "a", "n": 2 }).await.unwrap();
    for more in WAYS[1] {
        back.ends(0, &[&FOLLOW[..], more].concat()).await;
    }
    moment().await;
    orders.insert_one(doc! { "_id": "c", "n": 1 }).await.unwrap();
    back.ends(0, &[&FOLLOW[..], &["--name", "first"]].concat()).await;
    let at = moment().await;
    let plan = back.ends(3, &["restore", "--id", "a", "--at", &at, "--delete-newer=1", "--yes"]).await;
    assert!(plan.stdout.contains("the history does not say since when"), "{plan:?}");
    assert!(found(&orders, "a").await.is_some());
    let shown = back.ends(1, &["show", "--id", "a", "--at", &at]).await;
    assert!(shown.stderr.contains("warning"), "{shown:?}");
    let saved = back.ends(3, &["backup", "--all", "--at", &at, "--out", "backup.jsonl"]).await;
    assert!(saved.stdout.contains("unknown    1"), "{saved:?}");

    // A document that is made now waits to be captured, so it was not there at the moment.
    orders.delete_one(doc! { "_id": "b" }).await.unwrap();
    back.ends(0, &[&FOLLOW[..], &["--name", "first"]].concat()).await;
    let at = moment().await;
    orders.insert_one(doc! { "_id": "b", "n": 2 }).await.unwrap();
    back.ends(0, &["restore", "--id", "b", "--at", &at, "--delete-newer=1", "--yes"]).await;
    assert!(found(&orders, "b").await.is_none());
}

/// What did not pass may have changed a document, or deleted it and made it again.
#[tokio::test]
async fn a_version_that_passed_a_filter_is_not_known_to_have_stayed_in_force() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let filter = [&FOLLOW[..], &["--from", "beginning", "--filter", "op in ['create', 'delete']"]].concat();
    for id in ["changed", "again", "same"] {
        orders.insert_one(doc! { "_id": id, "n": 1 }).await.unwrap();
    }
    back.ends(0, &filter).await;
    orders.insert_one(doc! { "_id": "passed", "n": 1 }).await.unwrap();
    orders.insert_one(doc! { "_id": "stays", "n": 1 }).await.unwrap();
    orders.delete_many(doc! { "_id": "again" }).await.unwrap();
    back.ends(0, &filter).await;
    moment().await;
    orders.replace_one(doc! { "_id": "passed" }, doc! { "n": 2 }).await.unwrap();
    orders.insert_one(doc! { "_id": "again", "n": 2 }).await.unwrap();
    let at = moment().await;
    orders.delete_one(doc! { "_id": "again" }).await.unwrap();
    back.ends(0, &[&FOLLOW[..], &["--filter", "false"]].concat()).await;
    moment().await;
    orders.insert_one(doc! { "_id": "later", "n": 1 }).await.unwrap();
    back.capture().await;
    let now = moment().await;
    let plan = async |at: &str, code| {
        let args = ["restore", "--all", "--at", at, "--delete-newer", "--dry-run", "--format", "csv"];
        let plan = back.ends(code, &args).await;
        let rows = plan.stdout.lines().map(|row| row.split(',').map(str::to_owned).collect::<Vec<_>>());
        rows.map(|row| (row[1].clone(), row[0].clone())).collect::<BTreeMap<_, _>>()
    };
    let then = plan(&at, 3).await;
    for id in ["passed", "again", "stays"] {
        assert_eq!(then[id], "unknown", "{id}: {then:?}");
    }
    for id in ["passed", "again"] {
        let shown = back.run(&["show", "--id", id, "--at", &at]).await;
        assert!(shown.stderr.contains("only what passed a filter is in the history"), "{id}: {shown:?}");
    }
    // What is live now, and was not changed since every change is captured, is known again.
    let today = plan(&now, 3).await;
    assert_eq!((today["stays"].as_str(), today["passed"].as_str()), ("keep", "unknown"), "{today:?}");
}
