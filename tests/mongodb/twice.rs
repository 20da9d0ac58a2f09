//! An archive that has one version twice, with different texts.

use bson::doc;

use super::{
    back::{Back, found, orders},
    text,
};
use crate::support::mongo_server::MongoServer;

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
