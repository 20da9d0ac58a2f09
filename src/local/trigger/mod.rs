//! Plays the Azure Functions host for the functions of an app that have a Cosmos DB trigger.
//!
//! `binding` reads the function app's files, `handler` runs its process, `lease` remembers what was delivered,
//! `payload`, `rewrite` and `invoke` make the request and judge the answer. Imitated to the letter, flaws included, because a
//! handler that works here must work in Azure.

mod binding;
mod handler;
mod invoke;
mod lease;
mod payload;
mod rewrite;
mod shared;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{FixedOffset, Offset, Utc};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use url::Url;

pub use self::binding::{BindingError, FeedMode, FunctionBinding, RetryPolicy};
pub use self::shared::TriggerStats;

use self::binding::HostFile;
use self::handler::{HandlerState, Program};
use self::invoke::{Delivery, Invoker};
use self::lease::{FirstStart, Lease, LeaseStore, overlap};
use self::payload::TooDeep;
use self::rewrite::Dates;
use self::shared::Shared;
use super::container::Container;
use super::feed::{PAGE_BYTES, Start};
use super::gateway::Gateway;
use super::log::PageLimit;
use super::message::ContainerName;
use super::{LocalCosmos, LocalError};

/// Documents of one invocation unless the function says otherwise.
const DEFAULT_MAX_ITEMS: usize = 100;
/// How often it is looked whether everything has been delivered.
const DRAIN_CHECK: Duration = Duration::from_millis(10);

/// What answers the invocations.
#[derive(Clone, Debug, Default)]
pub enum Handler {
    /// What host.json names; without that, this program with the argument `serve`.
    #[default]
    Default,
    /// This executable, with these arguments (`None`: those of host.json, else `serve`).
    Program {
        /// The executable.
        executable: PathBuf,
        /// Its arguments.
        arguments: Option<Vec<OsString>>,
    },
    /// Something that listens already and is not ours to start: for tests.
    Running(Url),
}

/// How the trigger runs.
#[derive(Clone, Debug)]
pub struct TriggerOptions {
    /// The function app: `host.json` and `<Function>/function.json`. Also the handler's working directory.
    pub app_root: PathBuf,
    /// What answers the invocations.
    pub handler: Handler,
    /// App settings: `%NAME%` in function.json resolves to them, and the handler finds them in its environment.
    pub settings: Vec<(String, String)>,
    /// The only function, instead of those found in `app_root`.
    pub binding: Option<FunctionBinding>,
    /// Overrides the function's feed mode.
    pub mode: Option<FeedMode>,
    /// Overrides the function's wait after an empty poll.
    pub poll_delay: Option<Duration>,
    /// Overrides the function's documents per invocation.
    pub max_items: Option<usize>,
    /// Overrides host.json's `functionTimeout`.
    pub function_timeout: Option<Duration>,
    /// The host's time zone: dates with an offset reach the handler in it.
    pub host_time_zone: FixedOffset,
}

impl TriggerOptions {
    /// The function app in this folder, with nothing overridden, on a host in UTC.
    pub fn new(app_root: impl Into<PathBuf>) -> Self {
        Self {
            app_root: app_root.into(),
            handler: Handler::default(),
            settings: Vec::new(),
            binding: None,
            mode: None,
            poll_delay: None,
            max_items: None,
            function_timeout: None,
            host_time_zone: Utc.fix(),
        }
    }

    /// The functions to run: the one given, those found in the folder, or the one that this project ships.
    fn resolve_bindings(&self) -> Result<Vec<FunctionBinding>, TriggerError> {
        let mut bindings = match &self.binding {
            Some(binding) => vec![binding.clone()],
            None => FunctionBinding::find(&self.app_root, &self.settings)?,
        };
        if bindings.is_empty() {
            bindings.push(FunctionBinding::capture_changes(&self.settings));
        }
        for binding in &mut bindings {
            binding.mode = self.mode.unwrap_or(binding.mode);
            binding.poll_delay = self.poll_delay.unwrap_or(binding.poll_delay);
            binding.max_items = self.max_items.or(binding.max_items);
        }
        Ok(bindings)
    }

    /// The process to start; `None` when the handler runs already.
    fn program(&self, host: &HostFile) -> Result<Option<Program>, TriggerError> {
        let serve = || vec!["serve".to_owned()];
        let listed = || host.arguments.clone().unwrap_or_else(serve).into_iter().map(OsString::from).collect();
        let named = host.executable.as_ref().map(|path| self.app_root.join(path)).filter(|path| path.is_file());
        let (executable, arguments) = match (&self.handler, named) {
            (Handler::Running(_), _) => return Ok(None),
            (Handler::Program { executable, arguments }, _) => {
                (executable.clone(), arguments.clone().unwrap_or_else(listed))
            }
            (Handler::Default, Some(path)) => {
                (path, host.arguments.clone().unwrap_or_default().into_iter().map(OsString::from).collect())
            }
            (Handler::Default, None) => (std::env::current_exe().map_err(TriggerError::Program)?, listed()),
        };
        // The working directory is another one: a relative path would be looked for there. A bare name is a matter
        // of PATH.
        let is_bare = executable.components().count() == 1 && !executable.exists();
        let executable =
            if is_bare { executable } else { std::path::absolute(executable).map_err(TriggerError::Program)? };
        let folder = std::path::absolute(&self.app_root).map_err(TriggerError::Program)?;
        Ok(Some(Program { executable, arguments, folder, settings: self.settings.clone() }))
    }
}

/// Why the trigger does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TriggerError {
    /// The function app's files.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// The account.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The handler's executable could not be determined.
    #[error("find the handler's executable")]
    Program(#[source] std::io::Error),
    /// The HTTP client could not be made.
    #[error("prepare the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The handler does not run, and will not be started again.
    #[error("{0}")]
    Handler(String),
    /// Not everything was delivered in time.
    #[error("{pending} changes were not delivered within {seconds} s{}", last_error.as_ref().map(|error| format!("; last error: {error}")).unwrap_or_default())]
    NotDrained {
        /// How many changes are left, an upper bound.
        pending: u64,
        /// The time given.
        seconds: f64,
        /// The last thing that went wrong.
        last_error: Option<String>,
    },
}

/// A running trigger. Dropped, it stops; [`Trigger::stop`] also waits for that.
#[derive(Debug)]
pub struct Trigger {
    /// One for each function; never empty.
    workers: Vec<Arc<Worker>>,
    shared: Arc<Shared>,
    handler: watch::Receiver<HandlerState>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// How often it is looked whether the source container was made again.
const REMADE_CHECK: Duration = Duration::from_millis(200);

/// The source container that is watched, and the leases on it.
#[derive(Debug)]
struct Watched {
    source: Arc<Container>,
    leases: LeaseStore,
    /// The lease being worked on for each range, and where it stands.
    positions: Mutex<HashMap<String, Lease>>,
}

/// What the lease tasks share.
#[derive(Debug)]
struct Worker {
    gateway: Arc<Gateway>,
    /// Another one when the container was deleted and made again.
    watched: Mutex<Arc<Watched>>,
    invoker: Invoker,
    dates: Dates,
}

impl Trigger {
    /// Starts the handler and delivery. Returns when every lease has its starting point and the handler is ready, so
    /// that a change made from now on is delivered.
    pub async fn start(cosmos: &LocalCosmos, options: TriggerOptions) -> Result<Self, TriggerError> {
        let host = HostFile::read(&options.app_root)?;
        let mut watched = Vec::new();
        for binding in options.resolve_bindings()? {
            let name = ContainerName::new(&binding.database, &binding.container);
            let source = cosmos.gateway.container(&name).await;
            let source =
                source.map_err(|answer| LocalError::refused(format!("open the source container {name}"), &answer))?;
            let leases = LeaseStore::open(Arc::clone(&cosmos.gateway), &binding, &source).await?;
            let first = leases.reconcile(&source, FirstStart::of(&binding)).await?;
            watched.push((binding, source, leases, first));
        }

        let stop = CancellationToken::new();
        let shared = Arc::new(Shared::default());
        let (kills, killed) = mpsc::channel(16);
        let (state, handler) = watch::channel(HandlerState::Starting);
        let mut tasks = Vec::new();
        match options.program(&host)? {
            Some(program) => {
                tasks.push(tokio::spawn(handler::supervise(program, state, Arc::clone(&shared), killed, stop.clone())))
            }
            None => {
                if let Handler::Running(url) = &options.handler {
                    state.send_replace(HandlerState::Ready { url: url.clone(), generation: 0 });
                }
                tasks.push(tokio::spawn(hold(state, killed, stop.clone())));
            }
        }
        let client = invoke::client().map_err(TriggerError::Client)?;
        let mut workers = Vec::new();
        let mut starts = Vec::new();
        for (binding, source, leases, first) in watched {
            let invoker = Invoker {
                client: client.clone(),
                handler: handler.clone(),
                kills: kills.clone(),
                shared: Arc::clone(&shared),
                timeout: options.function_timeout.unwrap_or(host.function_timeout),
                stop: stop.clone(),
                binding,
            };
            let dates = if host.keeps_dates { Dates::Kept } else { Dates::Parsed(options.host_time_zone) };
            let watched = Mutex::new(Arc::new(Watched::new(source, leases)));
            let gateway = Arc::clone(&cosmos.gateway);
            workers.push(Arc::new(Worker { gateway, watched, invoker, dates }));
            starts.push(first);
        }
        let mut trigger = Self { workers, shared, handler: handler.clone(), stop, tasks };
        if let Err(error) = wait_for_handler(handler).await {
            trigger.end().await;
            return Err(error);
        }
        for (worker, first) in trigger.workers.iter().zip(starts) {
            trigger.tasks.push(tokio::spawn(coordinate(Arc::clone(worker), first)));
        }
        Ok(trigger)
    }

    /// The functions that are served.
    pub fn bindings(&self) -> impl Iterator<Item = &FunctionBinding> {
        self.workers.iter().map(|worker| &worker.invoker.binding)
    }

    /// What has been done so far.
    pub async fn stats(&self) -> TriggerStats {
        let mut stats = self.shared.snapshot();
        for worker in &self.workers {
            let watched = worker.watched();
            let positions = watched.positions();
            let log = watched.source.read().await;
            let slowest = positions.iter().map(|lease| log.lsn().saturating_sub(lsn_of(lease.position))).max();
            stats.leases += positions.len() as u64;
            stats.pending += slowest.unwrap_or(0);
        }
        stats
    }

    /// The handler's process id, while it runs.
    pub fn handler_pid(&self) -> Option<u32> {
        self.shared.pid()
    }

    /// Waits until everything in the feed has been delivered and acknowledged.
    pub async fn wait_until_drained(&self, timeout: Duration) -> Result<(), TriggerError> {
        let drained = async {
            for worker in &self.workers {
                while !worker.is_drained().await {
                    if let HandlerState::Stopped(reason) = &*self.handler.borrow() {
                        return Err(TriggerError::Handler(reason.clone()));
                    }
                    tokio::time::sleep(DRAIN_CHECK).await;
                }
            }
            Ok(())
        };
        match tokio::time::timeout(timeout, drained).await {
            Ok(done) => done,
            Err(_) => {
                let stats = self.stats().await;
                Err(TriggerError::NotDrained {
                    pending: stats.pending,
                    seconds: timeout.as_secs_f64(),
                    last_error: stats.last_error,
                })
            }
        }
    }

    /// Waits until the host gives up because the handler cannot be kept running; returns why.
    pub async fn handler_stopped(&self) -> String {
        let mut handler = self.handler.clone();
        loop {
            if let HandlerState::Stopped(reason) = &*handler.borrow_and_update() {
                return reason.clone();
            }
            if handler.changed().await.is_err() {
                return "the trigger was stopped".into();
            }
        }
    }

    /// Ends delivery, then kills the handler, as the host does: without notice. What was not acknowledged is delivered
    /// again by the next trigger on the same leases.
    pub async fn stop(mut self) {
        self.end().await;
    }

    async fn end(&mut self) {
        self.stop.cancel();
        for task in std::mem::take(&mut self.tasks) {
            if let Err(error) = task.await {
                tracing::debug!(%error, "a task of the trigger ended badly");
            }
        }
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Keeps the state of a handler that is not ours: there is nobody to kill.
async fn hold(state: watch::Sender<HandlerState>, mut kills: mpsc::Receiver<u32>, stop: CancellationToken) {
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

async fn wait_for_handler(mut handler: watch::Receiver<HandlerState>) -> Result<(), TriggerError> {
    let state = handler.wait_for(|state| !matches!(state, HandlerState::Starting)).await;
    match state.as_deref() {
        Ok(HandlerState::Stopped(reason)) => Err(TriggerError::Handler(reason.clone())),
        Ok(_) => Ok(()),
        Err(_) => Err(TriggerError::Handler("the handler's supervisor ended".into())),
    }
}

/// Keeps one task for each lease, follows splits and merges of the source, and the source itself when it is made again.
async fn coordinate(worker: Arc<Worker>, first: Vec<Lease>) {
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
                    // Those of the container before end by themselves.
                    while running.join_next().await.is_some() {}
                    leases = worker.reconcile(FirstStart::Beginning).await;
                }
                continue;
            }
        };
        match ended {
            // No lease could be read: it is tried again.
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

/// Why a lease does not get on.
enum Obstacle {
    /// What comes next is no longer kept.
    Dropped(String),
    /// The trigger cannot read what comes next.
    Unreadable(TooDeep),
}

/// Items of one invocation.
struct Batch {
    items: Vec<String>,
    /// Everything up to and including this LSN has been looked at.
    up_to: u64,
}

/// Works on one lease until its partition is gone or the trigger is stopped; returns the lease's token.
async fn work(worker: Arc<Worker>, watched: Arc<Watched>, mut lease: Lease) -> String {
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
                // All versions are kept for a limited time; the service ends in the same corner. Go on from now.
                tracing::error!(lease = lease.token, "{problem}");
                worker.invoker.shared.failed(&problem);
                lease.position = Start::After(source.read().await.lsn());
                watched.set_position(&lease);
                continue;
            }
            Err(Obstacle::Unreadable(document)) => {
                // The real trigger tries again at every poll, for ever; nothing behind the document is delivered.
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
            Delivery::Acknowledged | Delivery::Lost => {
                lease.position = next;
                if let Err(error) = watched.leases.save(&lease).await {
                    tracing::warn!(lease = lease.token, %error, "the checkpoint was not written");
                    worker.invoker.shared.failed(&error.to_string());
                }
                watched.set_position(&lease);
            }
            Delivery::Stopped => break,
        }
    }
    lease.token
}

impl Watched {
    fn new(source: Arc<Container>, leases: LeaseStore) -> Self {
        Self { source, leases, positions: Mutex::default() }
    }

    fn lock_positions(&self) -> std::sync::MutexGuard<'_, HashMap<String, Lease>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn positions(&self) -> Vec<Lease> {
        self.lock_positions().values().cloned().collect()
    }

    fn set_position(&self, lease: &Lease) {
        self.lock_positions().insert(lease.token.clone(), lease.clone());
    }
}

impl Worker {
    fn watched(&self) -> Arc<Watched> {
        Arc::clone(&self.watched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The source container as the account has it now, when it is another one than is watched.
    async fn remade(&self) -> Option<Arc<Container>> {
        let watched = self.watched();
        let now = self.gateway.container(watched.source.name()).await.ok()?;
        (now.rid() != watched.source.rid()).then_some(now)
    }

    /// Turns to the container that was made under the name of the one before; whether there is one.
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
                let watched = Arc::new(Watched::new(source, leases));
                *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = watched;
                true
            }
            Err(error) => {
                self.invoker.shared.failed(&error.to_string());
                false
            }
        }
    }

    /// The leases as they should be now; none when they cannot be read, and the next look may.
    async fn reconcile(&self, start: FirstStart) -> Vec<Lease> {
        let watched = self.watched();
        match watched.leases.reconcile(&watched.source, start).await {
            Ok(leases) => leases,
            Err(error) => {
                self.invoker.shared.failed(&error.to_string());
                Vec::new()
            }
        }
    }

    async fn next_batch(&self, source: &Container, lease: &Lease) -> Result<Batch, Obstacle> {
        let items = self.invoker.binding.max_items.unwrap_or(DEFAULT_MAX_ITEMS).max(1);
        let limit = PageLimit { items, bytes: PAGE_BYTES };
        let log = source.read().await;
        let after = lease.position.lsn(&log);
        match self.invoker.binding.mode {
            FeedMode::Latest => {
                let page = log.latest_after(after, &lease.range, limit);
                let items = page.items.into_iter().map(|document| payload::latest(document, self.dates));
                let items = items.collect::<Result<_, _>>().map_err(Obstacle::Unreadable)?;
                Ok(Batch { items, up_to: page.up_to })
            }
            FeedMode::AllVersions => {
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

    /// Whether there is something that this lease has not delivered.
    async fn is_behind(&self, source: &Container, lease: &Lease) -> bool {
        let limit = PageLimit { items: 1, bytes: 1 };
        let log = source.read().await;
        let after = lease.position.lsn(&log);
        match self.invoker.binding.mode {
            FeedMode::Latest => !log.latest_after(after, &lease.range, limit).items.is_empty(),
            FeedMode::AllVersions => {
                log.versions_after(after, &lease.range, limit).is_ok_and(|page| !page.items.is_empty())
            }
        }
    }

    /// Whether nothing is left: every partition has a lease, and none has anything to read.
    async fn is_drained(&self) -> bool {
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

fn lsn_of(position: Start) -> u64 {
    match position {
        Start::After(lsn) => lsn,
        _ => 0,
    }
}
