//! What the program claims about keys, about uncaptured writes and about commands to type, checked against the test's
//! own log and by typing the commands into a real shell.

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use super::captured::{Captured, next_second};

/// The record ids of the history and the texts of the source.
async fn everything(world: &Captured) -> Vec<String> {
    let mut all = Vec::new();
    for container in [world.app.events().await, world.app.changes().await] {
        let found = container.query_all("SELECT * FROM c", &[], None).await.unwrap();
        all.extend(found.iter().map(|raw| raw.get().to_owned()));
    }
    all.sort();
    all
}

#[tokio::test]
async fn an_impossible_key_is_refused_and_not_taken_for_a_missing_key() {
    let world = Captured::start("all-versions").await;
    let none = PartitionKey::parse("[{}]").unwrap();
    world.app.events().await.upsert(&none, "s", br#"{"id":"s","n":1}"#.to_vec()).await.unwrap();
    world.put(json!({"id": "s", "pk": "q", "n": 2})).await;
    world.capture().await;
    let before = everything(&world).await;
    for key in [r#"["q",]"#, r#"[["q"]]"#, r#"[{"a":1}]"#, "[1e400]"] {
        for args in [
            &["erase", "--id", "s", "--live", "--yes", "--settle", "0s"][..],
            &["show", "--id", "s"],
            &["diff", "--id", "s", "--from", "1s"],
            &["history", "--id", "s"],
            &["find", "--when", "true", "--id", "s"],
            &["restore", "--id", "s", "--at", "now", "--dry-run"],
            &["revert", "--id", "s", "--from", "1h", "--to", "now", "--dry-run"],
            &["query", "SELECT * FROM c"],
        ] {
            let output = world.run(&[args, &["--pk", key]].concat()).await;
            assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{args:?} {key}: {output:?}");
        }
    }
    for pk in [r#"{"a":1}"#, r#"[["q"]]"#] {
        let line = format!(r#"{{"id":"s","pk":{pk}}}"#);
        let listed = world.app.run_with_input(&["restore", "--ids-file", "-", "--at", "now", "--dry-run"], &line).await;
        assert_eq!((listed.code, listed.stderr.contains("line 1: ")), (2, true), "{listed:?}");
    }
    assert_eq!(everything(&world).await, before);
    // `{}` stands for a missing key value.
    let shown = world.run(&["show", "--id", "s", "--pk", "[{}]"]).await;
    assert_eq!((shown.code, shown.stdout.trim_end()), (0, r#"{"id":"s","n":1}"#), "{shown:?}");
}

/// The words into which a shell splits a command line.
fn words(line: &str) -> Vec<String> {
    let output = std::process::Command::new("sh").arg("-c").arg(format!("printf '%s\\0' {line}")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

#[tokio::test]
async fn the_keys_that_a_hint_names_can_be_typed_into_a_shell() {
    let world = Captured::start("all-versions").await;
    let keys = ["-x", "it's", " [x", "\t\"y", "$HOME `id`", "a\nb\u{7f}", "", "5", "\u{fc}", "\"", "{}"];
    for key in keys {
        let text = json!({"id": "s", "pk": key}).to_string();
        let written = PartitionKey::parse(&json!([key]).to_string()).unwrap();
        world.app.events().await.upsert(&written, "s", text.into_bytes()).await.unwrap();
    }
    world.capture().await;
    let shown = world.run(&["show", "--id", "s"]).await;
    let lines: Vec<&str> = shown.stderr.lines().filter_map(|line| line.trim().strip_suffix("  (1 version)")).collect();
    assert_eq!(lines.len(), keys.len(), "{shown:?}");
    let planned = world.run(&["restore", "--id", "s", "--at", "now", "--dry-run"]).await;
    let hint = planned.stderr.lines().find_map(|line| line.strip_prefix("hint: add one of: ")).unwrap();
    assert_eq!(planned.code, 2, "{planned:?}");
    let mut found = Vec::new();
    for line in lines {
        assert!(hint.contains(line), "{line} is not in {hint}");
        let flags = words(line);
        let args: Vec<&str> = ["show", "--id", "s"].into_iter().chain(flags.iter().map(String::as_str)).collect();
        let one = world.run(&args).await;
        let document: Value = serde_json::from_str(&one.stdout).unwrap_or_else(|_| panic!("{line}: {one:?}"));
        found.push(document["pk"].as_str().unwrap().to_owned());
    }
    found.sort();
    let mut keys = keys.map(str::to_owned);
    keys.sort();
    assert_eq!(found, keys);
}

#[tokio::test]
async fn a_document_without_captured_versions_is_shown_as_it_was() {
    let world = Captured::start("all-versions").await;
    world.put(json!({"id": "old", "pk": "p", "n": 0})).await;
    world.capture().await;
    let before = next_second().await.to_string();
    next_second().await;
    world.put(json!({"id": "made", "pk": "p", "n": 1})).await;
    let at = next_second().await.to_string();
    let made = r#"{"id":"made","pk":"p","n":1}"#;
    let shown = world.run(&["show", "--id", "made", "--pk", "p", "--at", &at]).await;
    assert_eq!((shown.code, shown.stdout.trim_end()), (0, made), "{shown:?}");
    assert!(shown.stderr.contains("not in the history (yet)"), "{shown:?}");
    let line = r#"{"id":"made","pk":"p"}"#;
    let listed = world.app.run_with_input(&["show", "--ids-file", "-", "--at", &at], line).await;
    assert_eq!((listed.code, listed.stdout.trim_end()), (0, made), "{listed:?}");
    let same = world.run(&["diff", "--id", "made", "--pk", "p", "--from", &at]).await;
    assert_eq!((same.code, same.stdout.as_str()), (0, ""), "{same:?}");
    // Nothing is known about it before it was written, and a document with another id or key still does not exist.
    for args in [["made", "p", before.as_str()], ["none", "p", at.as_str()], ["made", "q", at.as_str()]] {
        let output = world.run(&["show", "--id", args[0], "--pk", args[1], "--at", args[2]]).await;
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{args:?}: {output:?}");
    }
}

#[tokio::test]
async fn find_and_revert_do_not_deny_writes_that_are_not_captured_yet() {
    let world = Captured::start("all-versions").await;
    world.put(json!({"id": "a", "pk": "p", "price": 1})).await;
    world.capture().await;
    let from = next_second().await.to_string();
    world.put(json!({"id": "a", "pk": "p", "price": -1})).await;
    let to = next_second().await.to_string();
    next_second().await;
    let find = ["find", "--when", "doc.price < 0"];
    let revert = ["revert", "--from", &from, "--to", &to, "--dry-run"];
    let found = world.run(&find).await;
    assert_eq!((found.code, found.stderr.contains("the history ends at")), (0, true), "{found:?}");
    let reverted = world.run(&revert).await;
    let error = reverted.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert_eq!((reverted.code, error.contains("the history ends at")), (1, true), "{reverted:?}");
    assert!(reverted.stderr.contains("--wait"), "{reverted:?}");
    world.capture().await;
    let found = world.run(&find).await;
    assert!(found.stderr.contains("1 document found") && !found.stderr.contains("the history ends"), "{found:?}");
    assert_eq!(world.run(&revert).await.code, 0);
}

#[tokio::test]
async fn a_list_with_windows_line_ends_is_read_and_duplicates_count_once() {
    let world = Captured::start("all-versions").await;
    let at = world.changed(&["a"]).await;
    let list = "\u{feff}{\"id\":\"a\",\"pk\":\"p\"}\r\n\r\n{\"id\":\"a\",\"pk\":[\"p\"]}\r\n";
    let run = async |args: &[&str]| world.app.run_with_input(&[args, &["--ids-file", "-"]].concat(), list).await;
    let planned = run(&["restore", "--at", &at, "--dry-run"]).await;
    assert_eq!((planned.code, planned.stderr.contains("1 restore, 0 recreate")), (0, true), "{planned:?}");
    let differs = run(&["diff", "--from", &at]).await;
    assert!(differs.stderr.contains("1 difference in 1 of 1 document"), "{differs:?}");
    let shown = run(&["show", "--at", &at]).await;
    assert_eq!(shown.stdout.lines().collect::<Vec<_>>(), [r#"{"id":"a","pk":"p","n":1}"#], "{shown:?}");
    assert_eq!(run(&["history", "--format", "json"]).await.json().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_reversed_time_range_and_a_version_without_a_single_document_are_refused() {
    let world = Captured::start("all-versions").await;
    world.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    world.capture().await;
    for (args, says) in [
        (&["find", "--when", "true", "--from", "1h", "--to", "2h"][..], "is before --from"),
        (&["revert", "--from", "1h", "--to", "2h"], "is before --from"),
        (&["restore", "--version", "1", "--all", "--dry-run"], "cannot be used with"),
        (&["restore", "--version", "1", "--where", "true", "--dry-run"], "cannot be used with"),
        (&["restore", "--version", "1", "--ids-file", "-", "--dry-run"], "cannot be used with"),
        (&["backup", "--out", "b.jsonl"], "<--where <PREDICATE>|--all>"),
    ] {
        let output = world.run(args).await;
        assert_eq!((output.code, output.stderr.contains(says)), (2, true), "{args:?}: {output:?}");
    }
}

#[tokio::test]
async fn a_planned_undo_lists_what_others_changed_since() {
    let world = Captured::start("all-versions").await;
    let at = world.changed(&["alone", "edited", "deleted"]).await;
    let restored = world.run(&["restore", "--all", "--at", &at, "--yes", "--format", "json"]).await.json();
    world.put(json!({"id": "edited", "pk": "p", "n": 3})).await;
    world.delete("deleted", "p").await;
    let undo = ["undo", restored["restore"].as_str().unwrap()];
    let planned = world.run(&[&undo[..], &["--dry-run", "--format", "csv"]].concat()).await;
    for (id, is_conflict) in [("alone", false), ("edited", true), ("deleted", true)] {
        let row = planned.stdout.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{id}: {planned:?}"));
        assert_eq!(row.contains("was changed since: a conflict"), is_conflict, "{row}");
    }
    let undone = world.run(&[&undo[..], &["--yes"]].concat()).await;
    assert_eq!(undone.code, 3, "{undone:?}");
    let conflicts: Vec<Vec<&str>> = undone
        .stdout
        .lines()
        .filter(|line| line.starts_with("conflict "))
        .map(|line| line.split_whitespace().take(4).collect())
        .collect();
    let told = |id: &str| conflicts.contains(&vec!["conflict", id, "p", "restore"]);
    assert!(conflicts.len() == 2 && told("edited") && told("deleted"), "{undone:?}");
    assert_eq!(world.live("edited", "p").await.unwrap()["n"], 3);
    assert_eq!(world.live("deleted", "p").await, None);
}

/// Two documents have swapped the values of a unique key. Neither can be restored before the other, and nobody changed
/// them.
#[tokio::test]
async fn a_restore_blocked_by_a_unique_key_names_the_cause() {
    let description = json!({"partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2},
        "uniqueKeyPolicy": {"uniqueKeys": [{"paths": ["/mail"]}]}});
    let app = crate::support::TestApp::with_events(&["/pk", "/_originalId"], description).await;
    let world = Captured::with(app, "all-versions").await;
    let put = async |id: &str, mail: &str| world.put(json!({"id": id, "pk": "p", "mail": mail})).await;
    put("a", "1").await;
    put("b", "2").await;
    world.capture().await;
    let at = next_second().await.to_string();
    next_second().await;
    for (id, mail) in [("a", "free"), ("b", "1"), ("a", "2")] {
        put(id, mail).await;
    }
    world.capture().await;
    let restore = ["restore", "--all", "--at", &at, "--yes", "--no-stamp", "--format", "json"];
    let refused = world.run(&restore).await;
    assert_eq!(refused.code, 3, "{refused:?}");
    let report: Value = serde_json::from_str(&refused.stdout).unwrap();
    for outcome in report["outcomes"].as_array().unwrap() {
        let told = (outcome["fate"].as_str(), outcome["message"].as_str());
        assert_eq!(told, (Some("failed"), Some("another document has its values of a unique key")), "{report}");
    }
    assert_eq!(report["outcomes"].as_array().map(Vec::len), Some(2), "{report}");
    // Once one of them is moved out of the way, the same command finishes the rest.
    put("a", "free").await;
    world.capture().await;
    for _ in 0..2 {
        world.run(&restore).await;
    }
    let mails =
        [world.live("a", "p").await.unwrap()["mail"].clone(), world.live("b", "p").await.unwrap()["mail"].clone()];
    assert_eq!(mails, ["1", "2"]);
}

/// The first components of a hierarchical key are enough to read a document. A write needs all of them.
#[tokio::test]
async fn a_key_prefix_is_enough_to_read_but_not_to_write() {
    let key = json!({"partitionKey": {"paths": ["/a", "/b"], "kind": "MultiHash", "version": 2}});
    let app = crate::support::TestApp::with_events(&["/a", "/b", "/_originalId"], key).await;
    let world = Captured::with(app, "all-versions").await;
    let full = PartitionKey::parse(r#"["t",1]"#).unwrap();
    let document = json!({"id": "x", "a": "t", "b": 1}).to_string();
    world.app.events().await.upsert(&full, "x", document.into_bytes()).await.unwrap();
    world.capture().await;
    let before = everything(&world).await;
    for args in [
        &["revert", "--from", "1h", "--to", "now", "--yes"][..],
        &["restore", "--at", "now", "--yes"],
        &["erase", "--yes", "--settle", "0s"],
    ] {
        for pk in ["t", r#"["t"]"#] {
            let output = world.run(&[args, &["--id", "x", "--pk", pk]].concat()).await;
            assert_eq!((output.code, output.stderr.contains("1 of 2 components")), (2, true), "{args:?}: {output:?}");
        }
    }
    assert_eq!(everything(&world).await, before);
    assert_eq!(world.run(&["show", "--id", "x", "--pk", "t"]).await.code, 0);
}
