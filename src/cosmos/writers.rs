//! Runs many writes concurrently: bounded, retried, counted, and in order for each item.

mod existing;

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Disposition, Failure, Items, RETRY_TIMEOUT, Retry, RuLimiter, Status, gate::ByteBudget, ru_limiter::Underway,
};
use crate::change::key::ItemKey;

/// Writes queued for each writer: enough to keep it busy, few enough to stop soon.
const QUEUE: usize = 4;
/// Bytes of documents that are queued or in flight; the client library holds each several times.
const ROOM: usize = 16 << 20;
/// Writes in flight unless the caller names a number.
const AT_ONCE: usize = 100;
/// Small writes that take the place of one while requests are packed: a request carries many of them.
const SMALL: u32 = 10;
/// The bytes of a small write; one that is larger takes the place of several.
const SMALL_BYTES: usize = 1024;

/// One write.
#[derive(Debug, Clone)]
pub struct WriteJob {
    /// The item.
    pub item: ItemKey,
    /// The action.
    pub action: WriteAction,
}

/// An action on an item.
#[derive(Debug, Clone)]
pub enum WriteAction {
    /// Create or replace it with this JSON text.
    Upsert(Vec<u8>),
    /// Create it with this JSON text; an existing one is left alone. One that was last written before this moment (epoch
    /// seconds), if it is given, was not created by this write, whatever its text.
    Create(Vec<u8>, Option<i64>),
    /// Create it with this JSON text, or replace it when it was last written before this moment (epoch seconds); a
    /// newer one is left alone.
    ReplaceOlder(Vec<u8>, i64),
    /// Delete it; one that is already gone counts as done.
    Delete,
}

impl WriteAction {
    fn bytes(&self) -> usize {
        match self {
            Self::Upsert(body) | Self::Create(body, _) | Self::ReplaceOlder(body, _) => body.len(),
            Self::Delete => 0,
        }
    }
}

/// How many writes may be in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// 100; while writes are packed into common requests and the service does not throttle, up to 1,000 small ones.
    #[default]
    Automatic,
    /// At most this many.
    AtMost(usize),
}

impl From<Option<u16>> for Concurrency {
    fn from(most: Option<u16>) -> Self {
        most.map_or(Self::Automatic, |most| Self::AtMost(most.into()))
    }
}

/// The outcome of the writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteTally {
    /// Items created.
    pub created: u64,
    /// Items replaced.
    pub updated: u64,
    /// Items deleted, or already gone.
    pub deleted: u64,
    /// Items left alone, as the action demands.
    pub skipped: u64,
    /// Writes refused for a reason of their own.
    pub failed: u64,
    /// Writes that were queued but not begun, because the work was told to stop.
    pub left: u64,
}

impl WriteTally {
    /// All writes that succeeded.
    pub fn done(&self) -> u64 {
        self.created + self.updated + self.deleted
    }
}

/// Is told of every write: its item, and the failure if there was one.
pub type Observer = Arc<dyn Fn(&ItemKey, Option<&Failure>) + Send + Sync>;

/// Writers that share one container. The writes of one item are carried out in the order in which they were sent.
pub struct Writers {
    queue: mpsc::UnboundedSender<Queued>,
    /// Limits of queued and running writes: their number, and their bytes.
    places: Arc<Semaphore>,
    room: ByteBudget,
    workers: JoinSet<()>,
    shared: Arc<Shared>,
}

/// A write, and what it holds until it is done.
struct Queued {
    job: WriteJob,
    _held: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

struct Shared {
    queued: tokio::sync::Mutex<mpsc::UnboundedReceiver<Queued>>,
    /// How many small writes take the place of one: 1 when each counts the same.
    small: u32,
    /// Limit of the operations in flight, in small writes.
    in_flight: Semaphore,
    /// Whether the service held a write back: more in flight would only wait longer.
    is_throttled: AtomicBool,
    /// The items that are being written, each with the writes that came for it meanwhile.
    busy: Mutex<HashMap<ItemKey, VecDeque<Queued>>>,
    container: Arc<dyn Items>,
    pace: RuLimiter,
    observer: Observer,
    created: AtomicU64,
    updated: AtomicU64,
    deleted: AtomicU64,
    skipped: AtomicU64,
    failed: AtomicU64,
    left: AtomicU64,
    /// Set by the first failure that every other write would meet as well.
    fatal: Mutex<Option<Failure>>,
    stop: CancellationToken,
}

impl Writers {
    /// Starts writers, held back to the limit of `pace`. Once `stop` is cancelled no further write is begun, and those
    /// in progress are finished.
    pub fn start(
        container: Arc<dyn Items>,
        concurrency: Concurrency,
        pace: RuLimiter,
        observer: Observer,
        stop: &CancellationToken,
    ) -> Self {
        let (concurrency, small) = match concurrency {
            Concurrency::Automatic if container.packs() => (AT_ONCE * SMALL as usize, SMALL),
            Concurrency::Automatic => (AT_ONCE, 1),
            Concurrency::AtMost(most) => (most.max(1), 1),
        };
        let (queue, queued) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            queued: tokio::sync::Mutex::new(queued),
            small,
            in_flight: Semaphore::new(concurrency),
            is_throttled: AtomicBool::new(false),
            busy: Mutex::default(),
            container,
            pace,
            observer,
            created: AtomicU64::new(0),
            updated: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            left: AtomicU64::new(0),
            fatal: Mutex::new(None),
            stop: stop.child_token(),
        });
        let mut workers = JoinSet::new();
        for _ in 0..concurrency {
            let shared = shared.clone();
            workers.spawn(async move {
                while let Some(first) = shared.next().await {
                    let mut next = Some(first);
                    while let Some(Queued { job, _held }) = next {
                        let item = job.item.clone();
                        match shared.stop.run_until_cancelled(shared.admit(&job.action)).await {
                            Some(_place) => shared.write(job).await,
                            None => drop(shared.left.fetch_add(1, Ordering::Relaxed)),
                        }
                        next = shared.next_of(item);
                    }
                }
            });
        }
        let places = Arc::new(Semaphore::new(concurrency * (1 + QUEUE)));
        Self { queue, places, room: ByteBudget::new(ROOM), workers, shared }
    }

    /// Queues a write; waits while too many are queued. Returns false when the writers have stopped: nothing more will
    /// be written.
    pub async fn send(&self, job: WriteJob) -> bool {
        let sent = async {
            let room = self.room.take(job.action.bytes()).await.ok()?;
            let place = self.places.clone().acquire_owned().await.ok()?;
            self.queue.send(Queued { job, _held: (room, place) }).ok()
        };
        tokio::select! {
            () = self.shared.stop.cancelled() => false,
            sent = sent => sent.is_some(),
        }
    }

    /// Waits for the queued writes. The failure is the one that stopped them all, if there was one.
    pub async fn finish(mut self) -> (WriteTally, Option<Failure>) {
        drop(self.queue);
        while self.workers.join_next().await.is_some() {}
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let tally = WriteTally {
            created: load(&self.shared.created),
            updated: load(&self.shared.updated),
            deleted: load(&self.shared.deleted),
            skipped: load(&self.shared.skipped),
            failed: load(&self.shared.failed),
            left: load(&self.shared.left),
        };
        let fatal = self.shared.fatal.lock().unwrap_or_else(PoisonError::into_inner).take();
        (tally, fatal)
    }
}

impl Shared {
    /// The next write of an item that nobody is writing; `None` when there will be none. A write of an item that is
    /// being written is left to whoever does that.
    async fn next(&self) -> Option<Queued> {
        // Held until the item is known to be busy: otherwise a later write of it could be faster.
        let mut queued = self.queued.lock().await;
        loop {
            let next = queued.recv().await?;
            match self.busy.lock().unwrap_or_else(PoisonError::into_inner).entry(next.job.item.clone()) {
                Entry::Occupied(mut behind) => behind.get_mut().push_back(next),
                Entry::Vacant(free) => {
                    free.insert(VecDeque::new());
                    return Some(next);
                }
            }
        }
    }

    /// The next write of an item that was just written; without one, the item is free again.
    fn next_of(&self, item: ItemKey) -> Option<Queued> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut behind) = busy.entry(item) else { return None };
        let next = behind.get_mut().pop_front();
        if next.is_none() {
            behind.remove();
        }
        next
    }

    /// Waits until a write may begin.
    async fn admit(&self, action: &WriteAction) -> Option<(SemaphorePermit<'_>, Underway)> {
        let underway = self.pace.begin().await;
        let is_packed = self.container.packs() && !self.is_throttled.load(Ordering::Relaxed);
        let places = match action {
            // It reads before it writes, and reads are not packed.
            WriteAction::ReplaceOlder(..) => self.small,
            _ if !is_packed => self.small,
            _ => u32::try_from(action.bytes().div_ceil(SMALL_BYTES)).unwrap_or(self.small).clamp(1, self.small),
        };
        // It is never closed.
        self.in_flight.acquire_many(places).await.ok().map(|place| (place, underway))
    }

    async fn write(&self, job: WriteJob) {
        let retry = Retry::for_at_most(RETRY_TIMEOUT);
        let (key, id) = (&job.item.partition_key, job.item.id.as_str());
        let result = match &job.action {
            WriteAction::Upsert(body) => retry
                .run(|| self.container.upsert(key, id, body.clone()))
                .await
                .map(|written| if written.created { &self.created } else { &self.updated }),
            WriteAction::Create(body, since) => self.create(&retry, &job.item, body, *since).await,
            WriteAction::ReplaceOlder(body, moment) => self.replace_older(&retry, &job.item, body, *moment).await,
            WriteAction::Delete => match retry.run(|| self.container.delete(key, id, None)).await {
                // A plain 404; 404/1003 would mean the container.
                Err(f) if f.status == Status::NO_ITEM => Ok(&self.deleted),
                other => other.map(|_| &self.deleted),
            },
        };
        if retry.count() > 0 {
            self.is_throttled.store(true, Ordering::Relaxed);
        }
        match result {
            Ok(counter) => {
                counter.fetch_add(1, Ordering::Relaxed);
                (self.observer)(&job.item, None);
            }
            Err(failure) if is_fatal(&failure) => {
                self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                self.stop.cancel();
            }
            Err(failure) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                (self.observer)(&job.item, Some(&failure));
            }
        }
    }
}

/// Whether every other write would fail for the same reason.
fn is_fatal(failure: &Failure) -> bool {
    matches!(
        failure.disposition,
        Disposition::Denied | Disposition::NotFound | Disposition::Stale | Disposition::Transient
    )
}
