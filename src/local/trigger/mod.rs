//! Simulates the Azure Functions host for an app's functions with a Cosmos DB trigger.
//!
//! `binding` reads the function app's files, `handler` runs its process, `lease` stores what was delivered, and
//! `payload`, `rewrite` and `invoke` build the request and judge the response. The host is imitated exactly, flaws
//! included, because a handler that works here must work in Azure.

mod binding;
mod handler;
mod invoke;
mod lease;
mod options;
mod payload;
mod rewrite;
mod shared;
mod worker;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use self::{
    binding::HostFile,
    handler::HandlerState,
    invoke::Invoker,
    lease::{FirstStart, LeaseStore},
    rewrite::Dates,
    shared::TriggerCounters,
    worker::{TriggerWorker, WatchedSource, coordinate, hold, lsn_of, wait_for_handler},
};
use super::{LocalCosmos, LocalError, message::ContainerName};

pub use self::{
    binding::{BindingError, FunctionBinding, RetryPolicy, TriggerMode},
    options::{HandlerProgram, TriggerError, TriggerOptions},
    shared::TriggerStats,
};

/// How often to check whether everything has been delivered.
const DRAIN_CHECK: Duration = Duration::from_millis(10);

/// A running trigger. It stops on drop; [`Trigger::stop`] also waits for that.
#[derive(Debug)]
pub struct Trigger {
    /// One for each function; never empty.
    workers: Vec<Arc<TriggerWorker>>,
    shared: Arc<TriggerCounters>,
    handler: watch::Receiver<HandlerState>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Trigger {
    /// Starts the handler and the delivery. Returns when every lease has its starting position and the handler is
    /// ready, so that every later change is delivered.
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
        let shared = Arc::new(TriggerCounters::default());
        let (kills, killed) = mpsc::channel(16);
        let (state, handler) = watch::channel(HandlerState::Starting);
        let mut tasks = Vec::new();
        match options.program(&host)? {
            Some(program) => {
                tasks.push(tokio::spawn(handler::supervise(program, state, Arc::clone(&shared), killed, stop.clone())))
            }
            None => {
                if let HandlerProgram::Running(url) = &options.handler {
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
            let watched = Mutex::new(Arc::new(WatchedSource::new(source, leases)));
            let gateway = Arc::clone(&cosmos.gateway);
            workers.push(Arc::new(TriggerWorker { gateway, watched, invoker, dates }));
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

    /// Returns the counters so far.
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

    /// Returns the handler's process id while it runs.
    pub fn handler_pid(&self) -> Option<u32> {
        self.shared.pid()
    }

    /// Waits until every change in the feed has been delivered and acknowledged.
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

    /// Waits until the host gives up because the handler does not keep running; returns the reason.
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

    /// Stops the delivery, then kills the handler without notice, as the host does. Changes that were not acknowledged
    /// are delivered again by the next trigger with the same leases.
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
