//! Transports other than the network, by the account's address: a simulation puts one in the network's place.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use azure_data_cosmos_driver::driver::CosmosDriverRuntimeBuilder;
use url::Url;

/// A transport that replaces the client library's own.
pub trait Transport: Send + Sync {
    /// Makes the client library use it.
    fn install(self: Arc<Self>, client: CosmosDriverRuntimeBuilder) -> CosmosDriverRuntimeBuilder;
    /// The account's time, epoch seconds.
    fn now(&self) -> i64;
}

static INJECTED: Mutex<BTreeMap<String, Arc<dyn Transport>>> = Mutex::new(BTreeMap::new());

fn injected() -> MutexGuard<'static, BTreeMap<String, Arc<dyn Transport>>> {
    INJECTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on clients that connect to the address use this transport.
pub fn inject(address: &Url, transport: Arc<dyn Transport>) {
    injected().insert(address.to_string(), transport);
}

/// From now on they use the network again.
pub fn withdraw(address: &Url) {
    injected().remove(address.as_str());
}

/// The transport for an address, when it is not the network.
pub(super) fn of(address: &Url) -> Option<Arc<dyn Transport>> {
    injected().get(address.as_str()).cloned()
}
