//! Whose a history is. One of a MongoDB collection names it in each record; documents of two collections may have the
//! same `_id`, and a history has nothing else to tell them apart by.

use crate::cosmos::{Container, Failure, Param};

/// Another collection whose history this is; `None` when `own` has versions in it, or nothing has. A collection that
/// was renamed has a history under each of its names.
///
/// # Errors
/// When the history cannot be read.
pub async fn of_another(changes: &Container, own: &str) -> Result<Option<String>, Failure> {
    const ANY: &str = "SELECT TOP 1 VALUE c._change.ns FROM c WHERE IS_STRING(c._change.ns)";
    const OWN: &str = "SELECT TOP 1 VALUE c._change.ns FROM c WHERE c._change.ns = @own";
    let first = async |sql: &str, params: &[Param]| -> Result<Option<String>, Failure> {
        let found = changes.query_all(sql, params, None).await?;
        Ok(found.first().and_then(|name| serde_json::from_str(name.get()).ok()))
    };
    // The second question goes through the whole history when there is nothing, so it is asked only when it matters.
    match first(ANY, &[]).await? {
        Some(other) if other != own && first(OWN, &[Param::new("own", own)]).await?.is_none() => Ok(Some(other)),
        _ => Ok(None),
    }
}
