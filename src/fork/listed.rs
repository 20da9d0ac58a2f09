//! The list of changed documents that a fork keeps.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{change::key::ItemKey, cosmos::Failure};

/// The container of a fork that lists the documents that were changed in it.
pub const CHANGED: &str = "_changed";

/// A document that was changed in a fork.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForkedDocument {
    /// Id in the list.
    pub id: String,
    /// The container that the document is in.
    pub container: String,
    /// The document's id.
    pub document_id: String,
    /// Its partition key, as a JSON array.
    pub pk: serde_json::Value,
    /// The moment at which the fork began, epoch seconds.
    pub at: i64,
    /// The account that was forked.
    pub account: String,
    /// Whether values were left out or hashed when the fork was made.
    pub masked: bool,
    /// The document before, as its users wrote it; `None` when there was none.
    pub before: Option<Box<RawValue>>,
}

impl ForkedDocument {
    /// Identifies the document.
    ///
    /// # Errors
    /// When the key is malformed: anybody with access to the port may write the list.
    pub fn item(&self) -> Result<ItemKey, Failure> {
        ItemKey::parse_json(&self.document_id, &self.pk)
            .map_err(|problem| Failure::invalid("read the list of changed documents".into(), problem))
    }
}
