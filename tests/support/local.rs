//! `cosmos-rewind local` as a child process.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;

use super::{BINARY, Output, eventually, hermetic, run};

/// A running development environment; killed on drop.
pub struct Local {
    child: Child,
    folder: tempfile::TempDir,
    /// The first line on stdout, unparsed.
    pub first_line: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Local {
    /// Starts `local --port 0` with more arguments in an empty folder; returns when it reports that it is ready.
    pub async fn start(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), args).await
    }

    /// Like [`Self::start`], in a folder that is an app root.
    pub async fn start_in(folder: tempfile::TempDir, args: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["local", "--port", "0"]).args(args);
        Self::spawn(folder, command, &[]).await
    }

    /// Like [`Self::start_in`], with an empty PATH.
    pub async fn start_alone(folder: tempfile::TempDir, args: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["local", "--port", "0"]).args(args);
        Self::spawn(folder, command, &[("PATH", "")]).await
    }

    /// Like [`Self::start_in`], with a command that ends up running the program.
    pub async fn spawn(folder: tempfile::TempDir, mut command: Command, settings: &[(&str, &str)]) -> Self {
        command.current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        hermetic(&mut command, &[("RUST_BACKTRACE".into(), "0".into())]);
        command.envs(settings.iter().copied());
        let mut child = command.spawn().unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        follow(child.stderr.take().unwrap(), log.clone());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let read = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            (line, stdout)
        });
        let (first_line, stdout) = read.await.unwrap();
        follow(stdout, log.clone());
        let local = Self { child, folder, first_line, log };
        assert!(local.first_line.ends_with('\n'), "it ended before it was ready: {:#?}", local.log());
        local
    }

    /// The first line, parsed.
    pub fn ready(&self) -> Value {
        serde_json::from_str(&self.first_line).unwrap()
    }

    pub fn endpoint(&self) -> String {
        self.ready()["endpoint"].as_str().unwrap().to_owned()
    }

    /// Everything that it wrote after the first line, stdout and stderr.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Runs a command against it as a user would: with `--endpoint` and no settings.
    pub async fn run(&self, args: &[&str]) -> Output {
        let endpoint = self.endpoint();
        run(self.folder.path(), &[args, &["--endpoint", &endpoint]].concat(), &[], "").await
    }

    /// The number of documents in a container; in a history, of its records.
    pub async fn count(&self, container: &str) -> u64 {
        const SQL: &str = "SELECT c.id FROM c WHERE NOT IS_DEFINED(c._restore)";
        let counted = self.run(&["query", "--in", container, "--count", "--format", "json", SQL]).await.json();
        counted["count"].as_u64().unwrap()
    }

    /// Waits until a container has this many documents.
    pub async fn wait_for_count(&self, container: &str, wanted: u64) {
        eventually(&format!("{container} has {wanted} documents"), async || {
            (self.count(container).await >= wanted).then_some(())
        })
        .await;
        assert_eq!(self.count(container).await, wanted);
    }

    /// The process ids of its children.
    #[cfg(target_os = "linux")]
    pub fn children(&self) -> Vec<u32> {
        let own = self.child.id().to_string();
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.filter(|id| parent_and_state(*id).is_some_and(|(parent, _)| parent == own)).collect()
    }

    /// The folder it runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) {
        assert!(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }

    /// Waits until the process has ended and returns its status.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("it ends", async || child.try_wait().unwrap()).await
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // SIGTERM lets it stop its handler; SIGKILL would leave the handler running.
        let ended = |child: &mut Child| child.try_wait().is_ok_and(|status| status.is_some());
        if !ended(&mut self.child) {
            self.terminate();
        }
        for _ in 0..400 {
            if ended(&mut self.child) {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The parent and the state (`R`, `S`, `Z`, ...) of a process.
#[cfg(target_os = "linux")]
fn parent_and_state(id: u32) -> Option<(String, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The format is `pid (name) state parent ...`, and the name may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned);
    let state = fields.next()?;
    Some((fields.next()?, state))
}

/// Whether a process exists and is not a zombie.
#[cfg(target_os = "linux")]
pub fn is_running(id: u32) -> bool {
    parent_and_state(id).is_some_and(|(_, state)| state != "Z")
}

fn follow(stream: impl Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            log.lock().unwrap().push(line);
        }
    });
}
