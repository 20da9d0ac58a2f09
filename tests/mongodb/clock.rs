//! A deployment whose clock differs from those of the account and of this machine.

use std::time::Duration;

use bson::doc;

use super::{
    back::{Back, found, orders, undo_of},
    gone::ops_of,
    standing_before,
};
use crate::support::mongo_server::MongoServer;

/// The deployment dates its changes, so times are those of its clock: what is relative, what is in the future, and when a
/// version was saved that has no time of its own.
#[tokio::test]
async fn times_are_those_of_the_clock_that_dates_the_changes() {
    const AHEAD: i64 = 3600;
    let Some(server) = MongoServer::start_ahead(AHEAD) else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let capture = async || back.ends(0, &["follow", "--from", "beginning", "--until-caught-up", "--poll", "50"]).await;
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    capture().await;
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let then = chrono::Utc::now().timestamp() + AHEAD;
    tokio::time::sleep(Duration::from_millis(2200)).await;
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 2 }).await.unwrap();
    capture().await;
    let at = then.to_string();
    let shown = back.ends(0, &["show", "--id", "a", "--at", &at]).await;
    assert!(shown.stdout.contains(r#""n":{"$numberInt":"1"}"#), "{shown:?}");
    let bad = back.ends(0, &["find", "--when", "doc.n == 2", "--from", "30m", "--format", "jsonl"]).await;
    assert_eq!(bad.lines().len(), 1, "{bad:?}");
    let later = back.ends(2, &["show", "--id", "a", "--at", &(then + 1800).to_string()]).await;
    assert!(later.stderr.contains("in the future"), "{later:?}");

    // It is saved before it is overwritten, and comes before what the restore wrote.
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 3 }).await.unwrap();
    let restored = back.ends(0, &["restore", "--id", "a", "--pk", "a", "--at", &at, "--no-stamp", "--yes"]).await;
    assert_eq!(found(&orders, "a").await, Some(doc! { "_id": "a", "n": 1 }));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 4 }).await.unwrap();
    capture().await;
    let rows = back.ends(0, &["history", "--id", "a", "--format", "jsonl"]).await.lines();
    assert_eq!(ops_of(&rows), ["baseline", "replace", "replace", "replace", "replace"], "{rows:?}");
    let newest = back.ends(0, &["show", "--id", "a"]).await;
    assert!(newest.stdout.contains(r#""n":{"$numberInt":"4"}"#), "{newest:?}");
    let undone = back.ends(3, &["undo", &undo_of(&restored), "--yes"]).await;
    assert!(undone.stderr.contains("1 conflict"), "{undone:?}");
    // Nothing is an hour older than it is. The saved copy goes, because capture has that version by now.
    let kept = back.ends(0, &["prune", "--keep-within", "30m", "--yes"]).await;
    assert!(kept.stdout.contains("kept       5"), "{kept:?}");
}

/// Another clock may be hours apart: where the deployment dates the changes, nothing is decided without its time.
#[tokio::test]
async fn nothing_is_decided_when_the_deployment_does_not_say_what_time_it_is() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    back.capture().await;
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 2 }).await.unwrap();
    let (_child, untimed) = standing_before(&server, "untimed.py", &[]).await;
    let commands: &[&[&str]] = &[
        &["prune", "--older-than", "90d", "--yes"],
        &["backup", "--all", "--at", "now", "--out", "all.jsonl"],
        &["restore", "--id", "a", "--pk", "a", "--at", "now", "--yes"],
    ];
    for command in commands {
        let (name, more) = command.split_first().unwrap();
        let place = ["--source", &untimed, "--database", "shop", "--collection", "orders"];
        let refused = back.run_plain(&[&[*name], &place[..], more].concat()).await;
        assert_eq!(refused.code, 1, "{command:?}: {refused:?}");
        assert!(refused.stderr.contains("does not say what time it is"), "{command:?}: {refused:?}");
    }
    assert_eq!(found(&orders, "a").await, Some(doc! { "_id": "a", "n": 2 }));
}
