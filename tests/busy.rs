//! An account that is busy for a moment, before a command has begun.

use serde_json::{Value, json};

use crate::support::{Fault, Kind, Output, TestApp, moment};

/// Definitions of containers, their partitions and the plans of queries are throttled, too.
#[tokio::test]
async fn a_command_asks_a_busy_account_again_for_what_it_needs_before_any_document() {
    let app = TestApp::start().await;
    app.captured_from_now().await;
    app.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    let commands: &[&[&str]] = &[
        &["backfill", "--all"],
        &["verify", "--repair", "--grace", "0s"],
        &["coverage"],
        &["status"],
        &["find", "--sql", "c.n = 1"],
        &["history", "--id", "a"],
        &["backup", "--all", "--out", "all.jsonl"],
        &["load", "all.jsonl"],
        &["query", "SELECT * FROM c WHERE c.n = 1 ORDER BY c.n"],
        &["populate", "--count", "3"],
        &["restore", "--id", "a", "--pk", "p", "--at", "now", "--yes"],
        &["prune", "--older-than", "90d", "--yes"],
        &["erase", "--id", "a", "--pk", "p", "--yes"],
        &["truncate", "events", "--yes"],
        &["provision"],
    ];
    for (status, sub) in [(429, 3200), (410, 1002)] {
        for command in commands {
            app.proxy.storm(&[Kind::Definition], 2, Fault::Reject(status, sub));
            let done = app.run_through_proxy(command).await;
            assert!(matches!(done.code, 0 | 3), "{status}/{sub} {command:?}: {done:?}");
            assert!(app.proxy.calm() > 1, "no storm");
        }
        std::fs::remove_file(app.folder.path().join("all.jsonl")).unwrap();
        app.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    }
}

/// The clock of a machine may be hours ahead: what is removed, taken for saved or taken for older goes by the account's.
#[tokio::test]
async fn what_decides_about_documents_waits_for_the_accounts_time_and_does_nothing_without_it() {
    let app = TestApp::start().await;
    app.captured_from_now().await;
    app.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    assert_eq!(app.run(&["backfill", "--all"]).await.code, 0);
    let commands: &[&[&str]] = &[
        &["prune", "--older-than", "90d", "--yes"],
        &["backup", "--all", "--out", "all.jsonl"],
        &["restore", "--id", "a", "--pk", "p", "--at", "now", "--yes"],
        &["revert", "--from", "2026-01-01T00:00:00Z", "--to", "now", "--dry-run"],
    ];
    for command in commands {
        app.proxy.tell_no_time(1000);
        let refused = app.run_through_proxy(command).await;
        assert_eq!(refused.code, 1, "{command:?}: {refused:?}");
        assert!(refused.stderr.contains("does not say what time it is"), "{refused:?}");
        app.proxy.tell_no_time(2);
        let done = app.run_through_proxy(command).await;
        assert!(matches!(done.code, 0 | 3), "{command:?}: {done:?}");
        app.proxy.tell_no_time(0);
    }
}

/// Each request decides about something: without its answer, a command fails, warns of what it does not know, or says
/// the same as with it.
#[tokio::test]
async fn a_command_that_is_refused_one_of_its_requests_says_what_it_does_not_know() {
    let app = TestApp::start().await;
    app.captured_from_now().await;
    app.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    assert_eq!(app.run(&["backfill", "--all"]).await.code, 0);
    let before = moment().await;
    app.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    // All tell what leases and followers say; each run of a command takes its time.
    let commands: &[&[&str]] = &[
        &["coverage"],
        &["restore", "--all", "--at", "now", "--delete-newer", "--dry-run"],
        &["show", "--id", "a", "--pk", "p", "--at", &before],
    ];
    // How long ago something was, and what a run took, differs from run to run.
    let is_age = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && (word.ends_with(['s', 'm']) || (word.contains('.') && word.parse::<f64>().is_ok()))
    };
    let said = |done: &Output| {
        let words: Vec<String> = done.stdout.split_whitespace().filter(|w| !is_age(w)).map(str::to_owned).collect();
        (done.code, words)
    };
    for command in commands {
        let whole = app.run(command).await;
        assert!(matches!(whole.code, 0 | 3), "{command:?}: {whole:?}");
        let mut refused = Vec::new();
        for kind in [Kind::Definition, Kind::Query, Kind::LiveRead, Kind::HistoryRead] {
            refused.extend(app.run_refused_in_turn(kind, command).await);
        }
        assert!(refused.iter().filter(|done| done.code == 1).count() > 1, "{command:?}: {refused:?}");
        assert!(refused.iter().any(|done| done.stderr.contains("/leases cannot be read")), "{command:?}: {refused:?}");
        for done in refused.iter().filter(|done| done.code != 1) {
            let is_named = done.stderr.contains("403");
            assert!(is_named || said(done) == said(&whole), "{command:?}: {whole:?}\n{done:?}");
        }
    }
}

/// What a command has written stays, whatever comes after.
#[tokio::test]
async fn a_command_that_cannot_read_on_says_what_it_has_done_so_far() {
    let app = TestApp::start().await;
    app.captured_from_now().await;
    for n in 0..12 {
        app.put(json!({"id": format!("d{n}"), "pk": format!("p{n}"), "n": 1})).await;
    }
    let told = |runs: &[Output], figure: &str| -> u64 {
        let summaries = runs.iter().filter_map(|done| serde_json::from_str::<Value>(&done.stdout).ok());
        summaries.map(|summary| summary[figure].as_u64().unwrap()).sum()
    };
    let versions = async || app.history().await.iter().filter(|item| item.get("_change").is_some()).count() as u64;
    let backfilled = app.run_refused_in_turn(Kind::Query, &["backfill", "--all", "--format", "json"]).await;
    assert!(backfilled.iter().any(|done| done.code == 1), "{backfilled:?}");
    assert_eq!((told(&backfilled, "written"), versions().await), (12, 12), "{backfilled:?}");
    for n in 0..12 {
        app.put(json!({"id": format!("d{n}"), "pk": format!("p{n}"), "n": 2})).await;
    }
    assert_eq!(app.run(&["backfill", "--all"]).await.code, 0);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let prune = ["prune", "--older-than", "0s", "--yes", "--format", "json"];
    let pruned = app.run_refused_in_turn(Kind::Query, &prune).await;
    assert!(pruned.iter().any(|done| done.code == 1), "{pruned:?}");
    assert_eq!((told(&pruned, "removed"), versions().await), (12, 12), "{pruned:?}");
}
