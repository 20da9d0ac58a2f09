//! A command of the binary that is still running and can be stopped by the test.

use std::{path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout},
};

use super::{BINARY, Output, hermetic};

/// The command; killed on drop. Its output must fit into a pipe until the test reads it.
pub struct Running {
    child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Running {
    pub fn start(folder: &Path, args: &[&str], settings: &[(String, String)]) -> Self {
        let mut command = std::process::Command::new(BINARY);
        command.args(args).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        hermetic(&mut command, settings);
        let mut command = tokio::process::Command::from(command);
        Self { child: command.kill_on_drop(true).spawn().unwrap(), lines: None }
    }

    /// Reads the next line of its output.
    pub async fn line(&mut self) -> String {
        let Self { child, lines } = self;
        let lines = lines.get_or_insert_with(|| BufReader::new(child.stdout.take().unwrap()).lines());
        lines.next_line().await.unwrap().expect("a line")
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends SIGINT, as Ctrl-C does.
    #[cfg(unix)]
    pub fn interrupt(&self) {
        self.signal("-INT");
    }

    /// Sends SIGTERM.
    #[cfg(unix)]
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    #[cfg(unix)]
    fn signal(&self, which: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([which, &id]).status().unwrap().success());
    }

    /// Waits until the process has ended and returns its exit code.
    pub async fn code(&mut self) -> Option<i32> {
        self.child.wait().await.unwrap().code()
    }

    /// Waits until the process has ended and returns its remaining output.
    pub async fn ended(self) -> Output {
        Output::of(self.child.wait_with_output().await.unwrap())
    }
}
