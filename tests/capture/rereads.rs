//! Documents that the host may have altered are read again from the source.

use cosmos_rewind::change::VersionFidelity;
use serde_json::{Value, json};

use crate::support::{Fault, Kind, TestApp, feed_document};

#[tokio::test]
async fn possibly_altered_documents_are_read_again_unless_they_have_changed() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let date = "2026-11-20T15:00:00.000Z";
    let current = app.put(json!({"id": "current", "pk": "p", "when": date, "_lsn": 5})).await;
    let moved = app.put(json!({"id": "moved", "pk": "p", "when": date})).await;
    app.put(json!({"id": "moved", "pk": "p", "when": "later"})).await;
    let gone = feed_document("gone", "p", 3);
    let plain = app.put(json!({"id": "plain", "pk": "p", "when": "2026-11-20 15:00:00"})).await;
    let delivered: Vec<Value> = [current, moved, gone]
        .into_iter()
        .map(|mut d| {
            // The date after the host has rewritten it.
            d["when"] = "2026-11-20T15:00:00Z".into();
            d["_lsn"] = 77.into();
            d
        })
        .chain([plain])
        .collect();
    let before = app.proxy.reads();
    let (status, body) = handler.deliver(&delivered).await;
    assert_eq!(status, 200, "{body}");
    assert!(body["Logs"][0].as_str().unwrap().contains("4 records, 3 re-reads, 2 normalized"), "{body}");
    // A document that does not match the delivered one is read again, because a replica may be stale. One that is
    // certainly later is not.
    assert!([6, 9].contains(&(app.proxy.reads() - before)), "{}", app.proxy.reads() - before);
    let fidelity = async |id: &str| app.versions(id).await[0].fidelity.as_ref().unwrap().to_string();
    let document = async |id: &str| app.versions(id).await[0].document.clone().unwrap();
    assert_eq!(fidelity("current").await, "exact");
    assert_eq!(document("current").await, format!(r#"{{"id":"current","pk":"p","when":"{date}","_lsn":5}}"#));
    assert_eq!(app.versions("current").await[0].lsn, Some(77));
    for id in ["moved", "gone"] {
        assert_eq!(fidelity(id).await, "normalized");
    }
    assert_eq!(fidelity("plain").await, "exact");

    // Redelivered after a later write: the exact record is not replaced by a normalized one.
    app.put(json!({"id": "current", "pk": "p", "when": "later"})).await;
    assert_eq!(handler.deliver(&delivered[..1]).await.0, 200);
    assert_eq!(fidelity("current").await, "exact");

    let payload = app.handler(&[("REWIND_FIDELITY", "payload")]).await;
    let before = app.proxy.reads();
    assert_eq!(payload.deliver(&delivered).await.0, 200);
    assert_eq!(app.proxy.reads(), before);
}

#[tokio::test]
async fn a_briefly_stale_replica_costs_no_exactness_and_a_lasting_one_is_reported() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let date = "2026-11-20T15:00:00.000Z";
    let altered = async |id: &str| {
        let mut document = app.put(json!({"id": id, "pk": "p", "when": date})).await;
        document["when"] = "2026-11-20T15:00:00Z".into();
        document
    };
    for (id, faults) in [
        ("behind", vec![Fault::Reject(404, 0), Fault::Reject(404, 0)]),
        ("refused", vec![Fault::Reject(403, 0)]),
        ("both", vec![Fault::Reject(403, 0), Fault::Reject(404, 0), Fault::Reject(403, 0)]),
    ] {
        let document = altered(id).await;
        app.proxy.fail_next_of(Kind::LiveRead, faults);
        assert_eq!(handler.deliver(&[document]).await.0, 200);
        assert_eq!(app.versions(id).await[0].fidelity.as_ref().map(VersionFidelity::as_str), Some("exact"), "{id}");
    }
    let warned = |text: &str| handler.log().iter().filter(|l| l.contains("WARN") && l.contains(text)).count();
    assert_eq!(warned("storing payloads as delivered"), 0, "{:#?}", handler.log());
    for (id, status, told) in [
        ("never there", 404, "the source has no version that is surely later"),
        ("never allowed", 403, "the source refuses to be read again"),
    ] {
        let document = altered(id).await;
        app.proxy.fail_always_of(Kind::LiveRead, Some(Fault::Reject(status, 0)));
        assert_eq!(handler.deliver(&[document]).await.0, 200);
        app.proxy.fail_always_of(Kind::LiveRead, None);
        assert_eq!(
            app.versions(id).await[0].fidelity.as_ref().map(VersionFidelity::as_str),
            Some("normalized"),
            "{id}"
        );
        // The response may arrive before its log line has been read.
        handler.wait_for_log(told).await;
        assert_eq!(warned(told), 1, "{id}: {:#?}", handler.log());
    }
}
