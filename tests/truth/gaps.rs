//! The time before a second reader began belongs to the first. When that one never goes on, nothing in the history looks
//! missing, and still nobody claims to know that time.

use std::time::Duration;

use cosmos_rewind::{change::key::PartitionKey, local::trigger::Trigger};
use serde_json::{Value, json};

use super::{
    captured::{Captured, action, delete_positions, next_second},
    leases_again::{lose, trigger},
    lost::forget,
};
use crate::support::{Handler, Output, TestApp, eventually};

/// Follows with another follower of every version, up to now.
pub(super) async fn follow(world: &Captured, name: &str) -> Output {
    let args = ["follow", "--name", name, "--mode", "all-versions", "--until-caught-up"];
    let output = world.run(&args).await;
    assert_eq!(output.code, 0, "{output:?}");
    output
}

async fn plan(world: &Captured, at: &str) -> Output {
    world.run(&["restore", "--all", "--at", at, "--delete-newer=9", "--dry-run", "--format", "json"]).await
}

/// A document that changes and comes back, and one that lives and dies: neither leaves a trace in what is captured
/// later. Returns a moment when both were different.
async fn unseen(world: &Captured) -> String {
    next_second().await;
    let before = world.live("a", "p").await.unwrap();
    world.put(json!({"id": "a", "pk": "p", "n": 9})).await;
    world.put(json!({"id": "ghost", "pk": "p", "n": 1})).await;
    let at = next_second().await.to_string();
    next_second().await;
    world.put(before).await;
    world.delete("ghost", "p").await;
    next_second().await;
    at
}

/// Asserts that every command doubts what the history says of a moment.
async fn nobody_knows(world: &Captured, when: &str, at: &str) {
    let planned = plan(world, at).await;
    assert_eq!((planned.code, action(&planned, "a")), (3, "unknown".to_owned()), "{when}: {planned:?}");
    let shown = world.run(&["show", "--id", "a", "--pk", "p", "--at", at, "--format", "json"]).await;
    let doubt = serde_json::from_str::<Value>(&shown.stdout).unwrap_or_default()["doubt"].take();
    assert!(doubt.as_str().is_some_and(|doubt| doubt.contains("not known")), "{when}: {shown:?}");
    let saved = world.run(&["backup", "--all", "--at", at, "--out", &format!("{when}.jsonl")]).await;
    assert!(saved.code == 3 && saved.stderr.contains("may be missing from the history"), "{when}: {saved:?}");
}

/// Captures with one follower, and then with another one that began after changes that the first did not capture.
async fn passed_on() -> (Captured, String) {
    let world = Captured::start("all-versions").await;
    world.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    world.capture().await;
    let at = unseen(&world).await;
    for n in 0..2 {
        let second = follow(&world, "second").await;
        assert!(!second.stderr.contains("nobody captured every version"), "{second:?}");
        world.put(json!({"id": "b", "pk": "p", "n": n})).await;
        next_second().await;
    }
    follow(&world, "second").await;
    (world, at)
}

/// Deletes a follower's checkpoint, if it has one.
pub(super) async fn forget_one(world: &Captured, name: &str) {
    delete_positions(&world.app, &format!("c.id = 'follow.{name}'")).await;
}

#[tokio::test]
async fn a_follower_that_never_goes_on_leaves_a_time_that_nobody_knows() {
    let (world, at) = passed_on().await;
    let planned = plan(&world, &at).await;
    assert_eq!((planned.code, action(&planned, "a")), (3, "unknown".to_owned()), "{planned:?}");
    // The first one began no later, but its position is gone.
    forget_one(&world, "capture").await;
    nobody_knows(&world, "without the first", &at).await;
    // A third one relies on the second for the time before it, not for the time before both.
    for _ in 0..2 {
        follow(&world, "third").await;
        world.put(json!({"id": "c", "pk": "p", "n": 1})).await;
        next_second().await;
    }
    nobody_knows(&world, "beside a third", &at).await;
    forget(&world).await;
    nobody_knows(&world, "without any", &at).await;
    follow(&world, "fourth").await;
    nobody_knows(&world, "with a new one", &at).await;
}

#[tokio::test]
async fn the_second_follower_notes_that_the_first_is_gone() {
    let (world, at) = passed_on().await;
    forget_one(&world, "capture").await;
    let noted = follow(&world, "second").await;
    assert!(noted.stderr.contains("nobody captured every version"), "{noted:?}");
    nobody_knows(&world, "once it is noted", &at).await;
    let again = follow(&world, "second").await;
    assert!(!again.stderr.contains("nobody captured every version"), "{again:?}");
    // What the second one captured is known.
    let now = next_second().await.to_string();
    let planned = plan(&world, &now).await;
    assert_eq!((planned.code, action(&planned, "a")), (0, "keep".to_owned()), "{planned:?}");
}

#[tokio::test]
async fn what_the_first_follower_delivered_in_time_stays_known_without_it() {
    let (world, at) = passed_on().await;
    world.capture().await;
    // The second one sees that, and the first may go.
    follow(&world, "second").await;
    forget_one(&world, "capture").await;
    let second = follow(&world, "second").await;
    assert!(!second.stderr.contains("nobody captured every version"), "{second:?}");
    let planned = plan(&world, &at).await;
    let actions = ["a", "ghost"].map(|id| action(&planned, id));
    assert_eq!((planned.code, actions), (0, ["restore", "recreate"].map(String::from)), "{planned:?}");
}

/// A trigger at work, with a position in each feed range.
async fn captured_by_trigger() -> (Captured, Handler, Trigger) {
    let world = Captured { app: TestApp::start().await, mode: "all-versions" };
    let handler = world.app.handler(&[("REWIND_FIDELITY", "payload")]).await;
    let trigger = trigger(&world.app, &handler).await;
    put_everywhere(&world, 1).await;
    world.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    trigger.wait_until_drained(Duration::from_secs(30)).await.unwrap();
    (world, handler, trigger)
}

/// Writes documents with an own key each, so that every feed range has a change.
async fn put_everywhere(world: &Captured, n: i64) {
    for place in 0..24 {
        let id = format!("x-{place}");
        world.put(json!({"id": id, "pk": id, "n": n})).await;
    }
}

/// The trigger stands before changes; a follower begins behind them; then the trigger loses its leases.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_begins_again_does_not_deliver_what_it_stood_before() {
    let (world, handler, first) = captured_by_trigger().await;
    first.stop().await;
    let at = unseen(&world).await;
    let second = follow(&world, "second").await;
    assert!(!second.stderr.contains("nobody captured every version"), "{second:?}");
    next_second().await;
    world.put(json!({"id": "b", "pk": "p", "n": 1})).await;
    follow(&world, "second").await;
    let planned = plan(&world, &at).await;
    assert_eq!((planned.code, action(&planned, "a")), (3, "unknown".to_owned()), "{planned:?}");
    // All but the follower's checkpoint is lost.
    let leases = world.app.cosmos.container("dev", "leases").await.unwrap();
    let all = leases.query_all("SELECT * FROM c WHERE STARTSWITH(c.id, 'follow.')", &[], None).await.unwrap();
    let kept: Value = serde_json::from_str(all[0].get()).unwrap();
    lose(&world.app).await;
    let id = kept["id"].as_str().unwrap().to_owned();
    let key = PartitionKey::parse(&json!([id]).to_string()).unwrap();
    leases.create(&key, &id, kept.to_string().into_bytes()).await.unwrap();
    let again = trigger(&world.app, &handler).await;
    put_everywhere(&world, 2).await;
    again.wait_until_drained(Duration::from_secs(30)).await.unwrap();
    again.stop().await;
    nobody_knows(&world, "the trigger began again", &at).await;
    let noted = follow(&world, "second").await;
    assert!(noted.stderr.contains("nobody captured every version"), "{noted:?}");
    nobody_knows(&world, "that is noted", &at).await;
}

/// A follower that joins a trigger at work relies on it for the moment in between only.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_beside_a_trigger_at_work_leaves_no_time_unknown() {
    let (world, _handler, trigger) = captured_by_trigger().await;
    next_second().await;
    let at = next_second().await.to_string();
    next_second().await;
    world.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    trigger.wait_until_drained(Duration::from_secs(30)).await.unwrap();
    follow(&world, "second").await;
    trigger.stop().await;
    let mark = async || {
        let changes = world.app.changes().await;
        let found = changes.query_all("SELECT * FROM c WHERE c.id = 'restore~removals~mark'", &[], None).await.unwrap();
        serde_json::from_str::<Value>(found.first().unwrap().get()).unwrap()["_restore"].take()
    };
    eventually("the time in between is known", async || {
        follow(&world, "second").await;
        let mark = mark().await;
        assert!(mark.get("holes").is_none_or(|holes| holes == &json!([])), "{mark}");
        mark.get("gaps").is_none().then_some(())
    })
    .await;
    lose(&world.app).await;
    follow(&world, "third").await;
    let planned = plan(&world, &at).await;
    assert_eq!(action(&planned, "a"), "restore", "{planned:?}");
}
