//! Reads the versions of one document back from the changes container.

use crate::{
    change::{
        key::{ItemKey, KeyPaths, KeyValue, PartitionKey},
        raw::RawDocument,
        record::ORIGINAL_ID,
        version::{BadRecord, Version},
    },
    cosmos::{Container, Failure, Param},
};

/// The versions of all documents that share an id, oldest first.
#[derive(Debug, Default)]
pub struct Versions {
    /// Each version with the document it belongs to: one id may live under several partition keys.
    pub versions: Vec<(ItemKey, Version)>,
    /// Records that could not be understood.
    pub bad: Vec<BadRecord>,
}

impl Versions {
    /// The documents, each once, in order of their first version.
    pub fn items(&self) -> Vec<&ItemKey> {
        let mut items: Vec<&ItemKey> = Vec::new();
        for (item, _) in &self.versions {
            if !items.contains(&item) {
                items.push(item);
            }
        }
        items
    }
}

/// Reads every version of the documents with this id; only of the one under `key` when it is given.
///
/// Sorted here and not by the service: that needs no composite index, and copies of the original demo have no
/// `_change` to sort by.
///
/// # Errors
/// When the service refuses the query.
pub async fn versions(
    changes: &Container,
    source_paths: &KeyPaths,
    id: &str,
    key: Option<&PartitionKey>,
) -> Result<Versions, Failure> {
    let scope = key.and_then(|key| scope(changes.key_paths(), source_paths, key, Some(id)));
    let mut pages = changes
        .query("SELECT * FROM c WHERE c._originalId = @id", &[Param::new("id", id)], scope.as_ref(), None)
        .await?;
    let mut found = Versions::default();
    while let Some(page) = pages.next().await {
        for record in page?.documents {
            match Version::parse(record.get()) {
                Ok(version) => {
                    let item = item_of(&version, record.get(), source_paths);
                    if key.is_none_or(|key| *key == item.partition_key) {
                        found.versions.push((item, version));
                    }
                }
                Err(bad) => found.bad.push(bad),
            }
        }
    }
    found.versions.sort_by(|(_, a), (_, b)| a.position().cmp(&b.position()));
    Ok(found)
}

/// The part of the changes container that holds the history of a source key, as far as its key paths tell.
pub fn scope(changes: &KeyPaths, source: &KeyPaths, key: &PartitionKey, id: Option<&str>) -> Option<PartitionKey> {
    let mut parts = Vec::new();
    for path in changes.segments() {
        let part = match source.segments().iter().position(|p| p == path) {
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
fn item_of(version: &Version, record: &str, source_paths: &KeyPaths) -> ItemKey {
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
    }

    #[test]
    fn a_tombstone_belongs_to_the_key_in_its_record() {
        let record = r#"{"id":"a~del-9","pk":"p","_originalId":"a","_change":{"v":1,"op":"delete","ts":1,"lsn":9}}"#;
        let version = Version::parse(record).unwrap();
        assert_eq!(version.document, None);
        assert_eq!(item_of(&version, record, &paths(&["/pk"])).partition_key.to_string(), "p");
        assert_eq!(item_of(&version, record, &paths(&["/id"])).partition_key.to_string(), "a");
    }
}
