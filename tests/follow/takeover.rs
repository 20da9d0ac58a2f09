//! Kills, stand-bys and splits: where a follower continues, and which of several followers reads.

use std::time::Duration;

use cosmos_rewind::change::key::PartitionKey;
use serde_json::json;

use super::{ALL, captured, catch_up, checkpoint, events, put};
use crate::support::{Fault, FollowerProcess, TestApp, eventually};

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
    // One sink has everything and the other nothing, so no range may advance.
    let lines = || std::fs::read_to_string(app.folder.path().join("e.jsonl")).unwrap_or_default().lines().count();
    eventually("the file contains them", async || (lines() == 20).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(&checkpoint(&app, "follow.default").await.unwrap()["ranges"], &saved["ranges"]);
    follower.kill();
    // Its last requests may still be in flight; they are refused like the others.
    assert!(app.history().await.is_empty());
    app.proxy.fail_always(None);
    catch_up(&app, &["--lease", "2"]).await;
    assert_eq!(captured(&app).await.len(), 20);
}

#[tokio::test]
async fn from_now_misses_nothing_written_after_the_checkpoint() {
    let app = TestApp::start().await;
    put(&app, "before", 0).await;
    let mut follower = FollowerProcess::start(&app, &ALL);
    follower.wait_for_log("start of every range saved").await;
    // Killed before it has read anything. The next writes come after the checkpoint in every range.
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
async fn repeated_kills_neither_lose_nor_duplicate_a_version() {
    survives_kills(&["--lease", "2"]).await;
}

#[tokio::test]
async fn repeated_kills_with_a_checkpoint_file_neither_lose_nor_duplicate_a_version() {
    survives_kills(&["--checkpoint-file", "follower.json"]).await;
}

#[tokio::test]
async fn a_stand_by_takes_over_from_a_killed_and_from_a_hanging_follower() {
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

    // A follower that hangs for longer than its lease has lost the name, and notices when it wakes.
    let mut third = FollowerProcess::start(&app, &args);
    third.wait_for_log("standing by").await;
    second.signal("STOP");
    third.wait_for_log("taking over").await;
    put(&app, "a", 3).await;
    second.signal("CONT");
    // By its clock first, otherwise by the ETag.
    second.wait_for_log("; standing by").await;
    put(&app, "a", 4).await;
    eventually("it is captured", async || (captured(&app).await["a"] == [1, 2, 3, 4]).then_some(())).await;
    // A follower that stops cleanly releases the name at once.
    third.signal("TERM");
    assert!(third.ended().await.success(), "{:#?}", third.log());
    second.wait_for_log("going on from the checkpoint").await;
    put(&app, "a", 5).await;
    eventually("it is captured", async || (captured(&app).await["a"].len() == 5).then_some(())).await;
}

#[tokio::test]
async fn a_stolen_name_is_noticed_by_its_etag_and_a_wrong_clock_blocks_no_follower() {
    let app = TestApp::start().await;
    let mut follower = FollowerProcess::start(&app, &[&ALL[..], &["--lease", "6"]].concat());
    follower.wait_for_log("start of every range saved").await;
    // A holder whose clock is years ahead takes the name and then disappears.
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
    // Split while no follower runs; the next one reads the children side by side.
    let ranges = app.local.ranges("dev", "events").await.unwrap();
    app.local.split("dev", "events", &ranges[0]).await.unwrap();
    write(4).await;
    catch_up(&app, &ALL).await;
    let found = captured(&app).await;
    assert!(found.len() == 40 && found.values().all(|versions| *versions == [1, 2, 3, 4]), "{found:?}");
    let saved = checkpoint(&app, "follow.default").await.unwrap();
    assert!(saved["ranges"].as_array().unwrap().len() > ranges.len(), "{saved}");
}

/// After a split and a merge one partition is read in two parts, each from its own position. With nothing new in the
/// first one, the other one is still to be read.
#[tokio::test]
async fn both_parts_of_a_merged_partition_are_read_to_their_ends_and_looked_at() {
    let app = TestApp::start().await;
    let mut follower = FollowerProcess::start(&app, &ALL);
    follower.wait_for_log("start of every range saved").await;
    let range = app.local.ranges("dev", "events").await.unwrap().remove(0);
    let children = app.local.split("dev", "events", &range).await.unwrap();
    // A quarter of all keys lies in the partition.
    let ids: Vec<String> = (0..24).map(|n| format!("doc-{n}")).collect();
    for id in &ids {
        put(&app, id, 1).await;
    }
    let all = async |n: usize| {
        let found = captured(&app).await;
        (found.len() == ids.len() && found.values().all(|versions| versions.len() == n)).then_some(())
    };
    eventually("the first versions are captured", async || all(1).await).await;
    follower.signal("TERM");
    assert!(follower.ended().await.success());
    app.local.merge("dev", "events", &children[0], &children[1]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // One at a time: most parts have nothing, and something waits in one of them.
    for id in &ids {
        let stored = app.put(json!({"id": id, "pk": format!("key-{id}"), "n": 2})).await;
        let status = app.run(&["status", "--format", "json"]).await.json();
        let waiting = status["leases"].as_array().unwrap().iter().map(|lease| lease["items"].as_u64().unwrap());
        assert_eq!(waiting.sum::<u64>(), 1, "{id}: {status}");
        let at = stored["_ts"].to_string();
        let planned = app.run(&["restore", "--all", "--at", &at, "--dry-run"]).await;
        assert!(planned.stderr.contains("the history ends at"), "{id}: {planned:?}");
        catch_up(&app, &ALL).await;
        assert_eq!(captured(&app).await[id], [1, 2], "{id}");
    }
    assert!(all(2).await.is_some());
}

#[tokio::test]
async fn static_shares_cover_the_container_without_gap_or_overlap() {
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

/// A checkpoint that was edited, or put together from two. The follower would be caught up and have read half.
#[tokio::test]
async fn a_checkpoint_that_leaves_out_a_part_of_the_container_is_refused() {
    let app = TestApp::start().await;
    let follow = ["--from", "beginning", "--checkpoint-file", "own.json"];
    catch_up(&app, &follow).await;
    let file = app.folder.path().join("own.json");
    let mut saved: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    saved["ranges"].as_array_mut().unwrap().pop();
    std::fs::write(&file, saved.to_string()).unwrap();
    let args = [&["follow", "--until-caught-up"][..], &follow].concat();
    let refused = app.run(&args).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("the checkpoint is damaged: it has no position for all of"), "{refused:?}");
}
