//! A trustworthy history, end to end: the real binary on the local account.

use cosmos_rewind::change::{Op, VersionVia, key::PartitionKey};
use serde_json::{Value, json};

use crate::{follow, support::TestApp};

/// Writes documents, of which only those with an even number are captured.
async fn half_captured(app: &TestApp, count: u64) -> Vec<Value> {
    let mut all = Vec::new();
    for n in 0..count {
        all.push(
            app.put(json!({"id": format!("d{n}"), "pk": format!("k{}", n / 2), "n": n, "city": "Davidson"})).await,
        );
    }
    let captured: Vec<Value> = all.iter().filter(|d| d["n"].as_u64().unwrap() % 2 == 0).cloned().collect();
    app.capture(&captured).await;
    all
}

fn figures(summary: &Value) -> [u64; 4] {
    ["documents", "written", "existed", "failed"].map(|f| summary[f].as_u64().unwrap())
}

#[tokio::test]
async fn a_baseline_adds_uncaptured_documents_and_changes_nothing_else() {
    for paths in [&["/pk", "/_originalId"][..], &["/pk"], &["/id"]] {
        let app = TestApp::with_changes_key(paths).await;
        let all = half_captured(&app, 24).await;
        // A captured document with an uncaptured change gets no baseline, because its history began earlier.
        app.put(json!({"id": "d2", "pk": "k1", "n": 2, "city": "Cornelius"})).await;
        let before = app.history().await;

        let args = ["backfill", "--where", "c.n < @n -- a few", "--param", "n=5", "--format", "json"];
        assert_eq!(figures(&app.run(&args).await.json()), [5, 3, 2, 0], "{paths:?}");
        let summary = app.run(&["backfill", "--all", "--format", "json"]).await.json();
        assert_eq!(figures(&summary), [24, 10, 14, 0], "{paths:?}");
        assert!(summary["ru"].as_f64().unwrap() > 0.0);
        let again = app.run(&["backfill", "--all", "--ru-limit", "100000", "--format", "json"]).await.json();
        assert_eq!(figures(&again), [24, 0, 24, 0], "{paths:?}");

        let after = app.history().await;
        assert_eq!(after.len(), before.len() + 13);
        assert!(before.iter().all(|record| after.contains(record)), "a captured record was replaced");
        let baseline = app.versions("d7").await.pop().unwrap();
        let live = &all[7];
        assert_eq!(
            (baseline.op, baseline.via.as_ref().map(VersionVia::as_str)),
            (Some(Op::Baseline), Some("backfill"))
        );
        assert_eq!((baseline.ts, baseline.etag.as_deref()), (live["_ts"].as_i64().unwrap(), live["_etag"].as_str()));
        assert_eq!(baseline.document.as_deref(), Some(r#"{"id":"d7","pk":"k3","n":7,"city":"Davidson"}"#));
        let moved: Vec<Option<Op>> = app.versions("d2").await.iter().map(|v| v.op).collect();
        assert_eq!(moved.len(), 2);
        assert!(moved.iter().all(|op| *op == Some(Op::Upsert)), "{moved:?}");
        let shown = app.run(&["show", "--id", "d7", "--format", "json"]).await.json();
        assert_eq!(shown["caveats"][0]["name"], "baseline");

        // A late delivery of the same version contains more information.
        let mut late = live.clone();
        late["_lsn"] = 77.into();
        app.capture(&[late]).await;
        let versions = app.versions("d7").await;
        assert_eq!((versions.len(), versions[0].op, versions[0].lsn), (1, Some(Op::Upsert), Some(77)));
    }
}

#[tokio::test]
async fn machines_share_a_baseline_and_a_killed_one_is_finished_by_the_next() {
    let app = TestApp::start().await;
    for n in 0..300 {
        app.put(json!({"id": format!("d{n}"), "pk": format!("k{n}"), "n": n})).await;
    }
    let running = app.start_through_proxy(&["backfill", "--all", "--concurrency", "2", "--ru-limit", "300"]);
    crate::support::eventually("something is saved", async || (!app.history().await.is_empty()).then_some(())).await;
    running.kill().await;
    let saved = app.history().await;
    assert!(!saved.is_empty());
    let mut sum = 0;
    for share in ["1/3", "2/3", "3/3"] {
        let args = ["backfill", "--all", "--feed-range", share, "--format", "json"];
        let [documents, ..] = figures(&app.run(&args).await.json());
        assert!(documents < 300);
        sum += documents;
    }
    assert_eq!(sum, 300);
    let history = app.history().await;
    assert_eq!(history.len(), 300);
    assert!(saved.iter().all(|record| history.contains(record)));
}

#[tokio::test]
async fn documents_that_cannot_be_backfilled_are_refused_or_reported() {
    let app = TestApp::with_changes_key(&["/_originalId"]).await;
    let refused = app.run(&["backfill"]).await;
    assert!(refused.code == 2 && refused.stderr.contains("--where"), "{refused:?}");
    let refused = app.run(&["backfill", "--all", "--feed-range", "1/2"]).await;
    assert!(refused.code == 2 && refused.stderr.contains("--feed-range"), "{refused:?}");
    let refused = app.run(&["backfill", "--where", "c.n = = 1"]).await;
    assert!(refused.code == 2 && refused.stderr.contains("check --where"), "{refused:?}");
    let none = app.run(&["backfill", "--all", "--format", "json"]).await.json();
    assert_eq!(figures(&none), [0; 4]);
    let key = PartitionKey::parse("k").unwrap();
    app.events().await.upsert(&key, "x", br#"{"id":"x","pk":"k"}"#.to_vec()).await.unwrap();
    let one = app.run(&["backfill", "--all", "--changes", "nowhere"]).await;
    assert!(one.code == 1 && one.stderr.contains("provision"), "{one:?}");
}

/// The checks with findings and their counts, by name.
fn found(report: &Value) -> Vec<(String, u64)> {
    let checks = report["checks"].as_array().unwrap().iter();
    let counts = checks.map(|c| (c["check"].as_str().unwrap().to_owned(), c["count"].as_u64().unwrap()));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn report(output: &crate::support::Output, code: i32) -> Value {
    assert_eq!(output.code, code, "{output:?}");
    serde_json::from_str(&output.stdout).unwrap()
}

async fn verify(app: &TestApp, more: &[&str], code: i32) -> Value {
    report(&app.run(&[&["verify", "--grace", "0s", "--format", "json"], more].concat()).await, code)
}

fn named(count: u64, name: &str) -> (String, u64) {
    (name.to_owned(), count)
}

#[tokio::test]
async fn missing_versions_are_found_and_repaired() {
    for paths in [&["/pk", "/_originalId"][..], &["/_originalId"]] {
        let app = TestApp::with_changes_key(paths).await;
        let all = half_captured(&app, 20).await;
        let young = report(&app.run(&["verify", "--grace", "1h", "--format", "json"]).await, 0);
        assert_eq!((&young["result"], &young["pending"]), (&json!("OK"), &json!(10)), "{young}");
        // After a moment they are not recent any more.
        let later = all.iter().map(|d| d["_ts"].as_i64().unwrap()).max().unwrap();
        crate::support::eventually("a second has passed", async || {
            (chrono::Utc::now().timestamp() > later).then_some(())
        })
        .await;
        let missing = verify(&app, &["--show", "3"], 3).await;
        assert_eq!((&missing["result"], found(&missing)), (&json!("FAILURE"), vec![named(10, "missing")]));
        assert_eq!((&missing["documents"], &missing["versions"]), (&json!(20), &json!(10)));
        assert_eq!(missing["checks"][0]["documents"].as_array().unwrap().len(), 3);
        let table = app.run(&["verify", "--grace", "0s"]).await;
        assert!(table.code == 3 && table.stdout.contains("FAILURE") && table.stderr.contains("--repair"), "{table:?}");

        let repaired = verify(&app, &["--repair"], 0).await;
        assert_eq!((&repaired["result"], &repaired["repaired"]), (&json!("OK"), &json!(10)), "{repaired}");
        let version = app.versions("d3").await.pop().unwrap();
        assert_eq!((version.op, version.via.as_ref().map(VersionVia::as_str)), (Some(Op::Upsert), Some("backfill")));
        let whole = verify(&app, &["--content", "--deep", "100"], 0).await;
        assert_eq!((&whole["versions"], &whole["sampled"]), (&json!(20), &json!(20)), "{whole}");
        if paths[0] == "/pk" {
            let mut documents = 0;
            for share in ["1/2", "2/2"] {
                documents += verify(&app, &["--feed-range", share], 0).await["documents"].as_u64().unwrap();
            }
            assert_eq!(documents, 20);
        }
    }
}

#[tokio::test]
async fn each_kind_of_fault_is_reported_separately() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let envelope = |mut stored: Value, op: &str, lsn: i64, previous: Option<i64>| {
        stored["_ts"] = (1_700_000_000 + lsn).into();
        let mut metadata = json!({"operationType": op, "lsn": lsn, "crts": 1_700_000_000 + lsn});
        if let Some(previous) = previous {
            metadata["previousImageLSN"] = previous.into();
        }
        json!({"current": stored, "metadata": metadata})
    };
    let put = async |id: &str, n: i64| app.put(json!({"id": id, "pk": "p", "n": n})).await;
    let good = envelope(put("good", 1).await, "create", 1, None);
    let altered = envelope(put("altered", 1).await, "create", 2, None);
    let gap = [envelope(put("gap", 1).await, "create", 3, None), envelope(put("gap", 2).await, "replace", 7, Some(5))];
    let gone = envelope(put("gone", 1).await, "create", 8, None);
    let behind = envelope(put("behind", 1).await, "create", 9, None);
    let delete = json!({"current": {}, "metadata": {"operationType": "delete", "lsn": 10, "crts": 1_700_000_010,
        "id": "behind", "partitionKey": {"pk": "p"}}});
    let [first, second] = gap;
    assert_eq!(handler.deliver(&[good, altered, first, second, gone, behind, delete]).await.0, 200);
    let key = PartitionKey::parse("p").unwrap();
    app.events().await.delete(&key, "gone", None).await.unwrap();

    let etags = verify(&app, &[], 3).await;
    let warnings = vec![named(1, "newest"), named(1, "gone"), named(1, "chain")];
    assert_eq!((&etags["result"], found(&etags)), (&json!("WARNING"), warnings.clone()), "{etags}");
    // The times of the findings; for a gap, its two ends.
    let ends = |name: &str| {
        let check = etags["checks"].as_array().unwrap().iter().find(|c| c["check"] == name).unwrap();
        (check["from"].clone(), check["to"].clone())
    };
    let at = |lsn: i64| json!(chrono_text(1_700_000_000 + lsn));
    assert_eq!((ends("gone"), ends("chain")), ((at(8), at(8)), (at(3), at(7))));
    assert_eq!((ends("newest"), ends("missing")), ((at(10), at(10)), (json!(null), json!(null))));
    let since = verify(&app, &["--since", "1700000100"], 3).await;
    assert_eq!(found(&since), warnings[..2]);
    let content = verify(&app, &["--content", "--deep", "50"], 3).await;
    assert_eq!(found(&content), warnings, "the texts are unchanged");

    // The history is tampered with.
    let record = app.versions("altered").await.pop().unwrap();
    let record_key = PartitionKey::parse(r#"["p","altered"]"#).unwrap();
    let text = app.changes().await.read(&record_key, &record.record_id).await.unwrap().unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap().replace("\"n\":1", "\"n\":1000");
    app.changes().await.upsert(&record_key, &record.record_id, text.into_bytes()).await.unwrap();
    let content = verify(&app, &["--content", "--deep", "50"], 3).await;
    assert_eq!(&content["result"], "FAILURE");
    let all = [vec![named(1, "content")], warnings, vec![named(1, "rebuild")]].concat();
    assert_eq!(found(&content), all, "{content}");
    let detail = content["checks"][2]["documents"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("/n") && !detail.contains("1000"), "{detail}");
    let refused = app.run(&["verify", "--grace", "soon"]).await;
    assert!(refused.code == 2 && refused.stderr.contains("--grace"), "{refused:?}");
}

#[tokio::test]
async fn status_reports_how_far_capture_is() {
    let app = TestApp::start().await;
    let empty = app.run(&["status", "--format", "json"]).await.json();
    assert_eq!((&empty["behind"], &empty["history"]["oldest"]), (&json!(null), &json!(null)), "{empty}");
    assert_eq!((&empty["leases"], &empty["dead_letters"]), (&json!([]), &json!(0)), "{empty}");

    let handler = app.handler(&[]).await;
    let mut old = app.put(json!({"id": "a", "pk": "p"})).await;
    let written = old["_ts"].as_i64().unwrap();
    old["_ts"] = (written - 500).into();
    let mut newer = old.clone();
    newer["_ts"] = (written - 90).into();
    newer["_etag"] = "\"newer\"".into();
    // Poison: an item that is not a document.
    assert_eq!(handler.deliver(&[old, newer, json!({"id": 7})]).await.0, 200);
    app.put(json!({"id": "big", "pk": "p", "text": "x".repeat(10_000)})).await;
    let status = app.run(&["status", "--count", "--format", "json"]).await.json();
    let behind = status["behind"].as_i64().unwrap();
    assert!((90..150).contains(&behind), "{status}");
    assert_eq!(status["history"]["oldest"], json!(chrono_text(written - 500)));
    assert_eq!(status["history"]["newest"], json!(chrono_text(written - 90)));
    assert_eq!(status["history"]["recreated"], json!(false), "{status}");
    assert_eq!((&status["source"]["documents"], &status["history"]["records"]), (&json!(2), &json!(2)), "{status}");
    assert!(status["source"]["bytes"].as_u64().unwrap() > 10_000, "{status}");
    assert_eq!(status["dead_letters"], 1, "{status}");
    let table = app.run(&["status"]).await;
    assert!(table.stdout.contains("restorable from") && table.stdout.contains("dead letters"), "{table:?}");

    // Versions of another container, as if one had been deleted and recreated under its name.
    let others = json!({"id": "others", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    assert!(app.local.create_container("dev", others).await.unwrap());
    let other = app.run(&["status", "--source", "others", "--format", "json"]).await;
    assert!(other.stderr.contains("deleted since"), "{other:?}");
    assert_eq!(other.json()["history"]["recreated"], json!(true));
    let verified = verify(&app, &["--source", "others"], 3).await;
    assert!(found(&verified).contains(&named(2, "container")), "{verified}");
}

#[tokio::test]
async fn a_recreated_container_begins_a_new_history() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let old = app.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    let ts = old["_ts"].as_i64().unwrap();
    let at = ts.to_string();
    let envelope = |document: &Value, op: &str, lsn: i64, ts: i64| json!({"current": document, "metadata": {"operationType": op, "lsn": lsn, "crts": ts, "id": document["id"], "partitionKey": {"pk": "p"}}});
    let gone = |ts: i64| json!({"current": {}, "metadata": {"operationType": "delete", "lsn": 50, "crts": ts, "id": "b", "partitionKey": {"pk": "p"}}});
    assert_eq!(handler.deliver(&[envelope(&old, "create", 40, ts), gone(ts)]).await.0, 200);
    // To the history, today's container is a recreated one of the same name.
    let others = json!({"id": "others", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    assert!(app.local.create_container("dev", others).await.unwrap());
    let today = app.cosmos.container("dev", "others").await.unwrap();
    let key = PartitionKey::parse("p").unwrap();
    today.upsert(&key, "n", br#"{"id":"n","pk":"p","n":7}"#.to_vec()).await.unwrap();
    let stored = today.read(&key, "n").await.unwrap().unwrap();
    let mut new: Value = serde_json::from_slice(&stored).unwrap();
    new["_ts"] = (ts + 600).into();
    let again = app.handler(&[("COSMOS_SOURCE_CONTAINER", "others")]).await;
    assert_eq!(again.deliver(&[envelope(&new, "create", 1, ts + 600), gone(ts + 600)]).await.0, 200);
    // The LSN of a recreated container starts over; both deletes are present.
    assert_eq!(app.versions("b").await.len(), 2);

    let source = ["--source", "others"];
    let shown = app.run(&[&["show", "--id", "a", "--format", "json"][..], &source].concat()).await.json();
    assert_eq!(shown["caveats"][0]["name"], "recreated", "{shown}");
    let own = app.run(&["show", "--id", "a", "--format", "json"]).await.json();
    assert_eq!(own["caveats"], json!([]), "{own}");
    let args = ["restore", "--all", "--at", &at, "--delete-newer", "--dry-run", "--format", "json"];
    let plan = app.run(&[&args[..], &source].concat()).await;
    assert_eq!(plan.code, 3, "{plan:?}");
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    let told: Vec<String> = plan["plan"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| format!("{} {} {}", s["id"].as_str().unwrap(), s["action"].as_str().unwrap(), s["notes"]))
        .collect();
    assert!(told[0].starts_with("a recreate") && told[0].contains("deleted since, nobody knows when"), "{told:?}");
    assert!(told[2].starts_with("n unknown") && told[2].contains("whether it was in the one before"), "{told:?}");
    // A document that was deleted with its container is not missing a tombstone.
    let verified = verify(&app, &source, 3).await;
    assert!(found(&verified).iter().all(|check| !check.0.contains("gone")), "{verified}");
}

fn chrono_text(seconds: i64) -> String {
    cosmos_rewind::change::time::PointInTime::from_epoch(seconds).to_string()
}

#[tokio::test]
async fn a_running_trigger_has_leases_with_owners() {
    let local = crate::support::Local::start(&["--mode", "all-versions"]).await;
    let populated = local.run(&["populate", "--count", "50"]).await;
    assert_eq!(populated.code, 0, "{populated:?}");
    local.wait_for_count("changes", 50).await;
    let status = local.run(&["status", "--format", "json"]).await.json();
    let leases = status["leases"].as_array().unwrap();
    assert!(!leases.is_empty() && leases.iter().all(|l| l["owner"].is_string() && l["age"].is_u64()), "{status}");
    let caught_up = |l: &Value| l["items"] == 0 && l["lag"] == 0 && l["more"] == false && l["range"].is_string();
    assert!(leases.iter().all(caught_up), "{status}");
    let verified = local.run(&["verify", "--content", "--deep", "50", "--format", "json"]).await.json();
    assert_eq!((&verified["result"], &verified["sampled"]), (&json!("OK"), &json!(50)), "{verified}");
    let days = local.run(&["coverage", "--format", "json"]).await.json();
    let sum: u64 = days.as_array().unwrap().iter().map(|d| d["all_versions"].as_u64().unwrap()).sum();
    assert_eq!(sum, 50, "{days}");
    assert!(days.as_array().unwrap().iter().all(|d| d["mode"] == "all-versions" && d["gaps"] == 0), "{days}");
}

#[tokio::test]
async fn pending_changes_are_counted_for_followers_and_leases() {
    let app = TestApp::start().await;
    let modes = [("all", "all-versions"), ("newest", "latest")];
    for (name, mode) in modes {
        follow::catch_up(&app, &["--name", name, "--mode", mode, "--sink", "file:e.jsonl"]).await;
    }
    // A lease in the host's format, and one of another container.
    let source = app.events().await;
    let leases = app.cosmos.container("dev", "leases").await.unwrap();
    let rid = source.rid().replace(['=', '/'], "");
    for (id, range) in [(format!("f127.0.0.1_dev_{rid}..0"), ("", "FF")), ("fother_dev_XXXX..0".to_owned(), ("", "FF"))]
    {
        let lease = json!({"id": id, "LeaseToken": "0", "ContinuationToken": "\"1\"", "Owner": "me", "timestamp": "2026-11-20T15:00:00Z",
            "FeedRange": {"Range": {"min": range.0, "max": range.1}}});
        let key = PartitionKey::parse(&json!([id]).to_string()).unwrap();
        leases.upsert(&key, &id, lease.to_string().into_bytes()).await.unwrap();
    }
    for n in 1..=3 {
        for id in ["a", "b"] {
            follow::put(&app, id, n).await;
        }
    }
    let waiting = async |args: &[&str]| {
        let status = app.run(&[&["status", "--format", "json"], args].concat()).await.json();
        let mut sums = std::collections::BTreeMap::<String, (u64, bool, bool)>::new();
        for lease in status["leases"].as_array().unwrap() {
            let of = lease["lease"].as_str().unwrap().split(['.', '_']).take(2).collect::<Vec<_>>().join(".");
            let sum = sums.entry(of).or_default();
            sum.0 += lease["items"].as_u64().unwrap_or_default();
            sum.1 |= lease["more"].as_bool().unwrap();
            sum.2 |= lease["items"].is_null();
            assert!(lease["lag"].as_i64().unwrap_or_default() < 3600, "{status}");
        }
        sums.into_iter()
            .map(|(of, (items, more, unknown))| format!("{of} {items} {more} {unknown}"))
            .collect::<Vec<_>>()
    };
    // Six versions of two documents, none of them in the history.
    let expected =
        ["f127.0 2 false false", "follow.all 6 false false", "follow.newest 2 false false", "fother.dev 0 false true"];
    assert_eq!(waiting(&[]).await, expected);
    follow::catch_up(&app, &["--name", "all", "--mode", "all-versions", "--sink", "changes"]).await;
    let expected =
        ["f127.0 0 false false", "follow.all 0 false false", "follow.newest 2 false false", "fother.dev 0 false true"];
    assert_eq!(waiting(&[]).await, expected);
    let populated = app.run(&["populate", "--count", "5000", "--seed", "1"]).await;
    assert_eq!(populated.code, 0, "{populated:?}");
    let few = waiting(&[]).await;
    assert!(few[1].contains("true false") && !few[1].contains(" 5000 "), "{few:?}");
    let all = waiting(&["--count"]).await;
    assert_eq!(all[1], "follow.all 5000 false false");
    let table = app.run(&["status"]).await;
    assert!(table.stdout.contains("+ "), "{table:?}");
}
