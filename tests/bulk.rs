//! Writes of different partition keys in one request, by the real handler and the real commands, against the local account
//! behind a proxy: how many requests there are, what is made of failures, and what becomes of an account that takes no
//! such request.

use serde_json::{Value, json};

use crate::support::{Fault, Kind, TestApp, feed_document};

fn of_many_keys(documents: u64) -> Vec<Value> {
    (0..documents).map(|n| feed_document(&format!("doc-{n}"), &format!("key-{n}"), 100 + n)).collect()
}

#[tokio::test]
async fn an_account_that_refuses_bulk_is_written_to_one_by_one_and_nothing_is_lost() {
    for status in [400, 404] {
        let app = TestApp::start().await;
        let handler = app.handler(&[]).await;
        app.proxy.refuse_bulk(Some(status));
        for round in 0..3 {
            let (answered, body) = handler.deliver(&of_many_keys(20)).await;
            assert_eq!(answered, 200, "{status} {round}: {body}");
        }
        assert_eq!(app.history().await.len(), 20);
        let said = handler.log().iter().filter(|line| line.contains("does not take bulk requests")).count();
        assert_eq!(said, 1, "{:#?}", handler.log());
        assert!(app.dead_letters().is_empty());
        // Once it is switched off it stays off: an account that takes them later is asked no more.
        app.proxy.refuse_bulk(None);
        let before = app.proxy.writes();
        assert_eq!(handler.deliver(&of_many_keys(20)).await.0, 200);
        assert_eq!(app.proxy.writes() - before, 20);
    }
}

#[tokio::test]
async fn a_busy_account_delays_packed_writes_and_changes_nothing_else() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    for fault in [
        Fault::Reject(429, 3200),
        Fault::Reject(449, 0),
        Fault::Reject(503, 0),
        Fault::Reject(410, 1002),
        Fault::Reject(408, 0),
        Fault::FailAfterWrite,
        Fault::Cut,
        Fault::CutAfterWrite,
        Fault::TruncateAfterWrite,
        Fault::Reject(413, 0),
    ] {
        app.proxy.fail_next_of(Kind::HistoryWrite, [fault.clone(), fault.clone()]);
        let (status, body) = handler.deliver(&of_many_keys(40)).await;
        assert_eq!(status, 200, "{fault:?}: {body}");
        assert!(body["Logs"][0].as_str().unwrap().contains("40 items, 40 records"), "{fault:?}: {body}");
    }
    let history = app.history().await;
    assert_eq!(history.len(), 40);
    assert!(!handler.log().iter().any(|line| line.contains("bulk requests")), "{:#?}", handler.log());
}

#[tokio::test]
async fn one_bad_record_is_a_dead_letter_and_holds_up_nobody() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let mut batch = of_many_keys(10);
    // More than the service keeps, and no way to make it less.
    let noise: String = (0..3_000_000).map(|_| char::from(rand::random_range(b'#'..b'['))).collect();
    batch[3]["noise"] = json!(noise);
    let (status, body) = handler.deliver(&batch).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(app.dead_letters().len(), 1);
    assert_eq!(app.history().await.len(), 9);
}

#[tokio::test]
async fn commands_that_write_much_pack_it() {
    let app = TestApp::start().await;
    let lines: String =
        (0..300).map(|n| json!({"id": format!("d{n}"), "pk": format!("p{n}")}).to_string() + "\n").collect();
    std::fs::write(app.folder.path().join("documents.jsonl"), lines).unwrap();
    let requests = |app: &TestApp| app.proxy.seen(Kind::LiveWrite);
    for (args, most) in [
        (&["load", "documents.jsonl", "--no-trailer", "--concurrency", "100"][..], 100),
        (&["truncate", "source", "--yes", "--concurrency", "100"], 150),
    ] {
        let before = requests(&app);
        let done = app.run(args).await;
        assert_eq!(done.code, 0, "{done:?}");
        let sent = requests(&app) - before;
        assert!(sent < most, "{args:?}: {sent} requests for 300 documents");
    }
}
