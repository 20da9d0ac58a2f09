//! Shared by the end-to-end tests: the local account, a proxy that injects faults, and the real handler as a child.

mod app;
mod capture;
mod closed_port;
mod files;
mod follower;
mod handler;
mod letterbox;
mod local;
pub mod memory;
#[cfg(feature = "mongodb")]
pub mod mongo_ru;
#[cfg(feature = "mongodb")]
pub mod mongo_server;
pub mod peers;
mod proxy;
mod running;
#[cfg(target_os = "linux")]
pub mod zip;

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use cosmos_rewind::{
    cosmos::{Container, FeedMode, FeedRange, FeedStart},
    host::invocation,
};
use serde_json::{Value, json};

#[cfg(target_os = "linux")]
pub use local::is_running;

pub use self::{
    app::TestApp,
    capture::{capture_into, letters},
    closed_port::ClosedPort,
    files::{files_below, files_of_kind},
    follower::FollowerProcess,
    handler::Handler,
    letterbox::Letterbox,
    local::Local,
    proxy::{Fault, Kind, Trouble, When},
    running::Running,
};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_cosmos-rewind");

/// The only root certificate that tested commands trust. It signs nothing, because all their peers are on loopback
/// without TLS. Reading the certificates of the system takes an unoptimized command longer than its own work. They are
/// read from a file and from every file of a folder, so the folder has nothing else.
pub const AUTHORITIES: [(&str, &str); 2] = [
    ("SSL_CERT_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/authorities/authority.pem")),
    ("SSL_CERT_DIR", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/authorities")),
];

/// Runs a command of the binary to its end in a folder, with these settings and no others.
pub async fn run(folder: &Path, args: &[&str], settings: &[(String, String)], input: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.args(args);
    run_command(folder, command, settings, input).await
}

/// Like [`run`], with a program that ends up running the binary.
async fn run_command(folder: &Path, mut command: Command, settings: &[(String, String)], input: &str) -> Output {
    command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    hermetic(&mut command, &[("RUST_BACKTRACE".into(), "0".into())]);
    command.envs(settings.iter().map(|(k, v)| (k, v)));
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        use std::io::Write as _;
        // A command that does not read its input closes the pipe, so a failed write is fine.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    writer.join().unwrap();
    Output::of(output)
}

/// A moment between earlier and later writes; times have whole seconds.
pub async fn moment() -> String {
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let moment = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    moment
}

/// Polls until there is a result, for at most a minute; only a failing test takes that long.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The exit code and output of a finished command.
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

    /// Checks the exit code and parses stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Parses stdout as JSON lines.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// An HTTP client for local servers. It skips the root certificates, which take longer to read than most tests run.
pub fn http_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

/// Clears the environment except for what a program needs to start.
fn hermetic(command: &mut Command, settings: &[(String, String)]) {
    command.env_clear();
    // `COSMOS_REWIND_MUTANT` comes from `scripts/mutants.sh`.
    for name in ["PATH", "HOME", "TMPDIR", "COSMOS_REWIND_MUTANT"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(AUTHORITIES);
    command.envs(settings.iter().map(|(k, v)| (k, v)));
}

/// Wraps the text of an array in the host's request body.
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

/// The current position of each feed range of a container.
pub async fn beginning(events: &Container) -> Vec<(FeedRange, String)> {
    let mut beginning = Vec::new();
    for range in events.feed_ranges(true).await.unwrap() {
        let mut feed = events.change_feed(&range, FeedMode::AllVersions, FeedStart::Now, None).await.unwrap();
        feed.next().await.unwrap();
        beginning.push((range, feed.token().unwrap()));
    }
    beginning
}
