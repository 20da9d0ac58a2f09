//! Fatal errors stop the follower with advice, and no output contains a password.

use bson::{Document, doc};

use super::{
    Work,
    back::{Back, orders},
    client,
    gone::all,
    of, settings,
};
use crate::support::{ClosedPort, Output, mongo_server::MongoServer, run};

/// Asserts that the follower fails, and that its output contains none of these secrets.
async fn fails(work: &Work, source: &str, more: &[&str], secrets: &[&str]) -> Output {
    let args = [&of("shop", "orders")[..], more].concat();
    let output = work.follow(source, &args).await;
    assert_ne!(output.code, 0, "{output:?}");
    assert!(!output.stderr.contains("unexpected argument"), "{output:?}");
    silent(work, &output, secrets);
    output
}

/// Asserts that neither the output nor the files contain these secrets.
fn silent(work: &Work, output: &Output, secrets: &[&str]) {
    for secret in secrets {
        assert!(!output.stdout.contains(secret) && !output.stderr.contains(secret), "{secret}: {output:?}");
        for entry in std::fs::read_dir(work.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            assert!(!text.contains(secret), "{secret} in {}", path.display());
        }
    }
}

#[tokio::test]
async fn a_truncated_oplog_stops_the_follower_with_advice() {
    let Some(server) = MongoServer::start_with(&["--oplog-max-entries", "100"]) else { return };
    let work = Work::new();
    let orders = client(&server.uri()).await.database("shop").collection::<Document>("orders");
    orders.insert_one(doc! { "_id": "a" }).await.unwrap();
    let args = [&of("shop", "orders")[..], &["--from", "now"]].concat();
    work.catch_up(&server.uri(), &args).await;
    orders.insert_one(doc! { "_id": "b" }).await.unwrap();
    work.catch_up(&server.uri(), &args).await;
    let position = || -> serde_json::Value {
        let text = std::fs::read_to_string(work.path("checkpoint.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["ranges"].clone()
    };
    let before = position();
    // The server trims its oplog on every thousandth write.
    orders.insert_many((0..2500).map(|n| doc! { "_id": n })).await.unwrap();
    let output = fails(&work, &server.uri(), &["--from", "now"], &[]).await;
    assert!(output.stderr.contains("history") && output.stderr.contains("--from"), "{output:?}");
    // It neither continues with a hole nor discards its position.
    assert_eq!(work.events().len(), 1);
    assert_eq!(position(), before);
}

#[tokio::test]
async fn a_password_is_never_printed_whether_right_or_wrong() {
    let Some(mut server) = MongoServer::start() else { return };
    let admin = client(&server.uri()).await.database("admin");
    admin.run_command(doc! { "createUser": "user", "pwd": "sEcR@et", "roles": ["root"] }).await.unwrap();
    server.restart_with(&["--auth"]);
    let work = Work::new();
    let right = server.uri_of("user", "sEcR%40et");
    let secrets = ["sEcR%40et", "sEcR@et"];
    let args = [&of("shop", "orders")[..], &["--from", "now"]].concat();
    let output = work.catch_up(&right, &args).await;
    silent(&work, &output, &secrets);
    let other = Work::new();
    let output = fails(&other, &server.uri_of("user", "wR%40ng"), &[], &["wR%40ng", "wR@ng"]).await;
    assert!(output.stderr.to_lowercase().contains("authent"), "{output:?}");
    assert!(hint(&output).contains("the user, the password and the authSource"), "{output:?}");
    let output = fails(&Work::new(), &server.uri(), &[], &[]).await;
    assert!(hint(&output).contains("a user with the role read"), "{output:?}");
}

/// The line that says what to do.
fn hint(output: &Output) -> &str {
    output.stderr.lines().find(|line| line.starts_with("hint:")).unwrap_or_default()
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_named_without_its_password() {
    let port = ClosedPort::take();
    let work = Work::new();
    let source = format!("mongodb://user:sEcRet@{}/?serverSelectionTimeoutMS=500&connectTimeoutMS=500", port.address());
    let mut follower = work.start(&source, &of("shop", "orders"));
    follower.wait_for_log("out of reach").await;
    follower.signal("TERM");
    assert!(follower.ended().await.success());
    let log = follower.log().join("\n");
    assert!(log.contains(&port.address().to_string()) && !log.contains("sEcRet"), "{log}");
}

#[tokio::test]
async fn an_invalid_uri_is_refused_without_its_password() {
    let wrong = [
        "mongodb://user:sEcRet@",
        "mongodb://user:sEcRet@127.0.0.1:notaport/",
        "mongodb://user:sEcRet@127.0.0.1/?authMechanism=none",
        "mongodb://user:sEc/Ret@127.0.0.1/",
        "mongodb://user:sEcRet:x@127.0.0.1/",
        "mongodb://user:sEcRet%@127.0.0.1/",
        // A driver that cuts this password in the middle of a character would end the program.
        "mongodb://user:sEcRet%aé@127.0.0.1/",
        "mongodb://127.0.0.1/?tlsCertificateKeyFilePassword=x&sEcRet",
        "mongodb://127.0.0.1/?authMechanismProperties=AWS_SESSION_TOKEN%3Ax%2CsEcRet",
        "mongodb://user:sEcRet@127.0.0.1:99999/",
        "mongodb://user:sEcRet@127.0.0.1/?noSuchOption=sEcRet",
        "mongodb+srv://user:sEcRet@127.0.0.1:27017/",
    ];
    for source in wrong {
        let output = fails(&Work::new(), source, &[], &["sEcRet", "sEc/Ret"]).await;
        assert_eq!(output.code, 2, "no request was sent: {output:?}");
        assert!(!output.stderr.contains("panicked"), "{output:?}");
    }
}

/// Another scheme is unknown, and not taken for a container's name.
#[tokio::test]
async fn a_source_of_an_unknown_kind_is_refused_with_the_known_kinds() {
    for source in ["mongo://user:sEcRet@h/", "MongoDB://user:sEcRet@h/", "mongodb:/user:sEcRet@h", "https://h/sEcRet"] {
        let output = fails(&Work::new(), source, &[], &["sEcRet"]).await;
        assert!(output.code == 2 && output.stderr.contains("mongodb+srv://"), "{output:?}");
        let work = Work::new();
        for command in [&["restore", "--all", "--at", "now"][..], &["status"], &["doctor"]] {
            let output = run(work.folder.path(), &[command, &["--source", source]].concat(), &settings(), "").await;
            assert!(output.code == 2 && output.stderr.contains("mongodb+srv://"), "{command:?}: {output:?}");
            silent(&work, &output, &["sEcRet"]);
        }
    }
    let work = Work::new();
    let setting = [settings(), vec![("MONGODB_URI".to_owned(), "mongo://user:sEcRet@h/".to_owned())]].concat();
    let follow = [&["follow", "--checkpoint-file", "c.json", "--sink", "stdout"], &of("shop", "orders")[..]].concat();
    let output = run(work.folder.path(), &follow, &setting, "").await;
    assert!(output.code == 2 && output.stderr.contains("MONGODB_URI"), "{output:?}");
    assert!(!output.stderr.contains("--source"), "{output:?}");
    silent(&work, &output, &["sEcRet"]);
}

#[tokio::test]
async fn a_follower_without_an_account_is_told_which_flag_makes_one_needless() {
    let work = Work::new();
    let follow = [&["follow", "--source", "mongodb://127.0.0.1:1/"], &of("shop", "orders")[..]].concat();
    for (sinks, flag) in
        [(&[][..], "--sink stdout"), (&["--sink", "changes"], "--sink stdout"), (&["--sink", "stdout"], "add")]
    {
        let output = run(work.folder.path(), &[&follow[..], sinks].concat(), &settings(), "").await;
        assert!(output.code == 2 && output.stderr.contains("CosmosDB: is missing"), "{output:?}");
        assert!(hint(&output).contains(flag) && hint(&output).contains("--checkpoint-file FILE"), "{output:?}");
    }
}

#[tokio::test]
async fn a_damaged_checkpoint_is_reported_and_neither_used_nor_replaced() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let orders = client(&server.uri()).await.database("shop").collection::<Document>("orders");
    orders.insert_one(doc! { "_id": "a" }).await.unwrap();
    let args = [&of("shop", "orders")[..], &["--from", "beginning"]].concat();
    work.catch_up(&server.uri(), &args).await;
    let file = work.path("checkpoint.json");
    let good = std::fs::read(&file).unwrap();
    for bad in [&b""[..], &good[..good.len() / 2], b"{}", b"null", b"\xff\xfe", &[0; 40]] {
        std::fs::write(&file, bad).unwrap();
        let output = work.follow(&server.uri(), &args).await;
        assert_eq!(output.code, 2, "{output:?}");
        let advised = hint(&output).contains("--checkpoint-file");
        assert!(output.stderr.contains("checkpoint.json") && advised, "{output:?}");
        assert_eq!(std::fs::read(&file).unwrap(), bad);
    }
    std::fs::write(&file, good).unwrap();
    work.catch_up(&server.uri(), &args).await;
    assert_eq!(work.events().len(), 1);
}

/// Each insert into such a collection evicts a document that nothing has saved.
#[tokio::test]
async fn nothing_is_restored_into_a_capped_collection() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let capped = doc! { "create": "orders", "capped": true, "size": 100_000, "max": 3 };
    orders.client().database("shop").run_command(capped).await.unwrap();
    let document = |n: i32| doc! { "_id": n, "n": n };
    orders.insert_many((0..3).map(document)).await.unwrap();
    back.capture().await;
    let at = crate::support::moment().await;
    orders.insert_many((3..6).map(document)).await.unwrap();
    back.capture().await;
    let restore = ["restore", "--all", "--at", &at, "--no-stamp", "--yes"];
    for refused in [&restore[..], &["revert", "--from", &at, "--to", "now", "--delete-created", "--yes"]] {
        let output = back.ends(2, refused).await;
        assert!(output.stderr.contains("orders is capped") && output.stderr.contains("--into"), "{output:?}");
    }
    assert_eq!(all(&orders).await, [document(3), document(4), document(5)]);
    back.ends(0, &[&restore[..], &["--into", "copy"]].concat()).await;
    let copy = orders.client().database("shop").collection("copy");
    assert_eq!(all(&copy).await, [document(0), document(1), document(2)]);
}

/// The report of live documents and versions is a query of two containers.
#[tokio::test]
async fn a_report_by_predicate_is_refused_rather_than_sought_in_a_container_of_that_name() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    orders(&back.source).await.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    back.capture().await;
    let report = ["history", "--where", "c.id = 'a'"];
    let refused = back.ends(2, &report).await;
    assert!(refused.stderr.contains("MongoDB") && refused.stderr.contains("find --when"), "{refused:?}");
    // Nor is it advised.
    let nothing = back.ends(1, &["restore", "--where", "c.id = 'b'", "--at", "1s", "--dry-run"]).await;
    assert!(nothing.stderr.contains("cosmos-rewind find --when"), "{nothing:?}");
    let changes = back.ends(0, &[&report[..], &["--changes-of", "/n"]].concat()).await;
    assert!(changes.stdout.contains("baseline"), "{changes:?}");
}
