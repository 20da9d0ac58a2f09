//! Kills, cut connections, and an account that fails, refuses or hangs: nothing is lost or duplicated.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::mixed_batch;
use crate::support::{Fault, Kind, TestApp, When, body_of, eventually, feed_document};

#[tokio::test]
async fn a_handler_killed_in_mid_batch_loses_and_duplicates_nothing() {
    let app = TestApp::start().await;
    let mut handler = app.handler(&[("REWIND_MAX_WRITES", "2")]).await;
    app.proxy.fail_always(Some(Fault::RespondSlowly(Duration::from_millis(40))));
    let batch = mixed_batch();
    let request = handler.request("CaptureChanges", body_of(&Value::from(batch.clone()).to_string()));
    let delivery = tokio::spawn(request.send());
    while app.proxy.writes() < 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handler.kill();
    assert!(delivery.await.unwrap().is_err());
    app.proxy.fail_always(None);
    let half = app.history().await.len();
    assert!(half > 0 && half < 60, "{half}");

    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&batch).await.0, 200);
    let after = app.history().await;
    assert_eq!(after.len(), 60);
    // The history must be the same as without a kill.
    let quiet = TestApp::start().await;
    let undisturbed = quiet.handler(&[]).await;
    assert_eq!(undisturbed.deliver(&batch).await.0, 200);
    assert_eq!(after, quiet.history().await);
}

#[tokio::test]
async fn a_caller_that_disconnects_does_not_cut_a_batch_in_half() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    app.proxy.fail_always(Some(Fault::RespondSlowly(Duration::from_millis(100))));
    let request = handler.request("CaptureChanges", body_of(&Value::from(mixed_batch()).to_string()));
    let delivery = tokio::spawn(request.send());
    while app.proxy.writes() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    delivery.abort();
    handler.wait_for_log("batch stored").await;
    assert_eq!(app.history().await.len(), 60, "{:#?}", handler.log());
}

#[tokio::test]
async fn sigterm_finishes_accepted_batches_and_accepts_no_more() {
    let app = TestApp::start().await;
    let mut handler = app.handler(&[]).await;
    app.proxy.fail_always(Some(Fault::RespondSlowly(Duration::from_millis(400))));
    let request = handler.request("CaptureChanges", body_of(&Value::from(mixed_batch()).to_string()));
    let delivery = tokio::spawn(request.send());
    while app.proxy.writes() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handler.terminate();
    assert_eq!(delivery.await.unwrap().unwrap().status().as_u16(), 200);
    // 200 asks the host for a restart that does not count as a failure; after 0 it would not restart the handler.
    assert_eq!(handler.exit_code(Duration::from_secs(10)).await, Some(200));
    assert_eq!(app.history().await.len(), 60);
    handler.wait_for_log("\"drained\":true").await;
}

#[tokio::test]
async fn transient_failures_are_retried_within_the_invocation() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    // An initial write, so that the connection's metadata requests are done.
    assert_eq!(handler.deliver(&[feed_document("first", "first", 1)]).await.0, 200);
    for status in [(429, 3200), (449, 0), (410, 1007), (408, 0)] {
        app.proxy.fail_next(std::iter::repeat_n(Fault::Reject(status.0, status.1), 5));
    }
    let (status, body) = handler.deliver(&mixed_batch()).await;
    assert_eq!(status, 200, "{body} {:#?}", handler.log());
    assert!(app.proxy.all_used());
    assert!(!body["Logs"][0].as_str().unwrap().contains(" 0 retries"), "{body}");
    assert_eq!(app.history().await.len(), 61);
    assert_eq!(app.dead_letters(), Vec::<Value>::new());
}

#[tokio::test]
async fn an_unavailable_service_is_retried_too() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    app.proxy.fail_next(std::iter::repeat_n(Fault::Reject(503, 0), 6));
    let (status, body) = handler.deliver(&mixed_batch()).await;
    assert_eq!(status, 200, "{body} {:#?}", handler.log());
    assert_eq!(app.history().await.len(), 60);
}

#[tokio::test]
async fn a_failure_after_the_write_and_a_cut_connection_duplicate_nothing() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    app.proxy.fail_next([Fault::FailAfterWrite, Fault::Cut, Fault::FailAfterWrite, Fault::Cut, Fault::FailAfterWrite]);
    let (status, body) = handler.deliver(&mixed_batch()).await;
    assert_eq!(status, 200, "{body} {:#?}", handler.log());
    let history = app.history().await;
    assert_eq!(history.len(), 60);
}

#[tokio::test]
async fn a_late_answer_is_not_waited_for_and_duplicates_nothing() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&[feed_document("first", "first", 1)]).await.0, 200);
    // Longer than the client library's timeout of 6 s; the write itself is applied at once.
    app.proxy.fail_next([Fault::RespondSlowly(Duration::from_secs(12))]);
    let (status, body) = handler.deliver(&mixed_batch()).await;
    assert_eq!(status, 200, "{body} {:#?}", handler.log());
    assert_eq!(app.history().await.len(), 61);
    assert_eq!(app.dead_letters(), Vec::<Value>::new());
}

#[tokio::test]
async fn when_the_deadline_passes_the_host_is_asked_to_deliver_again() {
    let app = TestApp::start().await;
    let handler = app.handler(&[("REWIND_DEADLINE_SECONDS", "1")]).await;
    app.proxy.fail_always(Some(Fault::Reject(429, 3200)));
    let (status, body) = handler.deliver(&[feed_document("x", "x", 1)]).await;
    assert_eq!(status, 500, "{body}");
    assert!(body["error"].as_str().unwrap().contains("429/3200"), "{body}");
    app.proxy.fail_always(None);
    assert_eq!(handler.deliver(&[feed_document("x", "x", 1)]).await.0, 200);
    assert_eq!(app.versions("x").await.len(), 1);
}

#[tokio::test]
async fn a_refused_caller_is_not_poison() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    app.proxy.fail_always(Some(Fault::Reject(403, 5300)));
    let (status, body) = handler.deliver(&mixed_batch()).await;
    assert_eq!(status, 500, "{body}");
    assert!(app.dead_letters().is_empty());
    handler.wait_for_log("identity's role").await;
}

#[tokio::test]
async fn a_split_during_capture_loses_nothing() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let batches: Vec<Vec<Value>> = (0..20)
        .map(|b| (0..20).map(|i| feed_document(&format!("doc-{b}-{i}"), &format!("key-{i}"), 1 + b)).collect())
        .collect();
    let deliver = async {
        for batch in &batches {
            let (status, body) = handler.deliver(batch).await;
            assert_eq!(status, 200, "{body} {:#?}", handler.log());
        }
    };
    let split = async {
        for round in 0..3 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            let ranges = app.local.ranges("dev", "changes").await.unwrap();
            app.local.split("dev", "changes", &ranges[round % ranges.len()]).await.unwrap();
        }
    };
    tokio::join!(deliver, split);
    assert_eq!(app.local.ranges("dev", "changes").await.unwrap().len(), 4 + 3);
    assert_eq!(app.history().await.len(), 400);
}

#[tokio::test]
async fn an_account_that_hangs_delays_a_lease_only_until_the_deadline() {
    let app = TestApp::start().await;
    // The account hangs from the first request on; the start waits only briefly for it.
    app.proxy.fail_always_of(Kind::Definition, Some(Fault::Hold(When::Before, Duration::from_secs(20))));
    let handler = app.handler(&[("REWIND_DEADLINE_SECONDS", "3")]).await;
    let begun = Instant::now();
    let leases = futures::future::join_all((0..16).map(|n| {
        let handler = &handler;
        async move { handler.deliver(&[feed_document(&format!("doc-{n}"), "p", n)]).await }
    }));
    let answers = leases.await;
    assert!(answers.iter().all(|(status, _)| *status == 500), "{answers:?}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    // A write without an answer may have been applied: it is delivered again and stored once.
    app.proxy.fail_always_of(Kind::Definition, None);
    eventually("the account answers again", async || {
        (handler.deliver(&[feed_document("doc-0", "p", 0)]).await.0 == 200).then_some(())
    })
    .await;
    app.proxy.fail_always(Some(Fault::Hold(When::After, Duration::from_secs(20))));
    let begun = Instant::now();
    assert_eq!(handler.deliver(&[feed_document("doc-1", "p", 1)]).await.0, 500);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    app.proxy.fail_always(None);
    assert_eq!(handler.deliver(&[feed_document("doc-1", "p", 1)]).await.0, 200);
    assert_eq!(app.history().await.len(), 2);
}
