//! A MongoDB server from other people: SecantusDB, which speaks the wire protocol over WiredTiger, as a process.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use super::peers;

/// The server, running; killed when it is dropped.
pub struct MongoServer {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
    args: Vec<String>,
}

impl MongoServer {
    /// Starts it in an empty folder; nothing where it is not installed. It keeps the history of a million writes.
    pub fn start() -> Option<Self> {
        Self::start_with(&["--oplog-max-entries", "1000000"])
    }

    /// The same with these arguments.
    pub fn start_with(args: &[&str]) -> Option<Self> {
        let python = peers::mongodb_python()?;
        let folder = tempfile::tempdir().unwrap();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (child, port) = spawn(&python, folder.path(), 0, &args);
        Some(Self { child, port, folder, args })
    }

    /// Its URI; a driver talks to it and looks for no other members.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    /// The same with a user.
    pub fn uri_of(&self, user: &str, password: &str) -> String {
        self.uri().replace("//", &format!("//{user}:{password}@"))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, where it was and with what it had.
    pub fn start_again(&mut self) {
        let python = peers::mongodb_python().expect("it was there before");
        (self.child, self.port) = spawn(&python, self.folder.path(), self.port, &self.args);
    }

    /// Ends it in peace, and starts it again with other arguments.
    pub fn restart_with(&mut self, args: &[&str]) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success() && self.child.wait().unwrap().success());
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.start_again();
    }
}

impl Drop for MongoServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns when it listens, with its port.
fn spawn(python: &std::path::Path, folder: &std::path::Path, port: u16, args: &[String]) -> (Child, u16) {
    let mut child = Command::new(python)
        .args(["-m", "secantus", "--host", "127.0.0.1", "--port", &port.to_string(), "--storage-path"])
        .arg(folder)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let port = lines.by_ref().find_map(|line| line.split_once("listening on 127.0.0.1:")?.1.trim().parse().ok());
    // Read on, or it would block when the pipe is full.
    std::thread::spawn(move || lines.for_each(drop));
    (child, port.expect("it says where it listens"))
}
