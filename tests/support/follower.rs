//! `cosmos-rewind follow` as a child process that can be killed.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use super::{BINARY, TestApp, eventually, hermetic};

/// A running follower; killed on drop.
pub struct FollowerProcess {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl FollowerProcess {
    /// Starts `follow` with these arguments in the app's folder. It reaches the account through the proxy.
    pub fn start(app: &TestApp, args: &[&str]) -> Self {
        Self::start_in(app.folder.path(), args, &app.settings())
    }

    /// Starts `follow` with these arguments in a folder, with these settings and no others.
    pub fn start_in(folder: &Path, args: &[&str], settings: &[(String, String)]) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("follow").args(["--poll", "50"]).args(args).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        hermetic(&mut command, settings);
        command.env("REWIND_LOG_FORMAT", "text");
        let mut child = command.spawn().unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        collect(child.stderr.take().unwrap(), log.clone());
        Self { child, log }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines on stderr so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits until a line on stderr contains this text.
    pub async fn wait_for_log(&mut self, text: &str) {
        eventually(&format!("the log has {text:?}: {:#?}", self.log()), async || {
            self.log().iter().any(|line| line.contains(text)).then_some(())
        })
        .await;
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Waits until the process has ended and returns its status.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the follower ends", async || child.try_wait().unwrap()).await
    }
}

impl Drop for FollowerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stream: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
}
