//! Retries what fails temporarily, until a deadline.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Disposition, Failure, Status};

/// How long a command retries the transient failures of one operation before it considers the service out of reach.
pub const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Retries transient failures until a deadline, waiting as long as the service asks, otherwise longer each time.
#[derive(Debug, Clone)]
pub struct Retry {
    deadline: Instant,
    /// Whether an operation without an answer is given up at the deadline.
    gives_up: bool,
    retries: Arc<AtomicU64>,
    /// Why something was tried again last; taken by those who tell it.
    reason: Arc<Mutex<Option<String>>>,
}

/// How long work may take before it is told why something is tried again, and how often it is told then.
const TELLING: Duration = Duration::from_secs(10);

impl Retry {
    /// Retries for at most `patience` from now on.
    pub fn for_at_most(patience: Duration) -> Self {
        Self { deadline: Instant::now() + patience, gives_up: false, retries: Arc::default(), reason: Arc::default() }
    }

    /// The same; and an operation without an answer by then is given up: nobody knows whether it was carried out. For
    /// work that is repeated as a whole, and whose caller waits for an answer.
    pub fn answering_within(patience: Duration) -> Self {
        Self { gives_up: true, ..Self::for_at_most(patience) }
    }

    /// Whether a failed operation may have been carried out all the same, by an attempt before the one that was
    /// answered: one of ours, or one of the client library's.
    pub fn may_be_done(&self, failure: &Failure) -> bool {
        self.count() > 0 || failure.sent_before
    }

    /// How many retries there were.
    pub fn count(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Runs work that retries with this one to its end. As long as it lasts, `tell` is given the reason of the newest
    /// retry every now and then.
    pub async fn telling<T>(&self, tell: impl Fn(&str), work: impl Future<Output = T>) -> T {
        let mut work = Box::pin(work);
        loop {
            if let Ok(done) = tokio::time::timeout(TELLING, &mut work).await {
                return done;
            }
            let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).take();
            reason.iter().for_each(|reason| tell(reason));
        }
    }

    /// Remembers why something is tried again.
    pub(super) fn note(&self, failure: &Failure) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.to_string());
    }

    /// Runs `operation` until it succeeds, fails for good, or the deadline would pass while waiting.
    ///
    /// # Errors
    /// The last failure.
    pub async fn run<T, F>(&self, operation: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.run_while(|_| true, operation).await
    }

    /// The same for what comes before any item, such as a container's definition. An account that does not answer at
    /// all is not asked again: its address may be wrong.
    pub(super) async fn run_answered<T, F>(&self, mut operation: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        // Boxed: in an unoptimized build each layer around the client library's large futures needs their size anew,
        // and the callers of these are deep.
        self.run_while(|status| !status.is_out_of_reach(), || Box::pin(operation())).await
    }

    async fn run_while<T, F>(
        &self,
        may_change: impl Fn(Status) -> bool,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut tries = 0;
        // The reason for the retry says more than that the last attempt came too late.
        let mut reason: Option<Failure> = None;
        loop {
            let Some(result) = self.before_deadline(operation()).await else {
                return Err(reason.unwrap_or_else(Self::no_answer));
            };
            let failure = match result {
                Err(failure) if failure.disposition == Disposition::Transient && may_change(failure.status) => failure,
                other => return other,
            };
            let pause = failure.retry_after.unwrap_or_else(|| Self::pause(tries));
            let Some(pause) = self.next_pause(pause, 1) else { return Err(failure) };
            self.note(&failure);
            tokio::time::sleep(pause).await;
            tries += 1;
            reason = Some(failure);
        }
    }

    /// The pause after this many failures, when the service asks for none.
    pub(super) fn pause(tries: u32) -> Duration {
        Duration::from_millis(20).saturating_mul(1 << tries.min(10)).min(Duration::from_secs(5))
    }

    /// The pause before this many operations are tried again, counted as begun; `None` when the deadline would pass.
    pub(super) fn next_pause(&self, pause: Duration, operations: usize) -> Option<Duration> {
        // A part of it is random, so that writers that failed together do not come back together.
        let pause = pause.mul_f64(crate::chance::jitter());
        if Instant::now() + pause >= self.deadline {
            return None;
        }
        self.retries.fetch_add(operations as u64, Ordering::Relaxed);
        Some(pause)
    }

    /// The result of a future; `None` at the deadline, when operations without an answer are given up.
    pub(super) async fn before_deadline<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        if self.gives_up { tokio::time::timeout_at(self.deadline, future).await.ok() } else { Some(future.await) }
    }

    /// The failure of an operation that was given up.
    pub(super) fn no_answer() -> Failure {
        let mut failure = Failure::from_status(
            "wait".into(),
            Status::new(408, 0),
            "the service has not answered before the deadline",
            None,
        );
        failure.sent_before = true;
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_answer_is_given_up_at_the_deadline_when_that_is_asked_for() {
        let begun = Instant::now();
        let retry = Retry::answering_within(Duration::from_secs(3));
        let result: Result<(), _> = retry.run(std::future::pending).await;
        let failure = result.unwrap_err();
        assert_eq!((failure.disposition, failure.sent_before), (Disposition::Transient, true));
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
        assert_eq!(retry.run(|| std::future::ready(Ok(7))).await.unwrap(), 7, "what is ready needs no time");
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_lasts_tells_why_it_is_tried_again() {
        // Pauses that the service asks for, which chance makes no longer than the five seconds that are left at the end.
        let pause = Some(Duration::from_secs(1));
        let busy = |code| Failure::from_status("write".into(), Status::new(code, 0), "busy", pause);
        let told = Mutex::new(Vec::new());
        let (begun, retry) = (Instant::now(), Retry::for_at_most(Duration::from_secs(600)));
        let tell = |reason: &str| told.lock().unwrap().push((begun.elapsed().as_secs(), reason.to_owned()));
        let work = async || if begun.elapsed().as_secs() < 25 { Err(busy(503)) } else { Ok(()) };
        retry.telling(tell, retry.run(work)).await.unwrap();
        let told = std::mem::take(&mut *told.lock().unwrap());
        let reason = busy(503).to_string();
        assert_eq!(told, [(10, reason.clone()), (20, reason)]);
        // What is quickly over, and what only takes long, says nothing.
        let tell = |reason: &str| panic!("{reason}");
        let work = tokio::time::sleep(Duration::from_secs(60));
        Retry::for_at_most(Duration::from_secs(1)).telling(tell, work).await;
    }

    #[tokio::test(start_paused = true)]
    async fn retries_wait_as_long_as_the_service_asks_and_stop_at_the_deadline() {
        let retry = Retry::for_at_most(Duration::from_secs(10));
        let start = Instant::now();
        let failure =
            Failure::from_status("write".into(), Status::new(429, 3200), "slow down", Some(Duration::from_secs(3)));
        let result: Result<(), _> = retry.run(|| std::future::ready(Err(failure.clone()))).await;
        assert_eq!(result.unwrap_err().status, Status::new(429, 3200));
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!((2..=4).contains(&retry.count()), "{}", retry.count());
    }

    #[tokio::test]
    async fn what_will_never_succeed_is_not_tried_again() {
        let retry = Retry::for_at_most(Duration::from_secs(10));
        let failure = Failure::from_status("write".into(), Status::new(400, 0), "bad", None);
        let result: Result<(), _> = retry.run(|| std::future::ready(Err(failure.clone()))).await;
        assert_eq!(result.unwrap_err().disposition, Disposition::Poison);
        assert_eq!(retry.count(), 0);
    }
}
