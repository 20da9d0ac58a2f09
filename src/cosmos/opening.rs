//! Opens what takes a while to open once, for all who wait for it. Nobody holds a lock meanwhile: whoever gives up
//! waiting leaves the attempt to the others, and to those who come later.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};

use super::Failure;

type Attempt<T> = Shared<BoxFuture<'static, Result<T, Failure>>>;

/// See the module's description.
pub struct Opening<T: Clone>(Mutex<Option<Attempt<T>>>);

impl<T: Clone> Default for Opening<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> fmt::Debug for Opening<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opening")
    }
}

impl<T: Clone> Opening<T> {
    /// The opened value, or the result of the attempt that is under way; `open` starts one if there is none.
    ///
    /// # Errors
    /// That of the attempt; the next caller starts another one.
    pub async fn get(&self, open: impl FnOnce() -> BoxFuture<'static, Result<T, Failure>>) -> Result<T, Failure> {
        let attempt = self.lock().get_or_insert_with(|| open().shared()).clone();
        let opened = attempt.clone().await;
        if opened.is_err() {
            let mut slot = self.lock();
            if slot.as_ref().is_some_and(|current| current.ptr_eq(&attempt)) {
                *slot = None;
            }
        }
        opened
    }

    /// The opened value, if there is one now.
    pub fn opened(&self) -> Option<T> {
        self.lock().as_ref()?.peek()?.as_ref().ok().cloned()
    }

    /// Forgets the opened value: the next caller opens it anew.
    pub fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Attempt<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };

    use super::*;
    use crate::cosmos::Status;

    fn busy() -> Failure {
        Failure::from_status("connect".into(), Status::new(503, 0), "busy", None)
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_wait_open_it_once_and_one_who_gives_up_holds_nobody_up() {
        let (opening, attempts) = (Arc::new(Opening::<u32>::default()), Arc::new(AtomicU32::new(0)));
        let get = || {
            let (opening, attempts) = (opening.clone(), attempts.clone());
            async move {
                let open = move || {
                    async move {
                        let attempt = attempts.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_secs(10)).await;
                        if attempt == 0 { Err(busy()) } else { Ok(attempt) }
                    }
                    .boxed()
                };
                opening.get(open).await
            }
        };
        let begun = tokio::time::Instant::now();
        assert!(tokio::time::timeout(Duration::from_secs(1), get()).await.is_err());
        let failed = futures::future::join_all((0..16).map(|_| get())).await;
        assert!(failed.iter().all(Result::is_err) && begun.elapsed() == Duration::from_secs(10));
        assert_eq!((attempts.load(Ordering::SeqCst), opening.opened()), (1, None));
        let opened = futures::future::join_all((0..16).map(|_| get())).await;
        assert!(opened.iter().all(|result| matches!(result, Ok(1))));
        assert_eq!((begun.elapsed(), opening.opened()), (Duration::from_secs(20), Some(1)));
        opening.forget();
        assert_eq!((opening.opened(), get().await.unwrap()), (None, 2));
    }
}
