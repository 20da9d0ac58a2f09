//! Restores into MongoDB. The expected state of the collection comes from the writer's own log and the driver.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bson::{Document, doc, oid::ObjectId};
use mongodb::Collection;

use super::{Work, client, of, python, text, write};
use crate::support::{Output, TestApp, eventually, mongo_ru::MongoRu, mongo_server::MongoServer};

/// A collection, the account with its history, and a folder for files.
pub struct Back {
    app: TestApp,
    pub source: String,
    work: Work,
}

impl Back {
    pub async fn of(source: String) -> Self {
        Self { app: TestApp::with_changes_key(&["/_originalId"]).await, source, work: Work::new() }
    }

    pub async fn run(&self, command: &[&str]) -> Output {
        let (name, more) = command.split_first().unwrap();
        self.app.run(&[&[*name, "--source", &self.source], &of("shop", "orders")[..], more].concat()).await
    }

    pub async fn leases(&self) -> cosmos_rewind::cosmos::Container {
        self.app.cosmos.container("dev", "leases").await.unwrap()
    }

    /// Runs a command with only these arguments.
    pub async fn run_plain(&self, command: &[&str]) -> Output {
        self.app.run(command).await
    }

    /// Like [`Self::run`]; asserts the exit code.
    pub async fn ends(&self, code: i32, command: &[&str]) -> Output {
        let output = self.run(command).await;
        assert_eq!(output.code, code, "{command:?}: {output:?}");
        output
    }

    /// Captures the whole collection.
    pub async fn capture(&self) {
        self.ends(0, &["follow", "--from", "beginning", "--until-caught-up", "--poll", "50"]).await;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.work.path(name)
    }

    /// The folder and the settings of the commands.
    pub fn folder(&self) -> &Path {
        self.app.folder.path()
    }

    pub fn settings(&self) -> Vec<(String, String)> {
        self.app.settings()
    }
}

/// The restore's id in the printed undo command.
pub fn undo_of(output: &Output) -> String {
    let line = output.stderr.lines().find(|line| line.starts_with("undo ")).unwrap_or_else(|| panic!("{output:?}"));
    line.split_whitespace().nth(3).unwrap().to_owned()
}

pub async fn orders(source: &str) -> Collection<Document> {
    client(source).await.database("shop").collection("orders")
}

pub async fn found(orders: &Collection<Document>, id: &str) -> Option<Document> {
    orders.find_one(doc! { "_id": id }).await.unwrap()
}

#[tokio::test]
async fn documents_of_every_type_are_restored_and_undone_byte_for_byte() {
    let Some(server) = MongoServer::start_with(&["--oplog-max-entries", "1000000"]) else { return };
    let back = Back::of(server.uri()).await;
    let (then, now) = (back.path("then.jsonl"), back.path("now.jsonl"));
    write(&server, ("shop", "orders"), &now, 250, 11).await;
    back.capture().await;
    std::fs::copy(&now, &then).unwrap();
    let at = crate::support::moment().await;
    write(&server, ("shop", "orders"), &now, 250, 12).await;
    back.capture().await;
    let is_as = async |log: &PathBuf| python("check_state.py", &[&server.uri(), "shop", "orders", &text(log)]).await;
    is_as(&now).await;
    let restore = ["restore", "--all", "--at", &at, "--delete-newer=300", "--no-stamp", "--yes"];
    let output = back.ends(0, &restore).await;
    is_as(&then).await;
    // A second restore has nothing to do.
    let again = back.ends(0, &restore).await;
    assert!(again.stderr.contains("nothing to write"), "{again:?}");
    back.ends(0, &["undo", &undo_of(&output), "--yes"]).await;
    is_as(&now).await;
}

#[tokio::test]
async fn a_document_changed_after_the_plan_is_a_conflict_and_stays() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    for id in ["a", "b", "c"] {
        orders.insert_one(doc! { "_id": id, "n": 1 }).await.unwrap();
    }
    back.capture().await;
    let at = crate::support::moment().await;
    orders.update_many(doc! {}, doc! { "$set": { "n": 2 } }).await.unwrap();
    back.capture().await;
    let plan = text(&back.path("plan.jsonl"));
    back.ends(0, &["restore", "--all", "--at", &at, "--plan-out", &plan, "--no-stamp", "--dry-run"]).await;
    // The same number with another BSON type is a different document; another document is deleted.
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 2_i64 }).await.unwrap();
    orders.delete_one(doc! { "_id": "b" }).await.unwrap();
    let output = back.ends(3, &["restore", "--plan", &plan, "--yes"]).await;
    assert!(output.stderr.contains("1 written") && output.stderr.contains("2 conflicts"), "{output:?}");
    assert_eq!(found(&orders, "a").await, Some(doc! { "_id": "a", "n": 2_i64 }));
    assert_eq!(found(&orders, "b").await, None);
    assert_eq!(found(&orders, "c").await, Some(doc! { "_id": "c", "n": 1 }));
}

/// Servers accept such names in an insert, but not in a replacement.
#[tokio::test]
async fn a_document_with_dollar_names_is_restored_and_undone() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let then = doc! { "_id": "a", "n": 1_i64, "$ref": "x", "$price.in": { "$eur": 1.0 }, "$$ROOT": [-0.0] };
    orders.insert_one(&then).await.unwrap();
    back.capture().await;
    let at = crate::support::moment().await;
    orders.delete_one(doc! { "_id": "a" }).await.unwrap();
    let now = doc! { "_id": "a", "n": 2, "$now": "$n" };
    orders.insert_one(&now).await.unwrap();
    back.capture().await;
    let output = back.ends(0, &["restore", "--all", "--at", &at, "--no-stamp", "--yes"]).await;
    assert_eq!(found(&orders, "a").await, Some(then));
    back.ends(0, &["undo", &undo_of(&output), "--yes"]).await;
    assert_eq!(found(&orders, "a").await, Some(now));
}

/// To MongoDB the same members in another order are another value: no query for the one finds the other.
#[tokio::test]
async fn the_order_of_members_is_restored() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let then = [
        doc! { "_id": "top", "a": 1, "b": 2 },
        doc! { "_id": "within", "in": { "a": 1, "b": 2 } },
        doc! { "_id": "element", "in": [{ "a": 1, "b": 2 }] },
    ];
    let now = [
        doc! { "_id": "top", "b": 2, "a": 1 },
        doc! { "_id": "within", "in": { "b": 2, "a": 1 } },
        doc! { "_id": "element", "in": [{ "b": 2, "a": 1 }] },
    ];
    orders.insert_many(&then).await.unwrap();
    back.capture().await;
    let at = crate::support::moment().await;
    for document in &now {
        orders.replace_one(doc! { "_id": document.get("_id").unwrap() }, document).await.unwrap();
    }
    back.capture().await;
    let is = async |expected: &[Document; 3]| {
        for document in expected {
            let id = document.get_str("_id").unwrap();
            assert_eq!(found(&orders, id).await.map(|found| format!("{found}")), Some(format!("{document}")));
        }
    };
    let plan = text(&back.path("plan.jsonl"));
    let dry = back.ends(0, &["restore", "--all", "--at", &at, "--no-stamp", "--plan-out", &plan, "--dry-run"]).await;
    assert_eq!(dry.stdout.matches("the same members in another order").count(), 3, "{dry:?}");
    let output = back.ends(0, &["restore", "--plan", &plan, "--yes"]).await;
    is(&then).await;
    let again = back.ends(0, &["restore", "--all", "--at", &at, "--yes"]).await;
    assert!(again.stderr.contains("nothing to write"), "{again:?}");
    back.ends(0, &["undo", &undo_of(&output), "--yes"]).await;
    is(&now).await;
}

#[tokio::test]
async fn one_actors_writes_are_reverted_and_all_others_stay() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let id = ObjectId::new();
    orders.insert_one(doc! { "_id": id, "price": 10, "city": "Oslo", "id": "own" }).await.unwrap();
    orders.insert_one(doc! { "_id": 7, "price": 1.5, "tags": ["x"] }).await.unwrap();
    back.capture().await;
    let at = crate::support::moment().await;
    orders.update_many(doc! {}, doc! { "$set": { "price": -1_i64, "by": "job-42" } }).await.unwrap();
    back.capture().await;
    orders.update_one(doc! { "_id": id }, doc! { "$set": { "city": "Bergen", "by": "ann" } }).await.unwrap();
    back.capture().await;
    let output = back.ends(0, &["find", "--when", "doc.price < 0", "--format", "jsonl"]).await;
    let mut lines = output.lines();
    lines.sort_by_key(|line| line["id"].to_string());
    let ids: Vec<_> = lines.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        ids,
        [id.to_hex(), "7".to_owned()]
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    let revert =
        ["revert", "--from", &at, "--to", "now", "--filter", "doc.by == \"job-42\"", "--bookkeeping", "/by", "--yes"];
    back.ends(0, &revert).await;
    let now = orders.find_one(doc! { "_id": id }).await.unwrap().unwrap();
    assert_eq!(now, doc! { "_id": id, "price": 10, "city": "Bergen", "id": "own", "by": "ann" });
    let seven = orders.find_one(doc! { "_id": 7 }).await.unwrap().unwrap();
    assert_eq!((seven.get_f64("price").ok(), seven.get("by")), (Some(1.5), None));
}

#[tokio::test]
async fn the_output_of_find_is_restored_from_the_history_or_an_archive() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    orders.insert_one(doc! { "_id": "b", "n": 1 }).await.unwrap();
    std::fs::create_dir(back.path("archive")).unwrap();
    let sink = format!("file:{}", text(&back.path("archive/events.jsonl")));
    let archive = async || {
        let args = ["follow", "--name", "archive", "--sink", &sink, "--from", "beginning", "--until-caught-up"];
        back.ends(0, &args).await;
    };
    back.capture().await;
    archive().await;
    let at = crate::support::moment().await;
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": -1 }).await.unwrap();
    // Nothing of the archive's other collection is restored here.
    back.capture().await;
    archive().await;
    let list = back.ends(0, &["find", "--when", "doc.n < 0", "--format", "jsonl"]).await.stdout;
    let ids = back.path("ids.jsonl");
    std::fs::write(&ids, list).unwrap();
    let output = back.ends(0, &["restore", "--ids-file", &text(&ids), "--no-stamp", "--yes"]).await;
    assert_eq!(found(&orders, "a").await, Some(doc! { "_id": "a", "n": 1 }));
    back.ends(0, &["undo", &undo_of(&output), "--yes"]).await;
    assert_eq!(found(&orders, "a").await, Some(doc! { "_id": "a", "n": -1 }));
    let from = text(&back.path("archive"));
    let restore = ["restore", "--from-archive", &from, "--id", "a", "--at", &at, "--no-stamp", "--yes"];
    back.ends(0, &restore).await;
    assert_eq!(found(&orders, "a").await, Some(doc! { "_id": "a", "n": 1 }));
}

#[tokio::test]
async fn a_killed_restore_is_undone_as_far_as_it_went() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let documents = (0..300).map(|n| doc! { "_id": n, "v": 1 });
    orders.insert_many(documents).await.unwrap();
    back.capture().await;
    let at = crate::support::moment().await;
    orders.update_many(doc! {}, doc! { "$set": { "v": 2 } }).await.unwrap();
    back.capture().await;
    let restore = ["--all", "--at", &at, "--concurrency", "2", "--yes", "--source", &back.source];
    let running = back.app.start_program(&[&["restore"], &restore[..], &of("shop", "orders")].concat());
    let count = async |filter: Document| orders.count_documents(filter).await.unwrap();
    eventually("it has written something", async || (count(doc! { "v": 1 }).await > 5).then_some(())).await;
    running.kill().await;
    assert!(count(doc! { "v": 2 }).await > 0, "it was killed in the middle");
    let list = back.ends(0, &["undo", "--list", "--format", "json"]).await;
    let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let id = list[0]["restore"].as_str().unwrap().to_owned();
    back.ends(0, &["undo", &id, "--yes"]).await;
    assert_eq!((count(doc! { "v": 2 }).await, count(doc! { "restored_at": { "$exists": true } }).await), (300, 0));
}

/// A server without transactions compares the whole document as part of the write.
#[tokio::test]
async fn a_server_of_the_ru_dialect_is_restored_into() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 2);
    for n in 0..5 {
        server.put("shop", "orders", &doc! { "_id": n, "customer": format!("c-{n}"), "v": 1 });
    }
    let back = Back::of(server.uri()).await;
    back.capture().await;
    let at = crate::support::moment().await;
    for n in 0..5 {
        server.put("shop", "orders", &doc! { "_id": n, "customer": format!("c-{n}"), "v": 2 });
    }
    back.capture().await;
    let output = back.ends(0, &["restore", "--all", "--at", &at, "--no-stamp", "--yes"]).await;
    let orders = orders(&back.source).await;
    let three = async || orders.find_one(doc! { "_id": 3 }).await.unwrap();
    assert_eq!(three().await, Some(doc! { "_id": 3, "customer": "c-3", "v": 1 }));
    server.put("shop", "orders", &doc! { "_id": 4, "customer": "c-4", "v": 3 });
    let undo = back.ends(3, &["undo", &undo_of(&output), "--yes"]).await;
    assert!(undo.stderr.contains("1 conflict"), "{undo:?}");
    assert_eq!(three().await, Some(doc! { "_id": 3, "customer": "c-3", "v": 2 }));
}

#[tokio::test]
async fn a_command_without_mongodb_support_says_so() {
    let app = TestApp::start().await;
    let output = app.run(&["status", "--source", "mongodb://user:sEcRet@127.0.0.1:1/"]).await;
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stderr.contains("MongoDB") && !output.stderr.contains("sEcRet"), "{output:?}");
    let output = app.run(&["show", "--id", "a", "--collection", "x"]).await;
    assert!(output.code == 2 && output.stderr.contains("--collection"), "{output:?}");
}

#[tokio::test]
async fn verify_prune_and_erase_work_on_a_mongodb_history() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    for id in ["a", "b"] {
        orders.insert_one(doc! { "_id": id, "n": 1 }).await.unwrap();
    }
    back.capture().await;
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 2 }).await.unwrap();
    back.capture().await;
    // Repeated content is the newest version, not the version that had it first.
    for n in [3, 2] {
        orders.replace_one(doc! { "_id": "a" }, doc! { "n": n }).await.unwrap();
        back.capture().await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    back.ends(0, &["verify", "--grace", "1s"]).await;
    back.ends(0, &["coverage"]).await;
    back.ends(0, &["prune", "--keep-within", "1d", "--yes"]).await;
    // Another spelling or another key addresses no document: the live document has a history under its own name.
    for (id, pk, code) in [("\"a\"", "\"a\"", 2), ("\"a\"", "a", 2), ("a", "b", 2)] {
        back.ends(code, &["erase", "--id", id, "--pk", pk, "--live", "--settle", "1s", "--yes"]).await;
        assert!(found(&orders, "a").await.is_some(), "{id} {pk}");
    }
    back.ends(0, &["erase", "--id", "a", "--pk", "a", "--live", "--settle", "1s", "--yes"]).await;
    assert_eq!((found(&orders, "a").await, found(&orders, "b").await.is_some()), (None, true));
    let left = back.app.history().await;
    assert!(left.iter().all(|record| record["_originalId"] != "a"), "{left:?}");
    // An uncaptured document is reported as missing, and can be saved.
    orders.insert_one(doc! { "_id": "c", "n": 1 }).await.unwrap();
    let output = back.ends(3, &["verify", "--grace", "1s"]).await;
    assert!(output.stdout.contains("missing"), "{output:?}");
}

/// The largest document that a server accepts. Its event contains it twice, as text and as bytes.
#[tokio::test]
async fn a_document_of_16_mb_is_read_back_from_an_archive() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let bytes = (0..15_900_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let data = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes };
    let large = doc! { "_id": "large", "data": data };
    orders.insert_one(&large).await.unwrap();
    std::fs::create_dir(back.path("archive")).unwrap();
    let archive = text(&back.path("archive"));
    let sink = format!("file:{archive}/events.jsonl");
    back.ends(0, &["follow", "--name", "archive", "--sink", &sink, "--from", "beginning", "--until-caught-up"]).await;
    let at = crate::support::moment().await;
    orders.replace_one(doc! { "_id": "large" }, doc! { "n": 1 }).await.unwrap();
    let restore = ["restore", "--from-archive", &archive, "--all", "--at", &at, "--no-stamp", "--yes"];
    back.ends(0, &restore).await;
    assert!(found(&orders, "large").await == Some(large), "the document differs");
}

#[tokio::test]
async fn a_history_of_another_collection_is_not_restored_into_this_one() {
    let Some(server) = MongoServer::start_with(&["--oplog-max-entries", "1000000"]) else { return };
    let back = Back::of(server.uri()).await;
    orders(&back.source).await.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    back.capture().await;
    let other = ["--source", &back.source, "--database", "shop", "--collection", "customers"];
    let refused = back.app.run(&[&["restore"], &other[..], &["--all", "--at", "now", "--yes"]].concat()).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("is the history of shop.orders, not of shop.customers"), "{refused:?}");
    let follow = [&["follow"], &other[..], &["--name", "second", "--until-caught-up"]].concat();
    let mixed = back.app.run(&follow).await;
    assert_eq!(mixed.code, 2, "{mixed:?}");
    assert!(mixed.stderr.contains("the history is of shop.orders, not of shop.customers"), "{mixed:?}");
    // Restoring into another collection has to be requested.
    back.ends(0, &["restore", "--all", "--at", "now", "--into", "customers", "--yes"]).await;
    // An empty name is not a name, and a missing collection does not mean all collections.
    for empty in [&["--database", ""][..], &["--database", "shop", "--collection", " "]] {
        let follow =
            [&["follow", "--source", &back.source], empty, &["--sink", "stdout", "--until-caught-up"]].concat();
        let refused = back.app.run(&follow).await;
        assert!(refused.code == 2 && refused.stderr.contains("is empty"), "{refused:?}");
    }
    let shared = back.ends(2, &["follow", "--feed-range", "1/2", "--sink", "stdout"]).await;
    assert!(shared.stderr.contains("cannot be shared"), "{shared:?}");
    let strange = back.ends(2, &["follow", "--dialect", "oracle", "--sink", "stdout"]).await;
    assert!(strange.stderr.contains("\"oracle\" is not a kind of server"), "{strange:?}");
}
