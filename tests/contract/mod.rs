//! The contracts of `history::reading` and `cosmos::Items`, with one test for each sentence. Both implementations must
//! pass: the containers of Cosmos DB (the SDK's emulator behind HTTP) and the in-memory ones. Tests write JSON text in
//! the documented format and derive the expected values from that text, so the suite shares no code with its subject.

mod items;
mod live_container;
mod reader;
mod scan;

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cosmos_rewind::{
    change::key::{ItemKey, KeyPaths, PartitionKey},
    config::{Names, Settings},
    cosmos::PageStream,
    history::{Account as _, Containers, CosmosContainers, memory::MemoryAccount},
};
use futures::TryStreamExt as _;
use serde_json::{Value, json};

use crate::support::TestApp;

/// 2023-11-14T22:13:20Z.
const START: i64 = 1_700_000_000;
/// The number of documents in the source, two for each partition key.
const DOCUMENTS: i64 = 24;
/// The partition keys that a history of a source keyed by `/pk` may have, and one that only old histories have.
const LAYOUTS: [&[&str]; 4] = [&["/pk", "/_originalId"], &["/pk"], &["/_originalId"], &["/id"]];

/// A resource id as the service assigns it: the container's, which differs in the last round, and the document's.
fn rid(number: i64, round: i64) -> String {
    let container = [0xe3, 0xb5, 0x1e, 0, 0xff, 0xff, 0xff, if round == 2 { 0x4e } else { 0x4d }];
    let document = [(number % 4) as u8 * 0x40, 0, 0, 0, 0, 0, 0, number as u8];
    STANDARD.encode([container, document].concat()).replace('/', "-")
}

/// One implementation under test, with the records it was filled with.
struct Side {
    name: String,
    containers: Containers,
    /// The records as written.
    records: Vec<Value>,
    /// Keeps the account alive.
    _app: Option<TestApp>,
}

fn paths(texts: &[&str]) -> KeyPaths {
    KeyPaths::parse(texts).unwrap()
}

fn key(pk: &str) -> PartitionKey {
    PartitionKey::parse(pk).unwrap()
}

fn item(number: i64) -> ItemKey {
    ItemKey { id: format!("doc-{number}"), partition_key: key(&format!("key-{}", number / 2)) }
}

/// Both implementations, empty.
async fn empty(layout: &[&str]) -> [Side; 2] {
    let names = Names::from_settings(&Settings::from_pairs([("COSMOS_DATABASE", "dev")]), None).unwrap();
    let account = MemoryAccount::new(&names, paths(&["/pk"]), paths(layout));
    account.set_time(START);
    let memory = account.containers(&names, None).await.unwrap();
    let app = TestApp::with_changes_key(layout).await;
    let cosmos = CosmosContainers { changes: app.changes().await, source: app.events().await }.containers();
    let side = |what: &str, containers, app| Side {
        name: format!("{what}, history keyed {layout:?}"),
        containers,
        records: Vec::new(),
        _app: app,
    };
    [side("memory", memory, None), side("Cosmos DB", cosmos, Some(app))]
}

/// Both implementations, filled with documents and their history: three versions each, where the last version of every
/// fifth document is a delete; a record of the original demo; records that cannot be parsed; and the journal of a
/// restore.
async fn filled(layout: &[&str]) -> [Side; 2] {
    let mut sides = empty(layout).await;
    for side in &mut sides {
        side.fill(layout).await;
    }
    sides
}

impl Side {
    async fn fill(&mut self, layout: &[&str]) {
        for number in 0..DOCUMENTS {
            let of = item(number);
            let pk = format!("key-{}", number / 2);
            let body = json!({"id": of.id, "pk": pk, "n": number, "round": 2}).to_string();
            self.containers.source.create(&of.partition_key, &of.id, body.into_bytes()).await.unwrap();
            for round in 0..3 {
                let (ts, lsn) = (START + round * 60, number * 10 + round);
                let change = |op: &str| {
                    json!({"v": 1, "op": op, "ts": ts, "lsn": lsn, "etag": format!("\"e{lsn}\""), "key": [pk], "rid": rid(number, round),
                           "fidelity": "exact", "via": "trigger", "at": "2026-11-20T15:00:00.000Z"})
                };
                let record = if round == 2 && number % 5 == 0 {
                    json!({"id": format!("{}~del-{lsn}-{ts}", of.id), "pk": pk, "_originalId": of.id,
                           "_change": change("delete")})
                } else {
                    let op = if round == 0 { "create" } else { "replace" };
                    json!({"id": format!("{}~e{lsn}", of.id), "pk": pk, "n": number, "round": round,
                           "_originalId": of.id, "_change": change(op)})
                };
                self.put(layout, record).await;
            }
        }
        for odd in [
            json!({"id": "legacy-1", "pk": "key-0", "n": 0, "round": 9, "_originalId": "doc-0", "_lsn": 1}),
            json!({"id": "odd~1", "pk": "key-1", "_originalId": "odd", "_change": {"v": 1, "op": "fly", "ts": START}}),
            json!({"id": "odd~2", "pk": "key-1", "_originalId": "odd", "_change": {"v": 1, "op": "create", "ts": 1.5}}),
            json!({"id": "nobody~del-7-7", "_originalId": "nobody", "_change": {"v": 1, "op": "delete", "ts": START}}),
        ] {
            self.put(layout, odd).await;
        }
        for (name, kind) in [("plan", "plan"), ("part-00000", "part"), ("outcomes-1", "outcomes")] {
            let (group, id) = ("restore~r1", format!("restore~r1~{name}"));
            let entry = json!({"id": id, "_originalId": group, "_restore": {"kind": kind, "text": name}});
            self.put_as(layout, entry).await;
        }
    }

    /// Writes a record and keeps it for comparison.
    async fn put(&mut self, layout: &[&str], record: Value) {
        self.records.push(record.clone());
        self.put_as(layout, record).await;
    }

    /// Writes an item under the partition key that its fields give.
    async fn put_as(&self, layout: &[&str], item: Value) {
        let parts: Vec<Value> =
            layout.iter().map(|path| item.get(path.trim_start_matches('/')).cloned().unwrap_or(json!({}))).collect();
        let key = PartitionKey::parse(&Value::from(parts).to_string()).unwrap();
        let id = item["id"].as_str().unwrap().to_owned();
        self.containers.changes.create(&key, &id, item.to_string().into_bytes()).await.unwrap();
    }

    /// The sorted ids of the matching records.
    fn ids(&self, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
        let mut ids: Vec<String> =
            self.records.iter().filter(|r| wanted(r)).map(|r| r["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }

    /// Whether all records of a document always fall into the same hash range of the history.
    fn is_cut_by_item(&self) -> bool {
        self.containers.changes.layout().is_cut_by_item()
    }
}

/// Collects a stream.
async fn all<T>(found: PageStream<'_, T>) -> Vec<T> {
    found.try_concat().await.unwrap()
}

/// Collects several streams.
async fn all_of<'a, T>(streams: impl IntoIterator<Item = PageStream<'a, T>>) -> Vec<T> {
    let mut everything = Vec::new();
    for stream in streams {
        everything.extend(all(stream).await);
    }
    everything
}

/// The in-memory account, for tests that need only that one.
fn memory(layout: &[&str]) -> (Arc<MemoryAccount>, Names) {
    let names = Names::from_settings(&Settings::from_pairs([("COSMOS_DATABASE", "dev")]), None).unwrap();
    (Arc::new(MemoryAccount::new(&names, paths(&["/pk"]), paths(layout))), names)
}
