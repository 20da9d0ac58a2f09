//! What the end-to-end tests share: the local account, a proxy that injects faults, and the real handler as a child.

mod follower;
mod letterbox;
mod local;
pub mod memory;
pub mod peers;
mod proxy;
mod running;
#[cfg(target_os = "linux")]
pub mod zip;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cosmos_rewind::{
    change::{
        Via,
        decode::decode,
        key::PartitionKey,
        record::{self, RecordContext},
        version::Version,
    },
    config::{Account, Settings},
    cosmos::{Container, Cosmos, FeedMode, FeedRange, FeedStart},
    history::HistoryWriter as _,
    host::invocation,
    local::{LocalCosmos, LocalOptions},
};
use serde_json::{Value, json};

pub use follower::FollowerProcess;
pub use letterbox::Letterbox;
pub use local::Local;
#[cfg(target_os = "linux")]
pub use local::is_running;
pub use proxy::{Fault, Kind, Proxy, When};
pub use running::Running;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_cosmos-rewind");

/// The only authority that commands under test trust, and it signs nothing: all of their peers are on loopback without
/// TLS. Reading the system's 150 takes an unoptimized command ten times as long as its own work.
pub const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/authority.pem");

/// An account with `dev/events` (keyed `/pk`), `changes` (keyed `/pk`, `/_originalId`) and `leases`, and a folder
/// that is an app root.
pub struct TestApp {
    pub local: LocalCosmos,
    pub proxy: Proxy,
    pub folder: tempfile::TempDir,
    pub cosmos: Cosmos,
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with_changes_key(&["/pk", "/_originalId"]).await
    }

    pub async fn with_changes_key(paths: &[&str]) -> Self {
        Self::with_events(paths, json!({"partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}})).await
    }

    /// The same with `events` described, but for its name.
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
        let settings = Settings::from_pairs([("CosmosDB", local.connection_string())]);
        let cosmos = Cosmos::new(Account::from_settings(&settings).unwrap());
        Self { local, proxy, folder, cosmos }
    }

    /// Settings of the handler: it reaches the account through the proxy.
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

    /// Starts `serve` as the host does, with more settings on top.
    pub async fn handler(&self, more: &[(&str, &str)]) -> Handler {
        let mut settings = self.settings();
        settings.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        Handler::start(self.folder.path(), &settings).await
    }

    pub async fn changes(&self) -> Container {
        self.cosmos.container("dev", "changes").await.unwrap()
    }

    pub async fn events(&self) -> Container {
        self.cosmos.container("dev", "events").await.unwrap()
    }

    /// All versions in `changes`, in record id order, without what differs from delivery to delivery.
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

    /// Captures what a feed delivers: by the handler; or, into a history whose key it refuses today, as it did before.
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

    /// Writes a document to the live container; returns it as stored.
    pub async fn put(&self, document: Value) -> Value {
        let events = self.events().await;
        let id = document["id"].as_str().unwrap().to_owned();
        let key = PartitionKey::parse(&json!([document["pk"]]).to_string()).unwrap();
        events.upsert(&key, &id, document.to_string().into_bytes()).await.unwrap();
        let text = events.read(&key, &id).await.unwrap().unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Dead letters in the default store of the app folder.
    pub fn dead_letters(&self) -> Vec<Value> {
        let Ok(entries) = std::fs::read_dir(self.folder.path().join(".dead-letters")) else { return Vec::new() };
        // One that is being written has another name still.
        let whole = entries.map(|e| e.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
        whole.map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
    }

    /// Runs a command of the binary against the account, to its end.
    pub async fn run(&self, args: &[&str]) -> Output {
        self.run_with_input(args, "").await
    }

    /// Runs a command with text on its stdin.
    pub async fn run_with_input(&self, args: &[&str], input: &str) -> Output {
        self.spawn(args, &[], input).await
    }

    /// Has a follower begin here that captures everything from now on: what was written before counts as captured, and
    /// the history as complete up to now.
    pub async fn captured_from_now(&self) {
        self.captured_of(&[]).await;
    }

    /// The same for other containers than the usual ones.
    pub async fn captured_of(&self, containers: &[&str]) {
        let follow = ["follow", "--name", "reader", "--mode", "all-versions", "--from", "now", "--until-caught-up"];
        let output = self.run(&[&follow[..], containers].concat()).await;
        assert_eq!(output.code, 0, "{output:?}");
    }

    /// Runs a command with settings on top of the account's.
    pub async fn run_with_settings(&self, args: &[&str], settings: &[(&str, &str)]) -> Output {
        self.spawn(args, settings, "").await
    }

    /// Runs a command that reaches the account through the proxy, to its end.
    pub async fn run_through_proxy(&self, args: &[&str]) -> Output {
        run(self.folder.path(), args, &self.settings(), "").await
    }

    /// Starts a command that reaches the account through the proxy.
    pub fn start_through_proxy(&self, args: &[&str]) -> Running {
        Running::start(self.folder.path(), args, &self.settings())
    }

    async fn spawn(&self, args: &[&str], settings: &[(&str, &str)], input: &str) -> Output {
        let mut all = vec![("CosmosDB".to_owned(), self.local.connection_string())];
        all.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        run(self.folder.path(), args, &all, input).await
    }
}

/// Runs a command of the binary to its end, in a folder, with these settings and no others.
pub async fn run(folder: &Path, args: &[&str], settings: &[(String, String)], input: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.args(args).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    hermetic(&mut command, &[("RUST_BACKTRACE".into(), "0".into())]);
    command.envs(settings.iter().map(|(k, v)| (k, v)));
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        use std::io::Write as _;
        // A command that does not read its input closes the pipe.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    writer.join().unwrap();
    Output::of(output)
}

/// Asks until the answer is the one waited for; a minute at most, which only a failing test needs.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    fn of(output: std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Stdout as JSON, after a look at the exit code.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Stdout as JSON lines.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// Nothing of the caller's environment but what a program needs to start.
fn hermetic(command: &mut Command, settings: &[(String, String)]) {
    command.env_clear();
    // The last one is of `scripts/mutants.sh`.
    for name in ["PATH", "HOME", "TMPDIR", "COSMOS_REWIND_MUTANT"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("SSL_CERT_FILE", AUTHORITY);
    command.envs(settings.iter().map(|(k, v)| (k, v)));
}

/// The real handler, started as the Functions host starts it.
pub struct Handler {
    child: Child,
    port: u16,
    http: reqwest::Client,
    log: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<String>>>,
}

impl Handler {
    pub async fn start(folder: &Path, settings: &[(String, String)]) -> Self {
        // Between choosing a free port and the handler's taking it, another test may be faster.
        for _ in 0..10 {
            if let Some(handler) = Self::start_once(folder, settings).await {
                return handler;
            }
        }
        panic!("no free port for the handler in ten attempts");
    }

    /// `None` when the port was taken by somebody else.
    async fn start_once(folder: &Path, settings: &[(String, String)]) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(BINARY);
        command.arg("serve").current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        hermetic(&mut command, settings);
        command.env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string()).env("FUNCTIONS_APP_ROOT_PATH", folder);
        let mut child = command.spawn().unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let stderr: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut readers = Vec::new();
        for (stream, own) in [
            (Box::new(child.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>, None),
            (Box::new(child.stderr.take().unwrap()), Some(stderr.clone())),
        ] {
            let log = log.clone();
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if let Some(own) = &own {
                        own.lock().unwrap().push(line.clone());
                    }
                    log.lock().unwrap().push(line);
                }
            }));
        }
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut handler = Self { child, port, http, log, stderr };
        let start = Instant::now();
        loop {
            let answered = handler.http.get(handler.url("")).send().await.is_ok();
            if handler.child.try_wait().unwrap().is_some() {
                readers.into_iter().for_each(|reader| reader.join().unwrap());
                let taken = handler.log().iter().any(|line| line.contains("cannot listen on 127.0.0.1"));
                assert!(taken, "the handler ended: {:#?}", handler.log());
                return None;
            }
            // Its own line, too: somebody else may have given the answer.
            if answered && handler.log().iter().any(|line| line.contains("ready")) {
                return Some(handler);
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the handler does not answer: {:?}", handler.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Delivers documents as the host does; returns status and body.
    pub async fn deliver(&self, documents: &[Value]) -> (u16, Value) {
        self.deliver_text(&Value::from(documents.to_vec()).to_string()).await
    }

    /// Delivers the text of an array as the host does.
    pub async fn deliver_text(&self, array: &str) -> (u16, Value) {
        self.post("CaptureChanges", body_of(array)).await
    }

    pub async fn post(&self, function: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let answer = self.request(function, body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    pub fn request(&self, function: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.http
            .post(self.url(function))
            .header("content-type", "application/json; charset=utf-8")
            .header("x-azure-functions-invocationid", "11111111-2222-3333-4444-555555555555")
            .body(body)
    }

    /// Lines the handler has written so far, stdout and stderr.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Of these, the lines on stderr: the host shows each as an error.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until the log has a line with this text.
    pub async fn wait_for_log(&self, text: &str) {
        for _ in 0..400 {
            if self.log().iter().any(|l| l.contains(text)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no line with {text:?} in {:#?}", self.log());
    }

    /// SIGKILL, as the host does it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, as the platform does it.
    pub fn terminate(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }

    /// The exit code, once it has one.
    pub async fn exit_code(&mut self, patience: Duration) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The host's body for the text of an array.
pub fn body_of(array: &str) -> String {
    invocation::encode(
        "documents",
        array,
        &json!({"sys": {"MethodName": "CaptureChanges", "UtcNow": "2026-11-20T15:00:00.0Z", "RandGuid": "0d00"}}),
    )
}

/// A document as the latest-version feed delivers it.
pub fn feed_document(id: &str, pk: &str, version: u64) -> Value {
    json!({
        "id": id, "pk": pk, "version": version, "text": "x".repeat(100),
        "_rid": format!("rid-{id}"), "_self": "dbs/a/", "_etag": format!("\"{id}-{pk}-{version}\""), "_attachments": "attachments/",
        "_ts": 1_700_000_000 + version, "_lsn": version,
    })
}

/// Where each range of a container stands now.
pub async fn beginning(events: &Container) -> Vec<(FeedRange, String)> {
    let mut beginning = Vec::new();
    for range in events.feed_ranges(true).await.unwrap() {
        let mut feed = events.change_feed(&range, FeedMode::AllVersions, FeedStart::Now, None).await.unwrap();
        feed.next().await.unwrap();
        beginning.push((range, feed.token().unwrap()));
    }
    beginning
}
