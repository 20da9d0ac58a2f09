//! A MongoDB collection whose history is in an account of Cosmos DB, as the use cases see both.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{FutureExt as _, future::BoxFuture};

use super::leases::leases;
use crate::{
    change::{key::KeyPaths, time::PointInTime},
    config::Names,
    cosmos::{Answer, Cosmos, FeedMode, FeedRange, RuLimiter, RuMeter},
    follow::Checkpoint,
    history::{
        Account, Containers, CosmosReader,
        frontier::{Evidence, Frontier, Part, Waiting},
        reading::{HistoryReader, Which},
    },
    mongo::{Mongo, MongoCollection, place_of, read_until},
};

/// A collection and the account of its history.
#[derive(Debug, Clone)]
pub struct MongoAccount {
    /// Where the history is.
    pub cosmos: Cosmos,
    /// Where the documents are.
    pub mongo: Mongo,
    /// The collection's database.
    pub database: String,
    /// The collection.
    pub collection: String,
}

impl MongoAccount {
    async fn open(&self, name: &str) -> Result<Arc<MongoCollection>, crate::cosmos::Failure> {
        MongoCollection::open(self.mongo.clone(), &self.database, name).await.map(Arc::new)
    }

    /// The last second of which a follower has delivered everything.
    async fn until(&self, follower: &Checkpoint) -> Option<PointInTime> {
        let mut ends = Vec::new();
        for range in &follower.ranges {
            ends.push(read_until(&range.token)?);
        }
        let (seconds, increment) = ends.into_iter().min()?;
        // Nothing was written since.
        let latest = self.mongo.latest_time().await.ok().flatten();
        let is_all = latest.is_some_and(|latest| latest <= (seconds, increment));
        // Otherwise others of that second may be missing.
        Some(if is_all { PointInTime::END } else { PointInTime::from_epoch(i64::from(seconds) - 1) })
    }
}

impl Account for MongoAccount {
    fn endpoint(&self) -> &str {
        self.mongo.shown()
    }

    fn database<'a>(&'a self, _: &'a Names) -> &'a str {
        &self.database
    }

    fn meter(&self) -> &RuMeter {
        self.cosmos.meter()
    }

    fn now(&self) -> BoxFuture<'_, DateTime<Utc>> {
        self.cosmos.now().boxed()
    }

    fn containers<'a>(&'a self, names: &'a Names, into: Option<&'a str>) -> Answer<'a, Containers> {
        async move {
            let changes = self.history(names).await?;
            let source = self.open(&self.collection).await?;
            let target = match into {
                None => source.clone(),
                Some(name) => self.open(name).await?,
            };
            Ok(Containers { changes, source, target })
        }
        .boxed()
    }

    fn history<'a>(&'a self, names: &'a Names) -> Answer<'a, Arc<dyn HistoryReader>> {
        async move {
            let changes = self.cosmos.container(&names.database, &names.changes).await?;
            Ok(Arc::new(CosmosReader::new(changes, &KeyPaths::id())) as Arc<dyn HistoryReader>)
        }
        .boxed()
    }

    fn frontier<'a>(&'a self, names: &'a Names, _: Option<PointInTime>, _: &'a RuLimiter) -> Answer<'a, Frontier> {
        async move {
            let mut problems = Vec::new();
            let followers = match leases(self.cosmos.container(&names.database, &names.leases).await).await {
                Ok(found) => found.map(|(_, followers)| followers).unwrap_or_default(),
                Err(e) => {
                    problems.push(format!("the checkpoints in {}/{} cannot be read: {e}", names.database, names.leases));
                    Vec::new()
                }
            };
            let (place, history) =
                (place_of(&self.mongo, &self.database, &self.collection), format!("{}/{}", names.database, names.changes));
            let mut best: Option<Part> = None;
            for follower in followers {
                if follower.source != place || follower.history.as_ref() != Some(&history) {
                    continue;
                }
                let Some(until) = self.until(&follower).await else { continue };
                if best.as_ref().is_none_or(|best| best.until < Some(until)) {
                    best = Some(Part {
                        range: FeedRange::full(),
                        until: Some(until),
                        evidence: Evidence::Reader(format!("follower {:?}", follower.follower)),
                        sees_deletes: follower.mode == FeedMode::AllVersions,
                        waiting: Waiting::Any,
                        next: None,
                    });
                }
            }
            let part = match best {
                Some(part) => part,
                None => {
                    let newest = self.history(names).await?.end(Which::Newest).await?;
                    super::by_newest(FeedRange::full(), newest.map(|end| PointInTime::from_epoch(end.ts)))
                }
            };
            Ok(Frontier { parts: vec![part], problems })
        }
        .boxed()
    }
}
