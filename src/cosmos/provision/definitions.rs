//! Container definitions.

use std::borrow::Cow;

use azure_data_cosmos::models::{
    CompositeIndex, CompositeIndexOrder, CompositeIndexProperty, ContainerProperties, IndexingMode, IndexingPolicy,
    PartitionKeyDefinition, TimeToLive,
};

use crate::change::{
    key::KeyPaths,
    record::{LayoutError, check_source_key},
};

/// The path that spreads the history of one busy partition key over partitions.
const ORIGINAL_ID: &str = "/_originalId";
/// The paths that every query on the history starts from.
const CHANGE_INDEX: &str = "/_change/*";
const ORIGINAL_ID_INDEX: &str = "/_originalId/?";
pub(super) const NEWEST_FIRST: [&str; 2] = ["/_change/ts", "/_change/lsn"];
/// The service allows three components in a hierarchical key.
const MAX_PATHS: usize = 3;
/// The key that the trigger's lease container must have.
pub(super) const LEASE_KEY: &str = "/id";

/// The definition of a source container.
pub fn source_definition(name: &str, paths: &[String]) -> ContainerProperties {
    ContainerProperties::new(name.to_owned(), key_definition(paths))
}

/// The definition of a changes container for a source with these partition key paths.
///
/// The key is hierarchical, the source's paths and then the document, because the history of one busy key would pass
/// the 20 GB limit of a logical partition that the live documents respect. Only the queried paths are indexed: a 1 KB
/// record costs about half the RU of the default policy.
pub fn changes_definition(name: &str, source_paths: &[String], indexes: &[String]) -> ContainerProperties {
    // A record's id is not its document's: with /id in the key every version would have its own partition.
    let mut paths: Vec<String> =
        source_paths.iter().map(|p| if p == "/id" { ORIGINAL_ID.to_owned() } else { p.clone() }).collect();
    if paths.len() < MAX_PATHS && !paths.iter().any(|p| p == ORIGINAL_ID) {
        paths.push(ORIGINAL_ID.to_owned());
    }
    let mut policy = IndexingPolicy::default().with_indexing_mode(IndexingMode::Consistent).with_excluded_path("/*");
    // The library's default is false, which would turn indexing off.
    policy.automatic = true;
    for path in expected_indexes(source_paths, indexes) {
        policy = policy.with_included_path(path);
    }
    let newest_first = NEWEST_FIRST.iter().fold(CompositeIndex::default(), |index, path| {
        index.with_property(CompositeIndexProperty::new(*path, CompositeIndexOrder::Descending))
    });
    ContainerProperties::new(name.to_owned(), key_definition(&paths))
        .with_indexing_policy(policy.with_composite_index(newest_first))
}

/// The definition of a lease container. TTL is enabled without a default: leases that expire say so themselves.
pub fn leases_definition(name: &str) -> ContainerProperties {
    ContainerProperties::new(name.to_owned(), LEASE_KEY.into()).with_default_ttl(TimeToLive::NoDefault)
}

fn key_definition(paths: &[String]) -> PartitionKeyDefinition {
    PartitionKeyDefinition::new(paths.iter().map(|p| Cow::Owned(p.clone())).collect())
}

pub(super) fn expected_indexes(source_paths: &[String], indexes: &[String]) -> Vec<String> {
    let mut expected = vec![CHANGE_INDEX.to_owned(), ORIGINAL_ID_INDEX.to_owned()];
    for path in source_paths.iter().chain(indexes) {
        let path = index_path(path);
        if !expected.contains(&path) {
            expected.push(path);
        }
    }
    expected
}

/// A path in the notation of index policies: `/city` means its value; `/address/*` and `/tags/[]/?` are taken as they
/// are.
pub fn index_path(path: &str) -> String {
    if path.ends_with("/?") || path.ends_with("/*") { path.to_owned() } else { format!("{path}/?") }
}

pub(super) fn paths_of(properties: &ContainerProperties) -> Vec<String> {
    properties.partition_key.paths().iter().map(|p| p.to_string()).collect()
}

/// Why a container cannot have such a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathsError {
    /// A path is malformed; the reason.
    #[error("{0}")]
    Path(String),
    /// The documents could not be captured.
    #[error(transparent)]
    Source(#[from] LayoutError),
    /// The service does not allow this many paths.
    #[error("{0} partition key paths are too many; the service allows {MAX_PATHS}")]
    TooMany(usize),
    /// A path occurs twice.
    #[error("path {0} is given twice")]
    Twice(String),
}

/// Checks partition key paths before anything is sent.
///
/// # Errors
/// With the problem, and how to write it.
pub fn check_paths(paths: &[String]) -> Result<(), PathsError> {
    check_source_key(&KeyPaths::parse(paths).map_err(PathsError::Path)?)?;
    if paths.len() > MAX_PATHS {
        return Err(PathsError::TooMany(paths.len()));
    }
    if let Some(twice) = paths.iter().enumerate().find(|(i, p)| paths[..*i].contains(p)) {
        return Err(PathsError::Twice(twice.1.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    fn json(properties: &ContainerProperties) -> String {
        serde_json::to_string(properties).unwrap()
    }

    #[test]
    fn the_changes_container_is_keyed_by_document_and_indexes_little() {
        insta::assert_snapshot!(json(&changes_definition("changes", &strings(&["/pk"]), &strings(&["/city_name"]))), @r#"{"id":"changes","partitionKey":{"paths":["/pk","/_originalId"],"kind":"MultiHash","version":2},"indexingPolicy":{"automatic":true,"indexingMode":"consistent","includedPaths":[{"path":"/_change/*"},{"path":"/_originalId/?"},{"path":"/pk/?"},{"path":"/city_name/?"}],"excludedPaths":[{"path":"/*"}],"compositeIndexes":[[{"path":"/_change/ts","order":"descending"},{"path":"/_change/lsn","order":"descending"}]]}}"#);
    }

    #[test]
    fn a_source_with_three_paths_leaves_no_room_for_the_document() {
        let key = |paths: &[&str]| paths_of(&changes_definition("c", &strings(paths), &[]));
        assert_eq!(key(&["/a", "/b"]), ["/a", "/b", "/_originalId"]);
        assert_eq!(key(&["/a", "/b", "/c"]), ["/a", "/b", "/c"]);
        assert_eq!(key(&["/_originalId"]), ["/_originalId"]);
        assert_eq!(key(&["/id"]), ["/_originalId"], "the versions of a document lie together");
        assert_eq!(key(&["/tenant", "/id"]), ["/tenant", "/_originalId"]);
    }

    #[test]
    fn the_other_containers_are_plain() {
        insta::assert_snapshot!(json(&source_definition("events", &strings(&["/pk"]))), @r#"{"id":"events","partitionKey":{"paths":["/pk"],"kind":"Hash","version":2}}"#);
        insta::assert_snapshot!(json(&leases_definition("leases")), @r#"{"id":"leases","partitionKey":{"paths":["/id"],"kind":"Hash","version":2},"defaultTtl":-1}"#);
    }

    #[test]
    fn paths_are_checked_before_anything_is_sent() {
        assert!(check_paths(&strings(&["/a", "/b/c"])).is_ok());
        for bad in [&["a"][..], &["/a", "/a"], &["/a", "/b", "/c", "/d"]] {
            assert!(check_paths(&strings(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(index_path("/a"), "/a/?");
        assert_eq!(index_path("/a/*"), "/a/*");
    }
}
