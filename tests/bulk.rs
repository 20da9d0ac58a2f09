//! Bulk requests with writes of different partition keys, by the real handler and commands against the local account
//! behind a proxy. Covers the number of requests, the handling of failures, and an account that does not accept bulk
//! requests.

use std::time::{Duration, Instant};

use cosmos_rewind::{change::key::PartitionKey, cosmos::Items};
use serde_json::{Value, json};

use crate::support::{Fault, Kind, TestApp, Trouble, feed_document};

fn of_many_keys(documents: u64) -> Vec<Value> {
    (0..documents).map(|n| feed_document(&format!("doc-{n}"), &format!("key-{n}"), 100 + n)).collect()
}

#[tokio::test]
async fn an_account_that_refuses_bulk_is_written_to_one_by_one_and_nothing_is_lost() {
    for status in [400, 404, 411, 431] {
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
        // Bulk writes stay off once they are switched off, even if the account would accept them later.
        app.proxy.refuse_bulk(None);
        let before = app.proxy.writes();
        assert_eq!(handler.deliver(&of_many_keys(20)).await.0, 200);
        assert_eq!(app.proxy.writes() - before, 20);
    }
}

/// What an operation is told, and what became of it, are two things. The final state and the counts must be right.
#[tokio::test]
async fn every_operation_is_carried_out_whatever_it_is_told_first() {
    let app = TestApp::start().await;
    // An equal document would pass for the command's own after a retry.
    let lines = |from: usize, by: &str| -> String {
        let one = |n| json!({"id": format!("a/b d{n}"), "pk": format!("p{n}"), "by": by}).to_string() + "\n";
        (from..80).map(one).collect()
    };
    std::fs::write(app.folder.path().join("half.jsonl"), lines(40, "somebody else")).unwrap();
    std::fs::write(app.folder.path().join("all.jsonl"), lines(0, "this")).unwrap();
    let handler = app.handler(&[]).await;
    let statuses = [(429, 3200), (449, 0), (408, 0), (410, 1002), (410, 1007), (413, 3402), (424, 0), (500, 0)];
    for (round, status) in statuses.into_iter().enumerate() {
        for carried_out in [false, true] {
            let trouble = || app.proxy.trouble_operations(Some(Trouble { status, carried_out, etags: true }));
            let case = format!("{status:?}, carried out: {carried_out}");
            let key = |n| format!("{round}-{carried_out}-{n}");
            let batch: Vec<Value> = (0..40).map(|n| feed_document(&key(n), &key(n), n)).collect();
            trouble();
            let (answered, body) = handler.deliver(&batch).await;
            assert_eq!(answered, 200, "{case}: {body}");
            assert!(body["Logs"][0].as_str().unwrap().contains("40 items, 40 records"), "{case}: {body}");
            let load = ["load", "all.jsonl", "--no-trailer", "--format", "json"];
            assert_eq!(app.run(&["load", "half.jsonl", "--no-trailer"]).await.code, 0, "{case}");
            let loaded = app.run_through_proxy(&load).await;
            let said: Value =
                serde_json::from_str(&loaded.stdout).unwrap_or_else(|e| panic!("{case}: {e}: {loaded:?}"));
            let counts = (said["created"].as_u64(), said["skipped"].as_u64());
            assert_eq!(counts, (Some(40), Some(40)), "{case}: {loaded:?}");
            let emptied = app.run_through_proxy(&["truncate", "source", "--yes", "--format", "json"]).await;
            assert!(emptied.code == 0 && emptied.stdout.contains("\"deleted\":80"), "{case}: {emptied:?}");
            assert!(app.proxy.trouble_operations(None) > 100, "{case}");
        }
    }
    assert_eq!(app.history().await.len(), 40 * 2 * statuses.len());
    assert!(app.dead_letters().is_empty());
    assert!(!handler.log().iter().any(|line| line.contains("bulk requests")), "{:#?}", handler.log());
}

#[tokio::test]
async fn a_busy_account_only_delays_packed_writes() {
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
async fn one_bad_record_becomes_a_dead_letter_and_delays_no_other() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let mut batch = of_many_keys(10);
    // Larger than the service accepts, and not compressible.
    let noise: String = (0..3_000_000).map(|_| char::from(rand::random_range(b'#'..b'['))).collect();
    batch[3]["noise"] = json!(noise);
    let (status, body) = handler.deliver(&batch).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(app.dead_letters().len(), 1);
    // The tenth version has a record that says only that it existed.
    let fidelities: Vec<Value> =
        app.history().await.iter().map(|record| record["_change"]["fidelity"].clone()).collect();
    let is_absent = |fidelity: &&Value| **fidelity == "absent";
    assert_eq!((fidelities.len(), fidelities.iter().filter(is_absent).count()), (10, 1), "{fidelities:?}");
}

#[tokio::test]
async fn commands_with_many_writes_pack_them() {
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
        let done = app.run_through_proxy(args).await;
        assert_eq!(done.code, 0, "{done:?}");
        let sent = requests(&app) - before;
        assert!(0 < sent && sent < most, "{args:?}: {sent} requests for 300 documents");
    }
}

#[tokio::test]
async fn many_small_writes_are_in_flight_unless_the_account_throttles() {
    let app = TestApp::start().await;
    let lines: String =
        (0..2000).map(|n| json!({"id": format!("d{n}"), "pk": format!("p{n}")}).to_string() + "\n").collect();
    std::fs::write(app.folder.path().join("documents.jsonl"), lines).unwrap();
    let load = ["load", "documents.jsonl", "--no-trailer", "--mode", "upsert"];
    let mut requests = Vec::new();
    for more in [&[][..], &["--concurrency", "100"]] {
        let before = app.proxy.seen(Kind::LiveWrite);
        let done = app.run_through_proxy(&[&load[..], more].concat()).await;
        assert_eq!(done.code, 0, "{done:?}");
        requests.push(app.proxy.seen(Kind::LiveWrite) - before);
    }
    assert!(0 < requests[0] && requests[0] < requests[1], "{requests:?} requests");
    // The account provides 400 writes per second. The load takes seconds, and no write waits until its retries are over.
    app.proxy.throttle(400.0, 1.0);
    let begun = Instant::now();
    let done = app.run_through_proxy(&load).await;
    assert!(done.code == 0 && done.stdout.contains("written    2,000"), "{done:?}");
    assert!(begun.elapsed() > Duration::from_secs(4), "it was not throttled: {done:?}");
    assert_eq!(app.events().await.query_all("SELECT c.id FROM c", &[], None).await.unwrap().len(), 2000);
}

/// A batch that needs more request units than the container provides before the deadline. The account counts the usage.
#[tokio::test]
async fn a_batch_that_is_too_large_for_one_deadline_is_finished() {
    const DOCUMENTS: u64 = 40;
    let mut batch = of_many_keys(DOCUMENTS);
    for document in &mut batch {
        document["text"] = json!("x".repeat(150_000));
    }
    for settings in
        [&[("REWIND_DEADLINE_SECONDS", "2")][..], &[("REWIND_DEADLINE_SECONDS", "2"), ("REWIND_BULK", "off")]]
    {
        let app = TestApp::start().await;
        app.proxy.throttle(1e9, 0.0);
        assert_eq!(app.handler(&[]).await.deliver(&batch).await.0, 200);
        let once = app.proxy.used();
        assert!(once > 1000.0, "{once}");

        let app = TestApp::start().await;
        let handler = app.handler(settings).await;
        // Without pauses, four deadlines would be enough.
        app.proxy.throttle(once / 8.0, once / DOCUMENTS as f64);
        let mut answers = Vec::new();
        while answers.last().is_none_or(|(status, _): &(u16, Value)| *status != 200) {
            assert!(answers.len() < 12, "{answers:#?}");
            answers.push(handler.deliver(&batch).await);
        }
        assert!(answers.len() > 2, "{settings:?}: {answers:#?}");
        let error = answers[0].1["error"].as_str().unwrap();
        let number = |before: &str, after: &str| -> f64 {
            let text = error.split(before).nth(1).and_then(|rest| rest.split(after).next());
            text.and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| panic!("{answers:#?}"))
        };
        // The message says how much is needed and how much is available.
        let (needs, gets) = (number("need about ", " RU"), number("gave ", " RU/s"));
        assert!((needs / once - 1.0).abs() < 0.2, "{needs} of {once}: {error}");
        assert!(gets > once / 40.0 && gets < once * 1.5, "{gets} of {}: {error}", once / 8.0);
        assert!(error.contains("of 40 records are stored and are not written again"), "{error}");
        assert!(app.proxy.used() < once * 1.3, "{} RU, one pass takes {once}", app.proxy.used());
        app.proxy.throttle(1e9, 0.0);
        assert_eq!(app.history().await.len() as u64, DOCUMENTS);
        // A further delivery writes to the account again, because only the writes of unfinished batches are remembered.
        // On a busy machine two seconds may be too short for 6 MB, whatever the account's throughput.
        let mut again = 0;
        while handler.deliver(&batch).await.0 != 200 {
            again += 1;
            assert!(again < 12, "not stored again");
        }
        assert!(app.proxy.used() >= DOCUMENTS as f64, "{} RU", app.proxy.used());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn independent_writers_all_finish() {
    let app = TestApp::start().await;
    let events = app.events().await;
    let writer = |n: usize| {
        let events = events.clone();
        async move {
            for round in 0..60 {
                let (key, id) = (PartitionKey::parse(&format!("key-{n}")).unwrap(), format!("{n}-{round}"));
                let text = json!({"id": id, "pk": format!("key-{n}")}).to_string().into_bytes();
                Items::create(&events, &key, &id, text).await.unwrap();
            }
        }
    };
    let all: Vec<_> = (0..24).map(|n| tokio::spawn(writer(n))).collect();
    let ended = tokio::time::timeout(Duration::from_secs(100), futures::future::join_all(all)).await;
    assert!(ended.expect("a writer waits forever").into_iter().all(|end| end.is_ok()));
    let count = events.query_all("SELECT c.id FROM c", &[], None).await.unwrap().len();
    assert_eq!(count, 24 * 60);
}
