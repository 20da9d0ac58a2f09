//! Which layouts of source and history records can be kept in, and where a record lies: the one place that knows what a
//! component of a history's partition key stands for. A record's id is not its document's, so `/id` names the record in
//! the history and the document in the source.

use super::{CHANGE, ORIGINAL_ID, SYSTEM};
use crate::change::{
    Op,
    key::{ItemKey, KeyPaths, KeyValue, PartitionKey, render_path},
    raw::RawDocument,
    version::Version,
};

/// Where a component of a history's key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRole {
    /// The id of the document that the record belongs to.
    DocumentId,
    /// The record's own id.
    RecordId,
    /// A member that the record copies from its document.
    Member,
}

impl KeyRole {
    /// The meaning of a path of the history's key.
    pub fn of(path: &[String]) -> Self {
        match path {
            [name] if name == ORIGINAL_ID => Self::DocumentId,
            [name] if name == "id" => Self::RecordId,
            _ => Self::Member,
        }
    }
}

/// Whether a path is the id; in a source that is the document's id.
pub fn is_id(path: &[String]) -> bool {
    KeyRole::of(path) == KeyRole::RecordId
}

/// The key paths of a history and of its source, and what follows from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    changes: KeyPaths,
    source: KeyPaths,
}

impl Layout {
    /// For a history keyed by `changes` and a source keyed by `source`.
    pub fn new(changes: KeyPaths, source: KeyPaths) -> Self {
        Self { changes, source }
    }

    /// The paths of the history's key.
    pub fn changes(&self) -> &KeyPaths {
        &self.changes
    }

    /// The paths of the source's key.
    pub fn source(&self) -> &KeyPaths {
        &self.source
    }

    /// Where a record of an item lies; `None` when that does not follow from the item's key.
    pub fn record_key(&self, item: &ItemKey, record_id: &str) -> Option<PartitionKey> {
        let part = |path: &Vec<String>| match KeyRole::of(path) {
            KeyRole::DocumentId => Some(KeyValue::String(item.id.clone())),
            KeyRole::RecordId => Some(KeyValue::String(record_id.to_owned())),
            KeyRole::Member => self.of_source(path, &item.partition_key),
        };
        self.changes.segments().iter().map(part).collect::<Option<_>>().map(PartitionKey)
    }

    /// Whether the place of a record follows from its item's key.
    pub fn addresses_records(&self) -> bool {
        let is_known =
            |path: &Vec<String>| KeyRole::of(path) != KeyRole::Member || self.source.segments().contains(path);
        self.changes.segments().iter().all(is_known)
    }

    /// The part of the history that holds the records of a source key (its first components suffice), and of an id when
    /// one is given; `None` when they may lie anywhere.
    pub fn scope(&self, key: &PartitionKey, id: Option<&str>) -> Option<PartitionKey> {
        let part = |path: &Vec<String>| match KeyRole::of(path) {
            KeyRole::DocumentId => id.map(|id| KeyValue::String(id.to_owned())),
            // The place of a record that is keyed by its own id cannot be derived.
            KeyRole::RecordId => None,
            KeyRole::Member => self.of_source(path, key),
        };
        let parts: Vec<KeyValue> = self.changes.segments().iter().map_while(part).collect();
        (!parts.is_empty()).then_some(PartitionKey(parts))
    }

    fn of_source(&self, path: &[String], key: &PartitionKey) -> Option<KeyValue> {
        let at = self.source.segments().iter().position(|own| own == path)?;
        key.0.get(at).cloned()
    }

    /// Whether the members of every record reveal the source's key, those of tombstones included: a tombstone carries
    /// only the key of the history.
    pub fn tells_key(&self) -> bool {
        self.source.segments().iter().all(|path| is_id(path) || self.changes.segments().contains(path))
    }

    /// Which document a record belongs to; `None` for a delete in a history whose layout does not tell.
    pub fn item_of(&self, version: &Version, record: &str) -> Option<ItemKey> {
        let item = |partition_key| Some(ItemKey { id: version.id.clone(), partition_key });
        if let Some(key) = version.key.as_ref().filter(|key| key.0.len() == self.source.len()) {
            return item(key.clone());
        }
        if version.document.is_none() && !self.tells_key() {
            return None;
        }
        item(match RawDocument::parse(version.document.as_deref().unwrap_or(record)) {
            Ok(document) => self.source_key(&document, &version.id),
            Err(_) => PartitionKey(vec![KeyValue::Undefined; self.source.len()]),
        })
    }

    /// Which document a row belongs to, given the record's own key values; `None` as for [`Layout::item_of`]. `key` is
    /// the content of `_change.key`.
    pub fn item_of_row(
        &self,
        id: &str,
        op: Option<Op>,
        key: Option<PartitionKey>,
        values: impl FnOnce() -> PartitionKey,
    ) -> Option<ItemKey> {
        let partition_key = match key.filter(|key| key.0.len() == self.source.len()) {
            Some(key) => key,
            None if op.is_some_and(Op::is_tombstone) && !self.tells_key() => return None,
            None => values(),
        };
        Some(ItemKey { id: id.to_owned(), partition_key })
    }

    /// The source key of a document with this id, whose text may be its record's.
    pub fn source_key(&self, document: &RawDocument<'_>, id: &str) -> PartitionKey {
        let part = |path: &Vec<String>| {
            if is_id(path) { KeyValue::String(id.to_owned()) } else { KeyPaths::extract_one(path, document) }
        };
        PartitionKey(self.source.segments().iter().map(part).collect())
    }

    /// The members in which records hold the values of the source's key.
    pub fn members_of_source_key(&self) -> impl Iterator<Item = Vec<String>> {
        self.source.segments().iter().map(|path| if is_id(path) { vec![ORIGINAL_ID.to_owned()] } else { path.clone() })
    }

    /// Whether all records of an item share one key, so that a part of the history's hash space holds all of them or
    /// none.
    pub fn is_cut_by_item(&self) -> bool {
        self.changes.segments().iter().all(|path| match KeyRole::of(path) {
            KeyRole::DocumentId => true,
            KeyRole::RecordId => false,
            KeyRole::Member => self.source.segments().contains(path),
        })
    }

    /// Whether the first component of an item's key is the same in the history and in a container with the source's
    /// key: the hash space is cut by that component.
    pub fn begins_as(&self, target: &KeyPaths) -> bool {
        match (self.changes.segments().first(), target.segments().first()) {
            (Some(history), Some(target)) => {
                history == target || (KeyRole::of(history) == KeyRole::DocumentId && is_id(target))
            }
            _ => false,
        }
    }

    /// The places in which records of a document may lie, its own key first. In records from before `_change.key`,
    /// tombstones have only the members of the history's key; where the source's are not among them, only the id tells
    /// whose a tombstone is.
    pub fn places_of(&self, item: &ItemKey) -> Vec<ItemKey> {
        let named = self.changes.segments();
        if self.source.segments().iter().all(|path| named.contains(path) && KeyRole::of(path) == KeyRole::Member) {
            return vec![item.clone()];
        }
        let part = |path: &Vec<String>| {
            if is_id(path) { KeyValue::String(item.id.clone()) } else { KeyValue::Undefined }
        };
        let unkeyed = PartitionKey(self.source.segments().iter().map(part).collect());
        vec![item.clone(), ItemKey { id: item.id.clone(), partition_key: unkeyed }]
    }
}

/// The source's key, as far as the history's own key reveals it.
pub fn source_of(changes: &KeyPaths) -> KeyPaths {
    changes.retain(|path| KeyRole::of(path) != KeyRole::DocumentId)
}

/// Where an item of the history lies that is not a record; `group` takes the place of a document's id.
pub fn key_of_other(changes: &KeyPaths, group: &str, id: &str) -> PartitionKey {
    let part = |path: &Vec<String>| match KeyRole::of(path) {
        KeyRole::DocumentId => KeyValue::String(group.to_owned()),
        KeyRole::RecordId => KeyValue::String(id.to_owned()),
        KeyRole::Member => KeyValue::Undefined,
    };
    PartitionKey(changes.segments().iter().map(part).collect())
}

/// The part of the history that holds a group's items, which are not records; `None` when they may lie anywhere.
pub fn scope_of_others(changes: &KeyPaths, group: &str) -> Option<PartitionKey> {
    let mut key = key_of_other(changes, group, "");
    // They share a partition, unless the container is keyed by their own ids.
    let own = changes.segments().iter().position(|path| KeyRole::of(path) == KeyRole::RecordId);
    key.0.truncate(own.unwrap_or(key.0.len()));
    (!key.0.is_empty()).then_some(key)
}

/// Why a history cannot hold a source's records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The source is keyed by a path that records need for themselves: the path.
    #[error(
        "the source is keyed by {0}, which a record of the history needs for itself, so its documents cannot be captured"
    )]
    Taken(String),
    /// The history is keyed by paths that documents do not have.
    #[error("its partition key {foreign} is not part of the source's ({of_source}), so a delete could not be recorded")]
    Foreign {
        /// Those paths.
        foreign: String,
        /// The source's.
        of_source: KeyPaths,
    },
    /// The history's key does not include everything that tells documents apart.
    #[error(
        "its partition key ({of_history}) leaves out {left_out} of the source's, so two documents of one id could share a record"
    )]
    LeftOut {
        /// The history's paths.
        of_history: KeyPaths,
        /// The source's paths that are not among them.
        left_out: String,
    },
}

/// Whether documents of a source with this key can be records: a record moves some members aside, which would change
/// its key.
///
/// # Errors
/// With the path that records need for themselves.
pub fn check_source_key(source: &KeyPaths) -> Result<(), LayoutError> {
    let is_taken = |name: &str| matches!(name, "ttl" | CHANGE | ORIGINAL_ID) || SYSTEM.contains(&name);
    match source.segments().iter().find(|path| path.first().is_some_and(|name| is_taken(name))) {
        None => Ok(()),
        Some(path) => Err(LayoutError::Taken(render_path(path))),
    }
}

/// Whether a history keyed by `changes` can keep the documents of a source keyed by `source` apart: a record lies where
/// its document's key says, and two documents with the same id may have the same etag under different keys.
///
/// # Errors
/// With the fault of the history's key.
pub fn check_layout(changes: &KeyPaths, source: &KeyPaths) -> Result<(), LayoutError> {
    let shown =
        |paths: Vec<&Vec<String>>| paths.into_iter().map(|path| render_path(path)).collect::<Vec<_>>().join(", ");
    check_source_key(source)?;
    let is_foreign = |path: &&Vec<String>| !source.segments().contains(path) && KeyRole::of(path) == KeyRole::Member;
    let foreign: Vec<_> = changes.segments().iter().filter(is_foreign).collect();
    if !foreign.is_empty() {
        return Err(LayoutError::Foreign { foreign: shown(foreign), of_source: source.clone() });
    }
    // Every key includes an id.
    let is_left_out = |path: &&Vec<String>| !changes.segments().contains(path) && !is_id(path);
    let left_out: Vec<_> = source.segments().iter().filter(is_left_out).collect();
    if !left_out.is_empty() {
        return Err(LayoutError::LeftOut { of_history: changes.clone(), left_out: shown(left_out) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(texts: &[&str]) -> KeyPaths {
        KeyPaths::parse(texts).unwrap()
    }

    fn layout(changes: &[&str], source: &[&str]) -> Layout {
        Layout::new(paths(changes), paths(source))
    }

    #[test]
    fn the_scope_follows_the_key_paths_that_both_containers_share() {
        let key = PartitionKey::parse(r#"["t",7]"#).unwrap();
        let scope =
            |changes: &[&str], id| layout(changes, &["/tenant", "/n"]).scope(&key, id).map(|key| key.to_string());
        assert_eq!(scope(&["/tenant", "/n", "/_originalId"], Some("a")).as_deref(), Some(r#"["t",7,"a"]"#));
        assert_eq!(scope(&["/tenant", "/n", "/_originalId"], None).as_deref(), Some(r#"["t",7]"#));
        assert_eq!(scope(&["/n"], Some("a")).as_deref(), Some("[7]"));
        assert_eq!(scope(&["/_originalId"], Some("a")).as_deref(), Some("a"));
        assert_eq!(scope(&["/id"], Some("a")), None);
        assert_eq!(scope(&["/tenant", "/id"], Some("a")).as_deref(), Some("t"));
        let by_id = layout(&["/id", "/_originalId"], &["/id"]).scope(&key, Some("a"));
        assert_eq!(by_id, None, "the record's id is not the document's");
    }

    #[test]
    fn a_tombstone_belongs_to_the_key_in_its_record() {
        let record = r#"{"id":"a~del-9","pk":"p","_originalId":"a","_change":{"v":1,"op":"delete","ts":1,"lsn":9}}"#;
        let version = Version::parse(record).unwrap();
        assert_eq!(version.document, None);
        let key = |changes: &[&str], source: &[&str]| {
            layout(changes, source).item_of(&version, record).map(|item| item.partition_key.to_string())
        };
        assert_eq!(key(&["/pk"], &["/pk"]).as_deref(), Some("p"));
        assert_eq!(key(&["/pk"], &["/id"]).as_deref(), Some("a"));
        assert_eq!(key(&["/_originalId"], &["/pk"]), None);
    }

    #[test]
    fn a_record_lies_where_its_items_key_says_or_nowhere_known() {
        let item = ItemKey { id: "a".into(), partition_key: PartitionKey::parse("p").unwrap() };
        for (changes, source, place) in [
            (&["/pk", "/_originalId"][..], &["/pk"][..], Some(r#"["p","a"]"#)),
            (&["/id"], &["/pk"], Some("a~1")),
            (&["/other"], &["/pk"], None),
            (&["/id"], &["/id"], Some("a~1")),
        ] {
            let layout = layout(changes, source);
            assert_eq!(layout.record_key(&item, "a~1").map(|key| key.to_string()).as_deref(), place, "{changes:?}");
            assert_eq!(layout.addresses_records(), place.is_some(), "{changes:?}");
        }
        assert!(layout(&["/_originalId"], &["/id"]).begins_as(&KeyPaths::parse(&["/id"]).unwrap()));
        assert!(!layout(&["/id"], &["/id"]).is_cut_by_item(), "a record's id is not its document's");
    }

    #[test]
    fn what_is_no_record_lies_by_its_group() {
        let scope = |texts: &[&str]| scope_of_others(&paths(texts), "restore~1").map(|key| key.to_string());
        assert_eq!(key_of_other(&paths(&["/pk", "/_originalId"]), "restore~1", "x").to_string(), r#"[{},"restore~1"]"#);
        assert_eq!(scope(&["/_originalId", "/id"]).as_deref(), Some("restore~1"));
        assert_eq!(scope(&["/id"]), None);
    }

    #[test]
    fn a_history_whose_key_cannot_tell_documents_apart_is_refused() {
        let check = |changes: &[&str], source: &[&str]| check_layout(&paths(changes), &paths(source));
        for (changes, source) in [
            (&["/pk", "/_originalId"][..], &["/pk"][..]),
            (&["/pk"], &["/pk"]),
            (&["/_originalId", "/pk"], &["/pk"]),
            (&["/_originalId"], &["/id"]),
            (&["/id"], &["/id"]),
            (&["/tenant", "/_originalId"], &["/tenant", "/id"]),
            (&["/a", "/b/c", "/_originalId"], &["/a", "/b/c"]),
        ] {
            assert_eq!(check(changes, source), Ok(()), "{changes:?} {source:?}");
        }
        for (changes, source, problem) in [
            (&["/_originalId"][..], &["/pk"][..], "leaves out /pk"),
            (&["/id"], &["/pk"], "leaves out /pk"),
            (&["/a", "/_originalId"], &["/a", "/b"], "leaves out /b"),
            (&["/other"], &["/pk"], "/other is not part of the source's"),
            (&["/pk", "/other"], &["/pk"], "/other is not part of the source's"),
            (&["/ttl", "/_originalId"], &["/ttl"], "keyed by /ttl"),
            (&["/_originalId"], &["/_originalId"], "keyed by /_originalId"),
            (&["/pk", "/_change/x"], &["/pk", "/_change/x"], "keyed by /_change/x"),
        ] {
            assert!(check(changes, source).unwrap_err().to_string().contains(problem), "{changes:?} {source:?}");
        }
    }
}
