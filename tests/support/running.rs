//! A command of the binary that is still running, to be stopped on purpose.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{BINARY, Output, hermetic};

/// The command; killed when it is dropped.
pub struct Running {
    child: Option<Child>,
}

impl Running {
    pub fn start(folder: &Path, args: &[&str], settings: &[(String, String)]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(args).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        hermetic(&mut command, settings);
        Self { child: Some(command.spawn().unwrap()) }
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGINT, as Ctrl-C sends it.
    pub fn interrupt(&self) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    }

    /// What it left behind, once it has ended.
    pub async fn ended(mut self) -> Output {
        let child = self.child.take().unwrap();
        let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
        Output::of(output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
