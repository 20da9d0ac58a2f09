//! `query`: runs SQL against one container.

use std::time::Instant;

use clap::Args;

use super::{ConnectionArgs, connection::container};
use crate::{
    change::key::{KeyPaths, PartitionKey},
    console::{CliError, ErrorKind, Exit, Ui},
    cosmos::{Failure, Param},
    figures::count_of,
    format::Format,
    query::{self, QueryError, Request},
};

/// Flags of `query`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind query \"SELECT * FROM c WHERE c.city_name = @city\" --param city=Davidson
  cosmos-rewind query --in changes \"SELECT c._change.ts, c.seq FROM c\" --pk 28036 --format csv
  cosmos-rewind query --count \"SELECT c.id FROM c\"

Strings in SQL take single quotes: c.city_name = 'Davidson'.")]
pub struct QueryArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// The query, as Cosmos SQL
    sql: String,
    /// source, changes, leases, or a container's own name
    #[arg(long = "in", value_name = "CONTAINER", default_value = "source", value_parser = container)]
    container: String,
    /// Value of a parameter of the query: JSON, or else text (digits as text: zip='"28036"'); repeatable
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<Param>,
    /// Query only this partition key, as text or as a JSON array of its components
    #[arg(long, value_name = "KEY", value_parser = PartitionKey::parse)]
    pk: Option<PartitionKey>,
    /// Stop after this many documents
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// Print only the number of documents, counted here page by page
    #[arg(long)]
    count: bool,
    /// How to print; json and jsonl keep each document's text as stored
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
///
/// # Errors
/// When the query is wrong, or the account cannot be used.
pub async fn run(args: QueryArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    let explained = |error| explain(error, &args.sql);
    let mut request =
        Request { container: args.container, sql: args.sql.clone(), params: args.params, key: args.pk, max: args.max };
    request.check().map_err(explained)?;
    let (cosmos, names) = args.connection.open()?;
    request.container = ConnectionArgs::container_name(&names, &request.container).to_owned();
    let cx = ui.context(&cosmos, &names);
    let mut found = query::run(request, &cx).await.map_err(explained)?;
    if args.count {
        let step = cx.progress.begin("count", None);
        while let Some(page) = found.next().await.map_err(explained)? {
            step.advance(page.len() as u64);
        }
        drop(step);
        ui.summary(args.format, &[("count", found.count().into())])?;
    } else {
        let mut documents = ui.documents(args.format);
        while let Some(page) = found.next().await.map_err(explained)? {
            page.into_iter().try_for_each(|document| documents.push(document))?;
            documents.flush()?;
        }
        documents.finish()?;
    }
    let ended = if found.is_cut() { " (stopped at --max)" } else { "" };
    ui.spent(&format!("{}{ended}", count_of(found.count(), "document")), &cosmos, started);
    Ok(Exit::Done)
}

/// A key with more components than the container's, or with fewer where all are needed.
pub(super) fn wrong_key(key: &PartitionKey, container: &str, paths: &KeyPaths) -> CliError {
    let (given, all) = (key.0.len(), paths.len());
    if given > all {
        return CliError::usage(
            format!("--pk {key} has {given} components, the key of {container} is {paths}"),
            "give one component for each path; a string that starts with [ takes quotes: '\"[x]\"'",
        );
    }
    CliError::usage(
        format!("--pk {key}: {given} of {all} components; the key of {container} is {paths}"),
        "give all components as a JSON array",
    )
}

/// Explains why a query fails, with a hint.
fn explain(error: QueryError, sql: &str) -> CliError {
    match error {
        QueryError::Empty => CliError::usage("the query is empty", "write one, such as \"SELECT * FROM c\""),
        QueryError::Open(failure) => failure.into(),
        QueryError::Key { key, container, paths } => wrong_key(&key, &container, &paths),
        QueryError::Refused(failure) => refused(failure, sql),
    }
}

/// The client library's own refusals, reworded to say what to do.
fn refused(failure: Failure, sql: &str) -> CliError {
    let aggregate = "pass --pk KEY when one partition key is meant, or select the plain values and count with --count";
    let hint = match (failure.status.code, failure.status.sub) {
        (400, 20113) => {
            Some(format!("aggregates, GROUP BY and DISTINCT work within one partition key only: {aggregate}"))
        }
        (400, 20125) => {
            Some("over all partitions it needs a TOP or OFFSET .. LIMIT in the query; or pass --pk KEY".to_owned())
        }
        _ if failure.status.is_bad_request() && sql.contains('"') => {
            Some("strings in SQL take single quotes: c.city_name = 'Davidson'".to_owned())
        }
        _ => None,
    };
    let mut error = CliError::from(failure.clone());
    if failure.status.is_bad_request() {
        error.kind = ErrorKind::Predicate(failure);
    }
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosmos::Status;

    #[test]
    fn a_refused_aggregate_says_what_to_do() {
        let refused = |status, text: &str, sql| refused(Failure::from_status("query".into(), status, text, None), sql);
        let error = refused(Status::new(400, 20113), "unsupported feature", "SELECT VALUE COUNT(1) FROM c");
        assert!(error.hints[0].to_string().contains("--count"));
        let error = refused(Status::new(400, 0), "Syntax error near 'x'", "SELECT VALUE COUNT(1) FROM c");
        assert!(error.to_string().contains("Syntax error"));
        assert!(error.hints.is_empty());
        assert_eq!(error.kind.exit(), Exit::Usage);
    }
}
