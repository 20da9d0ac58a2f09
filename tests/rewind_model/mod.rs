//! An executable model of a container through time, and random histories against which the commands are compared.
//!
//! The model is the plainest there is: it plays the versions in order and stops at T. Histories are written in the
//! documented format (docs/history-format.md), so that the model shares no code with what it is compared to.

mod case;
mod commands;
mod model;

use futures::{StreamExt as _, stream};

use self::case::Case;

/// 2023-11-14T22:13:20Z, the second before the stories begin.
const START: i64 = 1_700_000_000;
/// Seconds in which the documents live; each has many versions, so ties are everywhere.
const SECONDS: i64 = 12;
/// Histories in one case.
const DOCUMENTS: usize = 40;
const SYSTEM: [&str; 5] = ["_rid", "_self", "_etag", "_attachments", "_ts"];

/// Seeds of the cases; one alone with `REWIND_MODEL_SEED=7 cargo test --test main rewind_model`, more of them with
/// `REWIND_MODEL_SEEDS=100`.
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
