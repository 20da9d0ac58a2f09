//! `follow` on a MongoDB source from the outside: against an independent server (`scripts/install-test-peers.sh`
//! installs it), and against the built-in one that behaves like Azure Cosmos DB for MongoDB (RU).
//!
//! The Python programs in this folder write to the servers and check the results. They know nothing about the program
//! under test except the format of its events.

mod back;
mod checker;
mod clock;
mod contract;
mod erase;
mod errors;
mod far_dates;
mod follow;
mod gone;
mod ids;
mod kills;
mod known;
mod renamed_onto;
mod ru;
mod ru_back;
mod ru_kills;
mod ru_server;
mod scopes;
mod shards;
mod sinks;
mod twice;
mod unpolled;
mod unseen;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};

use crate::support::{FollowerProcess, Output, Running, mongo_server::MongoServer, peers};

/// The folder with one follower's files: its events and its checkpoint.
pub struct Work {
    pub folder: tempfile::TempDir,
}

impl Work {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The arguments common to all followers in the tests, plus this one's.
    fn args<'a>(&self, source: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["--source", source, "--checkpoint-file", "checkpoint.json", "--sink", "file:events.jsonl"], more].concat()
    }

    /// Follows until it has caught up.
    pub async fn catch_up(&self, source: &str, more: &[&str]) -> Output {
        let output = self.follow(source, more).await;
        assert_eq!(output.code, 0, "{output:?}");
        output
    }

    /// Like [`Self::catch_up`], but may fail. Killed when it does not end within two minutes.
    pub async fn follow(&self, source: &str, more: &[&str]) -> Output {
        let args = self.args(source, more);
        let args = [&["follow", "--until-caught-up", "--poll", "50"], &args[..]].concat();
        let running = Running::start(self.folder.path(), &args, &settings());
        tokio::time::timeout(Duration::from_secs(120), running.ended()).await.expect("it ends")
    }

    /// Starts a follower that runs until it is stopped.
    pub fn start(&self, source: &str, more: &[&str]) -> FollowerProcess {
        FollowerProcess::start_in(self.folder.path(), &self.args(source, more), &settings())
    }

    /// The events in its file. The last line may have been cut off by a kill.
    pub fn events(&self) -> Vec<Value> {
        Self::events_in(&self.path("events.jsonl"))
    }

    /// The events in a file.
    pub fn events_in(file: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}

fn settings() -> Vec<(String, String)> {
    [("RUST_BACKTRACE", "0"), ("REWIND_LOG_FORMAT", "text")].map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()
}

/// The driver, for writes from the test itself.
pub async fn client(uri: &str) -> mongodb::Client {
    mongodb::Client::with_uri_str(uri).await.unwrap()
}

/// The arguments that select a collection.
pub fn of<'a>(database: &'a str, collection: &'a str) -> [&'a str; 4] {
    ["--database", database, "--collection", collection]
}

/// Prepares a program of this folder with these arguments.
pub fn program(name: &str, args: &[&str]) -> Command {
    let python = peers::mongodb_python().expect("the caller checked that it is installed");
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mongodb").join(name)).args(args);
    // Python must not write into the source folder.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Starts a proxy from this folder in front of the server that makes it behave like another kind of server; killed on
/// drop.
pub async fn standing_before(server: &MongoServer, name: &str, args: &[&str]) -> (Child, String) {
    let uri = server.uri();
    let port = uri.split([':', '/']).nth(4).unwrap().to_owned();
    let mut command = tokio::process::Command::from(program(name, &[&[port.as_str()], args].concat()));
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let own = lines.next_line().await.unwrap().unwrap();
    (child, uri.replace(&port, &own))
}

/// Runs a program to its end and returns its output.
pub async fn python(name: &str, args: &[&str]) -> String {
    let mut command = program(name, args);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {args:?}: {}\n{out}\n{err}", output.status);
    out.trim().to_owned()
}

/// Makes `count` changes to a collection of the server, and logs them in a file.
pub async fn write(server: &MongoServer, (database, collection): (&str, &str), log: &Path, count: usize, seed: u64) {
    let (count, seed) = (count.to_string(), seed.to_string());
    let said = python("write.py", &[&server.uri(), database, collection, &text(log), &count, &seed, "--images"]).await;
    assert_eq!(said, format!("wrote {count}"));
}

/// Checks the events in a file against a log; returns the number of changes and of repeats.
pub async fn prove(log: &Path, events: &Path, more: &[&str]) -> (usize, usize) {
    let said = python("check_events.py", &[&[text(log).as_str(), &text(events)], more].concat()).await;
    let numbers: Vec<usize> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [changes, repeats] = numbers[..] else { panic!("{said}") };
    (changes, repeats)
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// One field of all events.
pub fn each<'a>(events: &'a [Value], name: &str) -> Vec<&'a str> {
    events.iter().map(|event| event[name].as_str().unwrap_or_else(|| panic!("{name} of {event}"))).collect()
}

/// The op and the id text of every event.
pub fn ops(events: &[Value]) -> Vec<(&str, &str)> {
    each(events, "op").into_iter().zip(each(events, "id")).collect()
}
