//! An account in memory: one source and its history.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use chrono::{DateTime, Utc};
use futures::{FutureExt as _, future::BoxFuture};

use super::{
    container::{MemoryContainer, SharedAccount},
    history::MemoryHistory,
};
use crate::{
    change::{key::KeyPaths, time::PointInTime},
    config::Names,
    cosmos::{Answer, Failure, FeedRange, Items as _, RuLimiter, RuMeter, Status},
    history::{
        Account, Containers,
        frontier::{Evidence, Frontier, Part, Waiting},
        reading::HistoryReader,
        removals,
    },
};

/// An account with a source, its history, and any number of other containers with the source's key.
#[derive(Debug)]
pub struct MemoryAccount {
    shared: Arc<SharedAccount>,
    /// The live container.
    pub source: Arc<MemoryContainer>,
    /// The container of its history.
    pub changes: Arc<MemoryContainer>,
    others: Mutex<Vec<Arc<MemoryContainer>>>,
    frontier: Mutex<(PointInTime, bool)>,
}

impl MemoryAccount {
    /// Creates the named containers with this key. The history counts as complete, deletes included.
    pub fn new(names: &Names, source: KeyPaths, changes: KeyPaths) -> Self {
        let shared = Arc::new(SharedAccount::default());
        let make = |name: &str, number, paths| Arc::new(MemoryContainer::new(name, number, paths, shared.clone()));
        Self {
            source: make(&names.source, 1, source),
            changes: make(&names.changes, 2, changes),
            others: Mutex::default(),
            frontier: Mutex::new((PointInTime::END, true)),
            shared,
        }
    }

    /// Adds a container keyed as the source.
    pub fn add(&self, name: &str) -> Arc<MemoryContainer> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let number = 3 + u32::try_from(others.len()).unwrap_or_default();
        let paths = self.source.key_paths().clone();
        let container = Arc::new(MemoryContainer::new(name, number, paths, self.shared.clone()));
        others.push(container.clone());
        container
    }

    /// Sets the account's time, epoch seconds.
    pub fn set_time(&self, now: i64) {
        self.shared.now.store(now, Ordering::Relaxed);
    }

    /// Sets how far the history is complete, and whether it has deletes.
    pub fn set_frontier(&self, until: PointInTime, sees_deletes: bool) {
        *self.frontier.lock().unwrap_or_else(PoisonError::into_inner) = (until, sees_deletes);
    }

    /// The history, for capture to write to and for reading.
    pub fn history(&self) -> MemoryHistory {
        MemoryHistory::new(self.changes.clone(), self.source.clone())
    }
}

impl Account for MemoryAccount {
    fn endpoint(&self) -> &str {
        "memory://account"
    }

    fn meter(&self) -> &RuMeter {
        &self.shared.meter
    }

    fn service_time(&self) -> BoxFuture<'_, Option<DateTime<Utc>>> {
        let now = self.shared.now.load(Ordering::Relaxed);
        std::future::ready(DateTime::from_timestamp(now, 0)).boxed()
    }

    fn containers<'a>(&'a self, _: &'a Names, into: Option<&'a str>) -> Answer<'a, Containers> {
        async move {
            let source = self.source.clone();
            let target = match into {
                None => source.clone(),
                Some(name) => {
                    let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
                    others.iter().find(|other| other.name() == name).cloned().ok_or_else(|| {
                        Failure::from_status(format!("open container {name}"), Status::new(404, 0), "not found", None)
                    })?
                }
            };
            Ok(Containers { changes: Arc::new(Self::history(self)), source, target })
        }
        .boxed()
    }

    fn history<'a>(&'a self, _: &'a Names) -> Answer<'a, Arc<dyn HistoryReader>> {
        async move { Ok(Arc::new(Self::history(self)) as Arc<dyn HistoryReader>) }.boxed()
    }

    fn frontier<'a>(&'a self, _: &'a Names, at: Option<PointInTime>, _: &'a RuLimiter) -> Answer<'a, Frontier> {
        async move {
            let (until, sees_deletes) = *self.frontier.lock().unwrap_or_else(PoisonError::into_inner);
            let is_covered = at.is_none_or(|at| until >= at);
            let changes = Self::history(self);
            let made_again = removals::made_again(&changes, Some(self.source.rid())).await?;
            let parts = vec![Part {
                range: FeedRange::full(),
                until: Some(until),
                evidence: Evidence::Reader("memory".into()),
                sees_deletes,
                waiting: if is_covered { Waiting::These(Default::default()) } else { Waiting::Any },
                next: None,
            }];
            let blind_spots = removals::blind_spots_of(&removals::read(&changes).await?, &parts, &changes).await?;
            Ok(Frontier { parts, problems: Vec::new(), blind_spots, made_again, gaps: Vec::new(), trigger: None })
        }
        .boxed()
    }
}
