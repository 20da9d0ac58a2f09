//! A dropped collection takes its documents along. A change stream reports the drop without a single delete, so the
//! deletes are made from the documents that the history takes for alive.

use futures::StreamExt as _;
use serde_json::value::RawValue;
use tracing::warn;

use super::SinkError;
use crate::{
    capture::{Capture, CaptureError},
    change::{Native, time::PointInTime},
    config::Names,
    cosmos::{Cosmos, Failure, RuLimiter},
    follow::Event,
    history::{
        CosmosHistory,
        scan::{Scan, Scope},
    },
    mongo::{Mongo, MongoCollection, delete_item},
};

/// How many deletes are handed to the history at once.
const AT_ONCE: usize = 500;

/// A collection whose history is being written.
#[derive(Debug, Clone)]
pub struct Collection {
    /// Where the history is.
    pub account: Cosmos,
    /// Its names.
    pub names: Names,
    /// Where the collection was.
    pub mongo: Mongo,
    /// Its database.
    pub database: String,
    /// Its own name.
    pub collection: String,
}

impl Collection {
    /// Database and collection, separated by a dot.
    fn namespace(&self) -> String {
        format!("{}.{}", self.database, self.collection)
    }

    /// Whether an event says that this collection is gone, or that another one has taken its name.
    pub(super) fn ends_with(&self, event: &Event<'_>) -> bool {
        let own = self.namespace();
        let is_own = |native: &Native<'_>| native.ns == own || native.to.as_deref() == Some(&own);
        event.op.ends_collection() && event.native.as_ref().is_some_and(is_own)
    }

    /// Writes the delete of each document that the history takes for alive, as of the event. Doing it again finds none.
    ///
    /// # Errors
    /// When the history cannot be read or written.
    pub(super) async fn delete_all(
        &self,
        event: &Event<'_>,
        capture: &Capture<CosmosHistory>,
        range: &str,
    ) -> Result<(), SinkError> {
        let service = |e: Failure| SinkError::from(CaptureError::Service(e));
        let invalid = |what: &str, e: &dyn std::fmt::Display| service(Failure::invalid(what.into(), e.to_string()));
        let documents = MongoCollection::open(self.mongo.clone(), &self.database, &self.collection).await;
        let containers = documents.map_err(service)?.with_history(&self.account, &self.names).await.map_err(service)?;
        let hash_ranges = containers.hash_ranges(None).map_err(|e| invalid("read the history", &e))?;
        // The event's place in the stream: each document changes only once there.
        let (ns, version) = (self.namespace(), event.version.rsplit('~').next().unwrap_or_default());
        let pace = RuLimiter::new(self.account.meter(), None);
        let scan = Scan::facts(&containers, &Scope::All, &hash_ranges, &pace);
        let mut count = 0_usize;
        let mut pieces = std::pin::pin!(scan.pieces());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(service)?;
            // What came after the event belongs to a collection that was created again.
            let alive = piece.found.iter().filter(|found| {
                found.document_at(PointInTime::END).is_some_and(|newest| newest.lsn.is_none() || newest.lsn < event.lsn)
            });
            let deletes = alive.map(|found| delete_item(&found.item.id, (&ns, version), (event.ts, event.lsn)));
            let deletes: Vec<Box<RawValue>> =
                deletes.collect::<Result<_, _>>().map_err(|e| invalid("make a delete", &e))?;
            for some in deletes.chunks(AT_ONCE) {
                let items: Vec<&RawValue> = some.iter().map(|item| &**item).collect();
                capture.run(&items, range).await?;
            }
            count += deletes.len();
        }
        warn!(
            follower = capture.function,
            collection = ns,
            documents = count,
            "the collection is gone, and its documents with it; the history has their deletes"
        );
        Ok(())
    }
}
