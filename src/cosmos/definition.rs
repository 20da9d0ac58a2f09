//! What a container's definition says of its documents beyond their key. Read on first use.

use azure_data_cosmos::models::TimeToLive;
use futures::FutureExt as _;

use super::{Container, Failure, provision::read_container};

/// The facts of a definition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Definition {
    default_ttl: Option<i64>,
    has_unique_keys: bool,
}

impl Container {
    /// The seconds after which documents expire that have no time to live of their own; -1 when they never do, `None`
    /// when no document expires.
    ///
    /// # Errors
    /// When the definition cannot be read.
    pub async fn default_ttl(&self) -> Result<Option<i64>, Failure> {
        Ok(self.defined().await?.default_ttl)
    }

    /// Whether documents must differ in more than their id.
    ///
    /// # Errors
    /// When the definition cannot be read.
    pub async fn has_unique_keys(&self) -> Result<bool, Failure> {
        Ok(self.defined().await?.has_unique_keys)
    }

    async fn defined(&self) -> Result<Definition, Failure> {
        let (cosmos, database, name) = (self.cosmos().clone(), self.database().to_owned(), self.name().to_owned());
        let read = async move {
            // A container that is gone has no documents that could expire.
            let Some(found) = read_container(&cosmos, &database, &name).await? else {
                return Ok(Definition { default_ttl: Some(-1), has_unique_keys: false });
            };
            let default_ttl = match found.default_ttl {
                TimeToLive::Seconds(seconds) => Some(seconds.into()),
                TimeToLive::NoDefault => Some(-1),
                _ => None,
            };
            let has_unique_keys = found.unique_key_policy.is_some_and(|policy| !policy.unique_keys.is_empty());
            Ok(Definition { default_ttl, has_unique_keys })
        };
        self.definition().get(|| read.boxed()).await
    }
}
