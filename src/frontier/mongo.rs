//! A MongoDB collection whose history is in a Cosmos DB account, as the use cases see both.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use futures::{FutureExt as _, future::BoxFuture};
use serde_json::value::RawValue;

use super::leases::leases;
use crate::{
    change::{decode::decode, key::KeyPaths, time::PointInTime},
    clock::Clock,
    config::Names,
    cosmos::{
        Answer, Cosmos, Failure, FeedMode, FeedRange, FeedSource as _, FeedStart, RETRY_TIMEOUT, Retry, RuLimiter,
        RuMeter,
    },
    follow::Checkpoint,
    history::{
        Account, Containers, CosmosReader,
        collections::of_another,
        frontier::{Evidence, Frontier, Part, Waiting},
        reading::HistoryReader,
        removals,
    },
    mongo::{Mongo, MongoCollection, Scope, Stream, place_of, still_reads_since},
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
    /// The time of this machine.
    pub clock: Arc<dyn Clock>,
}

impl MongoAccount {
    async fn open(&self, name: &str) -> Result<MongoCollection, Failure> {
        MongoCollection::open(self.mongo.clone(), &self.database, name).await
    }

    /// A history belongs to one collection: with that of another one, foreign documents would be written here.
    async fn check_history(&self, names: &Names) -> Result<(), Failure> {
        let changes = self.cosmos.container(&names.database, &names.changes).await?;
        let own = format!("{}.{}", self.database, self.collection);
        let other = Retry::for_at_most(RETRY_TIMEOUT).run(|| of_another(&changes, &own)).await?;
        let wrong = |other: String| {
            let problem = format!(
                "{} is the history of {other}, not of {own}: name its own with --changes, or restore {other} with --into",
                names.history()
            );
            Failure::invalid("read history".into(), problem)
        };
        other.map_or(Ok(()), |other| Err(wrong(other)))
    }

    /// The last second for which a follower has delivered everything: the stream tells what follows its position.
    async fn until(&self, follower: &Checkpoint, newest: Option<PointInTime>) -> Result<Option<PointInTime>, Failure> {
        let scope = Scope::Collection { database: self.database.clone(), collection: self.collection.clone() };
        let stream = Stream::open(self.mongo.clone(), scope, false, self.clock.clone()).await?.impatient();
        let mut until = Some(PointInTime::END);
        for range in &follower.ranges {
            if let Some(begin) = still_reads_since(&range.token)? {
                until = until.min(Some(PointInTime::from_epoch(begin - 1)));
                continue;
            }
            let span =
                FeedRange::parse(&range.min, &range.max).map_err(|e| Failure::invalid("read checkpoint".into(), e))?;
            let mut feed = stream.open(&span, follower.mode, FeedStart::Now, Some(&range.token)).await?;
            loop {
                let page = feed.next().await?;
                if let Some(first) = page.items()?.first() {
                    // When the stream has no times, it is only known that something is missing.
                    let waits = time_of_change(first).map(|ts| PointInTime::from_epoch(ts - 1));
                    until = until.min(waits.or(newest));
                    break;
                }
                if feed.is_caught_up().await? {
                    break;
                }
            }
        }
        Ok(until)
    }
}

/// When a change happened, epoch seconds.
fn time_of_change(item: &RawValue) -> Option<i64> {
    let mut changes = Vec::new();
    decode(item, &mut changes).ok()?;
    changes.last()?.ts
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

    fn time(&self) -> Answer<'_, DateTime<Utc>> {
        self.cosmos.time().boxed()
    }

    fn now(&self) -> BoxFuture<'_, DateTime<Utc>> {
        self.cosmos.now().boxed()
    }

    fn containers<'a>(&'a self, names: &'a Names, into: Option<&'a str>) -> Answer<'a, Containers> {
        async move {
            self.check_history(names).await?;
            let opened = self.open(&self.collection).await?.with_history(&self.cosmos, names).await?;
            Ok(match into {
                None => opened,
                Some(name) => Containers { target: Arc::new(self.open(name).await?), ..opened },
            })
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
                    problems
                        .push(format!("the checkpoints in {}/{} cannot be read: {e}", names.database, names.leases));
                    Vec::new()
                }
            };
            let (place, history) = (place_of(&self.mongo, &self.database, &self.collection), names.history());
            let changes = self.history(names).await?;
            let newest = super::newest_of(&self.cosmos.container(&names.database, &names.changes).await?, None).await?;
            let mut best: Option<Part> = None;
            for follower in followers {
                if !follower.covers(&place, &history) {
                    continue;
                }
                let until = match self.until(&follower, newest).await {
                    Ok(Some(until)) => until,
                    Ok(None) => continue,
                    Err(e) => {
                        problems.push(format!("where follower {:?} stands is not known: {e}", follower.follower));
                        continue;
                    }
                };
                if best.as_ref().is_none_or(|best| best.until < Some(until)) {
                    best = Some(Part {
                        range: FeedRange::full(),
                        until: Some(until),
                        evidence: Evidence::Reader(format!("follower {:?}", follower.follower)),
                        sees_deletes: follower.mode == FeedMode::AllVersions,
                        waiting: if until == PointInTime::END { Waiting::These(HashMap::new()) } else { Waiting::Any },
                        next: None,
                    });
                }
            }
            let part = match best {
                Some(part) => part,
                None => super::by_newest(FeedRange::full(), newest),
            };
            let untold = removals::untold(&*changes).await?;
            Ok(Frontier { parts: vec![part], problems, untold, made_again: Vec::new() })
        }
        .boxed()
    }
}
