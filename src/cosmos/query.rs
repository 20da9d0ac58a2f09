//! SQL queries through the official client: parameters only, pages of raw documents.

use azure_data_cosmos::{
    FeedScope, Query,
    error::CosmosError,
    feed::{QueryFeedPage, QueryPageIterator},
    options::{MaxItemCountHint, QueryOptions},
};
use azure_data_cosmos_driver::{models::FeedRange as DriverFeedRange, options::ThrottlingRetryOptions};
use futures::StreamExt;
use serde_json::value::RawValue;

use super::{
    Container, Failure, FeedRange, HashRange, Page, RETRY_TIMEOUT, Retry, Status,
    container::wire_key,
    own_task::{self, OwnTask},
};
use crate::change::key::PartitionKey;

/// How often a throttled page is requested again before the query fails.
const QUERY_RETRIES: u32 = 30;

/// A named parameter of a query, such as `@city`.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// The name with its `@`.
    pub name: String,
    /// Its value.
    pub value: serde_json::Value,
}

impl Param {
    /// Builds a parameter; the `@` is added when missing.
    pub fn new(name: &str, value: impl Into<serde_json::Value>) -> Self {
        Self { name: format!("@{}", name.trim_start_matches('@')), value: value.into() }
    }
}

impl std::str::FromStr for Param {
    type Err = String;

    /// Parses `name=json`; a value that is not JSON is taken as a string, so `city=Davidson` works.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not name=value, such as city=Davidson or min=3"))?;
        let name = name.trim_start_matches('@');
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            return Err(format!("{name:?} is not a parameter name; use letters, digits and _"));
        }
        Ok(Self::new(name, serde_json::from_str::<serde_json::Value>(value).unwrap_or_else(|_| value.into())))
    }
}

/// A property in SQL, such as `c['address']['zip']`: safe for any name, keywords included. Uses single quotes, because
/// the SDK's emulator gives double quotes another meaning.
pub fn sql_path(segments: &[String]) -> String {
    segments.iter().fold(String::from("c"), |mut sql, segment| {
        let quoted = crate::change::edit::quote(segment).replace('\'', "\\u0027");
        sql.push_str("['");
        sql.push_str(quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default());
        sql.push_str("']");
        sql
    })
}

type RawPages = QueryPageIterator<Box<RawValue>>;
/// A page, and what is left of the query.
type AskedPage = (Option<Result<QueryFeedPage<Box<RawValue>>, CosmosError>>, RawPages);

/// The pages of one query, fetched on demand.
pub struct Pages {
    /// `None` when nothing that the query asks about lies in the range, and while a page is asked for.
    pages: Option<RawPages>,
    /// The page that was asked for. Whoever gave up waiting for it finds it here.
    asked: Option<OwnTask<AskedPage>>,
    meter: super::RuMeter,
}

impl Pages {
    /// The next page, or `None` at the end.
    ///
    /// # Errors
    /// With the service's own message when it refuses the query.
    pub async fn next(&mut self) -> Option<Result<Page, Failure>> {
        let asked = match &mut self.asked {
            Some(asked) => asked,
            None => {
                let mut pages = self.pages.take()?;
                self.asked.insert(own_task::begin(async move { (pages.next().await, pages) }))
            }
        };
        let (page, pages) = match own_task::ended(asked.await) {
            Ok(answer) => answer,
            Err(failure) => return Some(Err(failure)),
        };
        (self.asked, self.pages) = (None, Some(pages));
        Some(match page? {
            Ok(page) => {
                let charge = page.headers().request_charge().map(|charge| charge.value());
                let documents = page.into_items();
                // The service charges even for a page without documents. An empty answer of a proxy would end the
                // query.
                if charge.is_none() && documents.is_empty() {
                    return Some(Err(Failure::of_another("query".into())));
                }
                let charge = charge.unwrap_or(0.0);
                self.meter.add(charge);
                Ok(Page { documents, charge })
            }
            Err(e) => match Failure::from_driver(&e, "query".into()) {
                nothing if nothing.status == Status::NOTHING_TO_ASK => return None,
                failure => Err(failure),
            },
        })
    }
}

impl Container {
    /// Starts a query, within one (possibly partial) partition key or over the whole container.
    ///
    /// The whole container is asked for as a range of keys: asked for without one, the client library plans a predicate
    /// on the partition key itself, and finds no partitions for it.
    ///
    /// # Errors
    /// With the service's own message when it refuses the query.
    pub async fn query(
        &self,
        sql: &str,
        params: &[Param],
        scope: Option<&PartitionKey>,
        page_size: Option<u32>,
    ) -> Result<Pages, Failure> {
        let scope = match scope {
            Some(key) => FeedScope::partition(wire_key(key)?),
            None => FeedScope::range(DriverFeedRange::full()),
        };
        self.query_in(sql, params, scope, page_size).await
    }

    /// Starts a query over a range of the hash space.
    ///
    /// # Errors
    /// As [`Container::query`]; also when the container is not partitioned by a hash.
    pub async fn query_hash_range(&self, sql: &str, params: &[Param], span: HashRange) -> Result<Pages, Failure> {
        let scope = if span == HashRange::WHOLE {
            FeedScope::range(DriverFeedRange::full())
        } else {
            let space = self.hash_space().ok_or_else(|| {
                Failure::invalid("query".into(), format!("{} is not partitioned by a hash", self.name()))
            })?;
            FeedScope::range(span.feed_range(space)?)
        };
        self.query_in(sql, params, scope, None).await
    }

    /// Starts a query over a range of keys.
    ///
    /// # Errors
    /// When the account cannot be reached.
    pub async fn query_range(&self, sql: &str, params: &[Param], range: &FeedRange) -> Result<Pages, Failure> {
        self.query_in(sql, params, FeedScope::range(range.feed_range()), None).await
    }

    async fn query_in(
        &self,
        sql: &str,
        params: &[Param],
        scope: FeedScope,
        page_size: Option<u32>,
    ) -> Result<Pages, Failure> {
        // A page that fails is asked for again by the client library; what comes before the first one is not.
        let start = || self.start(sql, params, scope.clone(), page_size);
        let pages = Retry::for_at_most(RETRY_TIMEOUT).run_answered(start).await?;
        Ok(Pages { pages, asked: None, meter: self.cosmos().meter().clone() })
    }

    async fn start(
        &self,
        sql: &str,
        params: &[Param],
        scope: FeedScope,
        page_size: Option<u32>,
    ) -> Result<Option<QueryPageIterator<Box<RawValue>>>, Failure> {
        let fail = |e| Failure::from_driver(&e, "query".into());
        let client = self.cosmos().client().await?;
        let mut query = Query::from(sql);
        for param in params {
            query = query
                .with_parameter(param.name.clone(), &param.value)
                .map_err(|e| Failure::invalid("query".into(), format!("parameter {}: {e}", param.name)))?;
        }
        let mut options = QueryOptions::default();
        // A page that fails ends the iterator, so the client library waits out throttling here.
        let mut throttling = ThrottlingRetryOptions::default();
        throttling.max_retry_count = Some(QUERY_RETRIES);
        options.operation.throttling_retry_options = Some(throttling);
        if let Some(size) = page_size.and_then(std::num::NonZeroU32::new) {
            options = options.with_max_item_count(MaxItemCountHint::Limit(size));
        }
        let (database, name) = (self.database().to_owned(), self.name().to_owned());
        let items = own_task::run(async move {
            let container = client.database_client(database).container_client(name, None).await?;
            container.query_items::<Box<RawValue>>(query, scope, Some(options)).await
        });
        match items.await?.map_err(fail) {
            // A predicate on the partition key, and a range that does not contain that key.
            Err(nothing) if nothing.status == Status::NOTHING_TO_ASK => Ok(None),
            items => Ok(Some(items?.into_pages())),
        }
    }

    /// Runs a query to its end and returns all documents: for results that are known to be small.
    ///
    /// # Errors
    /// As [`Container::query`].
    pub async fn query_all(
        &self,
        sql: &str,
        params: &[Param],
        scope: Option<&PartitionKey>,
    ) -> Result<Vec<Box<RawValue>>, Failure> {
        let mut pages = self.query(sql, params, scope, None).await?;
        let mut documents = Vec::new();
        while let Some(page) = pages.next().await {
            documents.extend(page?.documents);
        }
        Ok(documents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_of_any_name_is_quoted() {
        let path = |segments: &[&str]| sql_path(&segments.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(path(&["order", "b"]), "c['order']['b']");
        assert_eq!(path(&["x'] OR 1=1 -- \\"]), r"c['x\u0027] OR 1=1 -- \\']");
    }

    #[test]
    fn parameters_are_json_or_else_text() {
        let parse = |t: &str| t.parse::<Param>();
        assert_eq!(parse("city=Davidson").unwrap(), Param::new("@city", "Davidson"));
        assert_eq!(parse("@min=3").unwrap(), Param::new("min", 3));
        assert_eq!(parse("zip=\"28036\"").unwrap(), Param::new("zip", "28036"));
        for bad in ["x", "=1", "a b=1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
