//! Reads the versions of documents with one id, grouped by document.

use std::collections::HashMap;

use super::{
    containers::page,
    entry::Entry,
    layout::Layout,
    reading::{Detail, HistoryReader},
    timeline::Timeline,
};
use crate::{
    change::{
        key::{ItemKey, KeyValue, PartitionKey},
        version::{BadRecord, Version},
    },
    cosmos::{Failure, RETRY_TIMEOUT, Retry, RuLimiter},
};

/// One document's history.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The document: one id may exist under several partition keys.
    pub key: ItemKey,
    /// Its versions, oldest first. The text of a version may be missing; it is read when it is needed.
    pub versions: Vec<Version>,
    /// Deletes of documents with this id for which the history does not name the partition key.
    pub unkeyed: Vec<Version>,
    /// Records that hold one of these versions a second time.
    pub copies: Vec<Version>,
}

impl Item {
    /// An item about which nothing is known yet.
    pub fn new(key: ItemKey) -> Self {
        Self { key, versions: Vec::new(), unkeyed: Vec::new(), copies: Vec::new() }
    }
}

/// Assigns deletes without a partition key to the one document whose version they name as the previous one. Others are
/// noted with every document of their id, since nobody knows which of them it was. Returns those whose id has no
/// document.
pub fn attribute(deletes: Vec<Version>, documents: Vec<DocumentVersions<'_>>) -> Vec<Version> {
    let mut left = Vec::new();
    let mut by_id: HashMap<&str, Vec<DocumentVersions<'_>>> = HashMap::new();
    for document in documents {
        by_id.entry(document.0.id.as_str()).or_default().push(document);
    }
    for delete in deletes {
        let Some(documents) = by_id.get_mut(delete.id.as_str()) else {
            left.push(delete);
            continue;
        };
        let is_before =
            |v: &Version| (v.lsn.is_some() && v.lsn == delete.prev_lsn) || (v.life.is_some() && v.life == delete.life);
        let mut owners: Vec<&mut DocumentVersions<'_>> =
            documents.iter_mut().filter(|(_, versions, _)| versions.iter().any(is_before)).collect();
        if let [(_, versions, _)] = owners.as_mut_slice() {
            versions.push(delete);
            continue;
        }
        for (_, _, unkeyed) in documents {
            unkeyed.push(delete.clone());
        }
    }
    left
}

/// A document, its versions, and the deletes that may or may not be its own.
pub type DocumentVersions<'d> = (&'d ItemKey, &'d mut Vec<Version>, &'d mut Vec<Version>);

/// Histories read from the changes container.
#[derive(Debug, Default)]
pub struct Histories {
    /// The documents, in order of their first version.
    pub items: Vec<Item>,
    /// Records that cannot be parsed, so that nobody knows whose they are.
    pub bad: Vec<BadRecord>,
    places: HashMap<ItemKey, usize>,
    unkeyed: Vec<Version>,
    /// The number of components in a key of the source.
    components: usize,
}

impl Histories {
    /// Groups records by document.
    pub fn group<'a>(records: impl IntoIterator<Item = &'a str>, layout: &Layout) -> Self {
        let mut found = Self::of(layout);
        records.into_iter().for_each(|record| found.add(Entry::of(record, layout)));
        found.settled()
    }

    fn of(layout: &Layout) -> Self {
        Self { components: layout.source().len(), ..Self::default() }
    }

    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Version(key, version) => {
                let place = *self.places.entry(key).or_insert_with_key(|key| {
                    self.items.push(Item::new(key.clone()));
                    self.items.len() - 1
                });
                self.items[place].versions.push(version);
            }
            Entry::Unkeyed(version) => self.unkeyed.push(version),
            Entry::Bad(bad) => self.bad.push(bad),
        }
    }

    /// Sorted, with every delete assigned.
    fn settled(mut self) -> Self {
        let deletes = std::mem::take(&mut self.unkeyed);
        if !deletes.is_empty() {
            let documents = self.items.iter_mut().map(|i| (&i.key, &mut i.versions, &mut i.unkeyed));
            let left = attribute(deletes, documents.collect());
            for delete in left {
                let partition_key = PartitionKey(vec![KeyValue::Undefined; self.components]);
                let key = ItemKey { id: delete.id.clone(), partition_key };
                self.items.push(Item { versions: vec![delete], ..Item::new(key) });
            }
        }
        for item in &mut self.items {
            item.copies = sort(&mut item.versions);
        }
        self.items.sort_by(|a, b| {
            let first = |item: &Item| item.versions.first().map(|v| (v.ts, v.lsn));
            first(a).cmp(&first(b)).then_with(|| a.key.id.cmp(&b.key.id))
        });
        self
    }
}

/// Sorts the versions of one item, oldest first; a copy of the original demo that also has a record stands where its
/// own time says. Returns the records that hold one of them a second time.
pub fn sort(versions: &mut Vec<Version>) -> Vec<Version> {
    let order: Vec<usize> = {
        let line = Timeline::of(versions);
        let mut order: Vec<usize> = line.order().collect();
        for copy in line.copies() {
            let place = order.iter().position(|other| versions[*other].ts > versions[*copy].ts);
            order.insert(place.unwrap_or(order.len()), *copy);
        }
        order
    };
    let mut all: Vec<Option<Version>> = std::mem::take(versions).into_iter().map(Some).collect();
    versions.extend(order.into_iter().filter_map(|place| all.get_mut(place).and_then(Option::take)));
    all.into_iter().flatten().collect()
}

/// How much of the documents is read along with the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextDetail {
    /// Nothing: the one or two that are needed are read individually.
    None,
    /// All, when together they have at most this many bytes; otherwise none.
    UpTo(usize),
}

impl TextDetail {
    /// For a command that walks the versions of one document.
    pub const OF_ONE: Self = Self::UpTo(4 << 20);
    /// For one that walks those of many.
    pub const OF_MANY: Self = Self::UpTo(1 << 20);
}

/// Reads every version of the documents with this id; with `key`, only those under it, which may name just the first
/// components of a hierarchical key.
///
/// Sorted here and not by the service: that needs no composite index, and copies of the original demo have no
/// `_change` to sort by.
///
/// # Errors
/// When the service refuses the query.
pub async fn histories(
    history: &dyn HistoryReader,
    pace: &RuLimiter,
    id: &str,
    key: Option<&PartitionKey>,
    texts: TextDetail,
) -> Result<Histories, Failure> {
    let read = async |detail, most: usize| {
        let mut pages = history.of_id(id, key, detail);
        let (mut found, mut bytes) = (Histories::of(history.layout()), 0);
        while let Some(page) = page(pace, &mut pages).await? {
            for entry in page {
                if let Entry::Version(_, Version { document: Some(text), .. }) = &entry {
                    bytes += text.len();
                }
                found.add(entry);
            }
            if bytes > most {
                return Ok(None);
            }
        }
        Ok(Some(found))
    };
    let retry = Retry::for_at_most(RETRY_TIMEOUT);
    let whole = match texts {
        TextDetail::None => None,
        TextDetail::UpTo(most) => retry.run(|| read(Detail::Whole, most)).await?,
    };
    let found = match whole {
        Some(found) => found,
        None => retry.run(|| read(Detail::Facts, usize::MAX)).await?.unwrap_or_default(),
    };
    let mut found = found.settled();
    if let Some(key) = key {
        found.items.retain(|item| item.key.partition_key.0.starts_with(&key.0));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::key::KeyPaths;

    #[test]
    fn records_are_grouped_by_document_whatever_their_order() {
        let record = |id: &str, pk: &str, lsn: i64| {
            format!(
                r#"{{"id":"{id}~{lsn}","pk":{pk},"_originalId":"{id}","_change":{{"v":1,"op":"upsert","ts":5,"lsn":{lsn}}}}}"#
            )
        };
        let records = [
            record("a", "\"p\"", 3),
            record("a", "7", 4),
            record("a", "null", 1),
            record("a", "7.0", 2),
            record("b", "\"p\"", 9),
            "nonsense".to_owned(),
            record("a", "\"p\"", 0),
        ];
        let paths = || KeyPaths::parse(&["/pk"]).unwrap();
        let found = Histories::group(records.iter().map(String::as_str), &Layout::new(paths(), paths()));
        let items: Vec<(&str, String, Vec<Option<i64>>)> = found
            .items
            .iter()
            .map(|i| (i.key.id.as_str(), i.key.partition_key.to_string(), i.versions.iter().map(|v| v.lsn).collect()))
            .collect();
        let expected = [
            ("a", "p".to_owned(), vec![Some(0), Some(3)]),
            ("a", "[null]".to_owned(), vec![Some(1)]),
            ("a", "[7]".to_owned(), vec![Some(2), Some(4)]),
            ("b", "p".to_owned(), vec![Some(9)]),
        ];
        assert_eq!(items, expected);
        assert_eq!(found.bad.len(), 1);
    }
}
