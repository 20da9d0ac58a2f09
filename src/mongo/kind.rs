//! The kind of a collection, as the server lists it.

use bson::doc;
use futures::TryStreamExt as _;
use mongodb::results::{CollectionSpecification, CollectionType};

use super::{Dialect, Mongo};
use crate::cosmos::{Disposition, Failure};

/// How the server lists a collection; `None` when it does not exist.
pub(super) async fn listed(
    mongo: &Mongo,
    database: &str,
    name: &str,
) -> Result<Option<CollectionSpecification>, Failure> {
    let fail = |e: &mongodb::error::Error| mongo.fail("look at the collection", e);
    let found = mongo.database(database).list_collections().filter(doc! { "name": name }).await;
    found.map_err(|e| fail(&e))?.try_next().await.map_err(|e| fail(&e))
}

/// Why documents cannot be put back into a collection one by one; `None` when they can, or when the caller may not see
/// what it is.
pub(super) async fn unfit(mongo: &Mongo, database: &str, name: &str) -> Result<Option<&'static str>, Failure> {
    if mongo.dialect == Dialect::CosmosRu {
        return Ok(None);
    }
    let listed = match listed(mongo, database, name).await {
        Err(failure) if failure.disposition == Disposition::Denied => return Ok(None),
        listed => listed?,
    };
    Ok(listed.and_then(|listed| match listed.collection_type {
        CollectionType::View => Some("is a view, which has no documents of its own"),
        CollectionType::Timeseries => Some("is a time series, in which no document can be replaced"),
        _ if listed.options.capped == Some(true) => {
            Some("is capped: each document that is put back would push another one out, which is then lost")
        }
        _ => None,
    }))
}
