//! `follow`: the change feed read by the program itself, from the outside.

use std::{collections::BTreeMap, time::Duration};

use cosmos_rewind::change::{Op, VersionFidelity, VersionVia, key::PartitionKey};
use serde_json::{Value, json};

use crate::support::{Fault, FollowerProcess, Output, TestApp, eventually};

pub const ALL: [&str; 2] = ["--mode", "all-versions"];

/// Runs a follower until nothing is left.
pub async fn catch_up(app: &TestApp, args: &[&str]) -> Output {
    let output = app.run(&[&["follow", "--until-caught-up", "--poll", "50"], args].concat()).await;
    assert_eq!(output.code, 0, "{output:?}");
    output
}

/// Writes version `n` of a document.
pub async fn put(app: &TestApp, id: &str, n: u64) {
    app.put(json!({"id": id, "pk": format!("key-{id}"), "n": n})).await;
}

/// The counters in the history, by document, in the order of its versions.
async fn captured(app: &TestApp) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
    for record in app.history().await {
        let lsn = record["_change"]["lsn"].as_i64().unwrap();
        let id = record["_originalId"].as_str().unwrap().to_owned();
        found.entry(id).or_default().push((lsn, record["n"].as_u64().unwrap()));
    }
    found
        .into_iter()
        .map(|(id, mut versions)| {
            versions.sort_unstable();
            (id, versions.into_iter().map(|(_, n)| n).collect())
        })
        .collect()
}

/// The checkpoint as it is stored.
pub async fn checkpoint(app: &TestApp, id: &str) -> Option<Value> {
    let leases = app.cosmos.container("dev", "leases").await.unwrap();
    let key = PartitionKey::parse(&json!([id]).to_string()).unwrap();
    leases.read(&key, id).await.unwrap().map(|text| serde_json::from_slice(&text).unwrap())
}

pub fn events(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn every_version_is_captured_as_it_is_and_the_next_run_goes_on_there() {
    let app = TestApp::start().await;
    let started = catch_up(&app, &ALL).await;
    assert!(started.stderr.contains("start of every range saved") && started.stdout.is_empty(), "{started:?}");
    let events_container = app.events().await;
    let key = PartitionKey::parse("p").unwrap();
    let text =
        r#"{"id":"x","pk":"p","price":1.5,"big":12345678901234567890,"at":"2026-01-01T00:00:00+02:00","_lsn":"mine"}"#;
    events_container.upsert(&key, "x", text.into()).await.unwrap();
    put(&app, "y", 1).await;
    put(&app, "y", 2).await;
    events_container.delete(&key, "x", None).await.unwrap();
    let output =
        catch_up(&app, &[&ALL[..], &["--sink", "changes", "--sink", "stdout", "--sink", "file:e.jsonl"]].concat())
            .await;
    let versions = app.versions("x").await;
    assert_eq!(versions.iter().map(|v| v.op.unwrap()).collect::<Vec<_>>(), [Op::Create, Op::Delete]);
    assert_eq!(versions[0].document.as_deref(), Some(text));
    assert_eq!(
        (versions[0].via.as_ref().map(VersionVia::as_str), versions[0].fidelity.as_ref().map(VersionFidelity::as_str)),
        (Some("follow"), Some("exact"))
    );
    assert_eq!(app.versions("y").await.iter().map(|v| v.op.unwrap()).collect::<Vec<_>>(), [Op::Create, Op::Replace]);

    let lines = events(&output.stdout);
    assert_eq!(std::fs::read_to_string(app.folder.path().join("e.jsonl")).unwrap().lines().count(), 4);
    let of_y: Vec<_> = lines.iter().filter(|e| e["id"] == "y").map(|e| (&e["op"], &e["changed"])).collect();
    assert_eq!(of_y, [(&json!("create"), &json!(null)), (&json!("replace"), &json!(["/n"]))]);
    let gone = lines.iter().find(|e| e["op"] == "delete").unwrap();
    assert_eq!(
        (&gone["pk"], &gone["doc"], gone["previous"]["price"].to_string().as_str()),
        (&json!("p"), &json!(null), "1.5")
    );
    assert!(output.stdout.contains("\"big\":12345678901234567890,"), "{output:?}");
    // Each event's version is the id of its record.
    let mut ids: Vec<_> = lines.iter().map(|e| e["version"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    assert_eq!(ids, app.history().await.iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>());

    let again = catch_up(&app, &[&ALL[..], &["--sink", "stdout"]].concat()).await;
    assert_eq!((again.stdout.as_str(), again.stderr.contains("0 changes read")), ("", true), "{again:?}");
}

#[tokio::test]
async fn the_latest_mode_reads_from_the_beginning_or_a_time_and_gives_the_host_s_own_records() {
    let app = TestApp::start().await;
    for id in ["a", "b", "c", "d", "e"] {
        put(&app, id, 1).await;
        put(&app, id, 2).await;
    }
    catch_up(&app, &["--from", "beginning"]).await;
    let followed = app.history().await;
    assert_eq!(followed.len(), 5);
    // The same items by the host's way change nothing but the entrance and its fidelity check.
    let payload: Vec<Value> = {
        let mut items = Vec::new();
        for record in &followed {
            let id = record["_originalId"].as_str().unwrap();
            let key = PartitionKey::parse(record["pk"].as_str().unwrap()).unwrap();
            let text = app.events().await.read(&key, id).await.unwrap().unwrap();
            let mut item: Value = serde_json::from_slice(&text).unwrap();
            item["_lsn"] = record["_change"]["lsn"].clone();
            items.push(item);
        }
        items
    };
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&payload).await.0, 200);
    let without_via = |mut records: Vec<Value>| {
        records.iter_mut().for_each(|r| r["_change"]["via"] = json!(null));
        records
    };
    assert_eq!(without_via(app.history().await), without_via(followed));

    let now = catch_up(&app, &["--name", "later", "--from", "now", "--sink", "stdout"]).await;
    assert_eq!(now.stdout, "");
    let hour = catch_up(&app, &["--name", "hour", "--from", "1h", "--sink", "stdout"]).await;
    assert_eq!(events(&hour.stdout).len(), 5);
}

/// The latest-version feed does not say what happened, nor what was before.
#[tokio::test]
async fn a_follower_that_knows_less_unlearns_nothing_and_one_that_knows_more_completes_it() {
    let app = TestApp::start().await;
    catch_up(&app, &ALL).await;
    for n in 1..=3 {
        put(&app, "x", n).await;
    }
    put(&app, "y", 1).await;
    let latest = ["--mode", "latest", "--from", "beginning", "--name", "latest"];
    let known = |history: &[Value], id: &str| -> Vec<(String, Option<i64>)> {
        let of = history.iter().filter(|record| record["_originalId"] == id);
        let mut of: Vec<_> = of.map(|r| (r["n"].as_u64(), &r["_change"])).collect();
        of.sort_by_key(|(n, _)| *n);
        of.into_iter().map(|(_, c)| (c["op"].as_str().unwrap().to_owned(), c["prevLsn"].as_i64())).collect()
    };
    // Before the other one: it knows less, and is completed.
    catch_up(&app, &latest).await;
    assert_eq!(known(&app.history().await, "x"), [("upsert".to_owned(), None)]);
    catch_up(&app, &ALL).await;
    let whole = app.history().await;
    let of_x = [("create".to_owned(), None), ("replace".to_owned(), Some(1)), ("replace".to_owned(), Some(2))];
    assert_eq!(known(&whole, "x"), of_x);
    assert_eq!(known(&whole, "y"), [("create".to_owned(), None)]);
    // After it, all over again, and by the host in its latest-version mode: nothing changes.
    catch_up(&app, &[&latest[..4], &["--name", "again"]].concat()).await;
    assert_eq!(app.history().await, whole);
    let handler = app.handler(&[]).await;
    let mut document = app.put(json!({"id": "x", "pk": "key-x", "n": 3})).await;
    for record in whole.iter().filter(|record| record["_originalId"] == "x") {
        document["_etag"] = record["_change"]["etag"].clone();
        document["n"] = record["n"].clone();
        (document["_ts"], document["_lsn"]) = (record["_change"]["ts"].clone(), record["_change"]["lsn"].clone());
        assert_eq!(handler.deliver(&[document.clone()]).await.0, 200);
    }
    let after = app.history().await;
    let kept: Vec<_> = after.iter().filter(|r| whole.iter().any(|w| w["id"] == r["id"])).cloned().collect();
    assert_eq!(kept, whole);
}

#[tokio::test]
async fn the_start_of_every_range_is_saved_before_anything_is_acknowledged() {
    let app = TestApp::start().await;
    for n in 0..20 {
        put(&app, &format!("doc-{n}"), n).await;
    }
    app.proxy.fail_always(Some(Fault::Reject(503, 0)));
    let sinks = ["--sink", "changes", "--sink", "file:e.jsonl"];
    let mut follower = FollowerProcess::start(&app, &[&["--from", "beginning"], &sinks[..]].concat());
    follower.wait_for_log("start of every range saved").await;
    eventually("a write was tried", async || (app.proxy.writes() > 0).then_some(())).await;
    let saved = checkpoint(&app, "follow.default").await.unwrap();
    let ranges = saved["ranges"].as_array().unwrap();
    assert_eq!(ranges.len(), app.local.ranges("dev", "events").await.unwrap().len());
    assert!(ranges.iter().all(|range| range["token"].as_str().is_some_and(|token| !token.is_empty())), "{saved}");
    // One sink has everything, the other nothing: no range may move.
    let lines = || std::fs::read_to_string(app.folder.path().join("e.jsonl")).unwrap_or_default().lines().count();
    eventually("the file has them", async || (lines() == 20).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(&checkpoint(&app, "follow.default").await.unwrap()["ranges"], &saved["ranges"]);
    follower.kill();
    // Its last requests may still be on the way; they are refused like the others.
    assert!(app.history().await.is_empty());
    app.proxy.fail_always(None);
    catch_up(&app, &["--lease", "2"]).await;
    assert_eq!(captured(&app).await.len(), 20);
}

#[tokio::test]
async fn from_now_misses_nothing_that_is_written_after_the_checkpoint_was_made() {
    let app = TestApp::start().await;
    put(&app, "before", 0).await;
    let mut follower = FollowerProcess::start(&app, &ALL);
    follower.wait_for_log("start of every range saved").await;
    // Killed before it has read anything: what comes now is after the checkpoint, in every range.
    follower.kill();
    for n in 0..30 {
        put(&app, &format!("doc-{n}"), 1).await;
        put(&app, &format!("doc-{n}"), 2).await;
    }
    catch_up(&app, &[&ALL[..], &["--lease", "2"]].concat()).await;
    let found = captured(&app).await;
    assert!(!found.contains_key("before"));
    assert_eq!(found.len(), 30);
    assert!(found.values().all(|versions| *versions == [1, 2]), "{found:?}");
}

/// Kills followers while documents are written; every version must be in the history once, in order.
async fn survives_kills(flags: &[&str]) {
    let app = TestApp::start().await;
    let args = [&ALL[..], flags].concat();
    catch_up(&app, &args).await;
    let writer = async {
        for n in 1..=40 {
            for id in ["a", "b", "c", "d", "e", "f"] {
                put(&app, id, n).await;
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    };
    let killer = async {
        for pause in [150, 40, 300, 700] {
            let mut follower = FollowerProcess::start(&app, &args);
            follower.wait_for_log("going on from the checkpoint").await;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            follower.kill();
        }
    };
    tokio::join!(writer, killer);
    catch_up(&app, &args).await;
    let found = captured(&app).await;
    assert_eq!(found.len(), 6);
    assert!(found.values().all(|versions| versions.iter().copied().eq(1..=40)), "{found:?}");
}

#[tokio::test]
async fn killed_again_and_again_it_neither_misses_nor_doubles_a_version() {
    survives_kills(&["--lease", "2"]).await;
}

#[tokio::test]
async fn the_same_with_its_checkpoint_in_a_file() {
    survives_kills(&["--checkpoint-file", "follower.json"]).await;
}

#[tokio::test]
async fn a_stand_by_takes_over_from_one_that_was_killed_and_from_one_that_hangs() {
    let app = TestApp::start().await;
    let args = [&ALL[..], &["--lease", "2"]].concat();
    let mut first = FollowerProcess::start(&app, &args);
    first.wait_for_log("start of every range saved").await;
    let mut second = FollowerProcess::start(&app, &args);
    second.wait_for_log("standing by").await;
    put(&app, "a", 1).await;
    eventually("it is captured", async || (captured(&app).await.len() == 1).then_some(())).await;
    first.kill();
    put(&app, "a", 2).await;
    second.wait_for_log("taking over").await;
    eventually("it is captured", async || (captured(&app).await["a"] == [1, 2]).then_some(())).await;

    // One that hangs for longer than its lease has lost the name, and finds out when it wakes.
    let mut third = FollowerProcess::start(&app, &args);
    third.wait_for_log("standing by").await;
    second.signal("STOP");
    third.wait_for_log("taking over").await;
    put(&app, "a", 3).await;
    second.signal("CONT");
    // By its clock first, or else by the etag.
    second.wait_for_log("; standing by").await;
    put(&app, "a", 4).await;
    eventually("it is captured", async || (captured(&app).await["a"] == [1, 2, 3, 4]).then_some(())).await;
    // One that ends in peace leaves the name at once.
    third.signal("TERM");
    assert!(third.ended().await.success(), "{:#?}", third.log());
    second.wait_for_log("going on from the checkpoint").await;
    put(&app, "a", 5).await;
    eventually("it is captured", async || (captured(&app).await["a"].len() == 5).then_some(())).await;
}

#[tokio::test]
async fn a_name_that_somebody_else_took_is_noticed_by_its_etag_and_a_wrong_clock_blocks_nobody() {
    let app = TestApp::start().await;
    let mut follower = FollowerProcess::start(&app, &[&ALL[..], &["--lease", "6"]].concat());
    follower.wait_for_log("start of every range saved").await;
    // A holder whose clock is years ahead takes the name, and is never heard of again.
    let mut stolen = checkpoint(&app, "follow.default").await.unwrap();
    stolen["holder"] = "thief".into();
    stolen["expires"] = "2099-01-01T00:00:00Z".into();
    stolen["lease"] = 2.into();
    let leases = app.cosmos.container("dev", "leases").await.unwrap();
    let key = PartitionKey::parse("follow.default").unwrap();
    leases.upsert(&key, "follow.default", stolen.to_string().into_bytes()).await.unwrap();
    put(&app, "a", 1).await;
    follower.wait_for_log("another follower has taken over this name; standing by").await;
    follower.wait_for_log("taking over from a follower").await;
    put(&app, "a", 2).await;
    eventually("both are captured", async || (captured(&app).await.get("a")? == &[1, 2]).then_some(())).await;
}

#[tokio::test]
async fn splits_and_merges_lose_nothing() {
    let app = TestApp::start().await;
    let mut follower = FollowerProcess::start(&app, &ALL);
    follower.wait_for_log("start of every range saved").await;
    let write = async |n: u64| {
        for id in 0..40 {
            put(&app, &format!("doc-{id}"), n).await;
        }
    };
    write(1).await;
    let ranges = app.local.ranges("dev", "events").await.unwrap();
    let children = app.local.split("dev", "events", &ranges[0]).await.unwrap();
    write(2).await;
    app.local.merge("dev", "events", &children[0], &children[1]).await.unwrap();
    write(3).await;
    let all = async || {
        let found = captured(&app).await;
        (found.len() == 40 && found.values().all(|versions| versions.len() == 3)).then_some(())
    };
    eventually("all three versions are captured", all).await;
    follower.signal("TERM");
    assert!(follower.ended().await.success());
    // Split while nobody reads: the next one reads the children side by side.
    let ranges = app.local.ranges("dev", "events").await.unwrap();
    app.local.split("dev", "events", &ranges[0]).await.unwrap();
    write(4).await;
    catch_up(&app, &ALL).await;
    let found = captured(&app).await;
    assert!(found.len() == 40 && found.values().all(|versions| *versions == [1, 2, 3, 4]), "{found:?}");
    let saved = checkpoint(&app, "follow.default").await.unwrap();
    assert!(saved["ranges"].as_array().unwrap().len() > ranges.len(), "{saved}");
}

#[tokio::test]
async fn static_parts_share_the_container_without_gap_or_overlap() {
    let app = TestApp::start().await;
    for n in 0..60 {
        put(&app, &format!("doc-{n}"), 1).await;
    }
    let mut seen = Vec::new();
    for part in ["1/3", "2/3", "3/3"] {
        let output =
            catch_up(&app, &["--from", "beginning", "--feed-range", part, "--sink", "stdout", "--sink", "changes"])
                .await;
        let part = events(&output.stdout);
        assert!(!part.is_empty() && part.len() < 60);
        seen.extend(part.into_iter().map(|event| event["id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen.len(), 60);
    assert_eq!(captured(&app).await.len(), 60);
    assert!(checkpoint(&app, "follow.default.2-of-3").await.is_some());
}

#[tokio::test]
async fn what_cannot_work_is_named_with_the_fix() {
    let app = TestApp::start().await;
    for (args, wanted) in [
        (&["--mode", "all-versions", "--from", "beginning"][..], "--from beginning: the all-versions feed"),
        (&["--from", "yesterday"], "--from: time"),
        (&["--sink", "ftp://x"], "changes, stdout"),
        (&["--sink", "stdout", "--sink", "stdout"], "--sink stdout is given twice"),
        (&["--feed-range", "5/4"], "2/4"),
        (&["--name", "a/b"], "letters"),
        (&["--poll", "1"], "--poll"),
    ] {
        let output = app.run(&[&["follow", "--until-caught-up"], args].concat()).await;
        assert_eq!((output.code, output.stderr.contains(wanted)), (2, true), "{args:?}: {output:?}");
    }
    let output = app.run(&["follow", "--until-caught-up", "--sink", "file:no/such/folder/x.jsonl"]).await;
    assert_eq!((output.code, output.stderr.contains("--sink file:no/such/folder/x.jsonl")), (1, true), "{output:?}");
    catch_up(&app, &ALL).await;
    let output = app.run(&["follow", "--until-caught-up"]).await;
    assert!(output.code == 2 && output.stderr.contains("a token is bound to its mode"), "{output:?}");
    let output = app.run(&["follow", "--until-caught-up", "--leases", "nothing"]).await;
    assert!(output.code == 1 && output.stderr.contains("dev/nothing"), "{output:?}");
}

#[tokio::test]
async fn poison_is_put_away_and_the_rest_goes_on() {
    let app = TestApp::start().await;
    for id in ["good", "bad", "fine"] {
        put(&app, id, 1).await;
    }
    app.proxy.only_if_body_has("key-bad");
    app.proxy.fail_always(Some(Fault::Reject(403, 1014)));
    let mut follower = FollowerProcess::start(&app, &["--from", "beginning", "--until-caught-up"]);
    assert_eq!(follower.ended().await.code(), Some(3), "{:#?}", follower.log());
    assert_eq!(captured(&app).await.into_keys().collect::<Vec<_>>(), ["fine", "good"]);
    assert_eq!(app.dead_letters().len(), 1);
    app.proxy.fail_always(None);
    let replayed = app.run(&["replay"]).await;
    assert_eq!(replayed.code, 0, "{replayed:?}");
    assert_eq!(captured(&app).await.len(), 3);
}

#[tokio::test]
async fn a_filter_passes_on_what_it_names_and_mistakes_are_shown_with_a_caret() {
    let app = TestApp::start().await;
    catch_up(&app, &ALL).await;
    for (id, balance) in [("a", 10), ("b", -5), ("a", -1), ("b", 3)] {
        app.put(json!({"id": id, "pk": id, "balance": balance})).await;
    }
    app.put(json!({"id": "c", "pk": "c"})).await;
    let filter = r#"op in ["create", "replace"] && doc.balance < 0"#;
    let output =
        catch_up(&app, &[&ALL[..], &["--filter", filter, "--sink", "stdout", "--sink", "changes"]].concat()).await;
    let seen: Vec<_> = events(&output.stdout).iter().map(|e| (e["id"].clone(), e["doc"]["balance"].clone())).collect();
    assert_eq!(
        (seen.len(), seen.contains(&(json!("a"), json!(-1))), seen.contains(&(json!("b"), json!(-5)))),
        (2, true, true)
    );
    assert_eq!(
        app.history().await.len(),
        2 + 1,
        "the two, and the version before one of them: {:#?}",
        app.history().await
    );
    assert!(
        output.stderr.contains("a field is not there")
            && output.stderr.contains("5 changes read, 2 passed on, 1 without"),
        "{output:?}"
    );

    let output = app.run(&["follow", "--filter", "op == 1 && balanc < 0"]).await;
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("  op == 1 && balanc < 0\n             ^\n"), "{output:?}");
    let output = app.run(&["follow", "--filter", r#"changed("/a")"#]).await;
    assert!(output.code == 2 && output.stderr.contains("--mode all-versions"), "{output:?}");
    app.put(json!({"id": "d", "pk": "d"})).await;
    let wrong = [&ALL[..], &["--until-caught-up", "--filter", "size_of(doc) > 1"]].concat();
    let output = app.run(&[&["follow"], &wrong[..]].concat()).await;
    assert!(output.code == 2 && output.stderr.contains("size_of"), "{output:?}");
    let pretty = catch_up(&app, &[&ALL[..], &["--sink", "stdout", "--pretty"]].concat()).await;
    assert!(pretty.stdout.contains("create   d  d  lsn 6\n  + /id  \"d\"\n"), "{pretty:?}");
}

#[tokio::test]
async fn what_is_redacted_reaches_no_sink_and_the_record_says_so() {
    let app = TestApp::start().await;
    let args =
        [&ALL[..], &["--fields", "/name,/ssn,/card/number", "--redact", "/ssn", "--redact", "/card/number=hash"]]
            .concat();
    let key = [("REWIND_REDACT_KEY", "of the test")];
    let run = async |more: &[&str]| {
        let args = [&["follow", "--until-caught-up", "--poll", "50"], &args[..], more].concat();
        app.run_with_settings(&args, &key).await
    };
    assert_eq!(run(&[]).await.code, 0);
    let document = json!({"id": "x", "pk": "p", "name": "A", "ssn": "123-45", "card": {"number": "n-4111-n", "cvc": "c-999-c"}, "other": 1});
    app.put(document.clone()).await;
    let mut second = document.clone();
    second["name"] = "B".into();
    app.put(second).await;
    let output = run(&["--sink", "changes", "--sink", "stdout", "--sink", "file:e.jsonl"]).await;
    assert_eq!(output.code, 0, "{output:?}");
    let file = std::fs::read_to_string(app.folder.path().join("e.jsonl")).unwrap();
    let history = app.history().await;
    for text in [&output.stdout, &file, &format!("{history:?}")] {
        assert!(
            !text.contains("123-45")
                && !text.contains("n-4111-n")
                && !text.contains("c-999-c")
                && !text.contains("other"),
            "{text}"
        );
    }
    assert_eq!(history.len(), 2);
    for record in &history {
        assert_eq!(record["_change"]["fidelity"], "partial");
        assert_eq!(
            record["_change"]["partial"],
            json!({"fields": ["/name", "/ssn", "/card/number"], "dropped": ["/ssn"], "hashed": ["/card/number"]})
        );
        assert_eq!(record["card"]["number"], history[0]["card"]["number"]);
    }
    let shown = app.run(&["show", "--id", "x", "--format", "json"]).await.json();
    let caveats: Vec<&str> = shown["caveats"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(caveats, ["partial"]);
    // A follower that sees everything replaces what knows less, and never the other way round.
    let whole = app.history().await[0]["id"].clone();
    for args in [
        vec!["--name", "whole", "--from", "beginning"],
        [&["--name", "again", "--from", "beginning"], &args[2..]].concat(),
    ] {
        let args = [&["follow", "--until-caught-up"], &args[..]].concat();
        let output = app.run_with_settings(&args, &key).await;
        assert_eq!(output.code, 0, "{output:?}");
        let history = app.history().await;
        let newest = history.iter().find(|r| r["_change"]["fidelity"] == "exact").unwrap();
        assert_eq!(newest["ssn"], "123-45", "{whole}");
    }

    for (args, wanted) in [
        (["--redact", "/pk"], "identity"),
        (["--redact", "/a=hash"], "REWIND_REDACT_KEY"),
        (["--redact", "/a=rot13"], "neither hash nor drop"),
        (["--fields", "name"], "name"),
    ] {
        let output = app.run(&[&["follow"], &args[..]].concat()).await;
        assert!(output.code == 2 && output.stderr.contains(wanted), "{args:?}: {output:?}");
    }
}

/// The service allows 128 levels; the trigger's own reader gives up at 64, which stops its lease.
#[tokio::test]
async fn documents_of_every_depth_that_the_service_allows_are_captured() {
    let app = TestApp::start().await;
    catch_up(&app, &ALL).await;
    // The document itself is the first level.
    let deep = |id: &str, depth: usize, leaf: &str| {
        let (open, close) = (r#"{"a":"#.repeat(depth - 1), "}".repeat(depth - 1));
        format!(r#"{{"id":"{id}","pk":"p","v":{open}{leaf}{close}}}"#)
    };
    let arrays = |id: &str, depth: usize| {
        format!(r#"{{"id":"{id}","pk":"p","v":{}1{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1))
    };
    let events = app.events().await;
    let key = PartitionKey::parse("p").unwrap();
    let mut written = Vec::new();
    for depth in [63, 64, 65, 100, 127] {
        let id = format!("deep-{depth}");
        for text in [deep(&id, depth, "1"), deep(&id, depth, "2.5"), arrays(&id, depth)] {
            events.upsert(&key, &id, text.clone().into_bytes()).await.unwrap_or_else(|e| panic!("{depth}: {e}"));
            written.push((id.clone(), text));
        }
        events.delete(&key, &id, None).await.unwrap();
    }
    let sinks = ["--sink", "changes", "--sink", "stdout", "--sink", "file:deep.jsonl"];
    let output = catch_up(&app, &[&ALL[..], &sinks].concat()).await;
    assert_eq!(app.dead_letters(), Vec::<Value>::new());
    let mut captured = Vec::new();
    for depth in [63, 64, 65, 100, 127] {
        let id = format!("deep-{depth}");
        let versions = app.versions(&id).await;
        assert_eq!(versions.len(), 4, "{id}");
        captured.extend(versions.into_iter().filter_map(|version| Some((id.clone(), version.document?))));
    }
    assert_eq!(captured, written);
    for (_, text) in &written {
        assert!(output.stdout.contains(&format!("\"doc\":{text}")), "{text}");
    }
    assert_eq!(output.stdout.lines().count(), written.len() + 5);

    // By the host as well, should it ever deliver them.
    let handler = app.handler(&[]).await;
    let text = deep("by-host", 127, "1").replacen("{\"id\"", "{\"_etag\":\"\\\"e\\\"\",\"_ts\":1,\"id\"", 1);
    assert_eq!(handler.deliver_text(&format!("[{text}]")).await.0, 200, "{:#?}", handler.log());
    assert_eq!(app.versions("by-host").await[0].document.as_deref(), Some(deep("by-host", 127, "1").as_str()));

    // The account on this machine takes 127; the service's deepest, then, as its feed would deliver it.
    let deepest = |leaf: &str| format!("{}{leaf}{}", r#"{"a":"#.repeat(127), "}".repeat(127));
    app.proxy.rewrite("\"DEEPEST\"", &deepest("1.50"));
    app.put(json!({"id": "deepest", "pk": "p", "n": 1, "v": "DEEPEST"})).await;
    app.put(json!({"id": "deepest", "pk": "p", "n": 2, "v": "DEEPEST"})).await;
    for (more, doc) in [
        (&["--name", "whole"][..], format!(r#"{{"id":"deepest","pk":"p","n":2,"v":{}}}"#, deepest("1.50"))),
        (
            &["--name", "part", "--filter", "doc.n > 1", "--redact", "/v/a/a"],
            r#"{"id":"deepest","pk":"p","n":2,"v":{"a":{}}}"#.into(),
        ),
    ] {
        let args =
            ["follow", "--from", "beginning", "--until-caught-up", "--sink", "stdout", "--sink", "file:deepest.jsonl"];
        let output = app.run_through_proxy(&[&args, more].concat()).await;
        assert!(output.code == 0 && output.stdout.contains(&format!("\"doc\":{doc},")), "{output:?}");
    }
    // With the image before it, whose differences are told.
    let args = ["follow", "--mode", "all-versions", "--until-caught-up", "--sink", "stdout"];
    let output = app.run_through_proxy(&args).await;
    assert!(output.code == 0 && output.stdout.contains(r#""changed":["/n"]"#), "{output:?}");
    assert_eq!(app.dead_letters(), Vec::<Value>::new());
}
