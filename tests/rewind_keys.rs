//! Every kind of partition key, and histories of the original demo, through all commands that rewind.

use cosmos_rewind::{
    change::key::{KeyPaths, PartitionKey},
    cosmos::Container,
};
use serde_json::{Value, json};

use crate::support::{Output, TestApp};

const SYSTEM: [&str; 5] = ["_rid", "_self", "_etag", "_attachments", "_ts"];
/// The moment to restore; the versions before it are good.
const AT: &str = "1700000050";

/// One source container with keys of one kind, and its history.
struct Keyed {
    app: TestApp,
    names: [String; 2],
    source: Container,
    changes: Container,
    lsn: i64,
}

impl Keyed {
    /// Creates a source with the partition key `paths`. `provision` creates the history unless `changes_paths` is
    /// given.
    async fn start(paths: &[&str], changes_paths: Option<&[&str]>) -> Self {
        let app = TestApp::start().await;
        let names = ["keyed".to_owned(), "keyed-changes".to_owned()];
        let create = async |name: &str, paths: &[&str]| {
            let kind = if paths.len() > 1 { "MultiHash" } else { "Hash" };
            let key = json!({"paths": paths, "kind": kind, "version": 2});
            assert!(app.local.create_container("dev", json!({"id": name, "partitionKey": key})).await.unwrap());
        };
        create(&names[0], paths).await;
        match changes_paths {
            Some(paths) => create(&names[1], paths).await,
            None => {
                let made = app.run(&["provision", "--source", &names[0], "--changes", &names[1]]).await;
                assert_eq!(made.code, 0, "{made:?}");
            }
        }
        let source = app.cosmos.container("dev", &names[0]).await.unwrap();
        let changes = app.cosmos.container("dev", &names[1]).await.unwrap();
        Self { app, names, source, changes, lsn: 0 }
    }

    /// Captures everything from here on, and counts earlier writes as captured.
    async fn captured(&self) {
        self.app.captured_of(&self.names[0], &self.names[1]).await;
    }

    async fn run(&self, args: &[&str]) -> Output {
        let on = ["--source", &self.names[0], "--changes", &self.names[1]];
        self.app.run(&[args, &on[..]].concat()).await
    }

    fn key(paths: &KeyPaths, document: &Value) -> PartitionKey {
        let raw = document.to_string();
        paths.extract(&cosmos_rewind::change::raw::RawDocument::parse(&raw).unwrap())
    }

    /// Writes a document to the source and returns its ETag.
    async fn put(&self, document: &Value) -> String {
        let key = Self::key(self.source.key_paths(), document);
        let id = document["id"].as_str().unwrap();
        self.source.upsert(&key, id, document.to_string().into_bytes()).await.unwrap().etag.unwrap()
    }

    /// Writes a record in the documented format. The record of a delete has the key fields of `document`.
    async fn record(&mut self, op: &str, ts: i64, etag: Option<&str>, document: &Value) {
        self.lsn += 1;
        let id = document["id"].clone();
        let etag = etag.map_or(format!("\"e{}\"", self.lsn), str::to_owned);
        let mut record = document.clone();
        if op == "delete" {
            let object = record.as_object_mut().unwrap();
            object.retain(|name, _| self.source.key_paths().segments().iter().any(|path| path[0] == *name));
            record["id"] = format!("{}~del-{}", id.as_str().unwrap(), self.lsn).into();
        } else {
            record["id"] = format!("{}~{}", id.as_str().unwrap(), etag.trim_matches('"')).into();
        }
        record["_originalId"] = id;
        record["_change"] = json!({"v": 1, "op": op, "ts": ts, "lsn": self.lsn, "etag": etag});
        let key = Self::key(self.changes.key_paths(), &record);
        let record_id = record["id"].as_str().unwrap().to_owned();
        self.changes.upsert(&key, &record_id, record.to_string().into_bytes()).await.unwrap();
    }

    /// The live documents, sorted.
    async fn live(&self) -> Vec<String> {
        let found = self.source.query_all("SELECT * FROM c", &[], None).await.unwrap();
        let mut texts: Vec<String> = found
            .iter()
            .map(|raw| {
                let mut document: Value = serde_json::from_str(raw.get()).unwrap();
                SYSTEM.iter().for_each(|name| drop(document.as_object_mut().unwrap().shift_remove(*name)));
                document.to_string()
            })
            .collect();
        texts.sort();
        texts
    }
}

fn sorted(documents: &[Value]) -> Vec<String> {
    let mut texts: Vec<String> = documents.iter().map(Value::to_string).collect();
    texts.sort();
    texts
}

fn restore_id(output: &Output) -> String {
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    report["restore"].as_str().unwrap().to_owned()
}

/// Key fields of documents that all have the same id, and each key as typed on a command line.
type Keys = Vec<(Value, &'static str)>;

/// One id under every key. Some of the documents were changed since the moment, some deleted with a tombstone. In all
/// commands and scopes, each key must address its own document.
async fn each_key_is_its_own_document(paths: &[&str], changes_paths: Option<&[&str]>, keys: Keys) {
    let mut keyed = Keyed::start(paths, changes_paths).await;
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (n, (members, _)) in keys.iter().enumerate() {
        let document = |city: &str| {
            let mut document = json!({"id": "a"});
            document.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            document["city_name"] = city.into();
            document["n"] = n.into();
            document
        };
        keyed.record("create", 1_700_000_000, None, &document("Davidson")).await;
        good.push(document("Davidson"));
        if n % 3 == 2 {
            keyed.record("delete", 1_700_000_100, None, &document("")).await;
        } else {
            let etag = keyed.put(&document("Ruined")).await;
            keyed.record("replace", 1_700_000_100, Some(&etag), &document("Ruined")).await;
            bad.push(document("Ruined"));
        }
    }
    let (good, bad) = (good, sorted(&bad));
    assert_eq!(keyed.live().await, bad);

    let args = |scope: &[&str]| -> Vec<String> {
        let how = ["--at", AT, "--no-stamp", "--yes", "--format", "json"];
        ["restore"].iter().chain(scope).chain(&how).map(|a| (*a).to_owned()).collect()
    };
    let run = async |args: &[String]| keyed.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;

    // One document at a time; the others must stay as they are.
    for (n, (_, key)) in keys.iter().enumerate() {
        let shown = keyed.run(&["show", "--id", "a", "--pk", key, "--at", AT]).await;
        assert_eq!((shown.code, shown.stdout), (0, format!("{}\n", good[n])), "{paths:?} {key}: {}", shown.stderr);
        let versions = keyed.run(&["history", "--id", "a", "--pk", key, "--format", "json"]).await.json();
        assert_eq!(versions.as_array().unwrap().len(), 2, "{paths:?} {key}: {versions}");
        let differs = keyed
            .run(&["diff", "--id", "a", "--pk", key, "--from", AT, "--to", "live", "--format", "json"])
            .await
            .json();
        let first = &differs[0];
        let expected = if n % 3 == 2 { ("remove", "") } else { ("replace", "/city_name") };
        assert_eq!(
            (first["op"].as_str().unwrap(), first["path"].as_str().unwrap()),
            expected,
            "{paths:?} {key}: {differs}"
        );

        let restored = run(&args(&["--id", "a", "--pk", key])).await;
        assert_eq!(restored.code, 0, "{paths:?} {key}: {restored:?}");
        let mut expected: Vec<String> =
            bad.iter().filter(|text| !text.contains(&format!("\"n\":{n}}}"))).cloned().collect();
        expected.push(good[n].to_string());
        expected.sort();
        assert_eq!(keyed.live().await, expected, "{paths:?} {key}");
        let undone = keyed.run(&["undo", &restore_id(&restored), "--yes"]).await;
        assert_eq!(undone.code, 0, "{paths:?} {key}: {undone:?}");
        assert_eq!(keyed.live().await, bad, "{paths:?} {key}");
    }

    // All documents, in every other way to name them.
    let ids = keyed.app.folder.path().join("ids.jsonl");
    let lines: Vec<String> = keys
        .iter()
        .map(|(_, key)| {
            // A single component may be given without brackets.
            let pk = serde_json::from_str::<Value>(key).ok().filter(Value::is_array).unwrap_or_else(|| json!(key));
            json!({"id": "a", "pk": pk}).to_string()
        })
        .collect();
    std::fs::write(&ids, lines.join("\n")).unwrap();
    for scope in [&["--all"][..], &["--where", "c.city_name = 'Davidson'"], &["--ids-file", ids.to_str().unwrap()]] {
        let restored = run(&args(scope)).await;
        assert_eq!(restored.code, 0, "{paths:?} {scope:?}: {restored:?}");
        assert_eq!(keyed.live().await, sorted(&good), "{paths:?} {scope:?}");
        let again: Value = serde_json::from_str(&run(&args(scope)).await.stdout).unwrap();
        assert_eq!(again["outcomes"], json!([]), "{paths:?} {scope:?}");
        let undone = keyed.run(&["undo", &restore_id(&restored), "--yes"]).await;
        assert_eq!(undone.code, 0, "{paths:?} {scope:?}: {undone:?}");
        assert_eq!(keyed.live().await, bad, "{paths:?} {scope:?}");
    }
    if keys.len() > 1 {
        let several = keyed.run(&["restore", "--id", "a", "--at", AT, "--yes"]).await;
        assert_eq!(several.code, 2, "{several:?}");
        for (_, key) in &keys {
            assert!(several.stderr.contains(&format!("--pk '{key}'")), "{key}: {several:?}");
        }
    }
}

fn of_any_kind() -> Keys {
    vec![
        (json!({"pk": "text"}), "text"),
        (json!({"pk": "42"}), "42"),
        (json!({"pk": 42}), "[42]"),
        (json!({"pk": -0.5}), "[-0.5]"),
        (json!({"pk": true}), "[true]"),
        (json!({"pk": false}), "[false]"),
        (json!({"pk": null}), "[null]"),
        (json!({}), "[{}]"),
        (json!({"pk": ""}), ""),
    ]
}

#[tokio::test]
async fn a_key_of_any_kind_addresses_its_own_document() {
    each_key_is_its_own_document(&["/pk"], None, of_any_kind()).await;
}

#[tokio::test]
async fn a_history_with_the_sources_key_works_too() {
    // Text, a number, null and undefined; the layout cannot affect other kinds differently.
    let some = of_any_kind().into_iter().filter(|(_, key)| ["text", "[42]", "[null]", "[{}]"].contains(key));
    each_key_is_its_own_document(&["/pk"], Some(&["/pk"]), some.collect()).await;
}

#[tokio::test]
async fn a_hierarchical_key_addresses_its_own_document() {
    let keys = vec![
        (json!({"t": "t1", "u": "u1"}), r#"["t1","u1"]"#),
        (json!({"t": "t1", "u": "u2"}), r#"["t1","u2"]"#),
        (json!({"t": "t2", "u": "u1"}), r#"["t2","u1"]"#),
        (json!({"t": "t1", "u": 1}), r#"["t1",1]"#),
        (json!({"t": "t1", "u": null}), r#"["t1",null]"#),
        (json!({"t": "t1"}), r#"["t1",{}]"#),
        (json!({"t": true, "u": "u1"}), r#"[true,"u1"]"#),
    ];
    each_key_is_its_own_document(&["/t", "/u"], None, keys).await;
}

#[tokio::test]
async fn a_key_of_three_components_works_without_the_id_in_the_historys_key() {
    let keys = vec![
        (json!({"t": "t1", "u": "u1", "x": 7}), r#"["t1","u1",7]"#),
        (json!({"t": "t1", "u": "u1", "x": "7"}), r#"["t1","u1","7"]"#),
        (json!({"t": "t1", "u": "u1"}), r#"["t1","u1",{}]"#),
    ];
    each_key_is_its_own_document(&["/t", "/u", "/x"], None, keys).await;
}

#[tokio::test]
async fn the_id_works_as_the_partition_key() {
    // As `provision` creates it, and as manually created containers may be.
    for changes in [None, Some(&["/id", "/_originalId"][..]), Some(&["/id"])] {
        each_key_is_its_own_document(&["/id"], changes, vec![(json!({}), "a")]).await;
    }
    let keys = vec![(json!({"t": 2}), r#"[2,"a"]"#), (json!({}), r#"[{},"a"]"#)];
    each_key_is_its_own_document(&["/t", "/id"], None, keys.clone()).await;
    each_key_is_its_own_document(&["/t", "/id"], Some(&["/t", "/id", "/_originalId"]), keys).await;
}

#[tokio::test]
async fn a_nested_key_works() {
    let keys = vec![
        (json!({"address": {"zip": "28036"}}), "28036"),
        (json!({"address": {}}), "[{}]"),
        (json!({"address": {"zip": null}}), "[null]"),
    ];
    each_key_is_its_own_document(&["/address/zip"], None, keys).await;
}

#[tokio::test]
async fn a_deleted_document_comes_back_from_its_last_version_with_or_without_a_tombstone() {
    let mut keyed = Keyed::start(&["/pk"], None).await;
    let document = |id: &str, n: i64| json!({"id": id, "pk": "p", "n": n});
    for id in ["tombstone", "silent"] {
        keyed.record("create", 1_700_000_000, None, &document(id, 1)).await;
        keyed.record("replace", 1_700_000_010, None, &document(id, 2)).await;
    }
    // Latest-version mode delivers no deletes, so the history of the other document simply ends.
    keyed.record("delete", 1_700_000_100, None, &document("tombstone", 0)).await;
    keyed.captured().await;
    // The time of that other delete is unknown.
    let planned = keyed.run(&["restore", "--all", "--at", AT, "--dry-run", "--format", "json"]).await;
    let plan: Value = serde_json::from_str(&planned.stdout).unwrap();
    let actions = plan["plan"]["steps"].as_array().unwrap().iter().map(|step| (&step["id"], &step["action"]));
    let expected = [(&json!("silent"), &json!("unknown")), (&json!("tombstone"), &json!("recreate"))];
    assert_eq!((planned.code, actions.collect::<Vec<_>>()), (3, expected.to_vec()));
    for at in [AT, "1700000010"] {
        let restore = ["restore", "--all", "--at", at, "--recreate-deleted", "--no-stamp", "--format", "json"];
        let restored = keyed.run(&[&restore[..], &["--yes"]].concat()).await;
        assert_eq!(restored.code, 0, "{restored:?}");
        let plan: Value = serde_json::from_str(&restored.stdout).unwrap();
        assert!(plan["plan"]["steps"].as_array().unwrap().iter().all(|s| s["action"] == "recreate"), "{plan}");
        assert_eq!(keyed.live().await, sorted(&[document("tombstone", 2), document("silent", 2)]));
        let undone = keyed.run(&["undo", &restore_id(&restored), "--yes"]).await;
        assert_eq!(undone.code, 0, "{undone:?}");
        assert!(keyed.live().await.is_empty());
    }
    // The tombstone proves that there was no document after the delete. Without one, the last version counts.
    let later = ["restore", "--all", "--at", "1700000200", "--recreate-deleted", "--yes", "--no-stamp"];
    let restored = keyed.run(&later).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(keyed.live().await, sorted(&[document("silent", 2)]));
}

#[tokio::test]
async fn histories_of_the_original_demo_are_restored_by_copy_time_and_the_plan_says_so() {
    let keyed = Keyed::start(&["/pk"], Some(&["/pk"])).await;
    let copy = async |record: &str, city: &str, lsn: i64| {
        let copy = json!({"id": record, "pk": "28035", "city_name": city, "_originalId": "28035", "_lsn": lsn});
        let key = PartitionKey::parse("28035").unwrap();
        keyed.changes.upsert(&key, record, copy.to_string().into_bytes()).await.unwrap();
        let stored = keyed.changes.read(&key, record).await.unwrap().unwrap();
        serde_json::from_slice::<Value>(&stored).unwrap()["_ts"].as_i64().unwrap()
    };
    let good = json!({"id": "28035", "pk": "28035", "city_name": "Davidson"});
    let bad = json!({"id": "28035", "pk": "28035", "city_name": "Ruined"});
    let first = copy("3a0e1f0e-guid", "Davidson", 7).await;
    // Redelivery duplicates records in the demo, and a copy's time is their only order; so wait for another second.
    copy("51c88d41-guid", "Davidson", 7).await;
    let mut second = first;
    while second <= first + 1 {
        second = copy("77aa0b1c-guid", "Ruined", 9).await;
    }
    // In another second, so that the order is unambiguous.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    keyed.put(&bad).await;

    let history = keyed.run(&["history", "--id", "28035", "--format", "json"]).await.json();
    assert_eq!(history.as_array().unwrap().len(), 3, "{history}");
    assert!(history.as_array().unwrap().iter().all(|v| v["op"] == "legacy"), "{history}");
    let at = (first + 1).to_string();
    let object = keyed.run(&["show", "--id", "28035", "--at", &at, "--format", "json"]).await.json();
    assert_eq!((&object["document"], &object["caveats"][0]["name"]), (&good, &json!("legacy-time")));

    keyed.captured().await;
    for scope in [
        &["--id", "28035"][..],
        &["--id", "28035", "--pk", "28035"],
        &["--all"],
        &["--where", "c.city_name = 'Davidson'"],
    ] {
        let args = [&["restore", "--at", &at, "--no-stamp", "--yes", "--format", "json"], scope].concat();
        let planned = keyed.run(&[&args[..], &["--dry-run"]].concat()).await.json();
        let step = &planned["plan"]["steps"][0];
        assert_eq!(step["action"], "restore", "{planned}");
        assert!(step["notes"].to_string().contains("its time is the copy's"), "{planned}");
        let restored = keyed.run(&args).await;
        assert_eq!(restored.code, 0, "{scope:?}: {restored:?}");
        assert_eq!(keyed.live().await, sorted(std::slice::from_ref(&good)), "{scope:?}");
        let undone = keyed.run(&["undo", &restore_id(&restored), "--yes"]).await;
        assert_eq!(undone.code, 0, "{scope:?}: {undone:?}");
        assert_eq!(keyed.live().await, sorted(std::slice::from_ref(&bad)), "{scope:?}");
    }
    // The document was deleted since; it is restored from its last copy.
    keyed.source.delete(&PartitionKey::parse("28035").unwrap(), "28035", None).await.unwrap();
    let restored = keyed.run(&["restore", "--id", "28035", "--at", &second.to_string(), "--no-stamp", "--yes"]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(keyed.live().await, sorted(&[bad]));
}
