//! An archive that has one version twice, with different texts.

use bson::{Document, doc};

use super::{
    back::{Back, found, orders},
    client, text,
};
use crate::support::mongo_server::MongoServer;

impl Back {
    /// Follows the whole database into an archive, from its checkpoint on. Returns the archive's folder.
    pub(super) async fn archive_database(&self) -> String {
        std::fs::create_dir_all(self.path("archive")).unwrap();
        let (archive, file) = (text(&self.path("archive")), text(&self.path("checkpoint.json")));
        let sink = format!("file:{archive}/events.jsonl");
        let to = ["--from", "beginning", "--until-caught-up", "--checkpoint-file", &file, "--sink", &sink];
        let args = [&["follow", "--source", &self.source, "--database", "shop"][..], &to].concat();
        assert_eq!(self.run_plain(&args).await.code, 0);
        archive
    }
}

/// Two followers may archive one collection in one folder, one of them without some fields. Which file is read first is
/// not known; a part must not be put back for the whole, nor hide it.
#[tokio::test]
async fn of_a_version_that_an_archive_has_twice_the_better_text_is_restored() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let follow = async |name: &str, more: &[&str]| {
        let (sink, file) = (format!("{name}.jsonl"), format!("{name}.json"));
        let (sink, file) = (format!("file:{}", text(&back.path(&sink))), text(&back.path(&file)));
        let named = ["--name", name, "--checkpoint-file", &file, "--sink", &sink, "--from", "now"];
        back.ends(0, &[&["follow", "--until-caught-up", "--poll", "50"], &named[..], more].concat()).await;
    };
    let followed = async || {
        follow("whole", &[]).await;
        follow("part", &["--redact", "/ssn"]).await;
    };
    followed().await;
    let document = doc! { "_id": "a", "ssn": "1", "n": 1 };
    orders.insert_one(&document).await.unwrap();
    followed().await;
    let at = crate::support::moment().await;
    let lines = |name: &str| std::fs::read_to_string(back.path(&format!("{name}.jsonl"))).unwrap();
    let (whole, part) = (lines("whole"), lines("part"));
    let version = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["version"].clone();
    assert_eq!(version(whole.trim()), version(part.trim()));
    for (name, both) in [("one", [&whole, &part]), ("two", [&part, &whole])] {
        std::fs::create_dir(back.path(name)).unwrap();
        std::fs::write(back.path(name).join("events.jsonl"), both.map(String::as_str).concat()).unwrap();
        orders.replace_one(doc! { "_id": "a" }, doc! { "n": 2 }).await.unwrap();
        let archive = text(&back.path(name));
        back.ends(0, &["restore", "--from-archive", &archive, "--all", "--at", &at, "--no-stamp", "--yes"]).await;
        assert_eq!(found(&orders, "a").await, Some(document.clone()), "{name}");
    }
}

/// Documents of two collections may share an id, and a container would take one for the other.
#[tokio::test]
async fn documents_of_two_collections_with_one_id_are_not_loaded_into_one_container() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let others = client(&back.source).await.database("shop").collection::<Document>("others");
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    others.insert_one(doc! { "_id": "a", "n": 2 }).await.unwrap();
    let archive = back.archive_database().await;
    let load = ["load", "--archive", &archive];
    let refused = back.run_plain(&load).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("shop.orders, shop.others"), "{refused:?}");
    // The document of the collection that is still there is not taken for one of the other, which is gone.
    others.drop().await.unwrap();
    back.archive_database().await;
    let loaded = back.run_plain(&load).await;
    assert!(loaded.code == 0 && loaded.stdout.contains("created    1"), "{loaded:?}");
}

/// The line still is JSON, so nothing but the fingerprint that was written with the document tells that it was altered.
#[tokio::test]
async fn an_altered_document_of_an_archive_is_not_restored() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    for id in ["a", "b"] {
        orders.insert_one(doc! { "_id": id, "n": 1 }).await.unwrap();
    }
    let archive = back.archive_database().await;
    let at = crate::support::moment().await;
    orders.update_many(doc! {}, doc! { "$set": { "n": 2 } }).await.unwrap();
    back.archive_database().await;
    let events = back.path("archive").join("events.jsonl");
    let text = std::fs::read_to_string(&events).unwrap();
    let altered = text.replacen(r#""n":{"$numberInt":"1"}"#, r#""n":{"$numberInt":"7"}"#, 1);
    assert_ne!(altered, text);
    std::fs::write(&events, altered).unwrap();
    let from = ["--from-archive", &archive, "--all", "--at", &at, "--no-stamp", "--yes"];
    let restored = back.ends(3, &[&["restore"][..], &from].concat()).await;
    assert!(restored.stderr.contains("1 restore") && restored.stderr.contains("1 unknown"), "{restored:?}");
    assert!(restored.stdout.contains("it does not have its etag"), "{restored:?}");
    let mut numbers: Vec<_> = Vec::new();
    for id in ["a", "b"] {
        numbers.push(found(&orders, id).await.unwrap().get_i32("n").unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
}
