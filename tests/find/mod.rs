//! Which writes made a condition true: random histories compared with a plain list, and the real binary from `find` to
//! `restore` and `undo`.

mod model;
mod refused;

use std::collections::BTreeMap;

use chrono::Utc;
use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use crate::support::{Output, TestApp};

/// Documents whose versions are minutes apart in the history, although the test writes them now.
struct Shop {
    app: TestApp,
    now: i64,
}

impl Shop {
    async fn start() -> Self {
        Self { app: TestApp::start().await, now: Utc::now().timestamp() }
    }

    /// Writes or deletes a document, and captures the version as of `minutes` ago.
    async fn write(&self, minutes: i64, op: &str, lsn: i64, id: &str, price: i64, by: &str) {
        let document = json!({"id": id, "pk": id, "price": price, "updatedBy": by, "n": lsn});
        let (mut record, mut change) =
            (document.clone(), json!({"v": 1, "op": op, "ts": self.now - minutes * 60, "lsn": lsn}));
        let record_id = if op == "delete" {
            self.app.events().await.delete(&PartitionKey::parse(id).unwrap(), id, None).await.unwrap();
            record = json!({"pk": id});
            format!("{id}~del-{lsn}")
        } else {
            let etag = self.app.put(document).await["_etag"].as_str().unwrap().to_owned();
            change["etag"] = etag.as_str().into();
            format!("{id}~{}", etag.trim_matches('"'))
        };
        change["key"] = json!([id]);
        change["via"] = "trigger".into();
        change["fidelity"] = "exact".into();
        record["id"] = record_id.as_str().into();
        record["_originalId"] = id.into();
        record["_change"] = change;
        let key = PartitionKey::parse(&json!([id, id]).to_string()).unwrap();
        self.app.changes().await.upsert(&key, &record_id, record.to_string().into_bytes()).await.unwrap();
    }

    /// The live documents without system properties.
    async fn live(&self) -> BTreeMap<String, Value> {
        let all = self.app.events().await.query_all("SELECT c.id, c.price, c.n FROM c", &[], None).await.unwrap();
        let document = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        all.iter().map(|one| document(one.get())).map(|one| (one["id"].as_str().unwrap().to_owned(), one)).collect()
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.app.run(args).await
    }
}

/// Price and sequence number of each live document.
fn prices(live: &BTreeMap<String, Value>) -> Vec<(&str, i64, i64)> {
    live.iter().map(|(id, one)| (id.as_str(), one["price"].as_i64().unwrap(), one["n"].as_i64().unwrap())).collect()
}

/// A shop in which a batch job made some prices negative, one per minute.
async fn broken() -> Shop {
    let shop = Shop::start().await;
    for (n, id) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        shop.write(90, "create", n as i64, id, 10, "ana").await;
    }
    for (n, id) in ["a", "b", "f"].into_iter().enumerate() {
        shop.write(50, "replace", 10 + n as i64, id, 12, "ana").await;
    }
    shop.write(30, "delete", 20, "e", 0, "").await;
    for (n, (id, op)) in
        [("a", "replace"), ("b", "replace"), ("c", "replace"), ("d", "replace"), ("e", "create"), ("g", "create")]
            .into_iter()
            .enumerate()
    {
        shop.write(25 - n as i64, op, 30 + n as i64, id, -1, "batch").await;
    }
    // Since then: changed again and still wrong, corrected, deleted.
    shop.write(8, "replace", 40, "b", -2, "ana").await;
    shop.write(7, "replace", 41, "c", 11, "ana").await;
    shop.write(6, "delete", 42, "d", 0, "").await;
    shop.app.captured_from_now().await;
    shop
}

#[tokio::test]
async fn the_output_of_find_is_restored_to_just_before_each_bad_write_and_undone() {
    let shop = broken().await;
    let args = ["find", "--when", "doc.price < 0", "--from", "40m", "--actor", "/updatedBy", "--format", "jsonl"];
    let found = shop.run(&args).await;
    assert_eq!(found.code, 0, "{found:?}");
    let mut lines = found.lines();
    lines.sort_by_key(|line| line["lsn"].as_i64());
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["id"].as_str().unwrap(), line["still"].as_str().unwrap(), line["before"].is_null()))
        .collect();
    assert_eq!(
        told,
        [
            ("a", "yes", false),
            ("b", "yes", false),
            ("c", "no", false),
            ("d", "gone", false),
            ("e", "yes", false),
            ("g", "yes", true)
        ]
    );
    assert_eq!(lines[4]["before"], "e~del-20", "preceded by a delete");
    assert!(lines.iter().all(|line| line["actor"] == "batch" && line["notes"] == json!([])), "{lines:?}");
    assert_eq!(lines[0]["changed"], json!(["/price", "/updatedBy", "/n"]));
    for part in ["\"batch\" 6", "/price 4", "true of 4 still, of 1 no more, 1 gone", "6 documents found"] {
        assert!(found.stderr.contains(part), "{part}: {}", found.stderr);
    }

    // The corrected article is removed from the list by hand.
    let list: String = lines.iter().filter(|line| line["id"] != "c").map(|line| format!("{line}\n")).collect();
    let file = shop.app.folder.path().join("bad.jsonl");
    std::fs::write(&file, list).unwrap();
    let file = file.to_str().unwrap();
    let before = shop.live().await;
    let dry = shop.run(&["restore", "--ids-file", file, "--dry-run"]).await;
    assert_eq!(dry.code, 0, "{dry:?}");
    assert!(
        dry.stderr.contains("to what the list says: 2 restore, 1 recreate, 0 delete, 2 keep, 0 unknown"),
        "{dry:?}"
    );
    assert!(dry.stdout.contains("--delete-newer deletes it"), "{dry:?}");
    // Deletes have a limit of their own.
    let refused = shop.run(&["restore", "--ids-file", file, "--delete-newer=1", "--yes"]).await;
    assert_eq!((refused.code, refused.stderr.contains("--max-deletes")), (2, true), "{refused:?}");
    assert_eq!(shop.live().await, before);

    let done = shop.run(&["restore", "--ids-file", file, "--delete-newer=2", "--no-stamp", "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let live = shop.live().await;
    assert_eq!(prices(&live), [("a", 12, 10), ("b", 12, 11), ("c", 11, 41), ("d", 10, 3), ("f", 12, 12)]);
    // Documents that are already up to date stay unchanged.
    let again = shop.run(&["restore", "--ids-file", file, "--delete-newer=2", "--no-stamp", "--yes"]).await;
    assert!(again.stderr.contains("0 restore, 0 recreate, 0 delete, 5 keep"), "{again:?}");

    let id = done.stderr.lines().find_map(|line| line.split("cosmos-rewind undo ").nth(1)).unwrap();
    let id = id.split_whitespace().next().unwrap();
    let undone = shop.run(&["undo", id, "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    assert_eq!(shop.live().await, before);
}

#[tokio::test]
async fn a_saved_plan_of_a_list_is_applied_as_it_was_shown() {
    let shop = broken().await;
    let found = shop.run(&["find", "--sql", "c.price < @least", "--param", "least=0", "--format", "jsonl"]).await;
    assert_eq!((found.code, found.lines().len()), (0, 6), "{found:?}");
    let folder = shop.app.folder.path();
    let (list, plan) = (folder.join("list"), folder.join("plan"));
    std::fs::write(&list, &found.stdout).unwrap();
    let (list, plan) = (list.to_str().unwrap(), plan.to_str().unwrap());
    let saved = shop.run(&["restore", "--ids-file", list, "--dry-run", "--plan-out", plan, "--format", "json"]).await;
    assert_eq!(saved.code, 0, "{saved:?}");
    assert_eq!((&saved.json()["plan"]["perDocument"], &saved.json()["plan"]["at"]), (&json!(true), &Value::Null));
    let done = shop.run(&["restore", "--plan", plan, "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let live = shop.live().await;
    assert_eq!(
        prices(&live),
        [("a", 12, 10), ("b", 12, 11), ("c", 10, 2), ("d", 10, 3), ("e", -1, 34), ("f", 12, 12), ("g", -1, 35)]
    );
}

#[tokio::test]
async fn lines_may_have_a_time_a_version_or_nothing_of_their_own() {
    let shop = broken().await;
    let file = shop.app.folder.path().join("list");
    let lines = [
        json!({"id": "a", "pk": "a", "at": shop.now - 60 * 60}),
        json!({"id": "b", "pk": "b", "version": 30 + 1}),
        json!({"id": "c", "pk": "c"}),
        json!({"id": "d", "pk": "d", "before": "d~none"}),
        json!({"id": "nobody", "pk": "nobody", "before": null}),
    ];
    std::fs::write(&file, lines.map(|line| format!("{line}\n")).concat()).unwrap();
    let file = file.to_str().unwrap();
    let without = shop.run(&["restore", "--ids-file", file, "--yes"]).await;
    assert_eq!(without.code, 2, "{without:?}");
    assert!(without.stderr.contains("line 3 does not say what its document goes back to"), "{without:?}");
    let done = shop.run(&["restore", "--ids-file", file, "--at", "22m30s", "--no-stamp", "--yes"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.stdout.contains("the document has no version d~none"), "{done:?}");
    assert!(done.stdout.contains("no version in the history"), "{done:?}");
    let live = shop.live().await;
    assert_eq!(
        prices(&live),
        [("a", 10, 0), ("b", -1, 31), ("c", -1, 32), ("e", -1, 34), ("f", 12, 12), ("g", -1, 35)],
        "{done:?}"
    );
}

#[tokio::test]
async fn find_honours_the_time_the_documents_and_the_manner() {
    let shop = broken().await;
    let ids = |output: &Output| {
        let mut ids: Vec<String> = output.lines().iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids.concat()
    };
    for (args, expected) in [
        (vec!["--from", "24m30s", "--to", "22m"], "bcd"),
        (vec!["--from", "2m"], ""),
        (vec!["--to", "26m"], ""),
        (vec!["--where", "c.price = 12"], "ab"),
        (vec!["--where", "c.price = 12", "--from", "24m30s"], "b"),
        (vec!["--first"], "a"),
        (vec!["--first", "--from", "23m30s"], "c"),
        (vec!["--id", "b", "--flips-once"], "b"),
        (vec!["--id", "b", "--pk", "b"], "b"),
        (vec!["--id", "f"], ""),
    ] {
        let args = [&["find", "--when", "doc.price < 0", "--format", "jsonl"][..], &args].concat();
        let output = shop.run(&args).await;
        assert_eq!((output.code, ids(&output).as_str()), (0, expected), "{args:?}: {output:?}");
    }
    let mut shares = Vec::new();
    for share in ["1/3", "2/3", "3/3"] {
        let output = shop.run(&["find", "--when", "doc.price < 0", "--feed-range", share, "--format", "jsonl"]).await;
        shares.push(ids(&output));
    }
    let mut all: Vec<char> = shares.concat().chars().collect();
    all.sort_unstable();
    assert_eq!(all.iter().collect::<String>(), "abcdeg");
    // Writes reverted before the start do not count; documents that were already wrong are reported.
    let output = shop.run(&["find", "--when", "doc.price < 0", "--from", "10m"]).await;
    assert!(output.stderr.contains("true before --from already"), "{output:?}");
    let changed =
        shop.run(&["find", "--when", "changed(\"/price\") && previous.price > 11", "--format", "jsonl"]).await;
    assert_eq!((changed.code, ids(&changed).as_str()), (0, "ab"), "{changed:?}");
}
