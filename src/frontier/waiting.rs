//! Waits until the history is complete up to a moment.

use std::time::Duration;

use crate::{
    change::time::PointInTime,
    cosmos::{Failure, RuLimiter},
    history::{AnyContext, frontier::Frontier},
};

/// The pause between two looks at how far capture is.
const PAUSE: Duration = Duration::from_secs(1);

/// Why it is unknown how far the history reaches.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// Source or history cannot be read.
    #[error("cannot read how far the history reaches")]
    Cosmos(#[from] Failure),
    /// The wait was interrupted.
    #[error("stopped while waiting for capture")]
    Stopped,
}

/// Determines how far the history is complete. With `wait` it waits until the history reaches the moment; for the end
/// of time, until nothing is waiting. Warns about odd leases.
///
/// # Errors
/// When source or history cannot be read, or the context is stopped.
pub async fn reach(
    at: PointInTime,
    wait: bool,
    limiter: &RuLimiter,
    cx: &AnyContext<'_>,
) -> Result<Frontier, WaitError> {
    let mut said = false;
    loop {
        let frontier = cx.account.frontier(cx.names, Some(at), limiter).await?;
        if !said {
            frontier.report_problems(cx.progress);
            if let Some(before) = frontier.blind_spots.dropped_before.filter(|before| at.seconds() < *before) {
                cx.progress.note(&format!(
                    "warning: documents that had been deleted before {} were dropped from the history (prune --drop-deleted): others may have existed at {at}",
                    PointInTime::from_epoch(before)
                ));
            }
            if let Some(life) = frontier.blind_spots.life_around(at, None, None) {
                cx.progress.note(&format!("warning: {life}: others may have existed at {at}"));
            }
            if let Some(begins) = frontier.blind_spots.begins.filter(|begins| at.seconds() < *begins) {
                cx.progress.note(&format!(
                    "warning: every version is in the history only from {} on: others may have existed at {at}",
                    PointInTime::from_epoch(begins)
                ));
            }
            if frontier.blind_spots.awaits_first && at != PointInTime::END {
                cx.progress.note(&format!(
                    "warning: capture has delivered no change yet, so nothing shows since when it runs: others may have existed at {at}"
                ));
            }
        }
        if !wait || frontier.covers(at) {
            return Ok(frontier);
        }
        if !said {
            cx.progress.note(&format!("waiting    {}; Ctrl-C ends it", frontier.describe()));
            said = true;
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = cx.stop.cancelled() => return Err(WaitError::Stopped),
        }
    }
}
