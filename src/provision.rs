//! Creates the database and its containers, or checks those that exist. What exists is never altered.
//!
//! # Examples
//!
//! ```no_run
//! use cosmos_rewind::{context::Context, provision::{self, Request}};
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let request = Request { source_paths: vec!["/tenant".into()], ..Request::default() };
//! let report = provision::run(request, &cx).await?;
//! println!("{} created, {} found", report.created(), report.all.len() - report.created());
//! # Ok(())
//! # }
//! ```

use std::time::Instant;

use serde::Serialize;

pub use crate::cosmos::provision::{DefinitionDifference, Provisioned, ResourceRole, Severity, Throughput};
use crate::{
    context::Context,
    cosmos::provision::{self, NotProvisioned, PathsError, ProvisionOptions},
};

/// The properties of containers that have to be created.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Partition key paths of the source, `/pk` when empty.
    pub source_paths: Vec<String>,
    /// Further index paths of the changes container.
    pub indexes: Vec<String>,
    /// Throughput of source and changes; without one they share the database's, or the account is serverless.
    pub throughput: Option<Throughput>,
    /// Whether the documents are in another database: then only their history and its leases are created.
    pub elsewhere: bool,
}

impl Request {
    /// Checks the paths; contacts nobody.
    ///
    /// # Errors
    /// When a path is invalid.
    pub fn check(&self) -> Result<(), ProvisionError> {
        provision::check_paths(&self.source_paths).map_err(ProvisionError::SourcePaths)?;
        match self.indexes.iter().find(|p| !p.starts_with('/') || p.len() < 2) {
            Some(bad) => Err(ProvisionError::IndexPath(bad.clone())),
            None => Ok(()),
        }
    }
}

/// The containers that exist now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The database, then its containers.
    pub all: Vec<Provisioned>,
    /// Request units.
    pub ru: f64,
    /// Seconds.
    pub seconds: f64,
}

impl Report {
    /// How many were created.
    pub fn created(&self) -> usize {
        self.all.iter().filter(|one| one.created).count()
    }

    /// The first existing one that cannot serve its purpose.
    pub fn unusable(&self) -> Option<&Provisioned> {
        self.all.iter().find(|one| one.differs.iter().any(|d| d.severity == Severity::Unusable))
    }
}

/// Why not everything exists.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// These cannot be partition key paths; the reason.
    #[error("cannot use the partition key paths")]
    SourcePaths(#[source] PathsError),
    /// This cannot be an index path.
    #[error("{0:?} is not a path")]
    IndexPath(String),
    /// The account cannot be read or refuses the caller.
    #[error("cannot provision")]
    Account(#[from] NotProvisioned),
}

/// Creates missing containers and checks existing ones. Running it again, or twice at once, is harmless.
///
/// # Errors
/// When a path is wrong, the account cannot be reached, or the caller may not create containers.
pub async fn run(request: Request, cx: &Context<'_>) -> Result<Report, ProvisionError> {
    let started = Instant::now();
    request.check()?;
    let Request { source_paths, indexes, throughput, elsewhere } = request;
    let all =
        provision::provision(cx.account, cx.names, &ProvisionOptions { source_paths, indexes, throughput, elsewhere })
            .await?;
    Ok(Report { all, ru: cx.account.meter().total(), seconds: started.elapsed().as_secs_f64() })
}
