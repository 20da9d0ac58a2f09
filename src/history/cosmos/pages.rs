//! The pages of a query as a stream of parsed rows.

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use serde_json::value::RawValue;

use crate::cosmos::{Answer, Container, Failure, HashRange, PageStream, Pages, Param, RETRY_TIMEOUT, Retry};

/// The rows of a query, each parsed by `read`.
pub(super) fn rows<'a, T: Send + 'a>(
    query: impl Future<Output = Result<Pages, Failure>> + Send + 'a,
    read: impl Fn(&RawValue) -> Result<T, Failure> + Send + 'a,
) -> PageStream<'a, T> {
    let pages = query.into_stream().map_ok(|pages| {
        stream::try_unfold(pages, |mut pages| async move {
            let Some(page) = pages.next().await else { return Ok(None) };
            Ok::<_, Failure>(Some((page?.documents, pages)))
        })
    });
    pages.try_flatten().map(move |page| page?.iter().map(|row| read(row)).collect()).boxed()
}

/// The rows of a query over a part of the hash space.
pub(super) fn rows_in<'a, T: Send + 'a>(
    container: &'a Container,
    sql: String,
    params: Vec<Param>,
    range: HashRange,
    read: impl Fn(&RawValue) -> Result<T, Failure> + Send + 'a,
) -> PageStream<'a, T> {
    rows(async move { container.query_hash_range(&sql, &params, range).await }, read)
}

/// The first row of a query that has at most one, retried until it is answered.
pub(super) fn first_row<'a, T: Send + 'a>(
    container: &'a Container,
    sql: &'a str,
    params: Vec<Param>,
    read: impl Fn(&RawValue) -> Result<T, Failure> + Send + Sync + 'a,
) -> Answer<'a, Option<T>> {
    async move {
        let rows = Retry::for_at_most(RETRY_TIMEOUT).run(|| container.query_all(sql, &params, None)).await?;
        rows.first().map(|row| read(row)).transpose()
    }
    .boxed()
}
