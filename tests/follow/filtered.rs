//! What a history may claim when a reader has passed on only some of the changes.

use std::time::Duration;

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use super::{ALL, captured, catch_up, checkpoint, put};
use crate::support::{Output, TestApp, moment};

fn actions(plan: &Output) -> Vec<(String, String)> {
    let shown: Value = serde_json::from_str(&plan.stdout).unwrap_or_else(|e| panic!("{e}: {plan:?}"));
    let steps = shown["plan"]["steps"].as_array().unwrap_or_else(|| panic!("{plan:?}")).clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    steps.iter().map(|step| (text(&step["id"]), text(&step["action"]))).collect()
}

#[tokio::test]
async fn a_filtered_reader_does_not_make_a_history_complete() {
    let app = TestApp::start().await;
    let filter = [&ALL[..], &["--name", "some", "--filter", "op != \"delete\" && doc.n != 2"]].concat();
    catch_up(&app, &filter).await;
    put(&app, "gone", 1).await;
    catch_up(&app, &filter).await;
    app.events().await.delete(&PartitionKey::parse("key-gone").unwrap(), "gone", None).await.unwrap();
    catch_up(&app, &filter).await;
    let at = moment().await;
    put(&app, "later", 1).await;
    catch_up(&app, &filter).await;
    let vias: Vec<Value> = app.history().await.iter().map(|record| record["_change"]["via"].clone()).collect();
    assert_eq!(vias, [json!("filter"), json!("filter")]);
    let covered = app.run(&["coverage", "--format", "json"]).await.json();
    let figures =
        |day: &Value| [&day["mode"], &day["versions"], &day["filtered"], &day["all_versions"]].map(Value::clone);
    // It may be midnight in between.
    for day in covered.as_array().unwrap() {
        let versions = day["versions"].clone();
        assert_eq!(figures(day), [json!("filtered"), versions.clone(), versions, json!(0)], "{covered}");
    }
    let told = app.run(&["coverage"]).await;
    assert!(told.stderr.contains("  filtered") && !told.stderr.contains("all-versions"), "{told:?}");

    // It was captured before the moment and another document after it, but its delete did not pass the filter.
    let plan = app.run(&["restore", "--all", "--at", &at, "--dry-run", "--format", "json"]).await;
    assert_eq!(plan.code, 3, "{plan:?}");
    let unknown = [("gone".to_owned(), "unknown".to_owned()), ("later".to_owned(), "unknown".to_owned())];
    assert_eq!(actions(&plan), unknown, "{plan:?}");
    let shown = app.run(&["show", "--id", "gone", "--at", &at]).await;
    assert!(shown.stderr.contains("warning"), "{shown:?}");
    let saved = app.run(&["backup", "--all", "--at", &at, "--out", "backup.jsonl"]).await;
    assert_eq!(saved.code, 3, "{saved:?}");

    // A reader of all changes completes the same versions, and a filtered reader does not revert that.
    let all = [&ALL[..], &["--name", "all"]].concat();
    catch_up(&app, &all).await;
    for (n, readers) in [(3, [&filter, &all]), (4, [&all, &filter])] {
        put(&app, "later", n).await;
        for reader in readers {
            catch_up(&app, reader).await;
        }
        let history = app.history().await;
        let record = history.iter().find(|record| record["n"] == n).unwrap();
        assert_eq!(record["_change"]["via"], "follow", "{record}");
    }
}

#[tokio::test]
async fn a_version_that_passed_a_filter_does_not_prove_that_its_delete_would_have() {
    let app = TestApp::start().await;
    let filter = [&ALL[..], &["--name", "some", "--filter", "op != \"delete\""]].concat();
    // This reader's checkpoint is in a file, so no other reader knows of it.
    let all = [&ALL[..], &["--name", "all", "--checkpoint-file", "all.json"]].concat();
    catch_up(&app, &filter).await;
    put(&app, "gone", 1).await;
    catch_up(&app, &filter).await;
    app.events().await.delete(&PartitionKey::parse("key-gone").unwrap(), "gone", None).await.unwrap();
    catch_up(&app, &filter).await;
    catch_up(&app, &all).await;
    let at = moment().await;
    put(&app, "later", 1).await;
    catch_up(&app, &all).await;
    let plan = app.run(&["restore", "--all", "--at", &at, "--dry-run", "--format", "json"]).await;
    assert!(actions(&plan).contains(&("gone".into(), "unknown".into())), "{plan:?}");
    assert_eq!(plan.code, 3, "{plan:?}");
}

#[tokio::test]
async fn a_first_change_that_passed_a_filter_does_not_prove_a_creation() {
    let app = TestApp::start().await;
    let filter = [&ALL[..], &["--name", "some", "--filter", "op != \"delete\" && doc.n == 1"]].concat();
    catch_up(&app, &filter).await;
    put(&app, "other", 1).await;
    put(&app, "again", 2).await;
    let at = moment().await;
    app.events().await.delete(&PartitionKey::parse("key-again").unwrap(), "again", None).await.unwrap();
    catch_up(&app, &filter).await;
    // From here on every change is captured.
    catch_up(&app, &[&ALL[..], &["--name", "all"]].concat()).await;
    put(&app, "again", 3).await;
    catch_up(&app, &[&ALL[..], &["--name", "all"]].concat()).await;
    let plan = app.run(&["restore", "--all", "--at", &at, "--delete-newer", "--dry-run", "--format", "json"]).await;
    assert!(actions(&plan).contains(&("again".into(), "unknown".into())), "{plan:?}");
    assert_eq!(plan.code, 3, "{plan:?}");
}

/// It may have been made again, and deleted again, by changes that did not pass.
#[tokio::test]
async fn a_delete_that_passed_a_filter_does_not_prove_that_the_document_stayed_away() {
    let app = TestApp::start().await;
    let with = |filter| [&ALL[..], &["--filter", filter]].concat();
    let some = with("op in ['create', 'delete']");
    let delete = async || {
        app.events().await.delete(&PartitionKey::parse("key-again").unwrap(), "again", None).await.unwrap();
    };
    catch_up(&app, &some).await;
    put(&app, "again", 1).await;
    delete().await;
    catch_up(&app, &some).await;
    moment().await;
    put(&app, "again", 2).await;
    let at = moment().await;
    delete().await;
    catch_up(&app, &with("false")).await;
    moment().await;
    put(&app, "other", 1).await;
    put(&app, "again", 3).await;
    catch_up(&app, &ALL).await;
    let named = r#"{"id":"again","pk":"key-again"}"#;
    std::fs::write(app.folder.path().join("list"), named).unwrap();
    for which in [&["--all"][..], &["--ids-file", "list"]] {
        let args = ["restore", "--at", &at, "--delete-newer", "--dry-run", "--format", "json"];
        let plan = app.run(&[&args[..], which].concat()).await;
        assert!(actions(&plan).contains(&("again".into(), "unknown".into())), "{which:?}: {plan:?}");
        assert_eq!(plan.code, 3, "{plan:?}");
    }
    let shown = app.run(&["show", "--id", "again", "--at", &at]).await;
    assert!(shown.stderr.contains("only what passed a filter is in the history from before"), "{shown:?}");
    let saved = app.run(&["backup", "--all", "--at", &at, "--out", "backup.jsonl"]).await;
    assert!(saved.stderr.contains("document \"again\""), "{saved:?}");
}

#[tokio::test]
async fn what_lived_while_nobody_captured_everything_is_not_denied() {
    // The follower filters for a while, or writes elsewhere, or another follower replaces it.
    let elsewhere = ["--sink", "file:events.jsonl"];
    let ways: [(&[&str], &str); 3] =
        [(&["--filter", "doc.n == 9"], "one"), (&elsewhere, "one"), (&["--changes", "elsewhere"], "two")];
    for (meanwhile, then) in ways {
        let app = TestApp::start().await;
        let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
        assert!(app.local.create_container("dev", json!({"id": "elsewhere", "partitionKey": key})).await.unwrap());
        let delete = async |id: &str| {
            app.events().await.delete(&PartitionKey::parse(&format!("key-{id}")).unwrap(), id, None).await.unwrap();
        };
        let own = ["--mode", "all-versions", "--checkpoint-file", "own.json", "--name"];
        let one = [&own[..], &["one"]].concat();
        catch_up(&app, &one).await;
        for id in ["before", "again", "unseen"] {
            put(&app, id, 1).await;
            if id == "unseen" {
                delete("again").await;
                delete("unseen").await;
            }
        }
        catch_up(&app, &one).await;
        let early = moment().await;
        put(&app, "known", 1).await;
        catch_up(&app, &one).await;

        // Neither life is captured: the only one of `short`, and the second one of `again`.
        put(&app, "short", 1).await;
        put(&app, "again", 2).await;
        let at = moment().await;
        delete("short").await;
        delete("again").await;
        catch_up(&app, &[&one[..], meanwhile].concat()).await;

        let file = format!("{then}.json");
        let two = ["--mode", "all-versions", "--checkpoint-file", &file, "--name", then];
        let whole = if then == "one" { one.clone() } else { two.to_vec() };
        catch_up(&app, &whole).await;
        for id in ["short", "again", "late"] {
            put(&app, id, 3).await;
        }
        catch_up(&app, &whole).await;
        let late = moment().await;
        put(&app, "later", 1).await;
        catch_up(&app, &whole).await;

        let plan = async |at: &str| {
            let args = ["restore", "--all", "--at", at, "--delete-newer", "--dry-run", "--format", "json"];
            app.run(&args).await
        };
        let of =
            |plan: &Output, id: &str| actions(plan).into_iter().find(|(own, _)| own == id).map(|(_, action)| action);
        let unseen = plan(&at).await;
        for id in ["short", "again", "late"] {
            assert_eq!(of(&unseen, id).as_deref(), Some("unknown"), "{meanwhile:?} {id}: {unseen:?}");
        }
        assert_eq!(of(&unseen, "before").as_deref(), Some("keep"), "{meanwhile:?}: {unseen:?}");
        assert!(unseen.code == 3 && unseen.stderr.contains("may be missing from the history"), "{unseen:?}");
        for id in ["short", "again"] {
            let shown = app.run(&["show", "--id", id, "--at", &at]).await;
            assert!(shown.stderr.contains("may be missing from the history"), "{meanwhile:?} {id}: {shown:?}");
        }
        for args in [&["coverage"][..], &["verify"], &["find", "--when", "doc.n > 0"]] {
            let told = app.run(args).await;
            assert!(told.stderr.contains("may be missing from the history"), "{meanwhile:?} {args:?}: {told:?}");
        }
        let before = app.run(&["find", "--when", "doc.n > 0", "--to", &early]).await;
        assert!(!before.stderr.contains("may be missing from the history"), "{meanwhile:?}: {before:?}");
        // It lists the time, which has the moment in it.
        let status = app.run(&["status", "--format", "json"]).await;
        let holes: Value = serde_json::from_str::<Value>(&status.stdout).unwrap()["history"]["holes"].take();
        let [after, before] = ["after", "before"].map(|end| holes[0][end].as_str().unwrap_or_default());
        assert!(after < at.as_str() && at.as_str() < before, "{meanwhile:?}: {at} {holes}: {status:?}");
        let table = app.run(&["status"]).await;
        assert!(table.stdout.contains("may lack changes"), "{table:?}");

        // Every version was captured before the hole. But a document from before capture may have gone in it without a
        // trace, and have been made again since.
        let before = plan(&early).await;
        for id in ["known", "short"] {
            assert_eq!(of(&before, id).as_deref(), Some("unknown"), "{meanwhile:?} {id}: {before:?}");
        }
        assert!(before.stderr.contains("others may have existed"), "{meanwhile:?}: {before:?}");
        // After it, every version was captured.
        let after = plan(&late).await;
        assert_eq!(of(&after, "later").as_deref(), Some("delete"), "{meanwhile:?}: {after:?}");
        assert!(!after.stderr.contains("may be missing"), "{meanwhile:?}: {after:?}");
    }
}

#[tokio::test]
async fn the_checkpoint_file_of_another_follower_is_refused_and_unchanged() {
    let app = TestApp::start().await;
    let of = |name| [&ALL[..], &["--checkpoint-file", "own.json", "--name", name]].concat();
    catch_up(&app, &of("one")).await;
    let file = app.folder.path().join("own.json");
    let before = std::fs::read_to_string(&file).unwrap();
    put(&app, "a", 1).await;
    let refused = app.run(&[&["follow", "--until-caught-up"], &of("two")[..]].concat()).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("they belong to follower \"one\""), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    catch_up(&app, &of("one")).await;
    assert_eq!(captured(&app).await["a"], [1]);
}

#[tokio::test]
async fn a_second_source_of_a_history_is_refused() {
    let app = TestApp::start().await;
    for id in ["orders", "orders-changes"] {
        let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
        assert!(app.local.create_container("dev", json!({"id": id, "partitionKey": key})).await.unwrap());
    }
    catch_up(&app, &ALL).await;
    let other = ["--source", "orders", "--name", "orders"];
    let refused = app.run(&[&["follow", "--until-caught-up"], &ALL[..], &other].concat()).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    for part in ["dev/changes is written from dev/events", "\"default\"", "--changes", "follow.default"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    assert_eq!(checkpoint(&app, "follow.orders").await, None);
    // A history of its own is accepted, and so is a second follower of the same source.
    catch_up(&app, &[&ALL[..], &other, &["--changes", "orders-changes"]].concat()).await;
    catch_up(&app, &[&ALL[..], &["--name", "second"]].concat()).await;
}

#[tokio::test]
async fn an_unwritable_history_is_noticed_before_there_is_a_checkpoint() {
    let app = TestApp::with_changes_key(&["/other"]).await;
    for history in ["changes", "nowhere"] {
        let refused = app.run(&[&["follow", "--until-caught-up", "--changes", history], &ALL[..]].concat()).await;
        assert_ne!(refused.code, 0, "{refused:?}");
        assert!(refused.stderr.contains("error: "), "{refused:?}");
        assert_eq!(checkpoint(&app, "follow.default").await, None, "{history}");
    }
}

/// What passed a filter later is no sign that everything before it was captured, unless it names the version before.
#[tokio::test]
async fn a_later_change_that_passed_a_filter_proves_only_the_version_that_it_names() {
    let app = TestApp::start().await;
    let filter = [&ALL[..], &["--name", "some", "--filter", "doc.n != 2"]].concat();
    catch_up(&app, &filter).await;
    for id in ["unseen", "known"] {
        put(&app, id, 1).await;
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    put(&app, "unseen", 2).await;
    let at = moment().await;
    // This one is in the history as the image before the next one.
    put(&app, "unseen", 2).await;
    for id in ["unseen", "known"] {
        put(&app, id, 3).await;
    }
    catch_up(&app, &filter).await;
    let plan = app.run(&["restore", "--all", "--at", &at, "--dry-run", "--format", "json"]).await;
    let expected = [("known".to_owned(), "restore".to_owned()), ("unseen".to_owned(), "unknown".to_owned())];
    assert_eq!(actions(&plan), expected, "{plan:?}");
    for (id, is_doubtful) in [("known", false), ("unseen", true)] {
        let shown = app.run(&["show", "--id", id, "--at", &at]).await;
        assert_eq!(shown.stderr.contains("warning"), is_doubtful, "{shown:?}");
    }
    let saved = app.run(&["backup", "--all", "--at", &at, "--out", "then.jsonl", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&saved.stdout).unwrap();
    assert_eq!((&report["documents"], &report["unknown"]), (&json!(1), &json!(1)), "{saved:?}");
}
