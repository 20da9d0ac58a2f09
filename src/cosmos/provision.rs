//! Container definitions, their creation, and the check of those that exist. What exists is never altered.

use std::borrow::Cow;

use azure_data_cosmos::{
    error::CosmosError,
    models::{
        CompositeIndex, CompositeIndexOrder, CompositeIndexProperty, ContainerProperties, IndexingMode, IndexingPolicy,
        PartitionKeyDefinition, ResponseHeaders, ThroughputProperties, TimeToLive,
    },
    options::CreateContainerOptions,
};
use serde::Serialize;

use super::{Cosmos, Disposition, Failure};
use crate::{
    change::{
        key::KeyPaths,
        record::{check_layout, check_source_key},
    },
    config::Names,
};

/// The path that makes the history of one busy partition key spread over partitions.
const ORIGINAL_ID: &str = "/_originalId";
/// The paths every question to the history starts from.
const CHANGE_INDEX: &str = "/_change/*";
const ORIGINAL_ID_INDEX: &str = "/_originalId/?";
const NEWEST_FIRST: [&str; 2] = ["/_change/ts", "/_change/lsn"];
/// The service allows three components in a hierarchical key.
const MAX_PATHS: usize = 3;
/// The key the trigger's lease container must have.
const LEASE_KEY: &str = "/id";

/// What is wanted beyond the defaults.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Partition key paths of a source container that has to be made, `/pk` when empty.
    pub source_paths: Vec<String>,
    /// Further index paths of the changes container.
    pub indexes: Vec<String>,
    /// Throughput of source and changes when they have to be made; without one they share the database's, or are
    /// served serverless.
    pub throughput: Option<Throughput>,
}

/// Provisioned throughput in RU/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throughput {
    /// Fixed.
    Manual(u64),
    /// From a tenth of it up to it.
    Autoscale(u64),
}

/// Which of the four things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The database.
    Database,
    /// The live container.
    Source,
    /// The history container.
    Changes,
    /// The trigger's lease container.
    Leases,
}

impl Role {
    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Source => "source",
            Self::Changes => "changes",
            Self::Leases => "leases",
        }
    }
}

/// What was found or made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Provisioned {
    /// Which thing.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// Whether it was made now.
    pub created: bool,
    /// Its partition key paths; none for a database.
    pub key: Vec<String>,
    /// Where it is not what this program would have made; it was left as it is.
    pub differs: Vec<Difference>,
}

/// A difference between what exists and what would have been made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, one line.
    pub what: String,
}

/// How bad a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It works, at another price.
    Note,
    /// It works until it loses something.
    Warning,
    /// It cannot work.
    Unusable,
}

/// The definition of a source container.
pub fn source_definition(name: &str, paths: &[String]) -> ContainerProperties {
    ContainerProperties::new(name.to_owned(), key_definition(paths))
}

/// The definition of a changes container for a source with these partition key paths.
///
/// The key is hierarchical, the source's paths and then the document, because the history of one busy key would pass
/// the 20 GB limit of a logical partition that the live documents respect. Only what is asked for is indexed: a 1 KB
/// record costs about half the RU of the default policy.
pub fn changes_definition(name: &str, source_paths: &[String], indexes: &[String]) -> ContainerProperties {
    // A record's id is not its document's: by /id every version would lie in a place of its own.
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

/// The definition of a lease container. TTL is on without a default: leases that expire say so themselves.
pub fn leases_definition(name: &str) -> ContainerProperties {
    ContainerProperties::new(name.to_owned(), LEASE_KEY.into()).with_default_ttl(TimeToLive::NoDefault)
}

fn key_definition(paths: &[String]) -> PartitionKeyDefinition {
    PartitionKeyDefinition::new(paths.iter().map(|p| Cow::Owned(p.clone())).collect())
}

fn expected_indexes(source_paths: &[String], indexes: &[String]) -> Vec<String> {
    let mut expected = vec![CHANGE_INDEX.to_owned(), ORIGINAL_ID_INDEX.to_owned()];
    for path in source_paths.iter().chain(indexes) {
        let path = index_path(path);
        if !expected.contains(&path) {
            expected.push(path);
        }
    }
    expected
}

/// A path as an index policy has it: `/city` means its value, `/address/*` and `/tags/[]/?` are taken as they are.
pub fn index_path(path: &str) -> String {
    if path.ends_with("/?") || path.ends_with("/*") { path.to_owned() } else { format!("{path}/?") }
}

/// Where an existing source differs from what was asked for; nothing asked for, nothing differs.
pub fn compare_source(found: &ContainerProperties, asked: &[String]) -> Vec<Difference> {
    let paths = paths_of(found);
    if asked.is_empty() || asked == paths {
        return Vec::new();
    }
    vec![note(format!("its partition key is {}, not {}", paths.join(", "), asked.join(", ")))]
}

/// Where an existing changes container differs from what would have been made for this source.
pub fn compare_changes(found: &ContainerProperties, source_paths: &[String], indexes: &[String]) -> Vec<Difference> {
    let mut differs = Vec::new();
    let paths = paths_of(found);
    let wanted = changes_definition("", source_paths, indexes);
    let wanted_paths = paths_of(&wanted);
    let key_paths = |paths: &[String]| KeyPaths::parse(paths).unwrap_or_default();
    if let Err(what) = check_layout(&key_paths(&paths), &key_paths(source_paths)) {
        differs.push(Difference { severity: Severity::Unusable, what });
    } else if paths != wanted_paths {
        differs.push(note(format!(
            "its partition key is {}, not {}; the history of one key is limited to 20 GB",
            paths.join(", "),
            wanted_paths.join(", ")
        )));
    }
    if let TimeToLive::Seconds(seconds) = found.default_ttl {
        differs.push(Difference {
            severity: Severity::Warning,
            what: format!("its defaultTtl is {seconds}: history older than that is deleted by the service"),
        });
    }
    differs.extend(compare_index(found.indexing_policy.as_ref(), &expected_indexes(source_paths, indexes)));
    differs
}

fn compare_index(policy: Option<&IndexingPolicy>, expected: &[String]) -> Vec<Difference> {
    let Some(policy) = policy else {
        return vec![note("its index policy is not shown by the service".into())];
    };
    let mut differs = Vec::new();
    if policy.included_paths.iter().any(|p| p.path == "/*") {
        differs.push(note("it indexes every field, which costs RU for each record".into()));
    } else {
        let missing: Vec<_> = expected
            .iter()
            .filter(|path| !policy.included_paths.iter().any(|p| same_path(&p.path, path)))
            .cloned()
            .collect();
        if !missing.is_empty() {
            differs
                .push(note(format!("it does not index {}: questions about them read everything", missing.join(", "))));
        }
    }
    let newest_first = policy.composite_indexes.iter().any(|index| {
        let found: Vec<_> = index.properties.iter().map(|p| (p.path.trim_end_matches("/?"), &p.order)).collect();
        found == NEWEST_FIRST.map(|path| (path, &CompositeIndexOrder::Descending))
    });
    if !newest_first {
        differs.push(note(format!("it has no composite index on {} (descending)", NEWEST_FIRST.join(", "))));
    }
    differs
}

/// The service quotes segments of its own accord.
fn same_path(a: &str, b: &str) -> bool {
    a.replace('"', "") == b.replace('"', "")
}

/// Where an existing lease container differs from what the trigger needs.
pub fn compare_leases(found: &ContainerProperties) -> Vec<Difference> {
    let mut differs = Vec::new();
    let paths = paths_of(found);
    if paths != [LEASE_KEY] {
        differs.push(Difference {
            severity: Severity::Unusable,
            what: format!("its partition key is {}, and the trigger needs {LEASE_KEY}", paths.join(", ")),
        });
    }
    match found.default_ttl {
        TimeToLive::NoDefault => {}
        TimeToLive::Seconds(seconds) => differs.push(Difference {
            severity: Severity::Warning,
            what: format!("its defaultTtl is {seconds}: a lease that expires makes the trigger start over"),
        }),
        _ => differs.push(note("its TTL is off".into())),
    }
    differs
}

fn note(what: String) -> Difference {
    Difference { severity: Severity::Note, what }
}

fn paths_of(properties: &ContainerProperties) -> Vec<String> {
    properties.partition_key.paths().iter().map(|p| p.to_string()).collect()
}

/// Why something is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum NotProvisioned {
    /// It is missing, and cannot be created.
    #[error(transparent)]
    Create(Failure),
    /// The account cannot be read, or what exists cannot be used.
    #[error(transparent)]
    Other(#[from] Failure),
}

impl From<NotProvisioned> for Failure {
    fn from(error: NotProvisioned) -> Self {
        match error {
            NotProvisioned::Create(failure) | NotProvisioned::Other(failure) => failure,
        }
    }
}

/// Makes what is missing and checks what exists. Running it again, or twice at once, is harmless.
///
/// # Errors
/// When the account cannot be reached, or the caller may not create what is missing.
pub async fn provision(cosmos: &Cosmos, names: &Names, wanted: &Wanted) -> Result<Vec<Provisioned>, NotProvisioned> {
    let database = ensure_database(cosmos, &names.database).await?;
    let paths = if wanted.source_paths.is_empty() { vec!["/pk".to_owned()] } else { wanted.source_paths.clone() };
    let definition = source_definition(&names.source, &paths);
    let (source, created) = ensure_container(cosmos, &names.database, definition, wanted.throughput).await?;
    // The definition that exists decides about the history's key, whatever was asked for.
    let source_paths = paths_of(&source);
    let usable = KeyPaths::parse(&source_paths).and_then(|paths| check_source_key(&paths));
    usable.map_err(|problem| Failure::invalid(format!("provision {}", names.source), problem))?;
    let mut all = vec![database];
    all.push(Provisioned {
        role: Role::Source,
        name: names.source.clone(),
        created,
        differs: if created { Vec::new() } else { compare_source(&source, &wanted.source_paths) },
        key: source_paths.clone(),
    });
    let definition = changes_definition(&names.changes, &source_paths, &wanted.indexes);
    let (changes, created) = ensure_container(cosmos, &names.database, definition, wanted.throughput).await?;
    all.push(Provisioned {
        role: Role::Changes,
        name: names.changes.clone(),
        created,
        differs: if created { Vec::new() } else { compare_changes(&changes, &source_paths, &wanted.indexes) },
        key: paths_of(&changes),
    });
    let (leases, created) = ensure_container(cosmos, &names.database, leases_definition(&names.leases), None).await?;
    all.push(Provisioned {
        role: Role::Leases,
        name: names.leases.clone(),
        created,
        differs: if created { Vec::new() } else { compare_leases(&leases) },
        key: paths_of(&leases),
    });
    Ok(all)
}

async fn ensure_database(cosmos: &Cosmos, name: &str) -> Result<Provisioned, NotProvisioned> {
    let client = cosmos.client().await?;
    let made = |created| Provisioned {
        role: Role::Database,
        name: name.to_owned(),
        created,
        key: Vec::new(),
        differs: Vec::new(),
    };
    match client.database_client(name.to_owned()).read(None).await {
        Ok(response) => {
            charge(cosmos, response.headers());
            return Ok(made(false));
        }
        Err(e) => absent(&e, format!("read database {name}"))?,
    }
    match client.create_database(name, None).await {
        Ok(response) => {
            charge(cosmos, response.headers());
            Ok(made(true))
        }
        Err(e) => match Failure::from_driver(&e, format!("create database {name}")) {
            failure if failure.disposition == Disposition::Conflict => Ok(made(false)),
            failure => Err(NotProvisioned::Create(failure)),
        },
    }
}

/// The container's definition, and whether it was made now.
async fn ensure_container(
    cosmos: &Cosmos,
    database: &str,
    definition: ContainerProperties,
    throughput: Option<Throughput>,
) -> Result<(ContainerProperties, bool), NotProvisioned> {
    let name = definition.id.to_string();
    if let Some(found) = read_container(cosmos, database, &name).await? {
        return Ok((found, false));
    }
    let client = cosmos.client().await?.database_client(database.to_owned());
    let options = throughput.map(|throughput| {
        CreateContainerOptions::default().with_throughput(match throughput {
            Throughput::Manual(ru) => ThroughputProperties::manual(ru),
            Throughput::Autoscale(ru) => ThroughputProperties::autoscale(ru, None),
        })
    });
    let context = format!("create container {database}/{name}");
    match client.create_container(definition, options).await {
        Ok(response) => {
            charge(cosmos, response.headers());
            let made = response.into_model().map_err(|e| NotProvisioned::Create(Failure::from_driver(&e, context)))?;
            Ok((made, true))
        }
        Err(e) => match Failure::from_driver(&e, context.clone()) {
            // Someone else made it in the meantime.
            failure if failure.disposition == Disposition::Conflict => {
                let found = read_container(cosmos, database, &name).await?;
                found.map(|found| (found, false)).ok_or(NotProvisioned::Create(failure))
            }
            failure => Err(NotProvisioned::Create(failure)),
        },
    }
}

/// The definition of a container, or `None` when there is none.
///
/// # Errors
/// When the account cannot be reached or refuses the caller.
pub async fn read_container(
    cosmos: &Cosmos,
    database: &str,
    name: &str,
) -> Result<Option<ContainerProperties>, Failure> {
    let context = || format!("read container {database}/{name}");
    let client = cosmos.client().await?.database_client(database.to_owned());
    let container = match client.container_client(name.to_owned(), None).await {
        Ok(container) => container,
        Err(e) => return absent(&e, context()).map(|()| None),
    };
    match container.read(None).await {
        Ok(response) => {
            charge(cosmos, response.headers());
            response.into_model().map(Some).map_err(|e| Failure::from_driver(&e, context()))
        }
        Err(e) => absent(&e, context()).map(|()| None),
    }
}

/// Accepts "there is no such thing", and nothing else.
fn absent(error: &CosmosError, context: String) -> Result<(), Failure> {
    match Failure::from_driver(error, context) {
        failure if failure.disposition == Disposition::NotFound => Ok(()),
        failure => Err(failure),
    }
}

fn charge(cosmos: &Cosmos, headers: &ResponseHeaders) {
    cosmos.meter().add(headers.request_charge().map_or(0.0, |c| c.value()));
}

/// Checks partition key paths before anything is sent.
///
/// # Errors
/// With what is wrong and how to write it.
pub fn check_paths(paths: &[String]) -> Result<(), String> {
    check_source_key(&KeyPaths::parse(paths)?)?;
    if paths.len() > MAX_PATHS {
        return Err(format!("{} partition key paths are too many; the service allows {MAX_PATHS}", paths.len()));
    }
    if let Some(twice) = paths.iter().enumerate().find(|(i, p)| paths[..*i].contains(p)) {
        return Err(format!("path {} is given twice", twice.1));
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
    fn what_was_made_here_does_not_differ() {
        let source = strings(&["/pk"]);
        let made = changes_definition("changes", &source, &[]);
        assert_eq!(compare_changes(&made, &source, &[]), []);
        assert_eq!(compare_leases(&leases_definition("leases")), []);
        assert_eq!(compare_source(&source_definition("events", &source), &[]), []);
    }

    #[test]
    fn differences_are_named_by_how_bad_they_are() {
        let source = strings(&["/pk"]);
        let whats = |differs: Vec<Difference>| {
            differs.into_iter().map(|d| format!("{:?}: {}", d.severity, d.what)).collect::<Vec<_>>().join("\n")
        };
        let mut policy = IndexingPolicy::default().with_included_path("/*");
        policy.automatic = true;
        let demo = ContainerProperties::new("changes", "/pk".into()).with_indexing_policy(policy).with_default_ttl(60);
        insta::assert_snapshot!(whats(compare_changes(&demo, &source, &[])), @"
        Note: its partition key is /pk, not /pk, /_originalId; the history of one key is limited to 20 GB
        Warning: its defaultTtl is 60: history older than that is deleted by the service
        Note: it indexes every field, which costs RU for each record
        Note: it has no composite index on /_change/ts, /_change/lsn (descending)
        ");
        for key in ["/other", "/_originalId", "/id"] {
            let unusable = ContainerProperties::new("changes", key.into());
            assert_eq!(compare_changes(&unusable, &source, &[])[0].severity, Severity::Unusable, "{key}");
        }
        assert_eq!(compare_leases(&ContainerProperties::new("leases", "/pk".into()))[0].severity, Severity::Unusable);
        assert!(
            whats(compare_changes(&changes_definition("c", &source, &[]), &source, &strings(&["/city"])))
                .contains("/city/?")
        );
        assert!(
            whats(compare_source(&source_definition("e", &source), &strings(&["/a", "/b"])))
                .contains("is /pk, not /a, /b")
        );
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
