//! Tests the local account with Microsoft's own SDKs in other languages.

use std::process::{Command, Output, Stdio};

use cosmos_rewind::local::{LocalCosmos, LocalOptions};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::support::peers;

async fn to_its_end(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn assert_all_checks_passed(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    let checks = out.trim().strip_prefix("ok ").and_then(|rest| rest.strip_suffix(" checks")?.parse::<u32>().ok());
    assert!(checks.is_some_and(|n| n > 30), "{out}\n{err}");
}

#[tokio::test]
async fn the_python_sdk_agrees_with_the_local_account() {
    let Some(python) = peers::python() else { return };
    let local = LocalCosmos::start(LocalOptions::default()).await.unwrap();
    let mut command = Command::new(python);
    command.args(["tests/sdk/python_sdk.py", local.endpoint().as_str(), local.key()]);
    assert_all_checks_passed(&to_its_end(command).await);
}

#[tokio::test]
async fn the_javascript_sdk_agrees_with_the_local_account() {
    let Some(folder) = peers::node_folder() else { return };
    let local = LocalCosmos::start(LocalOptions::default()).await.unwrap();
    let mut command = tokio::process::Command::new("node");
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/node_sdk.mjs"))
        .args([local.endpoint().as_str(), local.key(), "--splits"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // The script resolves the SDK from there.
    command.current_dir(folder);
    let mut node = command.spawn().unwrap();
    let mut answers = node.stdin.take().unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        let Some(asked) = line.strip_prefix("split ") else {
            said.push_str(&line);
            continue;
        };
        let [database, container, range] = asked.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        local.split(database, container, range).await.unwrap();
        answers.write_all(b"done\n").await.unwrap();
    }
    drop(answers);
    let output = node.wait_with_output().await.unwrap();
    assert_all_checks_passed(&Output { stdout: said.into_bytes(), ..output });
}
