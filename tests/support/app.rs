//! The app's containers in the local account, with a proxy in front of it.

use std::{sync::Arc, time::Duration};

use cosmos_rewind::{
    change::{
        Via,
        decode::decode,
        key::PartitionKey,
        record::{self, RecordContext, layout::key_of_other},
        version::Version,
    },
    config::{AccountSettings, Settings},
    cosmos::{Container, Cosmos},
    history::HistoryWriter as _,
    local::{Call, Connection, Inside, LocalCosmos, LocalOptions, RequestOutcome},
};
use serde_json::{Value, json};

use super::{Fault, Kind, Output, handler::Handler, proxy::Proxy, run, running::Running};

/// An account with `dev/events` (keyed `/pk`), `changes` (keyed `/pk`, `/_originalId`) and `leases`, and a folder that
/// serves as the app root.
pub struct TestApp {
    pub local: LocalCosmos,
    pub proxy: Proxy,
    pub folder: tempfile::TempDir,
    /// The test's own client, which needs no socket and no root certificates. Programs use the network.
    pub cosmos: Cosmos,
    _inside: Inside,
}

/// The connection of the test's own client. It never fails.
#[derive(Debug)]
struct Calm;

impl Connection for Calm {
    fn fate(&self, _: &Call<'_>) -> RequestOutcome {
        RequestOutcome::Done(Duration::ZERO)
    }
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with_changes_key(&["/pk", "/_originalId"]).await
    }

    pub async fn with_changes_key(paths: &[&str]) -> Self {
        Self::with_events(paths, json!({"partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}})).await
    }

    /// Like [`Self::start`], with this definition for `events`; the name is filled in.
    pub async fn with_events(paths: &[&str], mut events: Value) -> Self {
        let local = LocalCosmos::start(LocalOptions::default()).await.unwrap();
        assert!(local.create_database("dev").await.unwrap());
        let kind = if paths.len() > 1 { "MultiHash" } else { "Hash" };
        events["id"] = "events".into();
        for description in [
            events,
            json!({"id": "changes", "partitionKey": {"paths": paths, "kind": kind, "version": 2}}),
            json!({"id": "leases", "partitionKey": {"paths": ["/id"], "kind": "Hash", "version": 2}, "defaultTtl": -1}),
        ] {
            assert!(local.create_container("dev", description).await.unwrap());
        }
        let proxy = Proxy::start(local.endpoint().clone()).await;
        let folder = tempfile::tempdir().unwrap();
        let function = folder.path().join("CaptureChanges");
        std::fs::create_dir(&function).unwrap();
        std::fs::copy("CaptureChanges/function.json", function.join("function.json")).unwrap();
        let inside = local.inside(Arc::new(Calm));
        let settings = Settings::from_pairs([("CosmosDB__accountEndpoint", inside.address().as_str())]);
        let cosmos = Cosmos::new(AccountSettings::from_settings(&settings).unwrap());
        Self { local, proxy, folder, cosmos, _inside: inside }
    }

    /// The handler's settings. They point it at the account through the proxy.
    pub fn settings(&self) -> Vec<(String, String)> {
        let connection =
            self.local.connection_string().replace(self.local.endpoint().as_str(), self.proxy.endpoint().as_str());
        [
            ("CosmosDB", connection.as_str()),
            ("REWIND_DEADLINE_SECONDS", "100"),
            ("REWIND_LOG_FORMAT", "json"),
            ("RUST_BACKTRACE", "0"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec()
    }

    /// Starts `serve` as the host does, with additional settings.
    pub async fn handler(&self, more: &[(&str, &str)]) -> Handler {
        let mut settings = self.settings();
        settings.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        Handler::start(self.folder.path(), &settings).await
    }

    /// Like [`Self::handler`], but returns as soon as the handler answers, before it has looked at its containers.
    pub async fn answering(&self, more: &[(&str, &str)]) -> Handler {
        let mut settings = self.settings();
        settings.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        // Without a host.json the handler logs this line, right after it has bound its port.
        Handler::start_until(self.folder.path(), &settings, "the host rewrites dates").await
    }

    pub async fn changes(&self) -> Container {
        self.cosmos.container("dev", "changes").await.unwrap()
    }

    pub async fn events(&self) -> Container {
        self.cosmos.container("dev", "events").await.unwrap()
    }

    /// All versions in `changes`, in record id order, without the fields that differ between deliveries.
    pub async fn history(&self) -> Vec<Value> {
        let mut all: Vec<Value> = self
            .changes()
            .await
            .query_all("SELECT * FROM c WHERE NOT IS_DEFINED(c._restore)", &[], None)
            .await
            .unwrap()
            .iter()
            .map(|raw| {
                let mut record: Value = serde_json::from_str(raw.get()).unwrap();
                let object = record.as_object_mut().unwrap();
                for name in ["_rid", "_self", "_etag", "_attachments", "_ts"] {
                    object.remove(name);
                }
                object["_change"].as_object_mut().unwrap().remove("at");
                record
            })
            .collect();
        all.sort_by_key(|r| (r["id"].as_str().unwrap().to_owned(), r["pk"].to_string()));
        all
    }

    /// The versions of one document, in order.
    pub async fn versions(&self, id: &str) -> Vec<Version> {
        let records = self
            .changes()
            .await
            .query_all(
                "SELECT * FROM c WHERE c._originalId = @id",
                &[cosmos_rewind::cosmos::Param::new("id", id)],
                None,
            )
            .await
            .unwrap();
        let mut versions: Vec<Version> = records.iter().map(|r| Version::parse(r.get()).unwrap()).collect();
        versions.sort_by(|a, b| a.position().cmp(&b.position()));
        versions
    }

    /// Captures what a feed delivers through the handler. Where the handler refuses the history's key, writes the
    /// records directly, as older releases did.
    pub async fn capture(&self, items: &[Value]) {
        let (changes, source) = (self.changes().await, self.events().await);
        if record::check_layout(Container::key_paths(&changes), Container::key_paths(&source)).is_ok() {
            let handler = self.handler(&[]).await;
            let (status, answer) = handler.deliver(items).await;
            assert_eq!(status, 200, "{answer} {:#?}", handler.log());
            return;
        }
        let paths = Container::key_paths(&changes);
        let (at, keys) = ("2026-11-20T15:00:00.000Z", Some(Container::key_paths(&source)));
        let context = RecordContext { via: Via::Trigger, at, at_seconds: 0, paths, source: keys };
        for item in items {
            let item = serde_json::value::to_raw_value(item).unwrap();
            let mut all = Vec::new();
            decode(&item, &mut all).unwrap();
            for change in &all {
                changes.write(&record::build(change, None, false, context).unwrap()).await.unwrap();
            }
        }
    }

    /// Writes a document to the live container and returns it as stored.
    pub async fn put(&self, document: Value) -> Value {
        let events = self.events().await;
        let id = document["id"].as_str().unwrap().to_owned();
        let key = PartitionKey::parse(&json!([document["pk"]]).to_string()).unwrap();
        events.upsert(&key, &id, document.to_string().into_bytes()).await.unwrap();
        let text = events.read(&key, &id).await.unwrap().unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// The dead letters in the app folder's default store.
    pub fn dead_letters(&self) -> Vec<Value> {
        let Ok(entries) = std::fs::read_dir(self.folder.path().join(".dead-letters")) else { return Vec::new() };
        // A letter that is still being written has another extension.
        let whole = entries.map(|e| e.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
        whole.map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
    }

    /// Runs a command of the binary against the account and waits for it to end.
    pub async fn run(&self, args: &[&str]) -> Output {
        self.run_with_input(args, "").await
    }

    /// Runs a command with text on its stdin.
    pub async fn run_with_input(&self, args: &[&str], input: &str) -> Output {
        self.spawn(args, &[], input).await
    }

    /// Starts a follower here that captures everything from now on. What was written before counts as captured, and the
    /// history is complete up to now.
    pub async fn captured_from_now(&self) {
        self.captured_of("events", "changes").await;
    }

    /// Like [`Self::captured_from_now`], for these containers.
    pub async fn captured_of(&self, source: &str, history: &str) {
        let follow = ["follow", "--name", "reader", "--mode", "all-versions", "--from", "now", "--until-caught-up"];
        let output = self.run(&[&follow[..], &["--source", source, "--changes", history]].concat()).await;
        assert_eq!(output.code, 0, "{output:?}");
        // It has noted that nobody captured until now, but here somebody did.
        let changes = self.cosmos.container("dev", history).await.unwrap();
        let (group, id) = ("restore~removals", "restore~removals~mark");
        let key = key_of_other(Container::key_paths(&changes), group, id);
        let Some(text) = changes.read(&key, id).await.unwrap() else { return };
        let mut item: Value = serde_json::from_slice(&text).unwrap();
        item["_restore"].as_object_mut().unwrap().remove("holes");
        changes.upsert(&key, id, item.to_string().into_bytes()).await.unwrap();
    }

    /// Runs a command with settings in addition to the account's.
    pub async fn run_with_settings(&self, args: &[&str], settings: &[(&str, &str)]) -> Output {
        self.spawn(args, settings, "").await
    }

    /// Runs a command that reaches the account through the proxy and waits for it to end.
    pub async fn run_through_proxy(&self, args: &[&str]) -> Output {
        run(self.folder.path(), args, &self.settings(), "").await
    }

    /// Runs a command as often as it sends requests of a kind, and refuses another one of these each time; at last none.
    pub async fn run_refused_in_turn(&self, kind: Kind, args: &[&str]) -> Vec<Output> {
        let mut all = Vec::new();
        loop {
            let faults = vec![Fault::Pass; all.len()].into_iter().chain([Fault::Reject(403, 0)]);
            self.proxy.fail_next_of(kind, faults);
            all.push(self.run_through_proxy(args).await);
            if self.proxy.forget_faults() {
                return all;
            }
        }
    }

    /// Runs a command through a shell line in which `"$@"` is the command, and waits for it to end.
    #[cfg(target_os = "linux")]
    pub async fn run_by_shell(&self, line: &str, args: &[&str]) -> Output {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", line, "sh", super::BINARY]).args(args);
        let account = [("CosmosDB".to_owned(), self.local.connection_string())];
        super::run_command(self.folder.path(), command, &account, "").await
    }

    /// Starts a command that reaches the account through the proxy.
    pub fn start_through_proxy(&self, args: &[&str]) -> Running {
        Running::start(self.folder.path(), args, &self.settings())
    }

    /// Starts a command that runs until it is stopped.
    pub fn start_program(&self, args: &[&str]) -> Running {
        Running::start(self.folder.path(), args, &[("CosmosDB".to_owned(), self.local.connection_string())])
    }

    pub(super) async fn spawn(&self, args: &[&str], settings: &[(&str, &str)], input: &str) -> Output {
        let mut all = vec![("CosmosDB".to_owned(), self.local.connection_string())];
        all.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        run(self.folder.path(), args, &all, input).await
    }
}
