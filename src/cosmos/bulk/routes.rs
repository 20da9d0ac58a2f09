//! Finds the physical partition that takes an operation.

use std::sync::{Arc, Mutex, PoisonError};

use azure_data_cosmos_driver::models::EffectivePartitionKey;

use super::carrier::Carrier;
use crate::{change::key::PartitionKey, cosmos::Failure};

/// A place in the container's hash space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cosmos) struct Place(pub(super) EffectivePartitionKey);

/// A physical partition.
#[derive(Debug, Clone)]
pub(in crate::cosmos) struct Route {
    /// Where it begins; it ends where the next one begins.
    pub(super) from: Place,
    /// Its id, which changes when it is split or merged.
    pub(super) range: String,
}

/// The physical partitions, as they were last seen.
#[derive(Debug, Default)]
pub(in crate::cosmos) struct Routes {
    known: Mutex<CachedRoutes>,
    /// Held by the one who asks, so that the others wait for the answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct CachedRoutes {
    routes: Option<Arc<[Route]>>,
    /// Whether the service has said that the partitions have changed.
    stale: bool,
}

impl Routes {
    fn known(&self) -> Option<Arc<[Route]>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.routes.clone().filter(|_| !known.stale)
    }

    /// The partitions; asks for them when they are not known.
    pub(super) async fn get(&self, carrier: &dyn Carrier) -> Result<Arc<[Route]>, Failure> {
        if let Some(routes) = self.known() {
            return Ok(routes);
        }
        let _asking = self.asking.lock().await;
        if let Some(routes) = self.known() {
            return Ok(routes);
        }
        let refresh = self.known.lock().unwrap_or_else(PoisonError::into_inner).stale;
        let routes: Arc<[Route]> = carrier.partitions(refresh).await?.into();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
            CachedRoutes { routes: Some(routes.clone()), stale: false };
        Ok(routes)
    }

    /// Notes that the service has other partitions now.
    pub(super) fn forget(&self, seen: &Arc<[Route]>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have asked again in the meantime.
        if known.routes.as_ref().is_some_and(|routes| Arc::ptr_eq(routes, seen)) {
            known.stale = true;
        }
    }
}

/// Returns the index of the partition that has the items of a key.
pub(super) fn route(carrier: &dyn Carrier, routes: &[Route], key: &PartitionKey) -> Result<usize, Failure> {
    if routes.len() == 1 {
        return Ok(0);
    }
    let place = carrier.place(key)?;
    Ok(routes.partition_point(|route| route.from <= place).saturating_sub(1))
}
