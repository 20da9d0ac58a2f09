//! Reads the versions of documents back from the changes container.

use std::collections::HashMap;

use crate::{
    change::{
        key::{ItemKey, KeyPaths, KeyValue, PartitionKey},
        raw::RawDocument,
        record::ORIGINAL_ID,
        version::{BadRecord, Version},
    },
    cosmos::{Container, Failure, Param},
};

/// One document's history.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Which document: one id may live under several partition keys.
    pub key: ItemKey,
    /// Its versions, oldest first.
    pub versions: Vec<Version>,
}

/// Histories read from the changes container.
#[derive(Debug, Default)]
pub struct Histories {
    /// The documents, in order of their first version.
    pub items: Vec<Item>,
    /// Records that could not be understood, so that nobody knows whose they are.
    pub bad: Vec<BadRecord>,
}

impl Histories {
    /// Groups records by document.
    pub fn group<'a>(records: impl IntoIterator<Item = &'a str>, source_paths: &KeyPaths) -> Self {
        let mut found = Self::default();
        let mut places: HashMap<ItemKey, usize> = HashMap::new();
        for record in records {
            match Version::parse(record) {
                Ok(version) => {
                    let key = item_of(&version, record, source_paths);
                    let place = *places.entry(key).or_insert_with_key(|key| {
                        found.items.push(Item { key: key.clone(), versions: Vec::new() });
                        found.items.len() - 1
                    });
                    found.items[place].versions.push(version);
                }
                Err(bad) => found.bad.push(bad),
            }
        }
        for item in &mut found.items {
            item.versions.sort_by(|a, b| a.position().cmp(&b.position()));
        }
        found.items.sort_by(|a, b| {
            let first = |item: &Item| item.versions.first().map(|v| (v.ts, v.lsn));
            first(a).cmp(&first(b)).then_with(|| a.key.id.cmp(&b.key.id))
        });
        found
    }
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
) -> Result<Histories, Failure> {
    let scope = key.and_then(|key| scope(changes.key_paths(), source_paths, key, Some(id)));
    let records =
        changes.query_all("SELECT * FROM c WHERE c._originalId = @id", &[Param::new("id", id)], scope.as_ref()).await?;
    let mut found = Histories::group(records.iter().map(|r| r.get()), source_paths);
    if let Some(key) = key {
        found.items.retain(|item| item.key.partition_key.0.starts_with(&key.0));
    }
    Ok(found)
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

/// Which document a record belongs to. A tombstone has no document, but its record carries the key members.
pub fn item_of(version: &Version, record: &str, source_paths: &KeyPaths) -> ItemKey {
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
    ItemKey { id: version.id.clone(), partition_key }
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
        assert_eq!(item_of(&version, record, &paths(&["/pk"])).partition_key.to_string(), "p");
        assert_eq!(item_of(&version, record, &paths(&["/id"])).partition_key.to_string(), "a");
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
        let found = Histories::group(records.iter().map(String::as_str), &paths(&["/pk"]));
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
