//! SecantusDB as a child process: an independent MongoDB server that speaks the wire protocol over WiredTiger.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::peers;

/// The process that forks the servers. It ends with the tests and stops every server.
struct Servers {
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Child,
}

impl Servers {
    fn start() -> Self {
        let python = peers::mongodb_python().expect("the caller checked that it is installed");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/mongo_servers.py");
        let mut process =
            Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (requests, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { requests, answers: BufReader::new(answers), _process: process }
    }

    fn ask(request: &Value) -> i64 {
        static SERVERS: OnceLock<Mutex<Servers>> = OnceLock::new();
        let servers = SERVERS.get_or_init(|| Mutex::new(Self::start()));
        let mut servers = servers.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(servers.requests, "{request}").unwrap();
        let mut answer = String::new();
        servers.answers.read_line(&mut answer).unwrap();
        answer.trim().parse().unwrap_or_else(|e| panic!("{e}: {answer:?} for {request}"))
    }
}

/// A running server; killed on drop.
pub struct MongoServer {
    process: i64,
    port: u16,
    folder: tempfile::TempDir,
    args: Vec<String>,
    /// How many seconds its clock is ahead.
    ahead: i64,
}

impl MongoServer {
    /// Starts a server in an empty folder, or returns `None` where it is not installed. It keeps the last million
    /// writes.
    pub fn start() -> Option<Self> {
        Self::start_with(&["--oplog-max-entries", "1000000"])
    }

    /// Like [`Self::start`], with additional arguments.
    pub fn start_with(args: &[&str]) -> Option<Self> {
        Self::start_as(args, 0)
    }

    /// Like [`Self::start`]; the clock by which it dates operations is ahead.
    pub fn start_ahead(seconds: i64) -> Option<Self> {
        Self::start_as(&["--oplog-max-entries", "1000000"], seconds)
    }

    fn start_as(args: &[&str], ahead: i64) -> Option<Self> {
        peers::mongodb_python()?;
        let folder = tempfile::tempdir().unwrap();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (process, port) = spawn(folder.path(), 0, (&args, ahead));
        Some(Self { process, port, folder, args, ahead })
    }

    /// The URI. The driver connects directly and does not look for other members.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    /// The URI with credentials.
    pub fn uri_of(&self, user: &str, password: &str) -> String {
        self.uri().replace("//", &format!("//{user}:{password}@"))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.end("-KILL");
    }

    /// Restarts the server on the same port with the same data.
    pub fn start_again(&mut self) {
        (self.process, self.port) = spawn(self.folder.path(), self.port, (&self.args, self.ahead));
    }

    /// Stops the server cleanly and restarts it with other arguments.
    pub fn restart_with(&mut self, args: &[&str]) {
        assert_eq!(self.end("-TERM"), 0);
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.start_again();
    }

    /// Stops the server and returns its exit status; a signal is a negative number.
    fn end(&mut self, signal: &str) -> i64 {
        let process = std::mem::take(&mut self.process);
        let status = Command::new("kill").args([signal, &process.to_string()]).status().unwrap();
        assert!(status.success());
        Servers::ask(&json!({ "wait": process }))
    }
}

impl Drop for MongoServer {
    fn drop(&mut self) {
        if self.process != 0 {
            self.kill();
        }
    }
}

/// Starts a server and waits until it listens; returns its process id and port.
fn spawn(folder: &Path, port: u16, (args, ahead): (&[String], i64)) -> (i64, u16) {
    let log = folder.join("log");
    let _ = std::fs::remove_file(&log);
    let port = port.to_string();
    let args: Vec<&str> = ["--port", &port].into_iter().chain(args.iter().map(String::as_str)).collect();
    let process = Servers::ask(&json!({ "start": folder, "args": args, "ahead": ahead }));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let mut lines = text.lines().filter(|_| text.ends_with('\n'));
        if let Some(port) = lines.find_map(|line| line.split_once("listening on 127.0.0.1:")?.1.trim().parse().ok()) {
            return (process, port);
        }
        assert!(Instant::now() < deadline, "no listening address in the output: {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
