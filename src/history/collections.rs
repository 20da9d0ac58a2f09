//! Whose a history is. One of a MongoDB collection names it in each record; documents of two collections may have the same
//! `_id`, and a history has nothing else to tell them apart by.

use crate::cosmos::{Container, Failure, Param};

/// Another collection whose history this is; `None` when `own` has versions in it, or nothing has. A collection that was
/// renamed has a history under each of its names.
///
/// # Errors
/// When the history cannot be read.
pub async fn of_another(changes: &Container, own: &str) -> Result<Option<String>, Failure> {
    let first = async |condition: &str| -> Result<Option<String>, Failure> {
        let sql = format!("SELECT TOP 1 VALUE c._change.ns FROM c WHERE {condition}");
        let found = changes.query_all(&sql, &[Param::new("own", own)], None).await?;
        Ok(found.first().and_then(|name| serde_json::from_str(name.get()).ok()))
    };
    // The second question goes through the whole history when there is nothing, so it is asked only when it matters.
    match first("IS_STRING(c._change.ns)").await? {
        Some(other) if other != own && first("c._change.ns = @own").await?.is_none() => Ok(Some(other)),
        _ => Ok(None),
    }
}
