//! The account's containers, by name.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock as SyncRwLock},
};

use super::{LocalContainer, clock::Clock};
use crate::local::{
    emulator::Emulator,
    message::{ContainerName, GatewayAnswer},
};

/// The containers of the account that have been used so far.
#[derive(Debug)]
pub(in crate::local) struct Containers {
    pub(super) emulator: Arc<Emulator>,
    pub(super) clock: Arc<Clock>,
    pub(super) retained_bytes: usize,
    open: SyncRwLock<HashMap<ContainerName, Arc<LocalContainer>>>,
}

impl Containers {
    pub fn new(emulator: Arc<Emulator>, clock: Arc<Clock>, retained_bytes: usize) -> Self {
        Self { emulator, clock, retained_bytes, open: SyncRwLock::default() }
    }

    /// Returns the container of this name, or the emulator's error response.
    pub async fn get(&self, name: &ContainerName) -> Result<Arc<LocalContainer>, GatewayAnswer> {
        if let Some(found) = self.open.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(Arc::clone(found));
        }
        let opened = LocalContainer::open(
            name.clone(),
            Arc::clone(&self.emulator),
            Arc::clone(&self.clock),
            self.retained_bytes,
        )
        .await?;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(open.entry(name.clone()).or_insert_with(|| Arc::new(opened))))
    }

    pub fn forget(&self, gone: impl Fn(&ContainerName) -> bool) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).retain(|name, _| !gone(name));
    }

    pub fn all(&self) -> Vec<Arc<LocalContainer>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
