//! An account in which the test decides when changes are captured, with helpers that inspect it independently of the
//! program.

use std::time::Duration;

use chrono::Utc;
use cosmos_rewind::{
    change::key::PartitionKey,
    cosmos::{Container, FeedMode, FeedRange, FeedStart},
};
use serde_json::{Value, json};

use crate::support::{Output, TestApp, beginning};

/// An account whose changes a follower in all-versions mode captures on request.
pub(super) struct Captured {
    pub(super) app: TestApp,
    pub(super) mode: &'static str,
}

impl Captured {
    pub(super) async fn start(mode: &'static str) -> Self {
        Self::with(TestApp::start().await, mode).await
    }

    pub(super) async fn with(app: TestApp, mode: &'static str) -> Self {
        let captured = Self { app, mode };
        captured.capture().await;
        captured
    }

    /// The feed positions for [`Self::capture_by_hand`]. Needed for a history with a partition key that capture refuses
    /// today, as older histories have: there the test writes the records itself.
    pub(super) async fn feed(&self) -> Vec<(FeedRange, String)> {
        beginning(&self.app.events().await).await
    }

    pub(super) async fn capture_by_hand(&self, tokens: &mut [(FeedRange, String)]) {
        let events = self.app.events().await;
        for (range, token) in tokens {
            let mut feed = events.change_feed(range, FeedMode::AllVersions, FeedStart::Now, Some(token)).await.unwrap();
            loop {
                let page = feed.next().await.unwrap();
                let items: Vec<Value> =
                    page.items().unwrap().iter().map(|item| serde_json::from_str(item.get()).unwrap()).collect();
                if items.is_empty() {
                    break;
                }
                self.app.capture(&items).await;
            }
            *token = feed.token().unwrap();
        }
    }

    /// Captures all changes up to now.
    pub(super) async fn capture(&self) {
        let from = if self.mode == "latest" { "beginning" } else { "now" };
        let follow = ["follow", "--name", "capture", "--mode", self.mode, "--from", from, "--until-caught-up"];
        let output = self.app.run(&follow).await;
        assert_eq!(output.code, 0, "{output:?}");
    }

    pub(super) async fn put(&self, document: Value) -> Value {
        self.app.put(document).await
    }

    /// Writes documents with the key `p` whose `n` is first 1 and then 2, and captures both. Returns a second in
    /// between.
    pub(super) async fn changed(&self, ids: &[&str]) -> String {
        for id in ids {
            self.put(json!({"id": id, "pk": "p", "n": 1})).await;
        }
        self.capture().await;
        let at = next_second().await.to_string();
        next_second().await;
        for id in ids {
            self.put(json!({"id": id, "pk": "p", "n": 2})).await;
        }
        self.capture().await;
        at
    }

    pub(super) async fn delete(&self, id: &str, pk: &str) {
        self.app.events().await.delete(&key(pk), id, None).await.unwrap();
    }

    pub(super) async fn live(&self, id: &str, pk: &str) -> Option<Value> {
        own(&self.app.events().await, id, pk).await
    }

    pub(super) async fn run(&self, args: &[&str]) -> Output {
        self.app.run(args).await
    }
}

pub(super) fn key(pk: &str) -> PartitionKey {
    PartitionKey::parse(pk).unwrap()
}

/// Deletes the positions of readers (the leases of the trigger, the checkpoints of followers) for which a condition holds.
pub(super) async fn delete_positions(app: &TestApp, condition: &str) {
    let leases = app.cosmos.container("dev", "leases").await.unwrap();
    let found = leases.query_all(&format!("SELECT c.id FROM c WHERE {condition}"), &[], None).await.unwrap();
    for item in found {
        let item: Value = serde_json::from_str(item.get()).unwrap();
        let id = item["id"].as_str().unwrap();
        leases.delete(&PartitionKey::parse(&json!([id]).to_string()).unwrap(), id, None).await.unwrap();
    }
}

/// A document without the service's own fields. It is found by a query, which works for any id.
pub(super) async fn own(container: &Container, id: &str, pk: &str) -> Option<Value> {
    let params = [cosmos_rewind::cosmos::Param::new("id", id)];
    let found = container.query_all("SELECT * FROM c WHERE c.id = @id", &params, Some(&key(pk))).await.unwrap();
    let mut document: Value = serde_json::from_str(found.first()?.get()).unwrap();
    for name in ["_rid", "_self", "_etag", "_attachments", "_ts"] {
        document.as_object_mut().unwrap().shift_remove(name);
    }
    Some(document)
}

/// A pseudorandom number below a limit, the same for a seed in every run.
pub(super) fn drawn(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}

/// Waits until the next second, so that later writes get a different `_ts`.
pub(super) async fn next_second() -> i64 {
    let now = Utc::now().timestamp();
    while Utc::now().timestamp() <= now {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Utc::now().timestamp()
}

/// The plan's action for a document.
pub(super) fn action(output: &Output, id: &str) -> String {
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let steps = report["plan"]["steps"].as_array().unwrap().clone();
    steps.iter().find(|step| step["id"] == id).map_or_else(|| "none".into(), |s| s["action"].as_str().unwrap().into())
}
