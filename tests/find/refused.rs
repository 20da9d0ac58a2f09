//! Invalid requests and undecidable cases.

use serde_json::json;

use super::{Shop, broken};

#[tokio::test]
async fn an_invalid_condition_or_list_is_refused_with_its_position() {
    let shop = Shop::start().await;
    for (args, says) in [
        (vec!["find"], "--when"),
        (vec!["find", "--when", "doc.price <"], "--when"),
        (vec!["find", "--when", "price < 0"], "\"price\" is not known"),
        (vec!["find", "--when", "doc.a == 1", "--sql", "c.a = 1"], "cannot be used with"),
        (vec!["find", "--sql", "EXISTS(SELECT 1)"], "cannot be decided here"),
        (vec!["find", "--sql", ""], "--sql"),
        (vec!["find", "--when", "true", "--from", "noon"], "--from"),
        (vec!["find", "--when", "true", "--actor", "x"], "--actor"),
        (vec!["find", "--when", "true", "--flips-once"], "--id"),
        (vec!["find", "--when", "true", "--feed-range", "3/2"], "3/2"),
    ] {
        let output = shop.run(&args).await;
        assert_eq!(output.code, 2, "{args:?}: {output:?}");
        assert!(output.stderr.contains(says) && output.stdout.is_empty(), "{args:?}: {output:?}");
    }
    shop.write(5, "create", 1, "a", 1, "ana").await;
    let once = shop.run(&["find", "--when", "changed(\"/n\")", "--id", "a", "--flips-once"]).await;
    assert_eq!((once.code, once.stderr.contains("--flips-once")), (2, true), "{once:?}");
    let unknown = shop.run(&["find", "--when", "nothing(doc)"]).await;
    assert_eq!((unknown.code, unknown.stderr.contains("nothing")), (2, true), "{unknown:?}");
    let nobody = shop.run(&["find", "--when", "true", "--id", "nobody"]).await;
    assert_eq!(nobody.code, 1, "{nobody:?}");
    let file = shop.app.folder.path().join("list");
    for (line, says) in [
        (r#"{"id":"a","pk":"a","befor":"x"}"#, "line 2: unknown field `befor`"),
        (r#"{"id":"a"}"#, "line 2: missing field `pk` at column 10\n"),
        (r#"{"id":"a","pk":"a","before":"x","at":1}"#, "line 2: it has more than one of"),
        (r#"{"id":"a","pk":"a","at":"noon"}"#, "line 2, at"),
        (r#"{"id":"b","pk":"b","before":null}"#, "line 2: \"b\" goes back to something else"),
        ("nonsense", "line 2: expected"),
    ] {
        std::fs::write(&file, format!("{{\"id\":\"b\",\"pk\":\"b\",\"before\":\"b~1\"}}\n{line}\n")).unwrap();
        let output = shop.run(&["restore", "--ids-file", file.to_str().unwrap(), "--yes"]).await;
        assert_eq!(output.code, 2, "{line}: {output:?}");
        assert!(output.stderr.contains(says), "{line}: {output:?}");
    }
}

#[tokio::test]
async fn undecidable_documents_are_reported_and_the_exit_code_is_three() {
    let shop = broken().await;
    let run = async |args: &[&str]| shop.run(&[&["find", "--when", "doc.price < 0"][..], args].concat()).await;
    // Nothing proves that the history extends beyond its newest version.
    let alone = Shop::start().await;
    alone.write(5, "create", 1, "a", -1, "ana").await;
    for (to, code) in [("1m", 3), ("6m", 0)] {
        let beyond = alone.run(&["find", "--when", "doc.price < 0", "--to", to]).await;
        assert_eq!((beyond.code, beyond.stderr.contains("before --to")), (code, code == 3), "{beyond:?}");
    }
    // The condition is false for the last version, so it did not change only once.
    let often = run(&["--id", "c", "--flips-once"]).await;
    assert_eq!((often.code, often.stderr.contains("leave --flips-once out")), (3, true), "{often:?}");
    // A missing field has no answer: this is reported, but is not an error.
    let missing = shop.run(&["find", "--when", "doc.weight > 3.0"]).await;
    assert_eq!((missing.code, missing.stderr.contains("a field is not there")), (0, true), "{missing:?}");

    let put = async |id: &str, record: serde_json::Value| {
        let key = cosmos_rewind::change::key::PartitionKey::parse(&json!([id, id]).to_string()).unwrap();
        let own = record["id"].as_str().unwrap().to_owned();
        shop.app.changes().await.upsert(&key, &own, record.to_string().into_bytes()).await.unwrap();
    };
    let record = |id: &str, price: i64, change: serde_json::Value| json!({"id": format!("{id}~{price}"), "pk": id, "price": price, "_originalId": id, "_change": change});
    // Latest-version mode lacks intermediate versions, and whatever precedes the history is unknown.
    let ts = shop.now - 300;
    put("late", record("late", -5, json!({"v": 1, "op": "upsert", "ts": ts, "lsn": 80, "key": ["late"]}))).await;
    let latest = run(&["--from", "6m", "--format", "jsonl"]).await;
    assert_eq!(latest.code, 0, "{latest:?}");
    assert!(latest.stderr.contains("other writes may be missing: latest-version mode"), "{latest:?}");
    let line = &latest.lines()[0];
    assert_eq!((&line["before"], &line["still"]), (&json!(null), &json!("gone")), "{line}");
    assert!(line["notes"][0].as_str().unwrap().contains("not known"), "{line}");
    // Neither a partial record nor one that cannot be parsed can be decided.
    let partial = json!({"v": 1, "op": "create", "ts": ts, "lsn": 81, "key": ["part"], "fidelity": "partial"});
    put("part", record("part", 5, partial)).await;
    let part = run(&["--from", "6m"]).await;
    assert_eq!((part.code, part.stderr.contains("the history holds a part only")), (3, true), "{part:?}");
    put("odd", record("odd", 5, json!({"v": 1, "op": "fly", "ts": ts, "key": ["odd"]}))).await;
    let odd = run(&[]).await;
    assert_eq!((odd.code, odd.stderr.contains("\"odd~5\"")), (3, true), "{odd:?}");
    // A damaged document is reported once, and the others are found.
    let body = json!({"encoding": "gzip+base64", "size": 5, "sha256": "00", "data": "AAAA"});
    let damaged = json!({"v": 1, "op": "create", "ts": ts, "lsn": 82, "key": ["damaged"], "body": body});
    put("damaged", record("damaged", 5, damaged)).await;
    let damaged = run(&["--format", "jsonl"]).await;
    assert_eq!((damaged.code, damaged.lines().len()), (3, 7), "{damaged:?}");
    assert_eq!(damaged.stderr.matches("\"damaged~5\"").count(), 1, "{damaged:?}");
}
