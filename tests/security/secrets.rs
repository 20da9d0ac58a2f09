//! No error shows a secret.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use futures::{StreamExt as _, stream};

use crate::{
    follow::put,
    support::{BINARY, Fault, Kind, TestApp, files_below},
};

/// Values that stand for secrets; none is part of another text.
const KEY: &str = "TUFSS0VEYWNjb3VudGtleQ==";
const SIGNATURE: &str = "MARKEDsignature";
const HASH_KEY: &str = "MARKEDhashkey";
const TOKEN: &str = "MARKEDtoken";

/// Runs a command for a few seconds at most; returns all of its output.
fn marked(folder: &Path, command: &[&str], settings: &[(String, String)]) -> impl FnOnce() -> String + Send + 'static {
    let mut process = Command::new("timeout");
    process.args(["5", BINARY]).args(command).current_dir(folder).stdin(Stdio::null()).env_clear();
    process.env("PATH", std::env::var_os("PATH").unwrap()).envs(crate::support::AUTHORITIES);
    process.envs(settings.iter().cloned()).env("RUST_BACKTRACE", "0");
    move || {
        let output = process.output().unwrap();
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
    }
}

#[tokio::test]
async fn no_error_of_any_command_shows_a_secret() {
    let app = TestApp::start().await;
    put(&app, "x", 1).await;
    let folder = app.folder.path();
    std::fs::write(folder.join("docs.jsonl"), "{\"id\":\"a\",\"pk\":\"p\"}\n").unwrap();
    let sas = format!("https://127.0.0.1:1/account/letters?sv=1&sig={SIGNATURE}");
    let blob = format!("blob:http://127.0.0.1:1/account/c/x?sv=1&sig={SIGNATURE}");
    let bad_blob = format!("blob:https://me:{SIGNATURE}@a.blob.core.windows.net/c?sig={SIGNATURE}");
    let connection = |endpoint: &str| format!("AccountEndpoint={endpoint};AccountKey={KEY};");
    let through_proxy = app.proxy.endpoint().to_string();
    let commands: Vec<Vec<&str>> = vec![
        vec!["show", "--id", "x", "--pk", "key-x"],
        vec!["history", "--id", "x"],
        vec!["diff", "--id", "x", "--pk", "key-x", "--from", "1h"],
        vec!["status"],
        vec!["doctor"],
        vec!["verify"],
        vec!["coverage"],
        vec!["find", "--when", "doc.n == 1"],
        vec!["provision"],
        vec!["backfill"],
        vec!["query", "SELECT * FROM c"],
        vec!["query", "SELEKT"],
        vec!["truncate", "source", "--yes"],
        vec!["populate", "--count", "1"],
        vec!["prune", "--keep-within", "1d", "--yes"],
        vec!["cost", "--docs-per-day", "5"],
        vec!["replay"],
        vec!["backup", "--all", "--out", "out.jsonl"],
        vec!["load", "docs.jsonl"],
        vec!["load", "--archive", &blob],
        vec!["load", "--archive", &bad_blob],
        vec!["restore", "--all", "--at", "now", "--yes"],
        vec!["restore", "--all", "--at", "now", "--yes", "--from-archive", &blob],
        vec!["undo", "--list"],
        vec!["erase", "--id", "x", "--pk", "key-x", "--yes"],
        vec!["erase", "--id", "x", "--pk", "key-x", "--yes", "--archive", &bad_blob],
        vec!["follow", "--until-caught-up", "--from", "beginning"],
        vec!["follow", "--until-caught-up", "--from", "beginning", "--sink", &blob],
        vec!["follow", "--until-caught-up", "--from", "beginning", "--sink", &bad_blob],
        vec!["follow", "--sink", &sas],
        vec!["serve"],
    ];
    let headers = format!("api-key={TOKEN}");
    let mut complaints = Vec::new();
    let mut run = 0;
    // No listener; refused by the service; not allowed; invalid settings.
    let places = [
        (connection("http://127.0.0.1:1/"), None),
        (connection(&through_proxy), Some(Fault::Reject(401, 0))),
        (connection(&through_proxy), Some(Fault::Reject(403, 0))),
        (format!("AccountEndpoint=nonsense;AccountKey={KEY}"), None),
        (format!("AccountEndpoint=https://me:{KEY}@a/;AccountKey={KEY}!"), None),
    ];
    for (place, fault) in places {
        if let Some(fault) = fault {
            for kind in
                [Kind::HistoryWrite, Kind::LiveWrite, Kind::HistoryRead, Kind::LiveRead, Kind::Query, Kind::Definition]
            {
                app.proxy.fail_always_of(kind, Some(fault.clone()));
            }
        }
        let settings = [
            ("CosmosDB", place.as_str()),
            ("REWIND_DEAD_LETTERS", &sas),
            ("REWIND_REDACT", "/email=hash"),
            ("REWIND_REDACT_KEY", HASH_KEY),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
            ("OTEL_EXPORTER_OTLP_HEADERS", &headers),
            ("REWIND_LOG", "debug"),
            ("REWIND_DEADLINE_SECONDS", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let runs = commands.iter().map(|command| {
            // A handler that starts keeps running; its first seconds show the errors.
            let process = marked(folder, command, &settings);
            async move { (command, tokio::task::spawn_blocking(process).await.unwrap()) }
        });
        let mut runs = stream::iter(runs).buffer_unordered(6);
        while let Some((command, text)) = runs.next().await {
            run += 1;
            if [KEY.trim_end_matches('='), SIGNATURE, HASH_KEY, TOKEN].iter().any(|secret| text.contains(secret)) {
                complaints.push(format!("{command:?} with {place}: {text}"));
            }
        }
    }
    assert!(run >= 150 && complaints.is_empty(), "{run}\n{}", complaints.join("\n"));
    for path in files_below(folder) {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        for secret in [KEY, SIGNATURE, HASH_KEY, TOKEN] {
            assert!(!text.contains(secret), "{}", path.display());
        }
    }
}

/// The parser of the command line quotes what it does not understand.
#[tokio::test]
async fn a_misplaced_address_or_key_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let uri = format!("mongodb://user:{SIGNATURE}@h/");
    let unencoded = format!("mongodb://user:a/b?{SIGNATURE}@h/");
    let sas = format!("https://a.blob.core.windows.net/c?sv=1&sig={SIGNATURE}");
    let connection = format!("AccountEndpoint=https://a/;AccountKey={KEY};");
    for secret in [&uri, &unencoded, &sas, &connection] {
        for command in [
            vec![secret.as_str()],
            vec!["follow", secret],
            vec!["truncate", secret, "--yes"],
            vec!["restore", "--all", "--at", "now", "--into", secret],
            vec!["restore", "--id", "a", "--max", secret],
            vec!["follow", "--metrics", secret],
            vec!["follow", "--mode", secret],
            vec!["cost", secret],
        ] {
            let process = marked(folder.path(), &command, &[]);
            let text = tokio::task::spawn_blocking(process).await.unwrap();
            assert!(text.contains("error"), "{command:?}: {text}");
            for secret in [SIGNATURE, KEY.trim_end_matches('=')] {
                assert!(!text.contains(secret), "{command:?}: {text}");
            }
        }
    }
}
