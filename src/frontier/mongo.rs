//! A MongoDB collection whose history is in a Cosmos DB account, as the use cases see both.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use futures::{FutureExt as _, future::BoxFuture};
use serde_json::value::RawValue;

use super::{
    best,
    gaps::{Gaps, Standing},
    leases::leases,
    probing::{Group, MOST_WAITING, change_in},
};
use crate::{
    change::{
        decode::decode,
        key::{ItemKey, KeyPaths},
        time::PointInTime,
    },
    clock::Clock,
    config::Names,
    cosmos::{
        Answer, Cosmos, Failure, FeedMode, FeedRange, FeedSource as _, FeedStart, RETRY_TIMEOUT, Retry, RuLimiter,
        RuMeter,
    },
    follow::{Checkpoint, delivered_until},
    history::{
        Account, Containers, CosmosReader,
        collections::of_another,
        frontier::{Evidence, Frontier, Next, Part, PendingChange, Waiting},
        reading::HistoryReader,
        removals,
    },
    mongo::{ChangeStream, Mongo, MongoCollection, StreamScope, place_of, still_reads_since},
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

    /// How far a follower has delivered everything, and what waits from before a moment: the stream tells what follows
    /// its position. `None` when nothing is known.
    async fn part(
        &self,
        follower: &Checkpoint,
        (newest, at): (Option<PointInTime>, Option<PointInTime>),
    ) -> Result<Option<Part>, Failure> {
        let scope = StreamScope::Collection { database: self.database.clone(), collection: self.collection.clone() };
        let stream = ChangeStream::open(self.mongo.clone(), scope, false, self.clock.clone()).await?.impatient();
        let mut until = Some(PointInTime::END);
        let mut found = Following::default();
        for range in &follower.ranges {
            if let Some(begin) = still_reads_since(&range.token)? {
                until = until.min(Some(PointInTime::from_epoch(begin - 1)));
                found.is_any = true;
                continue;
            }
            let span =
                FeedRange::parse(&range.min, &range.max).map_err(|e| Failure::invalid("read checkpoint".into(), e))?;
            let mut feed = stream.open(&span, follower.mode, FeedStart::Now, Some(&range.token)).await?;
            let mut is_first = true;
            loop {
                let page = feed.next().await?;
                let events: Vec<Event> = page.items()?.iter().map(|item| Event::read(item)).collect();
                if let Some(first) = events.first().filter(|_| is_first) {
                    // When the stream has no times, it is only known that something is missing.
                    let waits = first.ts.map(|ts| PointInTime::from_epoch(ts - 1));
                    until = until.min(waits.or(newest));
                    is_first = false;
                }
                if found.next.is_none() {
                    found.next = events.iter().find_map(Event::next);
                }
                let is_end = events.is_empty();
                let is_enough = !events.into_iter().all(|event| found.add(event, at));
                if is_enough || (is_end && feed.is_caught_up().await?) {
                    break;
                }
            }
        }
        Ok(until.map(|until| Part {
            range: FeedRange::full(),
            until: Some(until),
            evidence: Evidence::Reader(format!("follower {:?}", follower.follower)),
            sees_deletes: follower.mode == FeedMode::AllVersions,
            waiting: if found.is_any { Waiting::Any } else { Waiting::These(found.these) },
            next: found.next,
        }))
    }
}

/// The changes that follow a position.
#[derive(Default)]
struct Following {
    next: Option<Next>,
    these: HashMap<ItemKey, Vec<PendingChange>>,
    /// Whether any document may have a change from before the moment.
    is_any: bool,
}

impl Following {
    /// Adds a change; false when those after it do not matter: they are newer than the moment, or there are too many.
    /// One without a time may be from before any moment.
    fn add(&mut self, event: Event, at: Option<PointInTime>) -> bool {
        let ts = match (event.ts, at) {
            (Some(ts), Some(at)) if ts > at.seconds() => return false,
            (ts, Some(_)) if self.these.len() < MOST_WAITING => ts.unwrap_or(i64::MAX),
            _ => {
                self.is_any = true;
                return false;
            }
        };
        match event.change {
            Some((key, change)) => self.these.entry(key).or_default().push(PendingChange { ts, ..change }),
            None => self.is_any = true,
        }
        !self.is_any
    }
}

/// An event of the stream.
struct Event {
    /// When it happened, epoch seconds; `None` when the stream has no times.
    ts: Option<i64>,
    /// The document and its change. An event of the whole collection, or of a document without a text, becomes no
    /// record.
    change: Option<(ItemKey, PendingChange)>,
}

impl Event {
    fn read(item: &RawValue) -> Self {
        let mut changes = Vec::new();
        match decode(item, &mut changes) {
            Ok(()) => {
                let ts = changes.last().and_then(|change| change.ts);
                Self { ts, change: change_in(&changes, &KeyPaths::id(), ts.unwrap_or_default()) }
            }
            Err(_) => Self { ts: None, change: None },
        }
    }

    /// A change that becomes a record.
    fn next(&self) -> Option<Next> {
        let (key, change) = self.change.clone()?;
        let ts = PointInTime::from_epoch(self.ts.unwrap_or_default());
        Some(Next { item: Some(key), record: Some(change.record), ts, depth: 0 })
    }
}

/// What to do about a follower whose position the server has no changes for any more. Nothing else ends its warning.
fn never_goes_on(follower: &Checkpoint, why: &Failure, is_replaced: bool, names: &Names) -> String {
    let when =
        if is_replaced { "another follower has taken over, so" } else { "once another follower has taken over," };
    format!(
        "follower {:?} can never go on from its checkpoint; {when} delete that, the item {:?} of {}/{}: {why}",
        follower.follower, follower.id, names.database, names.leases
    )
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

    /// Versions have the time of the deployment; where it has none, that of their capture.
    fn service_time(&self) -> BoxFuture<'_, Option<DateTime<Utc>>> {
        async move {
            match self.mongo.now().await {
                Ok(Some(now)) => Some(now),
                Ok(None) => self.cosmos.service_time().await,
                Err(_) => None,
            }
        }
        .boxed()
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

    fn frontier<'a>(&'a self, names: &'a Names, at: Option<PointInTime>, _: &'a RuLimiter) -> Answer<'a, Frontier> {
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
            // One that was killed when it had its name and no position yet has read nothing.
            let covers = |follower: &Checkpoint| follower.covers(&place, &history) && follower.has_all_keys();
            let followers: Vec<Checkpoint> = followers.into_iter().filter(covers).collect();
            let groups: Vec<Group> =
                followers.iter().map(|follower| Group::Follower(follower.follower.clone())).collect();
            let (mut standing, mut stuck) = (Standing::default(), Vec::new());
            for (follower, group) in followers.iter().zip(&groups) {
                let part = match self.part(follower, (newest, at)).await {
                    Ok(part) => part,
                    Err(e) => {
                        match e.loses_position() {
                            true => stuck.push((follower, e)),
                            false => problems
                                .push(format!("where follower {:?} stands is not known: {e}", follower.follower)),
                        }
                        standing.unasked.insert(group, delivered_until(follower));
                        continue;
                    }
                };
                standing.groups.insert(group, part);
            }
            let is_replaced = standing.groups.values().any(Option::is_some);
            problems.extend(stuck.into_iter().map(|(follower, why)| never_goes_on(follower, &why, is_replaced, names)));
            // Read after the checkpoints: a follower's gap is noted before it counts.
            let noted = removals::read(&*changes).await?;
            let mut gaps = Gaps::of(&noted.gaps, &followers, None);
            let fates = gaps.fates(&standing);
            let part = match best(&*changes, standing.groups, &FeedRange::full()).await? {
                Some(part) => part,
                None => super::by_newest(FeedRange::full(), newest),
            };
            gaps.add(fates, &part);
            let (gaps, blind) = gaps.end();
            let parts = vec![part];
            let mut blind_spots = removals::blind_spots_of(&noted.without_gaps(), &parts, &*changes).await?;
            blind_spots.holes.extend(blind);
            Ok(Frontier { parts, problems, blind_spots, made_again: Vec::new(), gaps, trigger: None })
        }
        .boxed()
    }
}
