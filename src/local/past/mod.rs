//! The past as an account: containers as they were at a moment, for any SDK, filled from their histories in the
//! background.

mod changed;
mod description;
mod loading;
mod request;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;

pub use self::request::{Loaded, PastError, PastRequest, UNKNOWN};
use self::{
    changed::ForkChanges,
    loading::{Fetching, Loader},
    request::OVERHEAD,
};
use super::{
    LocalCosmos, LocalError, LocalOptions,
    container::{Fetch, Loading, LocalContainer, Past},
    message::ContainerName,
};
use crate::{
    causes::chain,
    change::{shape::Redactor, time::PointInTime},
    context::Context,
    cosmos::RuLimiter,
    fork::CHANGED,
    frontier::waiting::reach,
    history::{Account as _, scan::Scope},
    progress::ProgressStep,
    status::size,
};

/// An account that shows a moment of the past.
pub struct PastAccount {
    local: LocalCosmos,
    at: PointInTime,
    loaders: Vec<Arc<Loader>>,
    concurrency: usize,
}

impl fmt::Debug for PastAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PastAccount").field("local", &self.local).finish_non_exhaustive()
    }
}

impl PastAccount {
    /// Starts the account. Nothing is loaded yet, but documents that are read by id are fetched.
    ///
    /// # Errors
    /// When a container or a port cannot be opened, or the documents would need too much memory.
    pub async fn start(request: &PastRequest, cx: &Context<'_>) -> Result<Self, PastError> {
        let most = request.max_memory;
        if request.predicate.is_none() {
            let mut needed = 0;
            for names in &request.sources {
                // The size of the live container is a rough estimate; the history does not record it.
                let source = cx.account.container(&names.database, &names.source).await?;
                let size = size::size(&source, async |_| ()).await?;
                needed += size.estimate() + size.items * OVERHEAD;
            }
            if needed > most {
                return Err(PastError::TooLarge { needed, most });
            }
        }
        let limiter = RuLimiter::new(cx.account.meter(), request.ru_limit);
        let retained_bytes = if request.writable { LocalOptions::default().retained_bytes } else { 0 };
        let options = LocalOptions { port: request.port, retained_bytes, ..LocalOptions::default() };
        let local = LocalCosmos::start(options).await?;
        let mut loaders = Vec::new();
        for names in &request.sources {
            let any = cx.any();
            let containers = cx.account.containers(names, None).await?;
            let frontier = reach(request.at, request.wait, &limiter, &Context { names, ..any }).await?;
            let keys = containers.source.key_paths();
            let redactor = Redactor::new(&[], &request.mask, keys, Some(request.mask_key.clone()));
            local.create_database(&names.database).await?;
            description::create(&local, cx.account, (names, keys), &request.mask, cx.progress).await?;
            create_list(&local, &names.database, UNKNOWN).await?;
            let open = |name| opened(&local, &names.database, name);
            let loader = Arc::new(Loader {
                account: cx.account.clone(),
                names: (*names).clone(),
                database: names.database.clone(),
                source: names.source.clone(),
                at: request.at,
                containers,
                beyond: !frontier.covers(request.at),
                frontier,
                limiter: limiter.clone(),
                scope: match &request.predicate {
                    Some(predicate) => Scope::Then { predicate: predicate.clone(), params: request.params.clone() },
                    None => Scope::All,
                },
                redactor: redactor.map_err(PastError::Mask)?,
                writable: request.writable,
                container: open(&names.source).await?,
                unknown: open(UNKNOWN).await?,
                most,
                documents: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                unknowns: AtomicU64::new(0),
                caveats: Mutex::default(),
            });
            loader.unknown.show_past(Arc::new(Past::kept(request.at.to_string(), None))).await;
            if request.writable {
                loader.container.remember_originals().await;
            }
            let fetch =
                request.predicate.is_none().then(|| Arc::new(Fetching(Arc::downgrade(&loader))) as Arc<dyn Fetch>);
            loader.container.show_past(Arc::new(Past::new(request.at.to_string(), request.partial, fetch))).await;
            loaders.push(loader);
        }
        if request.writable {
            keep_changed(&local, &loaders, cx.account.endpoint()).await?;
        } else {
            let names: Vec<&str> = request.sources.iter().map(|names| names.source.as_str()).collect();
            local.gateway.freeze(format!(
                "This account shows {} as of {} and cannot be changed; started with --writable it is a copy that can",
                names.join(", "),
                request.at
            ));
        }
        Ok(Self { local, at: request.at, loaders, concurrency: request.concurrency })
    }

    /// The account.
    pub fn account(&self) -> &LocalCosmos {
        &self.local
    }

    /// The moment.
    pub fn at(&self) -> PointInTime {
        self.at
    }

    /// Loads all documents. Warns about records that cannot be parsed.
    ///
    /// # Errors
    /// When the captured account cannot be read, or the documents need more memory than is allowed. Queries are then
    /// refused.
    pub async fn load(&self, step: &dyn ProgressStep) -> Result<Loaded, PastError> {
        let mut loaded = Loaded::default();
        for loader in &self.loaders {
            let done = loader.load(self.concurrency, step).await;
            let how = match &done {
                Ok(()) => Loading::Done,
                Err(error) => Loading::Failed(chain(error)),
            };
            if let Some(past) = loader.container.past() {
                past.ended(how);
            }
            done?;
            loaded.documents += loader.documents.load(Ordering::Relaxed);
            loaded.unknown += loader.unknowns.load(Ordering::Relaxed);
            loaded.bytes += loader.bytes.load(Ordering::Relaxed);
            loaded.beyond |= loader.beyond;
            for (caveat, count) in &*loader.caveats.lock().unwrap_or_else(PoisonError::into_inner) {
                *loaded.caveats.entry(caveat).or_default() += count;
            }
        }
        Ok(loaded)
    }

    /// Closes the port and waits for that for at most two seconds.
    pub async fn shutdown(self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.local.shutdown()).await;
    }
}

async fn opened(local: &LocalCosmos, database: &str, name: &str) -> Result<Arc<LocalContainer>, LocalError> {
    let name = ContainerName::new(database, name);
    let opened = local.gateway.container(&name).await;
    opened.map_err(|answer| LocalError::refused(format!("open {name}"), &answer))
}

/// Creates a container in which this account lists documents, keyed by the container that they belong to.
async fn create_list(local: &LocalCosmos, database: &str, name: &str) -> Result<(), LocalError> {
    let key = json!({"paths": ["/container"], "kind": "Hash", "version": 2});
    local.create_container(database, json!({"id": name, "partitionKey": key})).await.map(drop)
}

/// From now on, lists the changed documents of the copies; `account` is the account that was copied.
async fn keep_changed(local: &LocalCosmos, loaders: &[Arc<Loader>], account: &str) -> Result<(), LocalError> {
    for loader in loaders {
        let own = loaders.iter().filter(|other| other.database == loader.database);
        create_list(local, &loader.database, CHANGED).await?;
        let past = Past::kept(loader.at.to_string(), Some(Arc::new(ForkChanges::of(account, own))));
        // The list of a database is shared by all of its containers.
        opened(local, &loader.database, CHANGED).await?.show_past(Arc::new(past)).await;
    }
    Ok(())
}
