//! The use case `query`: a caller's own SQL against one container, page by page.
//!
//! ```no_run
//! use cosmos_rewind::{
//!     context::Context,
//!     query::{self, Request},
//! };
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let sql = "SELECT c.id FROM c".into();
//! let request = Request { container: "events".into(), sql, params: Vec::new(), key: None, max: Some(100) };
//! let mut found = query::run(request, &cx).await?;
//! while let Some(documents) = found.next().await? {
//!     println!("{} more", documents.len());
//! }
//! # Ok(())
//! # }
//! ```

use serde_json::value::RawValue;

use crate::{
    change::key::{KeyPaths, PartitionKey},
    context::Context,
    cosmos::{Failure, Pages, Param},
};

/// The request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The container.
    pub container: String,
    /// The query, as Cosmos SQL.
    pub sql: String,
    /// Its parameters.
    pub params: Vec<Param>,
    /// Query this partition key only; trailing components may be left out.
    pub key: Option<PartitionKey>,
    /// Stop after this many documents.
    pub max: Option<u64>,
}

/// Why a query is not run.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// There is no query.
    #[error("the query is empty")]
    Empty,
    /// The container cannot be opened.
    #[error("cannot use the account")]
    Open(#[from] Failure),
    /// A key has more components than the container's.
    #[error("{key} has more components than the key of {container}, which is {paths}")]
    Key {
        /// The key.
        key: PartitionKey,
        /// The container.
        container: String,
        /// Its paths.
        paths: KeyPaths,
    },
    /// The service refused the query.
    #[error("cannot run the query")]
    Refused(#[source] Failure),
}

impl Request {
    /// Checks what can be checked without contacting anything.
    ///
    /// # Errors
    /// When the query is empty.
    pub fn check(&self) -> Result<(), QueryError> {
        if self.sql.trim().is_empty() { Err(QueryError::Empty) } else { Ok(()) }
    }
}

/// The results of the query, fetched on demand.
pub struct QueryResults {
    pages: Pages,
    max: Option<u64>,
    count: u64,
    is_cut: bool,
}

/// Starts a query.
///
/// # Errors
/// When the container cannot be opened, the key does not fit it, or the service refuses the query.
pub async fn run(request: Request, cx: &Context<'_>) -> Result<QueryResults, QueryError> {
    request.check()?;
    let container = cx.account.container(&cx.names.database, &request.container).await?;
    let paths = container.key_paths();
    // The service would answer in its own terms.
    if let Some(key) = request.key.as_ref().filter(|key| key.0.len() > paths.len()) {
        return Err(QueryError::Key { key: key.clone(), container: request.container, paths: paths.clone() });
    }
    let pages = container.query(&request.sql, &request.params, request.key.as_ref(), None).await;
    Ok(QueryResults { pages: pages.map_err(QueryError::Refused)?, max: request.max, count: 0, is_cut: false })
}

impl QueryResults {
    /// The next documents, in the service's order; a page may be empty.
    ///
    /// # Errors
    /// When the service refuses.
    pub async fn next(&mut self) -> Result<Option<Vec<Box<RawValue>>>, QueryError> {
        if self.is_cut {
            return Ok(None);
        }
        let Some(page) = self.pages.next().await else { return Ok(None) };
        let mut documents = page.map_err(QueryError::Refused)?.documents;
        if let Some(max) = self.max {
            let left = usize::try_from(max - self.count).unwrap_or(usize::MAX);
            self.is_cut = documents.len() > left;
            documents.truncate(left);
        }
        self.count += documents.len() as u64;
        Ok(Some(documents))
    }

    /// How many documents there were so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether there are more documents than the requested number.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}
