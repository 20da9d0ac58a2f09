//! Retries operations that are sent together, each for its own reason.

use std::{collections::BTreeMap, time::Duration};

use futures::{
    FutureExt as _, StreamExt as _,
    stream::{BoxStream, SelectAll},
};

use super::BulkOutcomes;
use crate::cosmos::{Disposition, Failure, Retry};

/// Pauses are rounded up to this, so that operations with similar pauses go together again.
const TOGETHER: Duration = Duration::from_millis(16);

impl Retry {
    /// Runs `count` operations until each of them has succeeded, has failed for good, or would be retried after the
    /// deadline. `send` is given their numbers. Those that fail temporarily are sent again without waiting for the
    /// others, after the pause that the service asks for.
    ///
    /// # Errors
    /// For each operation, its last failure.
    pub async fn run_many<'a, T: Send + 'a>(
        &self,
        count: usize,
        send: impl Fn(Vec<usize>) -> BoxStream<'a, BulkOutcomes<T>> + Sync,
    ) -> Vec<Result<T, Failure>> {
        let send = &send;
        let mut results: Vec<Option<Result<T, Failure>>> = (0..count).map(|_| None).collect();
        let mut tries = vec![0; count];
        let mut running: SelectAll<BoxStream<'_, BulkOutcomes<T>>> = SelectAll::new();
        running.push(send((0..count).collect()));
        // `None` at the deadline, too: what has no answer by then is given up.
        while let Some(outcomes) = self.before_deadline(running.next()).await.flatten() {
            let mut again: BTreeMap<u128, Vec<usize>> = BTreeMap::new();
            for (number, result) in outcomes {
                if let Err(failure) = &result
                    && failure.disposition == Disposition::Transient
                {
                    let pause = failure.retry_after.unwrap_or_else(|| Self::pause(tries[number]));
                    tries[number] += 1;
                    self.note(failure);
                    again.entry(pause.as_millis().div_ceil(TOGETHER.as_millis())).or_default().push(number);
                }
                results[number] = Some(result);
            }
            for (pause, numbers) in again {
                let pause = TOGETHER * u32::try_from(pause).unwrap_or(u32::MAX);
                let Some(pause) = self.next_pause(pause, numbers.len()) else { continue };
                let resent = async move {
                    tokio::time::sleep(pause).await;
                    send(numbers)
                };
                running.push(resent.flatten_stream().boxed());
            }
        }
        results.into_iter().map(|result| result.unwrap_or_else(|| Err(Self::no_answer()))).collect()
    }
}
