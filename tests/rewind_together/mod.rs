//! Several containers in one restore, revert and undo.

mod use_case;

use cosmos_rewind::{
    change::key::PartitionKey,
    config::{AccountSettings, Settings},
    cosmos::{Container, Cosmos},
};
use serde_json::{Value, json};

use crate::support::{Output, TestApp};

const BOTH: &str = "events,orders=order-changes";

/// Two containers with a history each. All documents were good an hour ago; twenty minutes ago a job wrote to both.
struct Two {
    app: TestApp,
    now: i64,
}

impl Two {
    async fn start() -> Self {
        let app = TestApp::start().await;
        for (id, paths) in [("orders", vec!["/pk"]), ("order-changes", vec!["/pk", "/_originalId"])] {
            let kind = if paths.len() > 1 { "MultiHash" } else { "Hash" };
            let key = json!({"paths": paths, "kind": kind, "version": 2});
            assert!(app.local.create_container("dev", json!({"id": id, "partitionKey": key})).await.unwrap());
        }
        let two = Self { app, now: chrono::Utc::now().timestamp() };
        for (source, changes, id) in [("events", "changes", "event"), ("orders", "order-changes", "order")] {
            two.record(changes, id, false, "\"e1\"").await;
            let stored = two.container(source).await;
            let document = json!({"id": id, "pk": id, "state": "bad", "by": "job"});
            stored.upsert(&key(&[id]), id, document.to_string().into_bytes()).await.unwrap();
            let live: Value = two.live(source, id).await.unwrap();
            two.record(changes, id, true, live["_etag"].as_str().unwrap()).await;
        }
        two.app.captured_from_now().await;
        let follow = ["follow", "--name", "orders", "--mode", "all-versions", "--from", "now", "--until-caught-up"];
        let captured = two.run(&[&follow[..], &["--source", "orders", "--changes", "order-changes"]].concat()).await;
        assert_eq!(captured.code, 0, "{captured:?}");
        two
    }

    async fn container(&self, name: &str) -> Container {
        self.app.cosmos.container("dev", name).await.unwrap()
    }

    async fn record(&self, changes: &str, id: &str, is_bad: bool, etag: &str) {
        let (op, minutes, lsn, state) = if is_bad { ("replace", 20, 2, "bad") } else { ("create", 60, 1, "good") };
        let record_id = format!("{id}~{}", etag.trim_matches('"'));
        let by = if is_bad { "job" } else { "ann" };
        let record = json!({"id": record_id, "pk": id, "state": state, "by": by, "_originalId": id, "_change": {"v": 1, "op": op,
            "ts": self.now - minutes * 60, "lsn": lsn, "prevLsn": (lsn > 1).then(|| lsn - 1), "etag": etag, "fidelity": "exact",
            "via": "trigger", "key": [id]}});
        let changes = self.container(changes).await;
        changes.upsert(&key(&[id, id]), &record_id, record.to_string().into_bytes()).await.unwrap();
    }

    async fn live(&self, source: &str, id: &str) -> Option<Value> {
        let text = self.container(source).await.read(&key(&[id]), id).await.unwrap()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    async fn states(&self) -> [String; 2] {
        let state = async |source, id| self.live(source, id).await.unwrap()["state"].as_str().unwrap().to_owned();
        [state("events", "event").await, state("orders", "order").await]
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.app.run(args).await
    }
}

fn key(values: &[&str]) -> PartitionKey {
    PartitionKey::parse(&json!(values).to_string()).unwrap()
}

/// The id in the printed undo command.
fn undo_of(output: &Output) -> String {
    let line = output.stderr.lines().find(|line| line.starts_with("undo  ")).unwrap_or_else(|| panic!("{output:?}"));
    line.split_whitespace().nth(3).unwrap().to_owned()
}

#[tokio::test]
async fn two_containers_are_restored_to_one_moment_and_undone_by_one_command() {
    let two = Two::start().await;
    let at = (two.now - 1800).to_string();
    let all = ["restore", "--containers", BOTH, "--all", "--at", &at];
    let planned = two.run(&[&all[..], &["--dry-run"]].concat()).await;
    assert_eq!(planned.code, 0, "{planned:?}");
    for words in ["container  events", "container  orders", "planned, nothing written"] {
        assert!(planned.stderr.contains(words), "{words}: {planned:?}");
    }
    assert_eq!(two.states().await, ["bad", "bad"]);
    // The limits apply to both containers together.
    let refused = two.run(&[&all[..], &["--max", "1", "--yes"]].concat()).await;
    assert_eq!((refused.code, refused.stderr.contains("2 documents would be written")), (2, true), "{refused:?}");
    assert_eq!(two.states().await, ["bad", "bad"]);
    let done = two.run(&[&all[..], &["--yes"]].concat()).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(two.states().await, ["good", "good"]);
    // From any of the containers, even on a machine without the local journal.
    std::fs::remove_dir_all(two.app.folder.path().join(".cosmos-rewind")).unwrap();
    let run = undo_of(&done);
    let undone = two.run(&["undo", &run, "--source", "orders", "--changes", "order-changes", "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    assert_eq!(two.states().await, ["bad", "bad"]);
    // An undo can be undone as well.
    let again = two.run(&["undo", &undo_of(&undone), "--yes"]).await;
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(two.states().await, ["good", "good"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn unprintable_outcomes_do_not_stop_the_second_container() {
    let two = Two::start().await;
    let at = (two.now - 1800).to_string();
    let args = ["restore", "--containers", BOTH, "--all", "--at", &at, "--yes", "--format", "jsonl"];
    let done = two.app.run_by_shell("exec \"$@\" >/dev/full", &args).await;
    assert_eq!((done.code, done.stderr.matches("1 written").count()), (1, 2), "{done:?}");
    assert_eq!(two.states().await, ["good", "good"]);
    let undone = two.run(&["undo", &undo_of(&done), "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    assert_eq!(two.states().await, ["bad", "bad"]);
}

#[tokio::test]
async fn a_jobs_changes_are_reverted_in_two_containers() {
    let two = Two::start().await;
    let (from, to) = ((two.now - 1800).to_string(), (two.now - 600).to_string());
    let job = ["revert", "--containers", BOTH, "--from", &from, "--to", &to, "--filter", "doc.by == 'job'"];
    let done = two.run(&[&job[..], &["--yes", "--format", "jsonl"]].concat()).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(two.states().await, ["good", "good"]);
    let reports: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sources: Vec<&Value> = reports.iter().map(|report| &report["plan"]["place"]["source"]).collect();
    assert_eq!(sources, ["events", "orders"]);
    assert_eq!(reports[0]["restore"], reports[1]["restore"]);
    let undone = two.run(&["undo", reports[0]["restore"].as_str().unwrap(), "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    assert_eq!(two.states().await, ["bad", "bad"]);
    // It is an error only if there is nothing to revert in any container.
    let none = ["revert", "--containers", BOTH, "--from", &from, "--to", &to, "--dry-run"];
    let one = two.run(&[&none[..], &["--where", "c.id = 'order'"]].concat()).await;
    assert_eq!(one.code, 0, "{one:?}");
    let nothing = two.run(&[&none[..], &["--where", "c.id = 'nobody'"]].concat()).await;
    assert_eq!((nothing.code, nothing.stderr.contains("is to be taken back")), (1, true), "{nothing:?}");
}

#[tokio::test]
async fn several_containers_are_inspected_one_after_the_other() {
    let two = Two::start().await;
    let at = (two.now - 1800).to_string();
    let found = two.run(&["find", "--containers", BOTH, "--when", "doc.state == 'bad'", "--format", "jsonl"]).await;
    assert_eq!(found.code, 0, "{found:?}");
    let ids: Vec<Value> =
        found.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
    assert_eq!(ids, ["event", "order"]);
    let shown = two.run(&["show", "--containers", BOTH, "--where", "c.state = 'good'", "--at", &at]).await;
    assert_eq!((shown.code, shown.stdout.lines().count()), (0, 2), "{shown:?}");
    assert!(shown.stderr.contains("container  orders"), "{shown:?}");
    // The document exists in only one of them, and that one is shown all the same.
    let one = two.run(&["diff", "--containers", BOTH, "--id", "order", "--from", &at]).await;
    assert_eq!((one.code, one.stdout.contains("~ /state  \"good\" -> \"bad\"")), (0, true), "{one:?}");
    let none = two.run(&["show", "--containers", BOTH, "--id", "nobody", "--at", &at]).await;
    assert_eq!(none.code, 1, "{none:?}");
}

#[tokio::test]
async fn a_saved_plan_of_two_containers_is_applied_later_with_one_undo() {
    let two = Two::start().await;
    let at = (two.now - 1800).to_string();
    let all = ["restore", "--containers", BOTH, "--all", "--at", &at];
    let planned = two.run(&[&all[..], &["--plan-out", "plan.json", "--dry-run"]].concat()).await;
    assert_eq!(planned.code, 0, "{planned:?}");
    assert_eq!(two.states().await, ["bad", "bad"]);
    let path = two.app.folder.path().join("plan.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let half = joined(&lines[..lines.len() / 2]);
    for (damaged, words) in [
        (joined(&lines[..lines.len() - 1]), "its last line is missing"),
        (half.clone(), "its last line is missing"),
        // Half of the plan's lines, followed by the last line of the whole plan.
        (format!("{half}{}\n", lines[lines.len() - 1]), "edited or damaged"),
        (format!("{half}{half}{}\n", lines[lines.len() - 1]), "edited or damaged"),
        (format!("{text}{half}"), "edited or damaged"),
    ] {
        std::fs::write(&path, &damaged).unwrap();
        let refused = two.run(&["restore", "--plan", "plan.json", "--yes"]).await;
        assert_eq!((refused.code, refused.stderr.contains(words)), (2, true), "{words}: {refused:?}");
    }
    std::fs::write(&path, &text).unwrap();
    for (more, words) in [
        (&["--max", "1"][..], "2 documents would be written"),
        (&["--into", "elsewhere"], "several containers"),
        (&["--database", "other"], "other"),
    ] {
        let refused = two.run(&[&["restore", "--plan", "plan.json", "--yes"], more].concat()).await;
        assert!(refused.code != 0 && refused.stderr.contains(words), "{words}: {refused:?}");
    }
    assert_eq!(two.states().await, ["bad", "bad"]);
    let apply = ["restore", "--plan", "plan.json", "--yes"];
    let done = two.run(&apply).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(two.states().await, ["good", "good"]);
    let undone = two.run(&["undo", &undo_of(&done), "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    assert_eq!(two.states().await, ["bad", "bad"]);
    // The documents have new ETags, so the plan no longer applies, although their content is the same.
    let again = two.run(&apply).await;
    assert_eq!((again.code, again.stderr.matches("1 conflicts").count()), (3, 2), "{again:?}");
    let forced = two.run(&[&apply[..], &["--force"]].concat()).await;
    assert_eq!(forced.code, 0, "{forced:?}");
    assert_eq!(two.states().await, ["good", "good"]);
    assert_ne!(undo_of(&forced), undo_of(&done), "each use of a plan is undone by itself");

    let two = Two::start().await;
    let window = [(two.now - 1800).to_string(), (two.now - 600).to_string()];
    let job = ["revert", "--containers", BOTH, "--from", &window[0], "--to", &window[1], "--plan-out", "job.json"];
    assert_eq!(two.run(&[&job[..], &["--dry-run"]].concat()).await.code, 0);
    let done = two.run(&["restore", "--plan", "job.json", "--yes"]).await;
    assert_eq!((done.code, two.states().await), (0, ["good".to_owned(), "good".to_owned()]), "{done:?}");
}

#[tokio::test]
async fn a_list_may_name_documents_of_several_containers() {
    let two = Two::start().await;
    let at = (two.now - 1800).to_string();
    let list = async |lines: &str, containers: &str| {
        let args = ["restore", "--containers", containers, "--ids-file", "-", "--at", &at, "--yes"];
        two.app.run_with_input(&args, lines).await
    };
    let line =
        |container: &str, id: &str| format!("{{\"container\":\"{container}\",\"id\":\"{id}\",\"pk\":\"{id}\"}}\n");
    let both = format!("{}{}", line("orders", "order"), line("events", "event"));
    for (lines, containers, words) in [
        (both.clone(), "events", "orders is not one of --containers"),
        ("{\"id\":\"event\",\"pk\":\"event\"}".to_owned(), BOTH, "line 1: missing field `container`"),
    ] {
        let refused = list(&lines, containers).await;
        assert_eq!((refused.code, refused.stderr.contains(words)), (2, true), "{words}: {refused:?}");
    }
    let alone = ["restore", "--ids-file", "-", "--at", &at, "--yes"];
    let refused = two.app.run_with_input(&alone, &line("orders", "event")).await;
    assert_eq!((refused.code, refused.stderr.contains("is about container orders")), (2, true), "{refused:?}");
    assert_eq!(two.states().await, ["bad", "bad"]);
    let one = list(&line("orders", "order"), BOTH).await;
    assert_eq!((one.code, two.states().await), (0, ["bad".to_owned(), "good".to_owned()]), "{one:?}");
    let rest = list(&both, BOTH).await;
    assert_eq!((rest.code, two.states().await), (0, ["good".to_owned(), "good".to_owned()]), "{rest:?}");
}

#[tokio::test]
async fn revert_and_read_commands_accept_documents_of_several_containers() {
    let two = Two::start().await;
    let (from, to) = ((two.now - 1800).to_string(), (two.now - 600).to_string());
    let line =
        |container: &str, id: &str| format!("{{\"container\":\"{container}\",\"id\":\"{id}\",\"pk\":\"{id}\"}}\n");
    let both = format!("{}{}", line("orders", "order"), line("events", "event"));
    let job = ["revert", "--containers", BOTH, "--from", &from, "--to", &to, "--ids-file", "-", "--yes"];
    for (lines, words) in [
        (line("nowhere", "order"), "nowhere is not one of --containers"),
        ("{\"id\":\"event\",\"pk\":\"event\"}".to_owned(), "line 1: missing field `container`"),
    ] {
        let refused = two.app.run_with_input(&job, &lines).await;
        assert_eq!((refused.code, refused.stderr.contains(words)), (2, true), "{words}: {refused:?}");
    }
    let one = two.app.run_with_input(&job, &line("orders", "order")).await;
    assert_eq!((one.code, two.states().await), (0, ["bad".to_owned(), "good".to_owned()]), "{one:?}");
    let rest = two.app.run_with_input(&job, &line("events", "event")).await;
    assert_eq!((rest.code, two.states().await), (0, ["good".to_owned(), "good".to_owned()]), "{rest:?}");
    for look in [&["show", "--at", &from][..], &["diff", "--from", &from, "--format", "jsonl"]] {
        let args = [look, &["--containers", BOTH, "--ids-file", "-"]].concat();
        let found = two.app.run_with_input(&args, &both).await;
        assert_eq!(found.code, 0, "{found:?}");
        let found = two.app.run_with_input(&args, &line("orders", "order")).await;
        assert!(found.code == 0 && !found.stderr.contains("container  events"), "{found:?}");
    }
    // Without container names, the list applies to each container and is read once, even from standard input.
    let args = ["show", "--at", &from, "--containers", BOTH, "--ids-file", "-"];
    let found = two.app.run_with_input(&args, "{\"id\":\"event\",\"pk\":\"event\"}\n").await;
    assert!(found.stdout.contains("\"good\"") && !found.stderr.contains("names no document"), "{found:?}");
}

#[tokio::test]
async fn a_restore_without_writes_has_no_undo_and_any_container_can_undo_the_others() {
    let two = Two::start().await;
    let at = (two.now - 1800).to_string();
    let restore = async |containers: &str, more: &[&str]| {
        let args = ["restore", "--containers", containers, "--all", "--at", &at, "--yes", "--format", "jsonl"];
        let done = two.run(&[&args[..], more].concat()).await;
        assert_eq!(done.code, 0, "{done:?}");
        done.stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["restore"].clone())
            .collect::<Vec<_>>()
    };
    let first = restore("orders=order-changes", &[]).await;
    assert!(first[0].is_string(), "{first:?}");
    assert_eq!(restore("orders=order-changes", &[]).await, [Value::Null]);
    // One container is already up to date. There is one id, and both containers know it.
    let both = restore(BOTH, &[]).await;
    assert!(both[0].is_string() && both[0] == both[1], "{both:?}");
    assert_eq!(two.states().await, ["good", "good"]);
    std::fs::remove_dir_all(two.app.folder.path().join(".cosmos-rewind")).unwrap();
    let id = both[0].as_str().unwrap();
    let undone = two.run(&["undo", id, "--source", "orders", "--changes", "order-changes", "--yes"]).await;
    assert_eq!((undone.code, two.states().await), (0, ["bad".to_owned(), "good".to_owned()]), "{undone:?}");
    let listed = two.run(&["undo", "--list", "--source", "orders", "--changes", "order-changes"]).await;
    assert!(listed.code == 0 && listed.stdout.contains(id), "{listed:?}");
    // One container alone.
    let alone = ["restore", "--all", "--at", &at, "--yes", "--format", "json"];
    assert!(two.run(&alone).await.json()["restore"].is_string());
    let again = two.run(&alone).await;
    assert_eq!((again.code, &again.json()["restore"], &again.json()["outcomes"]), (0, &Value::Null, &json!([])));
}

#[tokio::test]
async fn the_output_of_find_in_several_containers_is_a_list_for_one_restore() {
    let two = Two::start().await;
    let find = ["find", "--containers", BOTH, "--when", "doc.by == 'job'", "--from", "1h", "--format"];
    let found = async |format: &str| {
        let found = two.run(&[&find[..], &[format]].concat()).await;
        assert_eq!(found.code, 0, "{found:?}");
        found.stdout
    };
    let lines = found("jsonl").await;
    let parsed: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named: Vec<_> = parsed.iter().map(|line| [&line["container"], &line["id"], &line["before"]]).collect();
    let expected = [["events", "event", "event~e1"], ["orders", "order", "order~e1"]].map(|all| all.map(Value::from));
    assert_eq!(named, expected.each_ref().map(|all| all.each_ref()));
    let csv = found("csv").await;
    for begins in ["container,id,", "events,event,", "orders,order,"] {
        assert!(csv.lines().any(|line| line.starts_with(begins)), "{begins}: {csv}");
    }
    // Each container's table stands below its name.
    assert!(!found("table").await.contains("container"));
    let restore = ["restore", "--containers", BOTH, "--ids-file", "-", "--yes"];
    let done = two.app.run_with_input(&restore, &lines).await;
    assert_eq!((done.code, two.states().await), (0, ["good".to_owned(), "good".to_owned()]), "{done:?}");
    let undone = two.run(&["undo", &undo_of(&done), "--yes"]).await;
    assert_eq!((undone.code, two.states().await), (0, ["bad".to_owned(), "bad".to_owned()]), "{undone:?}");
    // For a single container, the output of `find` is a valid list.
    let alone = lines.lines().next().unwrap();
    let one = two.app.run_with_input(&["restore", "--ids-file", "-", "--yes"], alone).await;
    assert_eq!((one.code, two.states().await), (0, ["good".to_owned(), "bad".to_owned()]), "{one:?}");
}

#[tokio::test]
async fn a_repair_made_in_a_fork_is_merged_into_two_containers() {
    let two = Two::start().await;
    let folder = two.app.folder.path();
    std::fs::create_dir(folder.join("Orders")).unwrap();
    std::fs::copy(folder.join("CaptureChanges/function.json"), folder.join("Orders/function.json")).unwrap();
    let own = json!({"Orders__COSMOS_SOURCE_CONTAINER": "orders", "Orders__COSMOS_CHANGES_CONTAINER": "order-changes"});
    let settings = json!({"IsEncrypted": false, "Values": own});
    std::fs::write(folder.join("local.settings.json"), settings.to_string()).unwrap();
    let mut program = two.app.start_program(&["at", &(two.now - 600).to_string(), "--all-containers", "--writable"]);
    let ready: Value = serde_json::from_str(&program.line().await).unwrap();
    assert_eq!(ready["containers"], json!(["events", "orders"]));
    program.line().await;
    let fork = ready["endpoint"].as_str().unwrap();
    let account = Settings::from_pairs([("CosmosDB__accountEndpoint", fork)]);
    let cosmos = Cosmos::new(AccountSettings::from_settings(&account).unwrap());
    for (source, id) in [("events", "event"), ("orders", "order")] {
        let document = json!({"id": id, "pk": id, "state": "repaired", "by": "job"});
        let copy = cosmos.container("dev", source).await.unwrap();
        copy.upsert(&key(&[id]), id, document.to_string().into_bytes()).await.unwrap();
    }
    let diff = ["diff", "--fork", fork, "--containers", "events,orders", "--plan-out", "fork.json"];
    let planned = two.run(&diff).await;
    assert_eq!(planned.code, 0, "{planned:?}");
    assert_eq!(two.states().await, ["bad", "bad"]);
    let done = two.run(&["restore", "--plan", "fork.json", "--yes"]).await;
    assert_eq!((done.code, two.states().await), (0, ["repaired".to_owned(), "repaired".to_owned()]), "{done:?}");
    let undone = two.run(&["undo", &undo_of(&done), "--yes"]).await;
    assert_eq!((undone.code, two.states().await), (0, ["bad".to_owned(), "bad".to_owned()]), "{undone:?}");
}

#[tokio::test]
async fn ambiguous_containers_are_refused() {
    let two = Two::start().await;
    for (containers, words) in [
        ("events,orders", "orders: no function captures it"),
        ("events,events=other", "not two containers"),
        ("events,orders=changes", "not two containers"),
        ("events,nowhere=nothing", "nothing"),
    ] {
        let refused = two.run(&["restore", "--containers", containers, "--all", "--at", "30m", "--yes"]).await;
        assert!(refused.code != 0 && refused.stderr.contains(words), "{containers}: {refused:?}");
        assert_eq!(two.states().await, ["bad", "bad"], "{containers}");
    }
    let with_id = two.run(&["restore", "--containers", BOTH, "--id", "event", "--at", "30m"]).await;
    assert_eq!(with_id.code, 2, "{with_id:?}");
}
