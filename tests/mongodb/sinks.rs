//! The sinks of a MongoDB source other than files.

use bson::{Document, RawDocumentBuf, doc, raw::cstr};
use serde_json::Value;

use super::{back::Back, client, each, of, ops, settings};
use crate::support::{TestApp, mongo_ru::MongoRu, mongo_server::MongoServer, peers::Azurite, run};

async fn orders(server: &MongoServer) -> mongodb::Collection<Document> {
    client(&server.uri()).await.database("shop").collection("orders")
}

/// Three changes to two documents.
async fn changes(orders: &mongodb::Collection<Document>) {
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    orders.insert_one(doc! { "_id": 7, "n": 2 }).await.unwrap();
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 3 }).await.unwrap();
}

fn args<'a>(source: &'a str, sink: &'a str) -> Vec<&'a str> {
    let follow = ["follow", "--source", source, "--from", "now", "--until-caught-up", "--poll", "50"];
    [&follow[..], &of("shop", "orders"), &["--sink", sink, "--checkpoint-file", "checkpoint.json"]].concat()
}

#[tokio::test]
async fn stdout_has_a_line_for_every_change() {
    let Some(server) = MongoServer::start() else { return };
    let (folder, source) = (tempfile::tempdir().unwrap(), server.uri());
    let follow = async || run(folder.path(), &args(&source, "stdout"), &settings(), "").await;
    let orders = orders(&server).await;
    assert_eq!(follow().await.code, 0);
    changes(&orders).await;
    let output = follow().await;
    assert_eq!((output.code, ops(&output.lines())), (0, vec![("create", "a"), ("create", "7"), ("replace", "a")]));
    assert_eq!(follow().await.stdout, "");
}

#[tokio::test]
async fn a_container_of_blobs_has_every_version() {
    let (Some(server), Some(azurite)) = (MongoServer::start(), Azurite::start()) else { return };
    azurite.create("versions").await;
    let (folder, source) = (tempfile::tempdir().unwrap(), server.uri());
    let sink = format!("blob:{}", azurite.container("versions"));
    let follow = async || run(folder.path(), &args(&source, &sink), &settings(), "").await;
    let orders = orders(&server).await;
    let output = follow().await;
    assert_eq!(output.code, 0, "{output:?}");
    changes(&orders).await;
    let output = follow().await;
    assert_eq!(output.code, 0, "{output:?}");
    let http = crate::support::http_client();
    let list = format!("{}&restype=container&comp=list", azurite.container("versions"));
    let answer = http.get(list).header("x-ms-version", "2021-12-02").send().await.unwrap().text().await.unwrap();
    assert_eq!(answer.matches("<Blob>").count(), 3, "{answer}");
}

#[tokio::test]
async fn the_history_has_every_version() {
    let Some(server) = MongoServer::start() else { return };
    let app = TestApp::with_changes_key(&["/_originalId"]).await;
    let source = server.uri();
    let orders = orders(&server).await;
    // The settings name the history's account; the database and the collection are the source's.
    let follow = async || app.run(&args(&source, "changes")).await;
    let output = follow().await;
    assert_eq!(output.code, 0, "{output:?}");
    changes(&orders).await;
    let output = follow().await;
    assert_eq!(output.code, 0, "{output:?}");
    let history = app.history().await;
    let mut ids = each(&history, "_originalId");
    ids.sort_unstable();
    assert_eq!(ids, ["7", "a", "a"]);
}

#[tokio::test]
async fn redacted_fields_are_in_no_field_of_an_event() {
    let Some(server) = MongoServer::start() else { return };
    let (folder, source) = (tempfile::tempdir().unwrap(), server.uri());
    let orders = orders(&server).await;
    let document = doc! { "_id": "a", "ssn": "SECRET", "n": 1 };
    orders.insert_one(&document).await.unwrap();
    let mut args = args(&source, "stdout");
    args.extend(["--redact", "/ssn"]);
    let place = args.iter().position(|word| *word == "now").unwrap();
    args[place] = "beginning";
    let first = run(folder.path(), &args, &settings(), "").await;
    orders.update_one(doc! { "_id": "a" }, doc! { "$set": { "n": 2 } }).await.unwrap();
    let second = run(folder.path(), &args, &settings(), "").await;
    let lines = [first.lines(), second.lines()].concat();
    assert_eq!(ops(&lines), [("baseline", "a"), ("update", "a")], "{second:?}");
    let print = cosmos_rewind::bson_text::fingerprint(bson::RawDocumentBuf::try_from(&document).unwrap().as_bytes());
    for line in &lines {
        let text = line.to_string();
        assert!(!text.contains("SECRET") && !text.contains(print.trim_matches('"')), "{text}");
        assert!(line.get("bson").is_none() && line.get("etag").is_none() && line["partial"]["dropped"][0] == "/ssn");
    }
}

/// When the document of an update is gone, its event has the previous document instead, and changed paths can contain
/// field names. Redacted values must be in neither.
#[tokio::test]
async fn redacted_fields_are_not_in_previous_images_or_paths() {
    let Some(server) = MongoServer::start() else { return };
    let (folder, source) = (tempfile::tempdir().unwrap(), server.uri());
    let database = client(&server.uri()).await.database("shop");
    let images = doc! { "create": "orders", "changeStreamPreAndPostImages": { "enabled": true } };
    database.run_command(images).await.unwrap();
    let orders = database.collection::<Document>("orders");
    let args = [&args(&source, "stdout")[..], &["--redact", "/ssn", "--redact", "/mails"]].concat();
    let follow = async || run(folder.path(), &args, &settings(), "").await;
    assert_eq!(follow().await.code, 0);
    for id in ["gone", "stays"] {
        orders.insert_one(doc! { "_id": id, "ssn": "SECRET", "mails": { "SECRET": 1 }, "n": 1 }).await.unwrap();
    }
    assert_eq!(follow().await.code, 0);
    orders.update_many(doc! {}, doc! { "$set": { "n": 2 }, "$unset": { "mails.SECRET": 1 } }).await.unwrap();
    orders.delete_one(doc! { "_id": "gone" }).await.unwrap();
    let output = follow().await;
    assert_eq!(output.code, 0, "{output:?}");
    let lines = output.lines();
    let bare = lines.iter().find(|line| line["op"] == "update" && line["doc"].is_null()).expect("a bare update");
    assert!(bare["previous"]["n"].is_object() && bare["partial"]["dropped"][0] == "/ssn", "{bare}");
    for line in &lines {
        assert!(!line.to_string().contains("SECRET"), "{line}");
    }
    let changed = lines.iter().find(|line| line["op"] == "update").unwrap()["changed"].to_string();
    assert!(changed.contains("\"/mails\"") && changed.contains("\"/n\""), "{changed}");
    let refused = run(folder.path(), &[&args[..], &["--redact", "/_id/ssn"]].concat(), &settings(), "").await;
    assert!(refused.code == 2 && refused.stderr.contains("/_id"), "{refused:?}");
}

/// A member whose name means something here has another name in the text. It is redacted and kept under its own.
#[tokio::test]
async fn a_member_is_redacted_and_kept_by_its_own_name_whatever_its_text_calls_it() {
    let Some(server) = MongoServer::start() else { return };
    let source = server.uri();
    let orders = orders(&server).await;
    let secrets = ["~x", "_originalId", "$bson", "~"];
    let mut document = doc! { "_id": "a", "n": 1 };
    document.extend(secrets.map(|name| (name.to_owned(), doc! { "part": "SECRET" }.into())));
    let mut redact: Vec<String> = secrets.iter().flat_map(|name| ["--redact".into(), format!("/{name}")]).collect();
    redact.truncate(7);
    redact.push("/~/part".into());
    let only = secrets.map(|name| format!("/{name}")).join(",");
    for (shape, told) in [(redact.as_slice(), 0), (&["--fields".into(), only], 4)] {
        let folder = tempfile::tempdir().unwrap();
        let args: Vec<&str> = args(&source, "stdout").into_iter().chain(shape.iter().map(String::as_str)).collect();
        let follow = async || run(folder.path(), &args, &settings(), "").await;
        assert_eq!(follow().await.code, 0);
        orders.insert_one(&document).await.unwrap();
        let output = follow().await;
        assert_eq!((output.code, ops(&output.lines())), (0, vec![("create", "a")]), "{output:?}");
        assert_eq!(output.stdout.matches("SECRET").count(), told, "{output:?}");
        orders.delete_one(doc! { "_id": "a" }).await.unwrap();
    }
}

/// Nothing in such a record says which document it is a part of.
#[tokio::test]
async fn of_documents_that_are_redacted_verify_and_backup_say_that_only_a_part_is_known() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&server).await;
    orders.insert_one(doc! { "_id": "a", "ssn": "SECRET", "n": 1 }).await.unwrap();
    let follow = ["follow", "--from", "beginning", "--redact", "/ssn", "--until-caught-up", "--poll", "50"];
    back.ends(0, &follow).await;
    let at = crate::support::moment().await;
    let output = back.ends(3, &["verify", "--grace", "0s", "--format", "json"]).await;
    let checks: Value = serde_json::from_str(&output.stdout).unwrap();
    let mut checks = checks["checks"].as_array().unwrap().iter();
    let mut count = |name: &str| checks.find(|check| check["check"] == name).unwrap()["count"].as_u64();
    assert_eq!((count("missing"), count("partial")), (Some(0), Some(1)));
    let output = back.ends(3, &["backup", "--all", "--at", &at, "--out", "backup.jsonl", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&report["documents"], &report["unknown"]), (&0.into(), &1.into()), "{output:?}");
}

/// A document or a value that is kept as bytes alone is left out as a whole when a part of it is: then nothing of it is
/// known, and no condition on it is false.
#[tokio::test]
async fn a_condition_on_what_was_left_out_with_the_bytes_is_unknown() {
    let twice = |document: Document| {
        let mut raw = RawDocumentBuf::try_from(&document).unwrap();
        raw.append(cstr!("zip"), 1);
        raw.append(cstr!("zip"), 2);
        raw
    };
    let documents = |n: i32| {
        let mut nested = RawDocumentBuf::try_from(&doc! { "_id": "nested", "n": n, "city": "Oslo" }).unwrap();
        nested.append(cstr!("address"), twice(doc! { "street": 5 }));
        let plain = doc! { "_id": "plain", "n": n, "city": "Rome", "address": { "zip": 1, "street": 6 } };
        [twice(doc! { "_id": "whole", "n": n, "city": "Oslo" }), nested, RawDocumentBuf::try_from(&plain).unwrap()]
    };
    for (shape, condition, expected) in [
        (&["--redact", "/ssn", "--redact", "/address/zip"][..], "c.city = 'Rome'", "unknown plain, unknown whole"),
        (
            &["--redact", "/ssn", "--redact", "/address/zip"],
            "c.address.street['$numberInt'] = '6'",
            "unknown nested, unknown plain, unknown whole",
        ),
        (&["--fields", "/city,/address/zip"], "c.address.zip['$numberInt'] = '2'", "unknown nested, unknown whole"),
        (&["--redact", "/ssn"], "c._id = 'nobody'", ""),
    ] {
        let server = MongoRu::start().await;
        server.create("shop", "orders", "_id", 1);
        let back = Back::of(server.uri()).await;
        let follow = ["follow", "--from", "beginning", "--until-caught-up", "--poll", "50"];
        let mut at = String::new();
        for n in [1, 2] {
            documents(n).into_iter().for_each(|document| server.put_raw("shop", "orders", document));
            back.ends(0, &[&follow[..], shape].concat()).await;
            if n == 1 {
                at = crate::support::moment().await;
            }
        }
        let plan = ["restore", "--where", condition, "--at", &at, "--dry-run", "--format", "csv"];
        let output = back.run(&plan).await;
        let mut rows: Vec<String> =
            output.stdout.lines().skip(1).map(|row| row.split(',').take(2).collect::<Vec<_>>().join(" ")).collect();
        rows.sort();
        assert_eq!(rows.join(", "), expected, "{shape:?} {condition}: {output:?}");
    }
}
