//! SQL queries: parameters only, pages of raw documents.
//!
//! Through the driver, as all that is read: the official client would open the account a second time.

use std::sync::Arc;

use azure_data_cosmos_driver::{
    CosmosDriver, OperationPlan,
    error::CosmosError,
    models::{
        ContainerReference, CosmosOperation, CosmosResponse, FeedRange as DriverFeedRange, MaxItemCountHint,
        ResponseBody,
    },
    options::{OperationOptions, PlanOptions, ThrottlingRetryOptions},
};
use serde::{Deserialize, Serialize};
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
#[derive(Debug, Clone, PartialEq, Serialize)]
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

/// The body of a request for documents.
#[derive(Serialize)]
struct Query<'a> {
    query: &'a str,
    parameters: &'a [Param],
}

/// A query that has begun.
struct Begun {
    driver: Arc<CosmosDriver>,
    container: ContainerReference,
    plan: OperationPlan,
}

type AskedPage = Result<Option<CosmosResponse>, CosmosError>;

impl Begun {
    async fn next(mut self) -> (AskedPage, Self) {
        let container = Some(self.container.clone());
        (self.driver.execute_plan(&mut self.plan, container, page_options()).await, self)
    }
}

/// A page that fails ends the query, so the driver waits out throttling here.
fn page_options() -> OperationOptions {
    let mut throttling = ThrottlingRetryOptions::default();
    throttling.max_retry_count = Some(QUERY_RETRIES);
    let mut options = OperationOptions::default();
    options.throttling_retry_options = Some(throttling);
    options
}

/// The pages of one query, fetched on demand.
pub struct Pages {
    /// What is left of the query. `None` at its end, when nothing that it asks about lies in the range, and while a page
    /// is asked for.
    rest: Option<Begun>,
    /// The page that was asked for. Whoever gave up waiting for it finds it here.
    asked: Option<OwnTask<(AskedPage, Begun)>>,
    meter: super::RuMeter,
}

impl Pages {
    /// The next page, or `None` at the end.
    ///
    /// # Errors
    /// With the service's own message when it refuses the query. That ends the query.
    pub async fn next(&mut self) -> Option<Result<Page, Failure>> {
        let asked = match &mut self.asked {
            Some(asked) => asked,
            None => {
                let rest = self.rest.take()?;
                self.asked.insert(own_task::begin(rest.next()))
            }
        };
        let ended = own_task::ended(asked.await);
        self.asked = None;
        let (page, rest) = match ended {
            Ok(answer) => answer,
            Err(failure) => return Some(Err(failure)),
        };
        match page.map_err(fail) {
            Ok(page) => {
                let page = page?;
                self.rest = Some(rest);
                Some(self.page_of(page))
            }
            Err(nothing) if nothing.status == Status::NOTHING_TO_ASK => None,
            Err(failure) => Some(Err(failure)),
        }
    }

    fn page_of(&self, answer: CosmosResponse) -> Result<Page, Failure> {
        let charge = answer.headers().request_charge.map(|charge| charge.value());
        let documents = documents_of(answer.into_body())?;
        // The service charges even for a page without documents. An empty answer of a proxy would end the query.
        if charge.is_none() && documents.is_empty() {
            return Err(Failure::of_another("query".into()));
        }
        let charge = charge.unwrap_or(0.0);
        self.meter.add(charge);
        Ok(Page { documents, charge })
    }
}

/// The documents of a page: one by one where the driver merges partitions, else as the service sent them.
fn documents_of(body: ResponseBody) -> Result<Vec<Box<RawValue>>, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "Documents")]
        documents: Vec<Box<RawValue>>,
    }
    match body {
        whole @ ResponseBody::Bytes(_) => whole.into_single::<Answer>().map(|answer| answer.documents),
        parts => parts.into_items(),
    }
    .map_err(fail)
}

fn fail(error: CosmosError) -> Failure {
    Failure::from_driver(&error, "query".into())
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
            Some(key) => DriverFeedRange::for_partition(wire_key(key)?, self.reference().partition_key_definition()),
            None => DriverFeedRange::full(),
        };
        self.query_in(sql, params, scope, page_size).await
    }

    /// Starts a query over a range of the hash space.
    ///
    /// # Errors
    /// As [`Container::query`]; also when the container is not partitioned by a hash.
    pub async fn query_hash_range(&self, sql: &str, params: &[Param], span: HashRange) -> Result<Pages, Failure> {
        let scope = if span == HashRange::WHOLE {
            DriverFeedRange::full()
        } else {
            let space = self.hash_space().ok_or_else(|| {
                Failure::invalid("query".into(), format!("{} is not partitioned by a hash", self.name()))
            })?;
            span.feed_range(space)?
        };
        self.query_in(sql, params, scope, None).await
    }

    /// Starts a query over a range of keys.
    ///
    /// # Errors
    /// When the account cannot be reached.
    pub async fn query_range(&self, sql: &str, params: &[Param], range: &FeedRange) -> Result<Pages, Failure> {
        self.query_in(sql, params, range.feed_range(), None).await
    }

    async fn query_in(
        &self,
        sql: &str,
        params: &[Param],
        scope: DriverFeedRange,
        page_size: Option<u32>,
    ) -> Result<Pages, Failure> {
        // A page that fails is asked for again by the driver; what comes before the first one is not.
        let start = || self.start(sql, params, scope.clone(), page_size);
        let rest = Retry::for_at_most(RETRY_TIMEOUT).run_answered(start).await?;
        Ok(Pages { rest, asked: None, meter: self.cosmos().meter().clone() })
    }

    async fn start(
        &self,
        sql: &str,
        params: &[Param],
        scope: DriverFeedRange,
        page_size: Option<u32>,
    ) -> Result<Option<Begun>, Failure> {
        let body = serde_json::to_vec(&Query { query: sql, parameters: params })
            .map_err(|e| Failure::invalid("query".into(), e.to_string()))?;
        let (driver, container) = (self.driver().clone(), self.reference().clone());
        let mut operation = CosmosOperation::query_items(container.clone(), Some(scope)).with_body(body);
        if let Some(size) = page_size.and_then(std::num::NonZeroU32::new) {
            operation = operation.with_max_item_count(MaxItemCountHint::Limit(size));
        }
        let asked = driver.clone();
        let plan = own_task::run(async move {
            asked.plan_operation(operation, &page_options(), None, &PlanOptions::default()).await
        });
        match plan.await?.map_err(fail) {
            // A predicate on the partition key, and a range that does not contain that key.
            Err(nothing) if nothing.status == Status::NOTHING_TO_ASK => Ok(None),
            plan => Ok(Some(Begun { driver, container, plan: plan? })),
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
