//! Measures how many documents `load` can write when the account is not the bottleneck, against the same endpoint.

use std::{fmt::Write as _, process::Stdio, time::Instant};

use serde_json::json;

use super::{
    Args,
    null::{Endpoint, Writes},
};

/// One run.
struct Run {
    per_second: f64,
    requests: f64,
}

/// Prints the documents per second of `load`, alternating between single and packed writes.
pub async fn load(args: &Args) {
    let count = args.batches * args.documents;
    println!(
        "load --mode upsert, {count} documents x {} bytes, {} ms for a write, {} rounds (median)",
        args.size, args.latency_ms, args.rounds
    );
    println!("| writes | documents/s | requests a document |");
    println!("|---|---|---|");
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("documents.jsonl");
    std::fs::write(&file, documents(count, args.size)).expect("documents");
    let mut runs = [Vec::new(), Vec::new()];
    for _ in 0..args.rounds {
        for (bulk, runs) in ["off", "auto"].into_iter().zip(&mut runs) {
            runs.push(run(args, &file, bulk, count).await);
        }
    }
    let median = |runs: &mut Vec<Run>| {
        runs.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        runs.swap_remove(runs.len() / 2)
    };
    let [alone, packed] = runs.each_mut().map(median);
    for (name, run) in [("alone (REWIND_BULK=off)", &alone), ("packed", &packed)] {
        println!("| {name} | {:.0} | {:.3} |", run.per_second, run.requests);
    }
    println!("packed : alone {:.1}", packed.per_second / alone.per_second);
}

/// Documents with different keys, one per line.
fn documents(count: usize, size: usize) -> String {
    let filler = "x".repeat(size.saturating_sub(60));
    let mut text = String::with_capacity(count * (size + 20));
    for n in 0..count {
        let _ = writeln!(text, r#"{{"id":"document-{n}","pk":"key-{n}","n":{n},"filler":"{filler}"}}"#);
    }
    text
}

async fn run(args: &Args, file: &std::path::Path, bulk: &str, count: usize) -> Run {
    let changes = json!({"id": "changes", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    let endpoint = Endpoint::start(args.behaviour(Writes::Null), "/pk", changes).await;
    let begun = Instant::now();
    let status = tokio::process::Command::new(&args.handler)
        .args(["load", "--no-trailer", "--mode", "upsert"])
        .arg(file)
        .env("CosmosDB", &endpoint.connection)
        .env("REWIND_BULK", bulk)
        .env("REWIND_LOG", "warn")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await
        .expect("the command");
    let elapsed = begun.elapsed().as_secs_f64();
    assert!(status.success(), "load ended with {status}");
    let seen = endpoint.seen.counted();
    assert_eq!(seen.operations, count as f64, "every document was written once");
    Run { per_second: count as f64 / elapsed, requests: seen.requests / count as f64 }
}
