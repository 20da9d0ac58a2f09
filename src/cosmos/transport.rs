//! Ways to an account other than the network, by its address: what a simulation puts in the network's place.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use azure_data_cosmos_driver::driver::CosmosDriverRuntimeBuilder;
use url::Url;

/// A way to an account that replaces the client library's own.
pub trait Transport: Send + Sync {
    /// Has the client library use it.
    fn install(self: Arc<Self>, client: CosmosDriverRuntimeBuilder) -> CosmosDriverRuntimeBuilder;
    /// The account's time, epoch seconds.
    fn now(&self) -> i64;
}

static INJECTED: Mutex<BTreeMap<String, Arc<dyn Transport>>> = Mutex::new(BTreeMap::new());

fn injected() -> MutexGuard<'static, BTreeMap<String, Arc<dyn Transport>>> {
    INJECTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on clients that connect to the address take this way.
pub fn inject(address: &Url, transport: Arc<dyn Transport>) {
    injected().insert(address.to_string(), transport);
}

/// From here on they take the network again.
pub fn withdraw(address: &Url) {
    injected().remove(address.as_str());
}

/// The way to an address, when it is not the network.
pub(super) fn of(address: &Url) -> Option<Arc<dyn Transport>> {
    injected().get(address.as_str()).cloned()
}
