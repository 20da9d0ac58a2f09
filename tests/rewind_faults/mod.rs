//! Restore, undo and load under faults: storms of 429 and 412, lost answers, and kills at every write.

#[cfg(target_os = "linux")]
mod disk;
pub mod kills;
mod service;
mod writers;

use std::collections::{BTreeMap, BTreeSet};

use chrono::Utc;
use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use crate::support::{Kind, Output, TestApp};

pub use self::kills::{before_or_after, killed_at};

const SYSTEM: [&str; 5] = ["_rid", "_self", "_etag", "_attachments", "_ts"];

/// The live documents by id, without system properties. Each id is also the partition key.
type Live = BTreeMap<String, Value>;

/// Documents that were good ten minutes ago. Since then, `changed-*` were changed, `deleted-*` deleted and `new-*`
/// created.
struct Damage {
    app: TestApp,
    /// The live container before the restore.
    before: Live,
    /// The documents at the moment to restore.
    good: Live,
    /// The moment in epoch seconds, so that it is the same for every command, however long a test takes.
    at: String,
}

impl Damage {
    /// Creates `each` documents of each kind.
    async fn done(each: usize) -> Self {
        let app = TestApp::start().await;
        let now = Utc::now().timestamp();
        let changes = app.changes().await;
        let mut good = Live::new();
        let mut lsn = 0;
        let mut record = async |id: &str, op: &str, minutes: i64, etag: Option<&str>, document: Option<&Value>| {
            lsn += 1;
            let (ts, own) = (now - minutes * 60, etag.map_or(format!("\"old-{lsn}\""), str::to_owned));
            let mut record = document.cloned().unwrap_or_else(|| json!({"pk": id}));
            record["id"] = match document {
                Some(_) => format!("{id}~{}", own.trim_matches('"')).into(),
                None => format!("{id}~del-{lsn}").into(),
            };
            record["_originalId"] = id.into();
            record["_change"] = json!({"v": 1, "op": op, "ts": ts, "lsn": lsn, "etag": own});
            let key = PartitionKey::parse(&json!([id, id]).to_string()).unwrap();
            let record_id = record["id"].as_str().unwrap().to_owned();
            changes.upsert(&key, &record_id, record.to_string().into_bytes()).await.unwrap();
        };
        for n in 0..each {
            let document = |id: &str, city: &str| json!({"id": id, "pk": id, "city_name": city, "n": n});
            let id = format!("changed-{n:02}");
            record(&id, "create", 20, None, Some(&document(&id, "Davidson"))).await;
            good.insert(id.clone(), document(&id, "Davidson"));
            let stored = app.put(document(&id, "Ruined")).await;
            // For every other document, the newest version is not captured yet.
            if n % 2 == 0 {
                record(&id, "replace", 5, stored["_etag"].as_str(), Some(&document(&id, "Ruined"))).await;
            }
            let id = format!("deleted-{n:02}");
            record(&id, "create", 20, None, Some(&document(&id, "Davidson"))).await;
            record(&id, "delete", 5, None, None).await;
            good.insert(id.clone(), document(&id, "Davidson"));
            let id = format!("new-{n:02}");
            let stored = app.put(document(&id, "Newer")).await;
            record(&id, "create", 5, stored["_etag"].as_str(), Some(&document(&id, "Newer"))).await;
        }
        let damage = Self { app, before: Live::new(), good, at: (now - 600).to_string() };
        let before = damage.live().await;
        Self { before, ..damage }
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let all = ["restore", "--all", "--at", &self.at, "--delete-newer=99", "--no-stamp", "--format", "json"];
        [&all[..], more].concat()
    }

    /// ETag and document by id, read independently of the program.
    async fn etags(&self) -> BTreeMap<String, (String, Value)> {
        let found = self.app.events().await.query_all("SELECT * FROM c", &[], None).await.unwrap();
        let documents = found.iter().map(|raw| {
            let mut document: Value = serde_json::from_str(raw.get()).unwrap();
            let etag = document["_etag"].as_str().unwrap().to_owned();
            SYSTEM.iter().for_each(|name| drop(document.as_object_mut().unwrap().shift_remove(*name)));
            (document["id"].as_str().unwrap().to_owned(), (etag, document))
        });
        documents.collect()
    }

    async fn live(&self) -> Live {
        self.etags().await.into_iter().map(|(id, (_, document))| (id, document)).collect()
    }

    /// Every version in the history, by document id and ETag.
    async fn versions(&self) -> BTreeSet<(String, String)> {
        let sql = "SELECT c._originalId AS id, c._change.etag AS etag FROM c WHERE IS_DEFINED(c._change.etag)";
        let found = self.app.changes().await.query_all(sql, &[], None).await.unwrap();
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        let rows = found.iter().map(|raw| serde_json::from_str::<Value>(raw.get()).unwrap());
        rows.map(|row| (text(&row, "id"), text(&row, "etag"))).collect()
    }

    /// The id of the newest restore that has begun its journal, and may therefore have written. Ids sort by time.
    async fn newest(&self) -> Option<String> {
        let sql = "SELECT VALUE c._originalId FROM c WHERE IS_DEFINED(c._restore)";
        let found = self.app.changes().await.query_all(sql, &[], None).await.unwrap();
        let groups = found.iter().map(|raw| serde_json::from_str::<String>(raw.get()).unwrap());
        groups.max().map(|group| group.strip_prefix("restore~").unwrap().to_owned())
    }
}

fn report(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// The number of outcomes for each fate.
fn fates(report: &Value) -> BTreeMap<&str, usize> {
    let mut fates = BTreeMap::new();
    for outcome in report["outcomes"].as_array().unwrap() {
        *fates.entry(outcome["fate"].as_str().unwrap()).or_default() += 1;
    }
    fates
}

const EVERYTHING: [Kind; 5] = [Kind::HistoryWrite, Kind::LiveWrite, Kind::HistoryRead, Kind::LiveRead, Kind::Query];
