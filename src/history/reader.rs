//! Reads the versions of documents back from the changes container.

use std::collections::HashMap;

use super::{row, timeline::Timeline};
use crate::{
    change::{
        key::{ItemKey, KeyPaths, KeyValue, PartitionKey},
        raw::RawDocument,
        record::ORIGINAL_ID,
        version::{BadRecord, Version},
    },
    cosmos::{Container, Failure, Param, RETRY_TIMEOUT, Retry},
};

/// One document's history.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Which document: one id may live under several partition keys.
    pub key: ItemKey,
    /// Its versions, oldest first. The text of one that is no tombstone may be missing: it is read when it is needed.
    pub versions: Vec<Version>,
    /// Deletes of documents with this id of which the history does not say under which partition key.
    pub unkeyed: Vec<Version>,
}

/// What a record of the history is.
#[derive(Debug)]
pub enum Entry {
    /// A version of this item.
    Version(ItemKey, Version),
    /// A delete of which only the id is known.
    Unkeyed(Version),
    /// Nothing that is understood.
    Bad(BadRecord),
}

impl Entry {
    /// What a whole record is.
    pub fn of(record: &str, changes: &KeyPaths, source: &KeyPaths) -> Self {
        match Version::parse(record) {
            Err(bad) => Self::Bad(bad),
            Ok(version) => match item_of(&version, record, changes, source) {
                Some(item) => Self::Version(item, version),
                None => Self::Unkeyed(version),
            },
        }
    }
}

/// Gives deletes without a partition key to the one document whose version they name as the one before. Others are
/// noted with every document of their id: nobody knows which of them it was. Returns those of whose id there is none.
pub fn attribute(deletes: Vec<Version>, documents: Vec<Document<'_>>) -> Vec<Version> {
    let mut left = Vec::new();
    let mut by_id: HashMap<&str, Vec<Document<'_>>> = HashMap::new();
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
        let mut owners: Vec<&mut Document<'_>> =
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

/// A document, its versions, and the deletes of which nobody knows whether they are its own.
pub type Document<'d> = (&'d ItemKey, &'d mut Vec<Version>, &'d mut Vec<Version>);

/// Histories read from the changes container.
#[derive(Debug, Default)]
pub struct Histories {
    /// The documents, in order of their first version.
    pub items: Vec<Item>,
    /// Records that could not be understood, so that nobody knows whose they are.
    pub bad: Vec<BadRecord>,
    places: HashMap<ItemKey, usize>,
    unkeyed: Vec<Version>,
    /// Components of a key of the source.
    components: usize,
}

impl Histories {
    /// Groups records by document.
    pub fn group<'a>(records: impl IntoIterator<Item = &'a str>, changes: &KeyPaths, source: &KeyPaths) -> Self {
        let mut found = Self { components: source.len(), ..Self::default() };
        for record in records {
            found.add(Entry::of(record, changes, source));
        }
        found.settled()
    }

    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Version(key, version) => {
                let place = *self.places.entry(key).or_insert_with_key(|key| {
                    self.items.push(Item { key: key.clone(), versions: Vec::new(), unkeyed: Vec::new() });
                    self.items.len() - 1
                });
                self.items[place].versions.push(version);
            }
            Entry::Unkeyed(version) => self.unkeyed.push(version),
            Entry::Bad(bad) => self.bad.push(bad),
        }
    }

    /// In order, with every delete where it belongs.
    fn settled(mut self) -> Self {
        let deletes = std::mem::take(&mut self.unkeyed);
        if !deletes.is_empty() {
            let documents = self.items.iter_mut().map(|i| (&i.key, &mut i.versions, &mut i.unkeyed));
            let left = attribute(deletes, documents.collect());
            for delete in left {
                let partition_key = PartitionKey(vec![KeyValue::Undefined; self.components]);
                let key = ItemKey { id: delete.id.clone(), partition_key };
                self.items.push(Item { key, versions: vec![delete], unkeyed: Vec::new() });
            }
        }
        for item in &mut self.items {
            sort(&mut item.versions);
        }
        self.items.sort_by(|a, b| {
            let first = |item: &Item| item.versions.first().map(|v| (v.ts, v.lsn));
            first(a).cmp(&first(b)).then_with(|| a.key.id.cmp(&b.key.id))
        });
        self
    }
}

/// Sorts the versions of one item, oldest first; a copy of the original demo of which there is a record stands where its
/// own time says.
pub fn sort(versions: &mut Vec<Version>) {
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
}

/// How much of the documents is read along with the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texts {
    /// Nothing: the one or two that are needed are read by themselves.
    None,
    /// All, when they have no more than so many bytes together; else none.
    UpTo(usize),
}

impl Texts {
    /// For a command that goes through the versions of one document.
    pub const OF_ONE: Self = Self::UpTo(4 << 20);
    /// For one that goes through those of many.
    pub const OF_MANY: Self = Self::UpTo(1 << 20);
}

/// Reads every version of the documents with this id; only of those under `key` when it is given, which may name just
/// the first components of a hierarchical key.
///
/// Sorted here and not by the service: that needs no composite index, and copies of the original demo have no
/// `_change` to sort by.
///
/// # Errors
/// When the service refuses the query.
pub async fn histories(
    changes: &Container,
    source_paths: &KeyPaths,
    id: &str,
    key: Option<&PartitionKey>,
    texts: Texts,
) -> Result<Histories, Failure> {
    let scope = key.and_then(|key| scope(changes.key_paths(), source_paths, key, Some(id)));
    let params = [Param::new("id", id)];
    let query = async |sql: &str| changes.query(sql, &params, scope.as_ref(), None).await;
    let none = || Histories { components: source_paths.len(), ..Histories::default() };
    let whole = match texts {
        Texts::None => None,
        Texts::UpTo(most) => {
            let mut pages = query(&format!("SELECT * FROM c WHERE c._originalId = @id AND {IS_RECORD}")).await?;
            let (mut found, mut bytes) = (none(), 0);
            while let Some(page) = pages.next().await {
                if bytes > most {
                    break;
                }
                for record in page?.documents {
                    bytes += record.get().len();
                    found.add(Entry::of(record.get(), changes.key_paths(), source_paths));
                }
            }
            (bytes <= most).then_some(found)
        }
    };
    let found = match whole {
        Some(found) => found,
        None => {
            let mut pages = query(&format!("{} AND c._originalId = @id", row::select(source_paths))).await?;
            let mut found = none();
            while let Some(page) = pages.next().await {
                for record in page?.documents {
                    found.add(row::Row::entry(record.get(), changes.key_paths(), source_paths));
                }
            }
            found
        }
    };
    let mut found = found.settled();
    if let Some(key) = key {
        found.items.retain(|item| item.key.partition_key.0.starts_with(&key.0));
    }
    Ok(found)
}

/// A record by its id; its key follows from the item's, as far as the layout tells. `None` when the history does not have
/// it (any more).
///
/// # Errors
/// When it cannot be read, or is not understood.
pub async fn record(
    changes: &Container,
    source: &KeyPaths,
    item: &ItemKey,
    record_id: &str,
) -> Result<Option<Version>, Failure> {
    let wrong = |e: String| Failure::invalid("read version".into(), e);
    let key = scope(changes.key_paths(), source, &item.partition_key, Some(&item.id));
    let retry = Retry::for_at_most(RETRY_TIMEOUT);
    let text = match key {
        Some(key) if key.0.len() == changes.key_paths().len() => {
            let Some(bytes) = retry.run(|| changes.read(&key, record_id)).await? else { return Ok(None) };
            String::from_utf8(bytes.to_vec()).map_err(|_| wrong(format!("record {record_id} is not UTF-8")))?
        }
        part => {
            let params = [Param::new("id", record_id)];
            let query = || changes.query_all("SELECT * FROM c WHERE c.id = @id", &params, part.as_ref());
            match retry.run(query).await?.first() {
                Some(record) => record.get().to_owned(),
                None => return Ok(None),
            }
        }
    };
    Version::parse(&text).map(Some).map_err(|e| wrong(e.to_string()))
}

/// The part of the changes container that holds the history of a source key, as far as its key paths tell.
pub fn scope(changes: &KeyPaths, source: &KeyPaths, key: &PartitionKey, id: Option<&str>) -> Option<PartitionKey> {
    let mut parts = Vec::new();
    for path in changes.segments() {
        let part = match source.segments().iter().position(|p| p == path) {
            // A record's id is not its document's: where a record lies by its own id cannot be told.
            Some(_) if matches!(path.as_slice(), [name] if name == "id") => None,
            Some(at) => key.0.get(at).cloned(),
            None if path.as_slice() == [ORIGINAL_ID] => id.map(|id| KeyValue::String(id.to_owned())),
            None => None,
        };
        match part {
            Some(part) => parts.push(part),
            None => break,
        }
    }
    (!parts.is_empty()).then_some(PartitionKey(parts))
}

/// What tells records from the other items of the history, the journals of restores and what `doctor` writes: those have
/// no `_change`, and ids of their own. A document's own member `_restore` is no sign.
pub const IS_RECORD: &str = "(IS_DEFINED(c._change) OR NOT IS_DEFINED(c._restore) OR \
                             NOT (STARTSWITH(c._originalId, 'restore~') OR STARTSWITH(c._originalId, 'cosmos-rewind-doctor~')))";
/// The items that are not records.
pub const IS_JOURNAL: &str =
    "(NOT IS_DEFINED(c._change) AND IS_DEFINED(c._restore) AND STARTSWITH(c._originalId, 'restore~'))";

/// Whether the members of any record tell the source's key, those of a tombstone too: it carries the key of the changes
/// container and nothing else.
pub fn tells_key(changes: &KeyPaths, source: &KeyPaths) -> bool {
    let is_id = |path: &[String]| matches!(path, [name] if name == "id");
    source.segments().iter().all(|path| is_id(path) || changes.segments().contains(path))
}

/// Which document a record belongs to; `None` for a delete in a history whose layout does not tell.
pub fn item_of(version: &Version, record: &str, changes: &KeyPaths, source_paths: &KeyPaths) -> Option<ItemKey> {
    if let Some(key) = version.key.as_ref().filter(|key| key.0.len() == source_paths.len()) {
        return Some(ItemKey { id: version.id.clone(), partition_key: key.clone() });
    }
    if version.document.is_none() && !tells_key(changes, source_paths) {
        return None;
    }
    let text = version.document.as_deref().unwrap_or(record);
    let partition_key = match RawDocument::parse(text) {
        Ok(document) => {
            let parts = source_paths.segments().iter().map(|path| {
                // The record's own id is not the document's.
                let is_id = matches!(path.as_slice(), [name] if name == "id");
                if is_id { KeyValue::String(version.id.clone()) } else { KeyPaths::extract_one(path, &document) }
            });
            PartitionKey(parts.collect())
        }
        Err(_) => PartitionKey(vec![KeyValue::Undefined; source_paths.len()]),
    };
    Some(ItemKey { id: version.id.clone(), partition_key })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(texts: &[&str]) -> KeyPaths {
        KeyPaths::parse(texts).unwrap()
    }

    #[test]
    fn the_scope_follows_the_key_paths_that_both_containers_share() {
        let key = PartitionKey::parse(r#"["t",7]"#).unwrap();
        let source = paths(&["/tenant", "/n"]);
        let scope = |changes: &[&str], id| scope(&paths(changes), &source, &key, id).map(|k| k.to_string());
        assert_eq!(scope(&["/tenant", "/n", "/_originalId"], Some("a")).as_deref(), Some(r#"["t",7,"a"]"#));
        assert_eq!(scope(&["/tenant", "/n", "/_originalId"], None).as_deref(), Some(r#"["t",7]"#));
        assert_eq!(scope(&["/n"], Some("a")).as_deref(), Some("[7]"));
        assert_eq!(scope(&["/_originalId"], Some("a")).as_deref(), Some("a"));
        assert_eq!(scope(&["/id"], Some("a")), None);
        assert_eq!(scope(&["/tenant", "/id"], Some("a")).as_deref(), Some("t"));
        let by_id = super::scope(&paths(&["/id", "/_originalId"]), &paths(&["/id"]), &key, Some("a"));
        assert_eq!(by_id, None, "the record's id is not the document's");
    }

    #[test]
    fn a_tombstone_belongs_to_the_key_in_its_record() {
        let record = r#"{"id":"a~del-9","pk":"p","_originalId":"a","_change":{"v":1,"op":"delete","ts":1,"lsn":9}}"#;
        let version = Version::parse(record).unwrap();
        assert_eq!(version.document, None);
        assert_eq!(
            item_of(&version, record, &paths(&["/pk"]), &paths(&["/pk"])).unwrap().partition_key.to_string(),
            "p"
        );
        assert_eq!(
            item_of(&version, record, &paths(&["/pk"]), &paths(&["/id"])).unwrap().partition_key.to_string(),
            "a"
        );
    }

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
        let found = Histories::group(records.iter().map(String::as_str), &paths(&["/pk"]), &paths(&["/pk"]));
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
