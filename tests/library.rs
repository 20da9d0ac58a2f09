//! The use cases without the command line: examples/restore.rs restores documents with the library alone.

use std::{path::PathBuf, process::Command, time::Duration};

use cosmos_rewind::change::key::PartitionKey;
use serde_json::json;

use crate::support::TestApp;

/// The path of the example's program. `cargo test` builds it; it is built here when a test runs by itself.
fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join("examples").join(name);
    if !path.exists() {
        let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--example", name]).status().unwrap();
        assert!(built.success());
    }
    path
}

#[tokio::test]
async fn the_example_restores_documents_with_the_library_alone() {
    let source = std::fs::read_to_string("examples/restore.rs").unwrap();
    assert!(source.lines().filter(|line| !line.starts_with("//!")).count() < 40);

    let app = TestApp::start().await;
    app.captured_from_now().await;
    app.put(json!({"id": "a", "pk": "p", "price": 1})).await;
    app.put(json!({"id": "b", "pk": "p", "price": 2})).await;
    app.captured_from_now().await;
    let before = chrono::Utc::now().timestamp();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    app.put(json!({"id": "a", "pk": "p", "price": -1})).await;
    app.captured_from_now().await;

    let mut command = Command::new(example("restore"));
    command.args([app.local.endpoint().as_str(), &before.to_string()]);
    command.current_dir(app.folder.path()).env("RUST_BACKTRACE", "0");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("1 documents will be written\n1 written; undo "), "{said}");
    let events = app.events().await;
    let text = events.read(&PartitionKey::parse("p").unwrap(), "a").await.unwrap().unwrap();
    let restored: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(restored["price"], 1, "{restored}");
    let undone = app.run(&["undo", said.trim().rsplit(' ').next().unwrap(), "--yes", "--journal", "journal"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
}
