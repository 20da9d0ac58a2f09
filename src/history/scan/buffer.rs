//! The buffer of a scan: the facts of every version of a piece, and texts while there is room.

use std::collections::HashMap;

use super::{MAX_PIECE_BYTES, ScannedItem};
use crate::{
    change::{
        key::{ItemKey, KeyValue, PartitionKey},
        version::{BadRecord, Version},
    },
    history::{entry::Entry, histories::attribute},
};

/// The content of a piece.
#[derive(Default)]
pub(super) struct ScanBuffer {
    pub(super) found: HashMap<ItemKey, ScannedItem>,
    /// Versions.
    pub(super) rows: usize,
    /// All records of its part of the hash space, when they were examined for the sake of a few.
    pub(super) seen: usize,
    /// Live documents.
    pub(super) lives: usize,
    pub(super) bytes: usize,
    /// Whether every version keeps its text while there is room, rather than only the newest of an item.
    pub(super) keeps_all: bool,
    /// Records that cannot be parsed.
    pub(super) bad: Vec<BadRecord>,
    /// Deletes whose partition key no record names.
    pub(super) unkeyed: Vec<Version>,
}

impl ScanBuffer {
    /// Adds a classified record.
    pub(super) fn add(&mut self, entry: Entry, wanted: impl Fn(&ItemKey) -> bool) {
        match entry {
            Entry::Version(item, version) => self.version_if(wanted(&item), item, version),
            Entry::Unkeyed(version) => self.unkeyed.push(version),
            Entry::Bad(bad) => self.bad.push(bad),
        }
    }

    /// Assigns the deletes without a partition key to the documents with their id.
    pub(super) fn settle(&mut self, components: usize) {
        let deletes = std::mem::take(&mut self.unkeyed);
        if !deletes.is_empty() {
            let documents = self.found.values_mut().map(|f| (&f.item, &mut f.versions, &mut f.unkeyed));
            // For ids without any document: the key is what the record says of it, which is nothing.
            for delete in attribute(deletes, documents.collect()) {
                let partition_key = PartitionKey(vec![KeyValue::Undefined; components]);
                let item = ItemKey { id: delete.id.clone(), partition_key };
                self.version(item, delete);
            }
        }
    }

    /// Whether there are deletes whose document was not found yet.
    pub(super) fn has_unkeyed(&self) -> bool {
        !self.unkeyed.is_empty()
    }

    /// Notes records that cannot be parsed, each once.
    pub(super) fn add_bad(&mut self, bad: impl IntoIterator<Item = BadRecord>) {
        for bad in bad {
            if !self.bad.iter().any(|known| known.record_id == bad.record_id) {
                self.bad.push(bad);
            }
        }
    }

    pub(super) fn entry(&mut self, item: ItemKey) -> &mut ScannedItem {
        self.found.entry(item).or_insert_with_key(|key| ScannedItem::new(key.clone()))
    }

    /// Keeps a text while there is room.
    pub(super) fn keep(&mut self, text: Option<String>) -> Option<String> {
        let text = text.filter(|t| self.bytes + t.len() <= MAX_PIECE_BYTES)?;
        self.bytes += text.len();
        Some(text)
    }

    fn version_if(&mut self, wanted: bool, item: ItemKey, version: Version) {
        if wanted {
            self.version(item, version);
        }
    }

    /// Adds a version. Of an item's documents that came with a text, only the newest keeps it, unless all do.
    pub(super) fn version(&mut self, item: ItemKey, mut version: Version) {
        self.rows += 1;
        (version.rid, version.at) = (None, None);
        let text = version.document.take();
        let found = self.found.entry(item).or_insert_with_key(|key| ScannedItem::new(key.clone()));
        let mut freed = 0;
        let keeps = self.keeps_all
            || text.is_some() && {
                let kept = found.versions.iter_mut().find(|v| v.document.is_some());
                match kept {
                    Some(kept) if kept.position() > version.position() => false,
                    Some(kept) => {
                        freed = kept.document.take().map_or(0, |t| t.len());
                        true
                    }
                    None => true,
                }
            };
        self.bytes -= freed;
        if let Some(text) = text.filter(|t| keeps && self.bytes + t.len() <= MAX_PIECE_BYTES) {
            self.bytes += text.len();
            version.document = Some(text);
        }
        found.versions.push(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(ts: i64, text: Option<&str>) -> Version {
        let record = serde_json::json!({"id": format!("a~{ts}"), "_originalId": "a", "_change": {"v": 1, "op": "upsert", "ts": ts}});
        Version { document: text.map(String::from), ..Version::parse(&record.to_string()).unwrap() }
    }

    fn item() -> ItemKey {
        ItemKey { id: "a".into(), partition_key: PartitionKey(vec![KeyValue::Null]) }
    }

    #[test]
    fn only_the_newest_text_of_an_item_is_kept_and_only_while_there_is_room() {
        let mut buffer = ScanBuffer::default();
        for (ts, text) in [(5, "five"), (9, "nine!"), (7, "seven")] {
            buffer.version(item(), version(ts, Some(text)));
        }
        buffer.version(item(), version(11, None));
        let texts = |buffer: &ScanBuffer| -> Vec<String> {
            buffer.found[&item()].versions.iter().filter_map(|v| v.document.clone()).collect()
        };
        assert_eq!((texts(&buffer), buffer.bytes, buffer.rows), (vec!["nine!".to_owned()], 5, 4));
        // There is no room: the older text is no substitute for the newer one.
        let large = "x".repeat(MAX_PIECE_BYTES + 1);
        buffer.version(item(), version(10, Some(&large)));
        assert_eq!((texts(&buffer), buffer.bytes), (Vec::new(), 0));
        assert_eq!(buffer.found[&item()].versions.len(), 5);
    }

    #[test]
    fn every_text_is_kept_when_all_are_asked_for_and_only_while_there_is_room() {
        let mut buffer = ScanBuffer { keeps_all: true, ..ScanBuffer::default() };
        let large = "x".repeat(MAX_PIECE_BYTES - 8);
        for (ts, text) in
            [(5, Some("five")), (9, None), (7, Some(large.as_str())), (11, Some("too much")), (12, Some("this"))]
        {
            buffer.version(item(), version(ts, text));
        }
        let kept = buffer.found[&item()].versions.iter().map(|v| (v.ts, v.document.is_some()));
        assert_eq!(kept.collect::<Vec<_>>(), [(5, true), (9, false), (7, true), (11, false), (12, true)]);
        assert_eq!(buffer.bytes, MAX_PIECE_BYTES);
    }
}
