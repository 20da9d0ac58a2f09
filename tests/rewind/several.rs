//! Several documents at once, selected by a list or by a predicate.

use serde_json::{Value, json};

use super::{START, change, deliver_all};
use crate::support::{Output, TestApp};

/// Three documents: one damaged and then repaired with another value, one left alone, one created later.
async fn a_town(app: &TestApp) {
    let handler = app.handler(&[]).await;
    let document = |id: &str, city: &str| json!({"id": id, "pk": id, "city": city});
    let changes = [
        change("create", 0, 1, None, document("a", "Davidson")),
        change("create", 0, 2, None, document("b", "Davidson")),
        change("replace", 60, 3, Some(1), document("a", "Ruined")),
        change("create", 90, 4, None, document("c", "Davidson")),
        change("replace", 120, 5, Some(3), document("a", "Huntersville")),
    ];
    deliver_all(&handler, &changes).await;
}

#[tokio::test]
async fn several_documents_are_shown_by_list_or_predicate() {
    let app = TestApp::start().await;
    a_town(&app).await;
    let at = (START + 30).to_string();
    let ids = |output: &Output| -> Vec<String> {
        output.lines().iter().map(|v| v["id"].as_str().unwrap().to_owned()).collect()
    };
    // The predicate applies to the documents at that time, not to the live ones.
    let where_at =
        |at: &str| ["show", "--where", "c.city = @city", "--param", "city=Davidson", "--at", at].map(String::from);
    for (seconds, expected) in [(30, vec!["a", "b"]), (60, vec!["b"]), (90, vec!["b", "c"])] {
        let args = where_at(&(START + seconds).to_string());
        let shown = app.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!((shown.code, ids(&shown)), (0, expected.iter().map(|s| (*s).to_owned()).collect()), "{shown:?}");
    }
    // One JSON object per line, with the version's metadata.
    let objects = app.run(&["show", "--where", "c.city = 'Davidson'", "--at", &at, "--format", "json"]).await;
    assert!(objects.lines().iter().all(|o| o["state"] == "document" && o["document"]["city"] == "Davidson"));

    // Every entry of a list is accounted for: c did not exist then, and x is not in the history.
    let list = "{\"id\":\"a\",\"pk\":\"a\"}\n{\"id\":\"c\",\"pk\":[\"c\"]}\n\n{\"id\":\"x\",\"pk\":\"x\"}\n";
    let shown = app.run_with_input(&["show", "--ids-file", "-", "--at", &at], list).await;
    assert_eq!((shown.code, ids(&shown)), (3, vec!["a".to_owned()]), "{shown:?}");
    assert!(shown.stderr.contains(r#"document "x" (x): no version"#), "{shown:?}");
    assert!(shown.stderr.contains("it was created at"), "{shown:?}");

    for (args, input, code, says) in [
        (&["show", "--where", "c.city = 'Nowhere'"][..], "", 1, "no document matched at that time"),
        (&["show", "--where", "c.city = ="], "", 2, "--where"),
        (&["show"], "", 2, "no document is named"),
        (&["show", "--ids-file", "-"], "{\"id\":1}", 2, "line 1"),
        (&["show", "--ids-file", "-"], "\n", 2, "names no document"),
        (&["show", "--ids-file", "-"], "{\"id\":\"x\",\"pk\":\"x\"}", 1, "no version of 1 document"),
        (&["show", "--ids-file", "/nowhere"], "", 2, "/nowhere"),
        (&["show", "--id", "a", "--where", "true"], "", 2, "cannot be used with"),
    ] {
        let refused = app.run_with_input(args, input).await;
        assert_eq!(refused.code, code, "{args:?}: {refused:?}");
        assert!(refused.stderr.contains(says), "{args:?}: {refused:?}");
    }
}

#[tokio::test]
async fn several_documents_are_compared_and_their_fields_traced() {
    let app = TestApp::start().await;
    a_town(&app).await;
    let from = (START + 30).to_string();
    let to = (START + 200).to_string();
    let base = ["diff", "--where", "c.city = 'Davidson'", "--from", &from, "--to", &to];
    let lines = app.run(&base).await;
    assert_eq!(lines.code, 0, "{lines:?}");
    assert_eq!(lines.stdout, "\"a\" (a)\n~ /city  \"Davidson\" -> \"Huntersville\"\n");
    assert!(lines.stderr.contains("1 difference in 1 of 2 documents"), "{lines:?}");
    let patches = app.run(&[&base[..], &["--format", "json"]].concat()).await.json();
    let patch = json!([{"op": "replace", "path": "/city", "value": "Huntersville"}]);
    assert_eq!(patches, json!([{"id": "a", "pk": "a", "patch": patch}]));
    let rows = app.run(&[&base[..], &["--format", "csv"]].concat()).await;
    assert_eq!(
        rows.stdout,
        "id,pk,path,op,before,after\na,a,/city,replace,\"\"\"Davidson\"\"\",\"\"\"Huntersville\"\"\"\n"
    );

    // When the field changed, in all documents that were ever ruined.
    let changes =
        app.run(&["history", "--where", "c.city = 'Ruined'", "--changes-of", "/city", "--format", "json"]).await;
    let rows: Vec<(Value, Value, Value)> = changes
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["id"].clone(), r["ts"].clone(), r["after"].clone()))
        .collect();
    let row = |seconds: i64, city: &str| (json!("a"), json!(START + seconds), json!(city));
    assert_eq!(rows, [row(0, "Davidson"), row(60, "Ruined"), row(120, "Huntersville")]);

    let list = "{\"id\":\"c\",\"pk\":\"c\"}\n{\"id\":\"a\",\"pk\":\"a\"}\n";
    let versions = app.run_with_input(&["history", "--ids-file", "-", "--format", "jsonl"], list).await;
    let ids: Vec<String> = versions.lines().iter().map(|v| v["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((versions.code, ids), (0, ["c", "a", "a", "a"].map(String::from).to_vec()));
}

/// The key of a number and that of its digits are two documents; a row says which, as `--pk` takes it.
#[tokio::test]
async fn a_row_of_a_comparison_tells_a_number_from_a_text() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let document = |pk: Value, n: u64| json!({"id": "a", "pk": pk, "n": n});
    let changes = [
        change("create", 0, 1, None, document(json!(1), 1)),
        change("create", 0, 2, None, document(json!("1"), 2)),
        change("replace", 60, 3, Some(1), document(json!(1), 3)),
        change("replace", 60, 4, Some(2), document(json!("1"), 4)),
    ];
    deliver_all(&handler, &changes).await;
    let (from, to) = ((START + 30).to_string(), (START + 90).to_string());
    let diff = ["diff", "--where", "true", "--from", &from, "--to", &to, "--format"];
    let rows = app.run(&[&diff[..], &["csv"]].concat()).await;
    let mut rows: Vec<&str> = rows.stdout.lines().collect();
    rows.sort_unstable();
    assert_eq!(rows, ["a,1,/n,replace,2,4", "a,[1],/n,replace,1,3", "id,pk,path,op,before,after"]);
    let mut keys: Vec<String> =
        app.run(&[&diff[..], &["jsonl"]].concat()).await.lines().iter().map(|row| row["pk"].to_string()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["\"1\"", "1"]);
}
