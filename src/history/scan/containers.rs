//! The containers that a restore, and whatever else reads the history, works on.

use super::RANGES;
use crate::{
    change::{
        key::{ItemKey, KeyValue, PartitionKey},
        record::ORIGINAL_ID,
        version::Version,
    },
    config::Names,
    cosmos::{Container, Cosmos, Failure, HashRange, Shard},
    history::{
        reader::{self, Entry},
        row::Row,
    },
};

/// The containers a restore works on.
#[derive(Debug, Clone)]
pub struct Containers {
    /// The history.
    pub changes: Container,
    /// The live container that the history is of: its key paths tell items apart.
    pub source: Container,
    /// Where documents are put: the source, or another container of the same key.
    pub target: Container,
}

impl Containers {
    /// Opens the history and its source, which is the target too.
    ///
    /// # Errors
    /// When there is no such container, or the account cannot be reached.
    pub async fn open(cosmos: &Cosmos, names: &Names) -> Result<Self, Failure> {
        let changes = cosmos.container(&names.database, &names.changes).await?;
        let source = cosmos.container(&names.database, &names.source).await?;
        Ok(Self { changes, target: source.clone(), source })
    }

    /// Whether documents are put into another container than the one the history is of.
    pub fn is_elsewhere(&self) -> bool {
        self.target.rid() != self.source.rid()
    }

    /// Whether all versions of an item are in one place of the history's hash space.
    pub(super) fn is_cut_by_item(&self) -> bool {
        let source = self.source.key_paths().segments();
        // Of an `id` in the key not: a record's id is not its document's.
        let by_item = |path: &Vec<String>| match path.as_slice() {
            [name] if name == ORIGINAL_ID => true,
            [name] if name == "id" => false,
            _ => source.contains(path),
        };
        self.changes.hash_space().is_some() && self.changes.key_paths().segments().iter().all(by_item)
    }

    /// The key of one record of an item in the history; `None` where it does not follow from the item's.
    pub fn record_key(&self, item: &ItemKey, record_id: &str) -> Option<PartitionKey> {
        let source = self.source.key_paths().segments();
        let part = |path: &Vec<String>| match path.as_slice() {
            [name] if name == ORIGINAL_ID => Some(KeyValue::String(item.id.clone())),
            [name] if name == "id" => Some(KeyValue::String(record_id.to_owned())),
            _ => source.iter().position(|p| p == path).and_then(|at| item.partition_key.0.get(at).cloned()),
        };
        self.changes.key_paths().segments().iter().map(part).collect::<Option<_>>().map(PartitionKey)
    }

    /// What the record of a row of facts is.
    pub(super) fn entry(&self, row: &str) -> Entry {
        Row::entry(row, self.changes.key_paths(), self.source.key_paths())
    }

    /// A record of an item; `None` when the history does not have it (any more).
    ///
    /// # Errors
    /// When it cannot be read, or is not understood.
    pub async fn record(&self, item: &ItemKey, record_id: &str) -> Result<Option<Version>, Failure> {
        reader::record(&self.changes, self.source.key_paths(), item, record_id).await
    }

    /// The document of a record.
    ///
    /// # Errors
    /// When it cannot be read, or is no document.
    pub async fn document(&self, item: &ItemKey, record_id: &str) -> Result<String, Failure> {
        let wrong = |problem: &str| Failure::invalid("read version".into(), format!("record {record_id} {problem}"));
        let version = self.record(item, record_id).await?;
        version.ok_or_else(|| wrong("is not in the history any more"))?.document.ok_or_else(|| wrong("is a tombstone"))
    }

    /// Whether an item has the same place in the target as its versions in the history, so that the same piece of both
    /// can be read. Containers are told apart by the first component of a key.
    pub fn is_aligned(&self) -> bool {
        let first = |container: &Container| container.key_paths().segments().first().cloned().unwrap_or_default();
        let (history, target) = (first(&self.changes), first(&self.target));
        let same_path = history == target || (history == [ORIGINAL_ID] && target == ["id"]);
        self.is_cut_by_item() && same_path && self.changes.hash_space() == self.target.hash_space()
    }

    /// The hash_ranges of the hash space that are read at the same time, of the whole or of a part.
    ///
    /// # Errors
    /// With the reason why several machines cannot share the items of these containers.
    pub fn hash_ranges(&self, share: Option<Shard>) -> Result<Vec<HashRange>, String> {
        let Some(share) = share else {
            return Ok(if self.is_cut_by_item() { HashRange::WHOLE.cut(RANGES) } else { vec![HashRange::WHOLE] });
        };
        if self.is_aligned() {
            return Ok(share.span().cut(RANGES));
        }
        let shown = |c: &Container| format!("{} ({}, hash {:?})", c.name(), c.key_paths(), c.hash_space());
        Err(format!(
            "{} and {} are partitioned in different ways, so a part of one is not a part of the other",
            shown(&self.changes),
            shown(&self.target)
        ))
    }
}
