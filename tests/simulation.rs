//! The whole product against a model: the real handler under a simulated Functions host, a follower, the commands, and
//! faults. A seed always draws the same run, but not the moment at which a real process is hit.

mod alone;
mod capture;
mod chaos;
mod memory;
pub mod revert;
mod run;
mod world;

use std::{panic::AssertUnwindSafe, time::Duration};

use cosmos_rewind::capture::CaptureLimits;
use futures::{FutureExt as _, StreamExt as _, stream};

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The command that repeats a seed.
fn again(seed: u64) -> String {
    format!("COSMOS_REWIND_SEED={seed} cargo test --test main simulation")
}

/// Capture limits: payloads are taken in pieces of one item, of a few, and as a whole.
fn limits(seed: u64) -> CaptureLimits {
    let piece = [1, 400, 1 << 23][usize::try_from(seed % 3).unwrap()];
    CaptureLimits::new(4, 4, Duration::from_secs(30)).in_pieces_of(piece)
}

/// Plays seeds of a kind, each in one thread without real time: the requested seed, or `count` of them.
fn seed_after_seed(kind: &str, count: u64, play: impl AsyncFn(u64)) {
    let of_kind = |what: &str| number(&format!("COSMOS_REWIND_{kind}_{what}"));
    let seeds = match number("COSMOS_REWIND_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = of_kind("FROM").unwrap_or(0);
            first..first + of_kind("SEEDS").unwrap_or(count)
        }
    };
    let (start, count) = (std::time::Instant::now(), seeds.end - seeds.start);
    let once = |seed: &u64| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(play(*seed))))
    };
    let failed: Vec<String> = seeds.filter(|seed| once(seed).is_err()).map(again).collect();
    println!("{count} seeds in {:.1} s", start.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "repeat with:\n{}", failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_history_is_what_happened_and_commands_keep_their_word() {
    let seeds = match number("COSMOS_REWIND_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..3,
    };
    let runs = stream::iter(seeds).map(|seed| async move {
        let run = AssertUnwindSafe(async { run::Run::start(seed).await.play().await });
        (seed, run.catch_unwind().await)
    });
    let failed: Vec<String> = runs
        .buffer_unordered(2)
        .filter_map(|(seed, result)| async move { result.is_err().then(|| again(seed)) })
        .collect()
        .await;
    assert!(failed.is_empty(), "repeat with:\n{}", failed.join("\n"));
}
