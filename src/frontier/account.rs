//! The account as the use cases see it: its containers, its history, and how far that is complete.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{FutureExt as _, future::BoxFuture};

use super::read;
use crate::{
    change::time::PointInTime,
    config::Names,
    cosmos::{Answer, Cosmos, RuLimiter, RuMeter},
    history::{
        Account, Containers, CosmosContainers, CosmosReader, frontier::Frontier, layout::source_of,
        reading::HistoryReader, removals,
    },
};

impl Account for Cosmos {
    fn endpoint(&self) -> &str {
        Self::endpoint(self)
    }

    fn meter(&self) -> &RuMeter {
        Self::meter(self)
    }

    fn service_time(&self) -> BoxFuture<'_, Option<DateTime<Utc>>> {
        Self::service_time(self).boxed()
    }

    fn containers<'a>(&'a self, names: &'a Names, into: Option<&'a str>) -> Answer<'a, Containers> {
        async move {
            let containers = CosmosContainers::open(self, names).await?.containers();
            Ok(match into {
                None => containers,
                Some(name) => {
                    let target = self.container(&names.database, name).await?;
                    Containers { target: Arc::new(target), ..containers }
                }
            })
        }
        .boxed()
    }

    fn live<'a>(&'a self, names: &'a Names) -> Answer<'a, Containers> {
        async move {
            let source = self.container(&names.database, &names.source).await?;
            Ok(CosmosContainers { changes: source.clone(), source }.containers())
        }
        .boxed()
    }

    fn history<'a>(&'a self, names: &'a Names) -> Answer<'a, Arc<dyn HistoryReader>> {
        async move {
            let changes = self.container(&names.database, &names.changes).await?;
            let source = source_of(changes.key_paths());
            Ok(Arc::new(CosmosReader::new(changes, &source)) as Arc<dyn HistoryReader>)
        }
        .boxed()
    }

    fn frontier<'a>(&'a self, names: &'a Names, at: Option<PointInTime>, pace: &'a RuLimiter) -> Answer<'a, Frontier> {
        async move {
            let containers = CosmosContainers::open(self, names).await?;
            let frontier = read(self, names, &containers, at, pace).await?;
            let changes = containers.containers().changes;
            let made_again = removals::made_again(&*changes, Some(containers.source.rid())).await?;
            Ok(Frontier { made_again, ..frontier })
        }
        .boxed()
    }
}
