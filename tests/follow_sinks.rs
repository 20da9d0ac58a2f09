//! Sinks of `follow` that need Azurite, its metrics, and the scripts in the documents.

use std::{
    collections::BTreeMap,
    io::Read as _,
    time::{Duration, Instant},
};

use cosmos_rewind::{
    blob::BlobContainer,
    change::{Op, key::PartitionKey},
    config::{Credential, DeadLetterLocation},
    follow::{
        Event, Fence,
        sink::{Batch, SegmentSink, Sink},
    },
};
use serde_json::json;

use crate::{
    follow::{ALL, catch_up, checkpoint, events, put},
    support::{
        BINARY, Fault, FollowerProcess, Kind, Letterbox, TestApp, When, eventually,
        peers::{Azurite, signatures},
    },
};

fn open(url: &str) -> BlobContainer {
    let DeadLetterLocation::Blob(url) = DeadLetterLocation::parse("test", url, std::path::Path::new(".")).unwrap()
    else {
        panic!("{url} is no URL");
    };
    BlobContainer::open(&url.split().0, &Credential::Developer).unwrap()
}

/// The lines of all segments in a container, read with common tools.
fn lines_of(letterbox: &Letterbox) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    for bytes in letterbox.blobs().values() {
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        found.extend(events(&text));
    }
    found
}

/// All blobs of a container by name, decompressed.
async fn blobs(url: &str) -> BTreeMap<String, String> {
    let store = open(url);
    let mut found = BTreeMap::new();
    for name in store.list().await.unwrap() {
        let bytes = store.get(&name).await.unwrap();
        let mut text = String::new();
        if name.ends_with(".gz") {
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        } else {
            text = String::from_utf8(bytes).unwrap();
        }
        found.insert(name, text);
    }
    found
}

#[tokio::test]
async fn each_version_is_a_single_blob_however_often_it_is_delivered() {
    let Some(azurite) = Azurite::start() else { return };
    azurite.create("versions").await;
    let app = TestApp::start().await;
    // With a SAS, and with Azurite's own key.
    let signed = azurite.container("versions").replacen("versions?", "versions/a/b?", 1);
    let bare = signed.split('?').next().unwrap().to_owned();
    catch_up(&app, &ALL).await;
    catch_up(&app, &[&ALL[..], &["--name", "twice"]].concat()).await;
    for n in 1..=3 {
        put(&app, "x", n).await;
    }
    put(&app, "y/../..", 1).await;
    app.events().await.delete(&PartitionKey::parse("key-x").unwrap(), "x", None).await.unwrap();
    catch_up(&app, &[&ALL[..], &["--sink", &format!("blob:{signed}"), "--sink", "changes"]].concat()).await;
    let first = blobs(&signed).await;
    assert_eq!(first.len(), 5, "{first:#?}");
    catch_up(&app, &[&ALL[..], &["--name", "twice", "--sink", &format!("blob:{bare}")]].concat()).await;
    assert_eq!(blobs(&signed).await, first);
    let of_x: Vec<_> = first.keys().filter(|name| name.starts_with("a/b/key-x/x/")).collect();
    assert_eq!((of_x.len(), of_x.iter().any(|name| name.contains("del-"))), (4, true), "{first:#?}");
    assert!(first.keys().any(|name| name.contains("y%2F%2E%2E")), "{first:#?}");
    for record in app.history().await {
        let text = first.values().find(|text| text.contains(record["id"].as_str().unwrap()));
        assert!(text.is_some(), "{record}");
    }

    put(&app, "x", 4).await;
    let wrong = signed.replace("versions/", "nowhere/");
    let output =
        app.run(&[&["follow", "--until-caught-up"], &ALL[..], &["--sink", &format!("blob:{wrong}")]].concat()).await;
    assert_eq!((output.code, output.stderr.contains("create the container first")), (1, true), "{output:?}");
    for signature in signatures(&signed) {
        assert!(!output.stderr.contains(&signature), "{output:?}");
    }
}

#[tokio::test]
async fn segments_hold_every_version_once_and_nothing_is_acknowledged_before_its_segment() {
    let Some(azurite) = Azurite::start() else { return };
    azurite.create("segments").await;
    let app = TestApp::start().await;
    let url = azurite.container("segments").replacen("segments?", "segments/feed?", 1);
    let sink = format!("blob:{url}");
    let args = [&ALL[..], &["--segments", "--sink", &sink, "--lease", "2"]].concat();
    catch_up(&app, &args).await;
    let versions = async || {
        let mut seen: Vec<(String, u64)> = Vec::new();
        for text in blobs(&url).await.values() {
            seen.extend(
                events(text).iter().map(|e| (e["id"].as_str().unwrap().to_owned(), e["doc"]["n"].as_u64().unwrap())),
            );
        }
        seen.sort();
        seen
    };
    for n in 1..=5 {
        for id in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            put(&app, id, n).await;
        }
    }
    // Killed with open segments: nothing was acknowledged, so everything is read again.
    let before = checkpoint(&app, "follow.default").await.unwrap()["ranges"].clone();
    let mut follower = FollowerProcess::start(&app, &[&args[..], &["--segment-seconds", "3600"]].concat());
    follower.wait_for_log("going on from the checkpoint").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    follower.kill();
    assert_eq!(checkpoint(&app, "follow.default").await.unwrap()["ranges"], before);
    assert!(versions().await.is_empty());
    // A clean stop closes the segments; short ones close by themselves.
    let mut follower = FollowerProcess::start(&app, &[&args[..], &["--segment-seconds", "1"]].concat());
    eventually("the segments exist", async || (versions().await.len() == 40).then_some(())).await;
    for id in ["a", "b"] {
        put(&app, id, 6).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    follower.signal("TERM");
    assert!(follower.ended().await.success(), "{:#?}", follower.log());
    catch_up(&app, &args).await;
    let seen = versions().await;
    let mut unique = seen.clone();
    unique.dedup();
    assert_eq!((seen.len(), unique.len()), (42, 42), "{seen:?}");
    let names: Vec<String> = blobs(&url).await.into_keys().collect();
    assert!(names.iter().all(|name| name.starts_with("feed/20") && name.ends_with(".jsonl.gz")), "{names:?}");
}

/// A suspended holder finds its name taken when it wakes. Its buffered events were never acknowledged; the new holder
/// has written them to a segment whose name has the same prefix.
#[tokio::test]
async fn a_holder_that_wakes_up_late_overwrites_no_segment() {
    let letterbox = Letterbox::start().await;
    let app = TestApp::start().await;
    let sink = format!("blob:{}", letterbox.url());
    let args = [&ALL[..], &["--segments", "--sink", &sink, "--lease", "2", "--segment-seconds", "3600"]].concat();
    catch_up(&app, &args).await;
    let mut first = FollowerProcess::start(&app, &args);
    first.wait_for_log("going on from the checkpoint").await;
    for n in 1..=10 {
        put(&app, "x", n).await;
    }
    // Long enough for several polls; the events stay buffered.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert!(letterbox.blobs().is_empty());
    first.signal("STOP");
    for n in 11..=100 {
        put(&app, "x", n).await;
    }
    let mut second = FollowerProcess::start(&app, &args);
    second.wait_for_log("going on from the checkpoint").await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    second.signal("TERM");
    assert!(second.ended().await.success(), "{:#?}", second.log());
    let numbers = |letterbox: &Letterbox| {
        let mut numbers: Vec<u64> =
            lines_of(letterbox).iter().map(|event| event["doc"]["n"].as_u64().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    let wanted: Vec<u64> = (1..=100).collect();
    assert_eq!(numbers(&letterbox), wanted);
    let blobs = letterbox.blobs();
    first.signal("CONT");
    first.wait_for_log("standing by").await;
    first.wait_for_log("going on from the checkpoint").await;
    first.signal("TERM");
    assert!(first.ended().await.success(), "{:#?}", first.log());
    // The acknowledged segments are unchanged, and nothing is written twice.
    assert_eq!(letterbox.blobs(), blobs);

    // Starting over, as documented: everything is written again, next to the existing segments.
    let over = ["--from", "beginning", "--segments", "--sink", &sink, "--name", "over"];
    catch_up(&app, &over).await;
    let leases = app.cosmos.container("dev", "leases").await.unwrap();
    let id = "follow.over";
    leases.delete(&PartitionKey::parse(id).unwrap(), id, None).await.unwrap();
    put(&app, "x", 101).await;
    catch_up(&app, &over).await;
    for (name, bytes) in &blobs {
        assert_eq!(letterbox.blobs().get(name), Some(bytes), "{name}");
    }
    assert_eq!(numbers(&letterbox), [wanted, vec![100, 101]].concat());
}

fn event(n: u64) -> Event<'static> {
    Event {
        op: Op::Create,
        id: "x".into(),
        pk: PartitionKey::parse("p").unwrap(),
        ts: Some(1_700_000_000),
        lsn: Some(n as i64),
        version: format!("x~{n}"),
        doc: Some(json!({"id": "x", "n": n}).to_string().into()),
        previous: None,
        changed: None,
        partial: None,
        etag: None,
        native: None,
    }
}

/// After a split the readers restart within the same term, from the checkpoint.
#[tokio::test]
async fn a_failed_segment_upload_loses_no_later_event() {
    let letterbox = Letterbox::start().await;
    let segments =
        || SegmentSink::new(open(letterbox.url()), "f".into(), "a".into(), 1 << 20, Duration::from_secs(3600));
    let (sink, fence) = (Sink::Segments(segments()), Fence::begin(1));
    let write = async |sink: &Sink, fence: &Fence, numbers: std::ops::Range<u64>| {
        let events = numbers.map(event).collect();
        sink.write(&Batch { items: Vec::new(), events, range: "00-FF", fence }).await
    };
    sink.begin().await.unwrap();
    write(&sink, &fence, 0..3).await.unwrap();
    letterbox.busy(true);
    assert!(sink.flush("00-FF", true).await.is_err());
    letterbox.busy(false);
    // Later events must not be accepted before the failed segment is uploaded: they would be acknowledged with it, and
    // lost.
    assert!(write(&sink, &fence, 3..6).await.is_err());
    sink.begin().await.unwrap();
    write(&sink, &fence, 0..6).await.unwrap();
    assert!(!sink.flush("00-FF", true).await.unwrap());
    assert_eq!(lines_of(&letterbox).len(), 6);

    // The same first version again, in this term and in another: nothing is replaced.
    for (other, numbers) in [(&fence, 0..2), (&Fence::begin(1), 0..3)] {
        let sink = Sink::Segments(segments());
        write(&sink, other, numbers).await.unwrap();
        assert!(!sink.flush("00-FF", true).await.unwrap());
    }
    assert_eq!((letterbox.blobs().len(), lines_of(&letterbox).len()), (3, 11));
    // An upload whose answer was lost is retried, and is one blob.
    write(&sink, &fence, 0..6).await.unwrap();
    assert!(!sink.flush("00-FF", true).await.unwrap());
    assert_eq!(letterbox.blobs().len(), 3);
}

#[tokio::test]
async fn metrics_and_health_report_the_followers_state() {
    let app = TestApp::start().await;
    let http = crate::support::http_client();
    let start = async |more: &[&str]| {
        let mut follower =
            FollowerProcess::start(&app, &[&ALL[..], &["--lease", "2", "--metrics", "127.0.0.1:0"], more].concat());
        follower.wait_for_log("metrics are served").await;
        let log = follower.log();
        let line = log.iter().find(|line| line.contains("metrics are served")).unwrap();
        let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        (follower, format!("http://{address}"))
    };
    let get = async |url: String| {
        let answer = http.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (mut first, one) = start(&[]).await;
    first.wait_for_log("start of every range saved").await;
    eventually("it is ready", async || (get(format!("{one}/readyz")).await.0 == 200).then_some(())).await;
    let (mut second, two) = start(&[]).await;
    second.wait_for_log("standing by").await;
    assert_eq!(get(format!("{two}/readyz")).await, (503, "standing by\n".to_owned()));
    assert_eq!(get(format!("{two}/healthz")).await.0, 200);
    for n in 0..10 {
        put(&app, &format!("doc-{n}"), 1).await;
    }
    let text = eventually("the changes are counted", async || {
        let text = get(format!("{one}/metrics")).await.1;
        text.contains("cosmos_rewind_delivered_total{follower=\"default\"} 10").then_some(text)
    })
    .await;
    let ranges = app.local.ranges("dev", "events").await.unwrap().len();
    assert_eq!(text.matches("\ncosmos_rewind_lag_seconds{").count(), ranges, "{text}");
    let caught_up = |text: &str| {
        let waiting: Vec<&str> = text.lines().filter(|l| l.starts_with("cosmos_rewind_waiting_items{")).collect();
        waiting.len() == ranges && waiting.iter().all(|line| line.ends_with(" 0"))
    };
    eventually("nothing waits", async || caught_up(&get(format!("{one}/metrics")).await.1).then_some(())).await;
    assert!(text.contains("cosmos_rewind_holding{follower=\"default\"} 1"), "{text}");
    assert_eq!(get(format!("{one}/nothing")).await.0, 404);
    let taken = one.trim_start_matches("http://");
    let output = app.run(&["follow", "--metrics", taken]).await;
    assert!(output.code == 1 && output.stderr.contains(&format!("--metrics {taken}")), "{output:?}");
}

/// A hanging follower does not fail, so a health check must report it.
#[tokio::test]
async fn a_hanging_follower_reports_it_and_one_throttled_at_its_start_continues() {
    let app = TestApp::start().await;
    app.proxy.fail_next_of(Kind::Definition, vec![Fault::Reject(429, 3200); 5]);
    let mut follower =
        FollowerProcess::start(&app, &[&ALL[..], &["--lease", "10", "--metrics", "127.0.0.1:0"]].concat());
    follower.wait_for_log("start of every range saved").await;
    let log = follower.log();
    let address =
        log.iter().find_map(|line| Some(line.split("address=").nth(1)?.split_whitespace().next()?.to_owned()));
    let http = crate::support::http_client();
    let status = async |path: &str| {
        let url = format!("http://{}/{path}", address.as_ref().unwrap());
        http.get(url).send().await.unwrap().status().as_u16()
    };
    eventually("it is ready", async || (status("readyz").await == 200).then_some(())).await;
    app.proxy.fail_always_of(Kind::LiveRead, Some(Fault::Hold(When::Before, Duration::from_secs(120))));
    let begun = Instant::now();
    eventually("it is unhealthy", async || (status("healthz").await == 503).then_some(())).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(status("readyz").await, 503);
    app.proxy.fail_always_of(Kind::LiveRead, None);
    eventually("it is healthy again", async || (status("healthz").await == 200).then_some(())).await;
}

/// Runs the scripts in the documents with this build.
#[cfg(unix)]
#[tokio::test]
async fn the_documented_scripts_succeed() {
    let run = async |script: &str, args: &[&str]| {
        let mut command = tokio::process::Command::new(format!("scripts/{script}"));
        let output = command.args(args).env("COSMOS_REWIND", BINARY).env_remove("REWIND_LOG").output().await.unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (proof, account) = tokio::join!(run("resume-proof.sh", &["10"]), run("bank-account.sh", &[]));
    assert!(proof.contains("proved     killed 2 times, it printed 1 to 10"), "{proof}");
    assert!(account.contains("  ~ /balance  250 -> -20.5\n") && !account.contains("-> -95.5\n  ~"), "{account}");
}

/// Finishing work in flight may take longer than the lease; nobody else may take the name meanwhile.
#[tokio::test]
async fn a_follower_that_stops_keeps_its_name_until_its_last_page_is_done() {
    let (app, letterbox) = (TestApp::start().await, Letterbox::start().await);
    let sink = format!("blob:{}", letterbox.url());
    let args = [&ALL[..], &["--lease", "2", "--sink", &sink]].concat();
    catch_up(&app, &args).await;
    letterbox.slow(Duration::from_secs(6));
    let mut first = FollowerProcess::start(&app, &args);
    first.wait_for_log("going on from the checkpoint").await;
    put(&app, "x", 1).await;
    let mut second = FollowerProcess::start(&app, &args);
    second.wait_for_log("standing by").await;
    // The page has reached the sink by now.
    tokio::time::sleep(Duration::from_millis(700)).await;
    first.signal("TERM");
    assert!(first.ended().await.success(), "{:#?}", first.log());
    assert_eq!(letterbox.blobs().len(), 1);
    second.wait_for_log("going on from the checkpoint").await;
    second.signal("TERM");
    assert!(second.ended().await.success(), "{:#?}", second.log());
    for log in [first.log(), second.log()] {
        assert!(!log.iter().any(|line| line.contains("taking over") || line.contains("taken over")), "{log:#?}");
    }
    // The finished page was saved, so nothing of it is left to read.
    assert!(second.log().iter().any(|line| line.contains("stopped: 0 changes read")), "{:#?}", second.log());
}
