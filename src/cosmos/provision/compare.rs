//! Compares existing containers with those that would have been created.

use azure_data_cosmos::models::{CompositeIndexOrder, ContainerProperties, IndexingPolicy, TimeToLive};
use serde::Serialize;

use super::definitions::{LEASE_KEY, NEWEST_FIRST, changes_definition, expected_indexes, paths_of};
use crate::change::{key::KeyPaths, record::check_layout};

/// A difference between an existing container and the one that would have been created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DefinitionDifference {
    /// How bad it is.
    pub severity: Severity,
    /// The difference, on one line.
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

/// The differences between an existing source and what was asked for; none when nothing was asked for.
pub fn compare_source(found: &ContainerProperties, asked: &[String]) -> Vec<DefinitionDifference> {
    let paths = paths_of(found);
    if asked.is_empty() || asked == paths {
        return Vec::new();
    }
    vec![note(format!("its partition key is {}, not {}", paths.join(", "), asked.join(", ")))]
}

/// The differences between an existing changes container and the one that would have been created for this source.
pub fn compare_changes(
    found: &ContainerProperties,
    source_paths: &[String],
    indexes: &[String],
) -> Vec<DefinitionDifference> {
    let mut differs = Vec::new();
    let paths = paths_of(found);
    let wanted = changes_definition("", source_paths, indexes);
    let wanted_paths = paths_of(&wanted);
    let key_paths = |paths: &[String]| KeyPaths::parse(paths).unwrap_or_default();
    if let Err(e) = check_layout(&key_paths(&paths), &key_paths(source_paths)) {
        differs.push(DefinitionDifference { severity: Severity::Unusable, what: e.to_string() });
    } else if paths != wanted_paths {
        differs.push(note(format!(
            "its partition key is {}, not {}; the history of one key is limited to 20 GB",
            paths.join(", "),
            wanted_paths.join(", ")
        )));
    }
    if let TimeToLive::Seconds(seconds) = found.default_ttl {
        differs.push(DefinitionDifference {
            severity: Severity::Warning,
            what: format!("its defaultTtl is {seconds}: history older than that is deleted by the service"),
        });
    }
    differs.extend(compare_index(found.indexing_policy.as_ref(), &expected_indexes(source_paths, indexes)));
    differs
}

fn compare_index(policy: Option<&IndexingPolicy>, expected: &[String]) -> Vec<DefinitionDifference> {
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

/// The service quotes path segments on its own.
fn same_path(a: &str, b: &str) -> bool {
    a.replace('"', "") == b.replace('"', "")
}

/// The differences between an existing lease container and what the trigger needs.
pub fn compare_leases(found: &ContainerProperties) -> Vec<DefinitionDifference> {
    let mut differs = Vec::new();
    let paths = paths_of(found);
    if paths != [LEASE_KEY] {
        differs.push(DefinitionDifference {
            severity: Severity::Unusable,
            what: format!("its partition key is {}, and the trigger needs {LEASE_KEY}", paths.join(", ")),
        });
    }
    match found.default_ttl {
        TimeToLive::NoDefault => {}
        TimeToLive::Seconds(seconds) => differs.push(DefinitionDifference {
            severity: Severity::Warning,
            what: format!("its defaultTtl is {seconds}: a lease that expires makes the trigger start over"),
        }),
        _ => differs.push(note("its TTL is off".into())),
    }
    differs
}

fn note(what: String) -> DefinitionDifference {
    DefinitionDifference { severity: Severity::Note, what }
}

#[cfg(test)]
mod tests {
    use super::super::definitions::{leases_definition, source_definition};
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
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
        let whats = |differs: Vec<DefinitionDifference>| {
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
}
