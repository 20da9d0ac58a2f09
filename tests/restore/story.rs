//! Test data: documents whose versions are minutes apart in the history.

use chrono::Utc;
use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use crate::support::{Handler, Output, TestApp};

/// Documents whose versions are minutes apart in the history, although the test writes them now.
pub(super) struct Story {
    pub(super) app: TestApp,
    handler: Handler,
    pub(super) now: i64,
}

impl Story {
    pub(super) async fn start() -> Self {
        let app = TestApp::start().await;
        let handler = app.handler(&[]).await;
        Self { app, handler, now: Utc::now().timestamp() }
    }

    /// Writes a document and captures it as of `minutes` ago.
    pub(super) async fn put(&self, minutes: i64, document: Value) -> Value {
        let mut stored = self.app.put(document).await;
        stored["_ts"] = (self.now - minutes * 60).into();
        let (status, body) = self.handler.deliver(&[stored.clone()]).await;
        assert_eq!(status, 200, "{body}");
        stored
    }

    /// Deletes a document and captures the tombstone as of `minutes` ago.
    pub(super) async fn delete(&self, minutes: i64, id: &str, pk: &str, lsn: i64) {
        let key = PartitionKey::parse(pk).unwrap();
        self.app.events().await.delete(&key, id, None).await.unwrap();
        let metadata = json!({"operationType": "delete", "lsn": lsn, "crts": self.now - minutes * 60, "id": id, "partitionKey": {"pk": pk}});
        assert_eq!(self.handler.deliver(&[json!({"current": {}, "metadata": metadata})]).await.0, 200);
    }

    /// Creates a document and captures its creation, so that the history proves when it was created.
    pub(super) async fn create(&self, minutes: i64, lsn: i64, document: Value) {
        let mut stored = self.app.put(document).await;
        let ts = self.now - minutes * 60;
        stored["_ts"] = ts.into();
        let item = json!({"current": stored, "metadata": {"operationType": "create", "lsn": lsn, "crts": ts}});
        assert_eq!(self.handler.deliver(&[item]).await.0, 200);
    }

    /// The live document without system properties.
    pub(super) async fn live(&self, id: &str, pk: &str) -> Option<Value> {
        let key = PartitionKey::parse(pk).unwrap();
        let text = self.app.events().await.read(&key, id).await.unwrap()?;
        let mut document: Value = serde_json::from_slice(&text).unwrap();
        for name in ["_rid", "_self", "_etag", "_attachments", "_ts"] {
            document.as_object_mut().unwrap().shift_remove(name);
        }
        Some(document)
    }

    pub(super) async fn run(&self, args: &[&str]) -> Output {
        self.app.run(args).await
    }

    /// Two documents of Davidson, good 20 minutes ago and damaged 5 minutes ago, and one of another town.
    pub(super) async fn davidson() -> Self {
        let story = Self::start().await;
        for (minutes, seq) in [(20, 1), (5, 2)] {
            for zip in ["28035", "28036"] {
                let city = if minutes == 20 { "Davidson" } else { "Ruined" };
                story.put(minutes, json!({"id": zip, "pk": zip, "city_name": city, "seq": seq, "price": 1.5})).await;
            }
        }
        story.put(20, json!({"id": "28031", "pk": "28031", "city_name": "Cornelius", "seq": 1})).await;
        story
    }
}
