//! The shard key of a collection, which goes along with every write of a document.

use bson::{Bson, Document, doc};
use mongodb::error::ErrorKind;

use super::{Dialect, Mongo, failure::is_busy};
use crate::cosmos::{Failure, RETRY_TIMEOUT, Retry};

/// The paths of a collection's shard key.
pub(super) async fn key(mongo: &Mongo, database: &str, name: &str) -> Result<Vec<String>, Failure> {
    let fail = |e: &mongodb::error::Error| mongo.fail("look at the collection", e);
    let names = |key: &Document| key.keys().cloned().collect();
    if mongo.dialect == Dialect::CosmosRu {
        let action = doc! { "customAction": "GetCollection", "collection": name };
        // A server that is busy says nothing about the key: without it, writes would go astray.
        let ask = || async {
            match mongo.database(database).run_command(action.clone()).await {
                Ok(answer) => Ok(answer),
                // It does not exist yet, or the server does not have such a command.
                Err(e) if matches!(&*e.kind, ErrorKind::Command(_)) && !is_busy(&e) => Ok(Document::new()),
                Err(e) => Err(fail(&e)),
            }
        };
        let answer = Retry::for_at_most(RETRY_TIMEOUT).run(ask).await?;
        return Ok(answer.get_document("shardKeyDefinition").map(names).unwrap_or_default());
    }
    if !mongo.is_sharded() {
        return Ok(Vec::new());
    }
    let collections = mongo.database("config").collection::<Document>("collections");
    let found = collections.find_one(doc! { "_id": format!("{database}.{name}") }).await.map_err(|e| fail(&e))?;
    Ok(found.and_then(|found| found.get_document("key").map(names).ok()).unwrap_or_default())
}

/// The value at a path of the key; a missing one counts as null.
pub(super) fn value(document: &Document, path: &str) -> Bson {
    match path.split_once('.') {
        None => document.get(path).cloned().unwrap_or(Bson::Null),
        Some((name, rest)) => document.get_document(name).map_or(Bson::Null, |inner| value(inner, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_key_is_found_by_its_path_and_is_null_where_there_is_none() {
        let document = doc! { "a": 5, "b": { "c": { "d": 1_i64 }, "e": Bson::Null }, "c.d": 2 };
        let of = |path: &str| value(&document, path);
        assert_eq!((of("a"), of("b.c.d"), of("b.c")), (5.into(), 1_i64.into(), doc! { "d": 1_i64 }.into()));
        for absent in ["x", "x.y", "b.x", "b.e", "b.e.f", "a.b", "b.c.d.e", "c.d"] {
            assert_eq!(of(absent), Bson::Null, "{absent}");
        }
    }
}
