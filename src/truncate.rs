//! Deletes all documents of a container: lists them first, then deletes them.

use std::time::Instant;

use serde::Serialize;

use crate::{
    change::{
        key::{ItemKey, KeyPaths, PartitionKey},
        raw::RawDocument,
    },
    context::Context,
    cosmos::{Concurrency, Container, Failure, RuLimiter, WriteAction, WriteJob, Writers, sql_path},
    outcomes::Outcomes,
};

/// How many failures are named; the rest is only counted.
const SHOWN_FAILURES: u64 = 10;

/// The container, and limits.
#[derive(Debug, Clone)]
pub struct Request {
    /// The container's name.
    pub container: String,
    /// At most this many documents.
    pub max: u64,
    /// Deletes in flight.
    pub concurrency: Concurrency,
}

/// The documents to delete.
#[derive(Debug)]
pub struct TruncatePlan {
    /// Database and container.
    pub shown: String,
    /// Whether the container has more documents than the request allows.
    pub more: bool,
    container: Container,
    items: Vec<ItemKey>,
    concurrency: Concurrency,
    begun: Instant,
}

impl TruncatePlan {
    /// How many documents are to be deleted.
    pub fn documents(&self) -> u64 {
        self.items.len() as u64
    }
}

/// The outcome of the deletes.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Database and container.
    pub container: String,
    /// Documents deleted, or already gone.
    pub deleted: u64,
    /// Documents that the service refused to delete.
    pub failed: u64,
    /// Documents that are left because the work was told to stop.
    #[serde(skip)]
    pub left: u64,
    /// How many refusals were not named while the deletes ran.
    pub unnamed: u64,
    /// Request units, the listing included.
    pub ru: f64,
    /// Seconds since the listing began.
    pub seconds: f64,
    /// The failure that ended the deletes: every further one would have failed, too.
    #[serde(skip)]
    pub refused: Option<Failure>,
}

/// Why documents cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum TruncateError {
    /// The container cannot be read.
    #[error(transparent)]
    Service(#[from] Failure),
    /// The service's list of documents has a row that is not a JSON object.
    #[error("a row of the listing is not understood")]
    Row(#[from] serde_json::Error),
    /// The service's list of documents has a row without an id.
    #[error("a row of the listing has no id")]
    NoId,
}

/// Lists the documents; deletes nothing.
///
/// # Errors
/// When the container cannot be read.
pub async fn plan(request: Request, cx: &Context<'_>) -> Result<TruncatePlan, TruncateError> {
    let begun = Instant::now();
    let Request { container: name, max, concurrency } = request;
    let container = cx.account.container(&cx.names.database, &name).await?;
    let (items, more) = list(&container, max, cx).await?;
    let shown = format!("{}/{name}", cx.names.database);
    Ok(TruncatePlan { shown, more, container, items, concurrency, begun })
}

/// Deletes the documents of a plan.
pub async fn apply(plan: TruncatePlan, cx: &Context<'_>) -> Report {
    let TruncatePlan { shown, container, items, concurrency, begun, .. } = plan;
    let mut report =
        Report { container: shown, deleted: 0, failed: 0, left: 0, unnamed: 0, ru: 0.0, seconds: 0.0, refused: None };
    if !items.is_empty() {
        let all = items.len() as u64;
        let step = cx.progress.begin("delete", Some(all));
        let (observer, outcomes) = Outcomes::observed();
        let limiter = RuLimiter::new(cx.account.meter(), None);
        let writers = Writers::start((&container).into(), concurrency, limiter, observer, &cx.stop);
        let work = async {
            for item in items {
                if !writers.send(WriteJob { item, action: WriteAction::Delete }).await {
                    break;
                }
            }
            writers.finish().await
        };
        let mut failures = 0;
        let told = outcomes.tell(&*step, |text| {
            if failures < SHOWN_FAILURES {
                step.note(text);
            }
            failures += 1;
        });
        let ((tally, refused), ()) = tokio::join!(work, told);
        (report.deleted, report.failed, report.refused) = (tally.deleted, tally.failed, refused);
        report.left = all.saturating_sub(tally.deleted + tally.failed);
        report.unnamed = u64::saturating_sub(failures, SHOWN_FAILURES);
    }
    report.ru = cx.account.meter().total();
    report.seconds = begun.elapsed().as_secs_f64();
    report
}

/// Id and key of every document up to `max`, and whether there are more.
async fn list(container: &Container, max: u64, cx: &Context<'_>) -> Result<(Vec<ItemKey>, bool), TruncateError> {
    let step = cx.progress.begin("count", None);
    let sql = list_sql(container.key_paths());
    let mut pages = container.query(&sql, &[], None, None).await?;
    let mut items = Vec::new();
    while let Some(page) = pages.next().await {
        for row in page?.documents {
            if items.len() as u64 >= max {
                return Ok((items, true));
            }
            items.push(item(row.get(), container.key_paths().len())?);
            step.advance(1);
        }
    }
    Ok((items, false))
}

/// Only ids and key components, each under a name of its own: a missing one stays missing, as undefined.
fn list_sql(paths: &KeyPaths) -> String {
    let mut sql = String::from("SELECT c.id AS id");
    for (i, path) in paths.segments().iter().enumerate() {
        sql.push_str(&format!(", {} AS k{i}", sql_path(path)));
    }
    sql + " FROM c"
}

fn item(row: &str, components: usize) -> Result<ItemKey, TruncateError> {
    let row = RawDocument::parse(row)?;
    let id = row.get_str("id").ok_or(TruncateError::NoId)?.into_owned();
    let parts = (0..components).map(|i| KeyPaths::extract_one(&[format!("k{i}")], &row)).collect();
    Ok(ItemKey { id, partition_key: PartitionKey(parts) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listing_asks_for_ids_and_keys_only() {
        let paths = KeyPaths::parse(&["/tenant", "/user/\"a/b\""]).unwrap();
        assert_eq!(list_sql(&paths), "SELECT c.id AS id, c['tenant'] AS k0, c['user']['a/b'] AS k1 FROM c");
    }

    #[test]
    fn a_key_keeps_the_difference_between_null_and_undefined() {
        let item = item(r#"{"id":"a","k1":null,"k2":4.5}"#, 3).unwrap();
        assert_eq!(item.partition_key.to_string(), "[{},null,4.5]");
        assert!(super::item("{}", 1).is_err());
    }
}
