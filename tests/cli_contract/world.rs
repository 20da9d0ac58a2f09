//! The account that the commands run against.

use chrono::Utc;
use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use crate::support::{Output, TestApp};

/// An account with a bit of everything: a document with a history, one from a hand-made payload, and one without
/// history.
pub(super) struct World {
    pub(super) app: TestApp,
    pub(super) now: i64,
}

impl World {
    pub(super) async fn start() -> Self {
        let world = Self { app: TestApp::start().await, now: Utc::now().timestamp() };
        let document = |id: &str, city: &str| json!({"id": id, "pk": id, "city_name": city, "seq": 1});
        let mut more = document("28036", "Davidson");
        more["note"] = "gone later".into();
        world.record(&more, "create", 60, 1, "\"e1\"").await;
        let mut replaced = document("28036", "Davidsen");
        replaced["zone"] = json!(null);
        world.record(&replaced, "replace", 30, 2, "\"e2\"").await;
        world.record(&json!({"id": "28036", "pk": "28036"}), "delete", 20, 3, "").await;
        let stored = world.app.put(document("28036", "Ruined")).await;
        world.record(&document("28036", "Ruined"), "create", 10, 4, stored["_etag"].as_str().unwrap()).await;

        world.record(&document("28031", "Cornelius"), "create", 60, 5, "\"e5\"").await;
        world.record(&json!({"id": "28031", "pk": "28031"}), "delete", 10, 6, "").await;
        world.record(&document("28035", "Davidson"), "create", 10, 7, "\"e7\"").await;
        world.app.put(document("28035", "Davidson")).await;
        // Without time and LSN: the substitute time is marked, and neither source nor fidelity is known.
        let timeless = json!({"id": "hand~made", "pk": "hand", "_originalId": "hand", "city_name": "Davidson",
            "_change": {"v": 1, "op": "upsert", "ts": world.now - 3600, "tsFrom": "capture"}});
        world.write("hand", "hand~made", &timeless).await;
        world.app.put(json!({"id": "stranger", "pk": "stranger", "seq": 9})).await;
        world.app.captured_from_now().await;
        world
    }

    /// Documents that a job wrote: one that it changed and then partly replaced, one with a conflict, and one that it
    /// created.
    pub(super) async fn bad_writes(&self) {
        let document = |id: &str, by: &str, o: Value| json!({"id": id, "pk": id, "kind": "reverted", "by": by, "o": o});
        for (id, writes) in [
            (
                "r1",
                vec![
                    (60, "create", "ann", json!({"x": 1, "y": 1})),
                    (30, "replace", "job", json!({"x": 2, "y": 1})),
                    (28, "replace", "job", json!("gone")),
                ],
            ),
            (
                "r2",
                vec![
                    (60, "create", "ann", json!({"x": 1})),
                    (30, "replace", "job", json!({"z": 2})),
                    (28, "replace", "ann", json!({"z": 3})),
                ],
            ),
            ("r3", vec![(30, "create", "job", json!(1))]),
        ] {
            let last = writes.len() - 1;
            for (n, (minutes, op, by, o)) in writes.into_iter().enumerate() {
                let document = document(id, by, o);
                let etag = match n == last {
                    true => self.app.put(document.clone()).await["_etag"].as_str().unwrap().to_owned(),
                    false => format!("\"{id}-{n}\""),
                };
                self.record(&document, op, minutes, 20 + n as i64, &etag).await;
            }
        }
    }

    pub(super) async fn write(&self, id: &str, record_id: &str, record: &Value) {
        let key = PartitionKey::parse(&json!([record["pk"], id]).to_string()).unwrap();
        self.app.changes().await.upsert(&key, record_id, record.to_string().into_bytes()).await.unwrap();
    }

    async fn record(&self, document: &Value, op: &str, minutes: i64, lsn: i64, etag: &str) {
        let id = document["id"].as_str().unwrap();
        let mut record = document.clone();
        let mut change = json!({"v": 1, "op": op, "ts": self.now - minutes * 60, "lsn": lsn});
        let record_id = match op {
            "delete" => format!("{id}~del-{lsn}"),
            _ => {
                change["etag"] = etag.into();
                format!("{id}~{}", etag.trim_matches('"'))
            }
        };
        change["via"] = "trigger".into();
        change["fidelity"] = "exact".into();
        change["at"] = "2026-11-20T15:00:00.123Z".into();
        record["id"] = record_id.as_str().into();
        record["_originalId"] = id.into();
        record["_change"] = change;
        self.write(id, &record_id, &record).await;
    }

    pub(super) fn minutes_ago(&self, minutes: i64) -> String {
        (self.now - minutes * 60).to_string()
    }

    pub(super) async fn run(&self, args: &[&str]) -> Output {
        self.app.run(args).await
    }
}
