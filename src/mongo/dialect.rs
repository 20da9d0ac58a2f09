//! Kinds of servers: they speak one protocol, and differ in what their change streams deliver.

use std::{fmt, str::FromStr};

use bson::Document;

use super::Address;
use crate::cosmos::FeedMode;

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// MongoDB and Atlas: every operation, with its time.
    MongoDb,
    /// Azure Cosmos DB for MongoDB with request units: the newest text of each document, no deletes, no times. It
    /// insists on one pipeline, and all documents of a page share one token.
    CosmosRu,
    /// Azure DocumentDB (formerly Azure Cosmos DB for MongoDB vCore): deletes, but neither images nor what an update
    /// changed.
    DocumentDb,
}

impl Dialect {
    /// Recognises the server by its address and by what it says about itself.
    pub(super) fn recognised(address: &Address, hello: &Document, build: &Document) -> Self {
        let has_host =
            |suffix: &str| address.hosts().any(|host| host.split(':').next().is_some_and(|h| h.ends_with(suffix)));
        if has_host(".mongocluster.cosmos.azure.com") || build.contains_key("documentdb_versions") {
            return Self::DocumentDb;
        }
        // The replica set name of every account of this kind.
        if has_host(".mongo.cosmos.azure.com") || hello.get_str("setName").is_ok_and(|name| name == "globaldb") {
            return Self::CosmosRu;
        }
        Self::MongoDb
    }

    /// Which changes its stream delivers.
    pub fn mode(self) -> FeedMode {
        if self == Self::CosmosRu { FeedMode::Latest } else { FeedMode::AllVersions }
    }

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MongoDb => "mongodb",
            Self::CosmosRu => "cosmos-ru",
            Self::DocumentDb => "documentdb",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::MongoDb, Self::CosmosRu, Self::DocumentDb];
        all.into_iter().find(|d| d.as_str() == text).ok_or_else(|| "write mongodb, cosmos-ru or documentdb".into())
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn a_server_is_recognised_by_its_address_or_by_what_it_says() {
        let of = |uri: &str, hello: Document, build: Document| {
            Dialect::recognised(&Address::parse(uri).unwrap(), &hello, &build)
        };
        let none = Document::new;
        assert_eq!(of("mongodb://127.0.0.1:1", doc! { "setName": "rs0" }, none()), Dialect::MongoDb);
        assert_eq!(of("mongodb://127.0.0.1:1", doc! { "setName": "globaldb" }, none()), Dialect::CosmosRu);
        assert_eq!(of("mongodb://a.mongo.cosmos.azure.com:10255/?ssl=true", none(), none()), Dialect::CosmosRu);
        assert_eq!(of("mongodb+srv://u:p@c.mongocluster.cosmos.azure.com/", none(), none()), Dialect::DocumentDb);
        assert_eq!(of("mongodb://h", none(), doc! { "documentdb_versions": [] }), Dialect::DocumentDb);
        assert_eq!("cosmos-ru".parse(), Ok(Dialect::CosmosRu));
        assert!("ru".parse::<Dialect>().is_err());
    }
}
