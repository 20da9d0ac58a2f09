//! `cosmos-rewind local` as a child process.

use std::process::Command;

use cosmos_rewind::{
    change::key::PartitionKey,
    config::{AccountSettings, EMULATOR_KEY, Settings},
    cosmos::Cosmos,
};
use serde_json::{Value, json};

use crate::support::{BINARY, Local, Output, eventually, run};

fn rows(output: &Output) -> Vec<Value> {
    output.json().as_array().unwrap().clone()
}

fn account(local: &Local) -> Cosmos {
    let connection =
        format!("AccountEndpoint={};AccountKey={};", local.endpoint(), local.ready()["key"].as_str().unwrap());
    Cosmos::new(AccountSettings::from_settings(&Settings::from_pairs([("CosmosDB", connection)])).unwrap())
}

fn key(text: &str) -> PartitionKey {
    PartitionKey::parse(&json!([text]).to_string()).unwrap()
}

#[tokio::test]
async fn the_first_line_names_the_endpoint_and_everything_exists() {
    let local = Local::start(&[]).await;
    let ready = local.ready();
    let port = url::Url::parse(ready["endpoint"].as_str().unwrap()).unwrap().port().unwrap();
    assert_eq!(
        local.first_line,
        format!(
            "{{\"event\":\"ready\",\"endpoint\":\"http://127.0.0.1:{port}/\",\"key\":\"{EMULATOR_KEY}\",\"database\":\"dev\",\
             \"source\":\"events\",\"changes\":\"changes\",\"leases\":\"leases\"}}\n"
        )
    );
    let found = rows(&local.run(&["provision", "--format", "json"]).await);
    let roles: Vec<(&str, &str)> =
        found.iter().map(|r| (r["role"].as_str().unwrap(), r["name"].as_str().unwrap())).collect();
    assert_eq!(roles, [("database", "dev"), ("source", "events"), ("changes", "changes"), ("leases", "leases")]);
    assert!(found.iter().all(|r| r["state"] == "exists" && r["differs"] == json!([])), "{found:#?}");
}

#[tokio::test]
async fn populated_documents_appear_in_the_history() {
    let local = Local::start(&["--mode", "all-versions"]).await;
    // The same random picks twice: every document is created and then replaced.
    for _ in 0..2 {
        let done = local.run(&["populate", "--count", "25", "--seed", "1"]).await;
        assert_eq!(done.code, 0, "{done:?}");
    }
    local.wait_for_count("changes", 50).await;

    let live = rows(&local.run(&["query", "--format", "json", "SELECT c.id, c.pk FROM c"]).await);
    let mut versions = 0;
    for document in &live {
        let (id, pk) = (document["id"].as_str().unwrap(), document["pk"].as_str().unwrap());
        let history = rows(&local.run(&["history", "--id", id, "--pk", pk, "--format", "json"]).await);
        let ops: Vec<&str> = history.iter().map(|v| v["op"].as_str().unwrap()).collect();
        assert!(ops.len() > 1 && ops[0] == "create" && ops[1..].iter().all(|op| *op == "replace"), "{id}: {ops:?}");
        versions += ops.len();
    }
    assert_eq!(versions, 50);
}

#[tokio::test]
async fn the_handler_captures_into_the_local_account_whatever_the_settings() {
    // A server that must not receive anything, named by the environment and by the app's own file.
    let other = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    other.set_nonblocking(true).unwrap();
    let address = format!("http://{}/", other.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = json!({"IsEncrypted": false, "Values": {"CosmosDB__accountEndpoint": address, "CosmosDB__credential": "managedidentity"}});
    std::fs::write(folder.path().join("local.settings.json"), file.to_string()).unwrap();
    for settings in [&[("CosmosDB__accountEndpoint", address.as_str())][..], &[]] {
        let at = tempfile::tempdir().unwrap();
        std::fs::copy(folder.path().join("local.settings.json"), at.path().join("local.settings.json")).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["local", "--port", "0"]);
        let local = Local::spawn(at, command, settings).await;
        account(&local)
            .container("dev", "events")
            .await
            .unwrap()
            .upsert(&key("p"), "a", br#"{"id":"a","pk":"p"}"#.to_vec())
            .await
            .unwrap();
        let changes = account(&local).container("dev", "changes").await.unwrap();
        eventually("the version is captured", async || {
            changes.query_all("SELECT c.id FROM c", &[], None).await.unwrap().pop()
        })
        .await;
    }
    assert!(other.accept().is_err(), "something was sent to the other account");
}

#[tokio::test]
async fn all_versions_mode_keeps_what_was_overwritten_and_a_tombstone() {
    let local = Local::start(&["--mode", "all-versions"]).await;
    let cosmos = account(&local);
    let events = cosmos.container("dev", "events").await.unwrap();
    for n in 0..3 {
        let text = json!({"id": "a", "pk": "p", "n": n}).to_string();
        events.upsert(&key("p"), "a", text.into_bytes()).await.unwrap();
    }
    events.delete(&key("p"), "a", None).await.unwrap();
    local.wait_for_count("changes", 4).await;
    let history = rows(&local.run(&["history", "--id", "a", "--pk", "p", "--format", "json"]).await);
    let ops: Vec<&str> = history.iter().map(|v| v["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["create", "replace", "replace", "delete"]);
}

#[tokio::test]
async fn latest_mode_keeps_the_last_version_and_no_tombstone() {
    let local = Local::start(&[]).await;
    let cosmos = account(&local);
    let events = cosmos.container("dev", "events").await.unwrap();
    let put = async |id: &str| {
        events.upsert(&key("p"), id, json!({"id": id, "pk": "p"}).to_string().into_bytes()).await.unwrap();
    };
    put("a").await;
    local.wait_for_count("changes", 1).await;
    events.delete(&key("p"), "a", None).await.unwrap();
    // A later change in the same partition has been captured, so the delete never will be.
    put("b").await;
    local.wait_for_count("changes", 2).await;
    let history = rows(&local.run(&["history", "--id", "a", "--pk", "p", "--format", "json"]).await);
    assert_eq!(history.iter().map(|v| v["op"].as_str().unwrap()).collect::<Vec<_>>(), ["upsert"]);
}

#[tokio::test]
async fn with_no_trigger_only_the_database_runs() {
    let local = Local::start(&["--no-trigger"]).await;
    assert_eq!(local.run(&["populate", "--count", "50", "--seed", "1"]).await.code, 0);
    assert!(local.count("source").await > 0);
    // There must be no handler that could capture.
    #[cfg(target_os = "linux")]
    assert_eq!(local.children(), Vec::<u32>::new());
    assert_eq!((local.count("changes").await, local.count("leases").await), (0, 0));
}

#[tokio::test]
async fn the_requested_number_of_partitions_is_created() {
    let local = Local::start(&["--partitions", "2"]).await;
    let http = crate::support::http_client();
    let answer = http.get(format!("{}dbs/dev/colls/events/pkranges", local.endpoint())).send().await.unwrap();
    let ranges: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(ranges["PartitionKeyRanges"].as_array().unwrap().len(), 2, "{ranges}");
    // One lease for each, plus the document that marks them as created.
    local.wait_for_count("leases", 3).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_requested_handler_is_used() {
    let elsewhere = tempfile::tempdir().unwrap();
    let named = elsewhere.path().join("my-handler");
    std::os::unix::fs::symlink(BINARY, &named).unwrap();
    let local = Local::start(&["--handler", named.to_str().unwrap()]).await;
    let children = local.children();
    assert_eq!(children.len(), 1);
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", children[0])).unwrap();
    assert_eq!(command.trim_end_matches('\0').split('\0').collect::<Vec<_>>(), [named.to_str().unwrap(), "serve"]);
    assert_eq!(local.run(&["populate", "--count", "1"]).await.code, 0);
    local.wait_for_count("changes", 1).await;
}

#[tokio::test]
async fn a_missing_handler_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["local", "--port", "0", "--handler", "no/such/handler"], &[], "").await;
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
    assert!(output.stderr.contains("no/such/handler"), "{output:?}");
}

#[tokio::test]
async fn a_port_in_use_is_reported_with_the_fix() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["local", "--port", &port], &[], "").await;
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
    assert!(
        output.stderr.contains(&format!("open port {port}")) && output.stderr.contains("hint: pass --port 0"),
        "{output:?}"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn sigterm_ends_the_environment_and_its_handler() {
    let mut local = Local::start(&[]).await;
    let children = local.children();
    assert_eq!(children.len(), 1);
    local.terminate();
    assert_eq!(local.ended().await.code(), Some(0), "{:#?}", local.log());
    assert!(!children.iter().any(|id| crate::support::is_running(*id)), "the handler was left behind");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_handler_that_is_killed_is_started_again_and_nothing_is_lost() {
    let local = Local::start(&[]).await;
    let children = local.children();
    assert!(std::process::Command::new("kill").args(["-9", &children[0].to_string()]).status().unwrap().success());
    assert_eq!(local.run(&["populate", "--count", "1"]).await.code, 0);
    local.wait_for_count("changes", 1).await;
    let again = eventually("another handler runs", async || local.children().first().copied()).await;
    assert_ne!(again, children[0]);
}
