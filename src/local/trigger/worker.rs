//! Delivers one function's changes: leases, batches, and obstacles to delivery.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    binding::TriggerMode,
    handler::HandlerState,
    invoke::{InvocationOutcome, Invoker},
    lease::{FirstStart, LeaseStore, LocalLease, overlap},
    options::{DEFAULT_MAX_ITEMS, TriggerError},
    payload::{self, TooDeep},
    rewrite::Dates,
};
use crate::local::{
    container::LocalContainer,
    feed::{PAGE_BYTES, Start},
    gateway::Gateway,
    log::PageLimit,
};

/// How often to check whether the source container was recreated.
const REMADE_CHECK: Duration = Duration::from_millis(200);

/// The watched source container and its leases.
#[derive(Debug)]
pub(super) struct WatchedSource {
    pub(super) source: Arc<LocalContainer>,
    pub(super) leases: LeaseStore,
    /// The lease in progress for each range, with its position.
    pub(super) positions: Mutex<HashMap<String, LocalLease>>,
}

/// The state that lease tasks share.
#[derive(Debug)]
pub(super) struct TriggerWorker {
    pub(super) gateway: Arc<Gateway>,
    /// Replaced after the container was deleted and recreated.
    pub(super) watched: Mutex<Arc<WatchedSource>>,
    pub(super) invoker: Invoker,
    pub(super) dates: Dates,
}

/// Maintains the state of a handler that was started elsewhere and cannot be killed.
pub(super) async fn hold(state: watch::Sender<HandlerState>, mut kills: mpsc::Receiver<u32>, stop: CancellationToken) {
    while stop.run_until_cancelled(kills.recv()).await.flatten().is_some() {
        tracing::warn!("a function timed out; the handler is not ours to restart");
        state.send_modify(|state| {
            if let HandlerState::Ready { generation, .. } = state {
                *generation += 1;
            }
        });
    }
    drop(state);
}

pub(super) async fn wait_for_handler(mut handler: watch::Receiver<HandlerState>) -> Result<(), TriggerError> {
    let state = handler.wait_for(|state| !matches!(state, HandlerState::Starting)).await;
    match state.as_deref() {
        Ok(HandlerState::Stopped(reason)) => Err(TriggerError::Handler(reason.clone())),
        Ok(_) => Ok(()),
        Err(_) => Err(TriggerError::Handler("the handler's supervisor ended".into())),
    }
}

/// Runs one task for each lease, follows splits and merges of the source, and notices when the source is recreated.
pub(super) async fn coordinate(worker: Arc<TriggerWorker>, first: Vec<LocalLease>) {
    let stop = worker.invoker.stop.clone();
    let mut running: JoinSet<String> = JoinSet::new();
    let mut leases = first;
    loop {
        for lease in leases.drain(..) {
            let watched = worker.watched();
            let busy = watched.positions().iter().any(|other| overlap(&other.range, &lease.range));
            if !busy {
                watched.set_position(&lease);
                running.spawn(work(Arc::clone(&worker), watched, lease));
            }
        }
        let ended = tokio::select! {
            () = stop.cancelled() => break,
            ended = running.join_next() => ended,
            () = tokio::time::sleep(REMADE_CHECK) => {
                if worker.follow_remade().await {
                    // Tasks of the earlier container end by themselves.
                    while running.join_next().await.is_some() {}
                    leases = worker.reconcile(FirstStart::Beginning).await;
                }
                continue;
            }
        };
        match ended {
            // The leases could not be read: try again.
            None => {
                if stop.run_until_cancelled(tokio::time::sleep(REMADE_CHECK)).await.is_none() {
                    break;
                }
            }
            Some(Ok(token)) => {
                worker.watched().lock_positions().remove(&token);
            }
            Some(Err(error)) => worker.invoker.shared.failed(&format!("a lease's task ended: {error}")),
        }
        leases = worker.reconcile(FirstStart::of(&worker.invoker.binding)).await;
        if matches!(&*worker.invoker.handler.borrow(), HandlerState::Stopped(_)) {
            break;
        }
    }
    while running.join_next().await.is_some() {}
}

/// Why a lease makes no progress.
enum Obstacle {
    /// The next changes are not kept any more.
    Dropped(String),
    /// The trigger cannot read the next document.
    Unreadable(TooDeep),
}

/// The items of one invocation.
struct Batch {
    items: Vec<String>,
    /// Everything up to and including this LSN was examined.
    up_to: u64,
}

/// Processes one lease until its partition is gone or the trigger is stopped; returns the lease's token.
async fn work(worker: Arc<TriggerWorker>, watched: Arc<WatchedSource>, mut lease: LocalLease) -> String {
    let source = &watched.source;
    let binding = &worker.invoker.binding;
    let stop = &worker.invoker.stop;
    let mut stands_before = None;
    while !stop.is_cancelled() && Arc::ptr_eq(&watched, &worker.watched()) {
        if !source.ranges().iter().any(|range| range.id == lease.token) {
            break;
        }
        let batch = match worker.next_batch(source, &lease).await {
            Ok(batch) => batch,
            Err(Obstacle::Dropped(problem)) => {
                // All versions are kept for a limited time only, as in the service. Continue from now.
                tracing::error!(lease = lease.token, "{problem}");
                worker.invoker.shared.failed(&problem);
                lease.position = Start::After(source.read().await.lsn());
                watched.set_position(&lease);
                continue;
            }
            Err(Obstacle::Unreadable(document)) => {
                // The real trigger retries at every poll, forever; nothing after the document is delivered.
                if stands_before != Some(document.lsn) {
                    stands_before = Some(document.lsn);
                    let problem = format!(
                        "lease {} stands still: document {:?} (LSN {}) is nested 64 levels or more, which the trigger \
                         cannot read",
                        lease.token, document.id, document.lsn
                    );
                    tracing::error!(lease = lease.token, lsn = document.lsn, "{problem}");
                    worker.invoker.shared.failed(&problem);
                }
                if stop.run_until_cancelled(tokio::time::sleep(binding.poll_delay)).await.is_none() {
                    break;
                }
                continue;
            }
        };
        let next = Start::After(batch.up_to);
        if batch.items.is_empty() {
            lease.position = next;
            watched.set_position(&lease);
            if stop.run_until_cancelled(tokio::time::sleep(binding.poll_delay)).await.is_none() {
                break;
            }
            continue;
        }
        match worker.invoker.deliver(&batch.items).await {
            InvocationOutcome::Acknowledged | InvocationOutcome::Lost => {
                lease.position = next;
                if let Err(error) = watched.leases.save(&lease).await {
                    tracing::warn!(lease = lease.token, %error, "the checkpoint was not written");
                    worker.invoker.shared.failed(&error.to_string());
                }
                watched.set_position(&lease);
            }
            InvocationOutcome::Stopped => break,
        }
    }
    lease.token
}

impl WatchedSource {
    pub(super) fn new(source: Arc<LocalContainer>, leases: LeaseStore) -> Self {
        Self { source, leases, positions: Mutex::default() }
    }

    fn lock_positions(&self) -> std::sync::MutexGuard<'_, HashMap<String, LocalLease>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn positions(&self) -> Vec<LocalLease> {
        self.lock_positions().values().cloned().collect()
    }

    fn set_position(&self, lease: &LocalLease) {
        self.lock_positions().insert(lease.token.clone(), lease.clone());
    }
}

impl TriggerWorker {
    pub(super) fn watched(&self) -> Arc<WatchedSource> {
        Arc::clone(&self.watched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the account's current source container if it is not the watched one.
    async fn remade(&self) -> Option<Arc<LocalContainer>> {
        let watched = self.watched();
        let now = self.gateway.container(watched.source.name()).await.ok()?;
        (now.rid() != watched.source.rid()).then_some(now)
    }

    /// Switches to a container that was recreated under the watched name; returns whether there is one.
    async fn follow_remade(&self) -> bool {
        let Some(source) = self.remade().await else { return false };
        let binding = &self.invoker.binding;
        match LeaseStore::open(Arc::clone(&self.gateway), binding, &source).await {
            Ok(leases) => {
                tracing::warn!(
                    function = binding.function,
                    container = %source.name(),
                    "the source container was made again: the trigger reads the new one from its beginning"
                );
                let watched = Arc::new(WatchedSource::new(source, leases));
                *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = watched;
                true
            }
            Err(error) => {
                self.invoker.shared.failed(&error.to_string());
                false
            }
        }
    }

    /// Returns the leases as they should be now. An empty list means that they could not be read; the next attempt may
    /// succeed.
    pub(super) async fn reconcile(&self, start: FirstStart) -> Vec<LocalLease> {
        let watched = self.watched();
        match watched.leases.reconcile(&watched.source, start).await {
            Ok(leases) => leases,
            Err(error) => {
                self.invoker.shared.failed(&error.to_string());
                Vec::new()
            }
        }
    }

    async fn next_batch(&self, source: &LocalContainer, lease: &LocalLease) -> Result<Batch, Obstacle> {
        let items = self.invoker.binding.max_items.unwrap_or(DEFAULT_MAX_ITEMS).max(1);
        let limit = PageLimit { items, bytes: PAGE_BYTES };
        let log = source.read().await;
        let after = lease.position.lsn(&log);
        match self.invoker.binding.mode {
            TriggerMode::Latest => {
                let page = log.latest_after(after, &lease.range, limit);
                let items = page.items.into_iter().map(|document| payload::latest(document, self.dates));
                let items = items.collect::<Result<_, _>>().map_err(Obstacle::Unreadable)?;
                Ok(Batch { items, up_to: page.up_to })
            }
            TriggerMode::AllVersions => {
                let page = log.versions_after(after, &lease.range, limit).map_err(|dropped| {
                    Obstacle::Dropped(format!(
                        "lease {}: versions up to {} are no longer kept and were not delivered",
                        lease.token, dropped.0
                    ))
                })?;
                let paths = &source.partitioning().paths;
                let items = page.items.into_iter().map(|version| payload::version(version, paths, self.dates));
                let items = items.collect::<Result<_, _>>().map_err(Obstacle::Unreadable)?;
                Ok(Batch { items, up_to: page.up_to })
            }
        }
    }

    /// Whether the lease has undelivered changes.
    async fn is_behind(&self, source: &LocalContainer, lease: &LocalLease) -> bool {
        let limit = PageLimit { items: 1, bytes: 1 };
        let log = source.read().await;
        let after = lease.position.lsn(&log);
        match self.invoker.binding.mode {
            TriggerMode::Latest => !log.latest_after(after, &lease.range, limit).items.is_empty(),
            TriggerMode::AllVersions => {
                log.versions_after(after, &lease.range, limit).is_ok_and(|page| !page.items.is_empty())
            }
        }
    }

    /// Whether every partition has a lease, and no lease has undelivered changes.
    pub(super) async fn is_drained(&self) -> bool {
        if self.remade().await.is_some() {
            return false;
        }
        let watched = self.watched();
        let positions = watched.positions();
        for range in watched.source.ranges() {
            let Some(lease) = positions.iter().find(|lease| lease.token == range.id) else { return false };
            if self.is_behind(&watched.source, lease).await {
                return false;
            }
        }
        true
    }
}

pub(super) fn lsn_of(position: Start) -> u64 {
    match position {
        Start::After(lsn) => lsn,
        _ => 0,
    }
}
