//! Compares the commands with an executable model of a container through time, on random histories.
//!
//! The model replays the versions in order and stops at the moment. Histories are written in the documented format
//! (docs/history-format.md), so the model shares no code with the program.

mod case;
mod commands;
mod model;

use futures::{StreamExt as _, stream};

use self::case::Case;

/// 2023-11-14T22:13:20Z, the second before the histories begin.
const START: i64 = 1_700_000_000;
/// The seconds that a history spans. Documents have many versions, so ties are frequent.
const SECONDS: i64 = 12;
/// The number of documents in one case.
const DOCUMENTS: usize = 40;
const SYSTEM: [&str; 5] = ["_rid", "_self", "_etag", "_attachments", "_ts"];

/// The seeds of the cases. `REWIND_MODEL_SEED=7 cargo test --test main rewind_model` runs one seed,
/// `REWIND_MODEL_SEEDS=100` runs more.
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("REWIND_MODEL_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("REWIND_MODEL_SEEDS").unwrap_or(4)).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_agrees_with_the_model_of_random_histories() {
    let cases = stream::iter(seeds()).map(|seed| async move {
        let case = tokio::spawn(async move { Case::start(seed).await.play().await });
        (seed, case.await)
    });
    let failed: Vec<u64> = cases
        .buffer_unordered(2)
        .filter_map(|(seed, result)| async move { result.is_err().then_some(seed) })
        .collect()
        .await;
    let again: Vec<String> =
        failed.iter().map(|s| format!("REWIND_MODEL_SEED={s} cargo test --test main rewind_model")).collect();
    assert!(failed.is_empty(), "repeat with:\n{}", again.join("\n"));
}
