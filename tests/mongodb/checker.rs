//! Tests the checkers themselves.

use super::{Work, prove, python, text, write};
use crate::support::{mongo_server::MongoServer, peers};

#[tokio::test]
async fn the_checker_of_events_detects_every_kind_of_fault() {
    if peers::mongodb_python().is_none() {
        return;
    }
    assert_eq!(python("selftest.py", &[]).await, "ok 17 checks");
}

#[tokio::test]
async fn the_server_keeps_its_documents_across_a_kill() {
    let Some(mut server) = MongoServer::start_with(&["--sync-on-commit"]) else { return };
    let work = Work::new();
    let log = work.path("log.jsonl");
    write(&server, ("shop", "orders"), &log, 150, 1).await;
    server.kill();
    server.start_again();
    write(&server, ("shop", "orders"), &log, 150, 2).await;
    let said = python("check_state.py", &[&server.uri(), "shop", "orders", &text(&log)]).await;
    assert!(said.starts_with("ok "), "{said}");
}

/// The benchmark compares the follower with this plain reader, so it has to be correct as well.
#[tokio::test]
async fn the_checker_accepts_a_driver_that_watches() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let log = work.path("log.jsonl");
    write(&server, ("shop", "orders"), &log, 1, 1).await;
    let (uri, events) = (server.uri(), text(&work.path("events.jsonl")));
    python("watch.py", &[&uri, "shop", "orders", &events, "--begin"]).await;
    write(&server, ("shop", "orders"), &log, 300, 2).await;
    python("watch.py", &[&uri, "shop", "orders", &events]).await;
    // Its events have the program's format, so that the same checker applies.
    assert_eq!(prove(&log, &work.path("events.jsonl"), &["--baseline", "1"]).await, (301, 0));
}
