//! A collection with its history.

use std::sync::Arc;

use super::MongoCollection;
use crate::{
    change::key::KeyPaths,
    config::Names,
    cosmos::{Cosmos, Failure},
    history::{Containers, CosmosReader},
};

impl MongoCollection {
    /// The collection together with its history, which is in a Cosmos DB account.
    ///
    /// # Errors
    /// When the history cannot be opened.
    pub async fn with_history(self, account: &Cosmos, names: &Names) -> Result<Containers, Failure> {
        let changes = account.container(&names.database, &names.changes).await?;
        let changes = Arc::new(CosmosReader::new(changes, &KeyPaths::id()));
        let source = Arc::new(self);
        Ok(Containers { changes, target: source.clone(), source })
    }
}
