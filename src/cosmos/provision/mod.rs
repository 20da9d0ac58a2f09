//! Container definitions, their creation, and the check of existing containers. What exists is never altered.

mod compare;
mod create;
mod definitions;

use serde::Serialize;

use self::{
    create::{ensure_container, ensure_database},
    definitions::paths_of,
};
use super::{Cosmos, Failure};
use crate::{
    change::{key::KeyPaths, record::check_source_key},
    config::Names,
};

pub use self::{
    compare::{DefinitionDifference, Severity, compare_changes, compare_leases, compare_source},
    create::{read_container, read_definition},
    definitions::{PathsError, changes_definition, check_paths, index_path, leases_definition, source_definition},
};

/// Wishes beyond the defaults.
#[derive(Debug, Clone, Default)]
pub struct ProvisionOptions {
    /// Partition key paths of a source container that has to be created; `/pk` when empty.
    pub source_paths: Vec<String>,
    /// Further index paths of the changes container.
    pub indexes: Vec<String>,
    /// Throughput of the source and the changes container, if they have to be created; without one they share the
    /// database's, or the account is serverless.
    pub throughput: Option<Throughput>,
    /// The documents are in another database and are identified by their ids alone: no source container is created.
    pub elsewhere: bool,
}

/// Provisioned throughput in RU/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throughput {
    /// Fixed.
    Manual(u64),
    /// Autoscale, from a tenth of this up to it.
    Autoscale(u64),
}

/// Which of the four resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceRole {
    /// The database.
    Database,
    /// The live container.
    Source,
    /// The history container.
    Changes,
    /// The trigger's lease container.
    Leases,
}

impl ResourceRole {
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

/// The containers that were found or created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Provisioned {
    /// Which thing.
    pub role: ResourceRole,
    /// Its name.
    pub name: String,
    /// Whether it was created now.
    pub created: bool,
    /// Its partition key paths; none for a database.
    pub key: Vec<String>,
    /// How it differs from what this program would have created; it was left as it is.
    pub differs: Vec<DefinitionDifference>,
}

/// Why a resource is not as wanted.
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

/// Creates missing containers and checks existing ones. Running it again, or twice at once, is harmless.
///
/// # Errors
/// When the account cannot be reached, or the caller may not create containers.
pub async fn provision(
    cosmos: &Cosmos,
    names: &Names,
    wanted: &ProvisionOptions,
) -> Result<Vec<Provisioned>, NotProvisioned> {
    let database = ensure_database(cosmos, &names.database).await?;
    let mut all = vec![database];
    let source_paths = match wanted.elsewhere {
        true => vec!["/id".to_owned()],
        false => source(cosmos, names, wanted, &mut all).await?,
    };
    let definition = changes_definition(&names.changes, &source_paths, &wanted.indexes);
    let (changes, created) = ensure_container(cosmos, &names.database, definition, wanted.throughput).await?;
    all.push(Provisioned {
        role: ResourceRole::Changes,
        name: names.changes.clone(),
        created,
        differs: if created { Vec::new() } else { compare_changes(&changes, &source_paths, &wanted.indexes) },
        key: paths_of(&changes),
    });
    let (leases, created) = ensure_container(cosmos, &names.database, leases_definition(&names.leases), None).await?;
    all.push(Provisioned {
        role: ResourceRole::Leases,
        name: names.leases.clone(),
        created,
        differs: if created { Vec::new() } else { compare_leases(&leases) },
        key: paths_of(&leases),
    });
    Ok(all)
}

/// Creates or checks the source, and returns its partition key paths.
async fn source(
    cosmos: &Cosmos,
    names: &Names,
    wanted: &ProvisionOptions,
    all: &mut Vec<Provisioned>,
) -> Result<Vec<String>, NotProvisioned> {
    let paths = if wanted.source_paths.is_empty() { vec!["/pk".to_owned()] } else { wanted.source_paths.clone() };
    let definition = source_definition(&names.source, &paths);
    let (source, created) = ensure_container(cosmos, &names.database, definition, wanted.throughput).await?;
    // The existing definition determines the history's key, whatever was asked for.
    let source_paths = paths_of(&source);
    let unusable = |problem| Failure::invalid(format!("provision {}", names.source), problem);
    let own = KeyPaths::parse(&source_paths).map_err(unusable)?;
    check_source_key(&own).map_err(|e| unusable(e.to_string()))?;
    all.push(Provisioned {
        role: ResourceRole::Source,
        name: names.source.clone(),
        created,
        differs: if created { Vec::new() } else { compare_source(&source, &wanted.source_paths) },
        key: source_paths.clone(),
    });
    Ok(source_paths)
}
