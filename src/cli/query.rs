//! `query`: runs SQL against one container.

use std::time::Instant;

use clap::Args;

use super::{CliError, ConnectionArgs, Exit, Ui};
use crate::{
    change::key::{KeyPaths, PartitionKey},
    cosmos::{Failure, Param},
    figures::count_of,
    format::Format,
    progress::Progress as _,
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
    #[arg(long = "in", value_name = "CONTAINER", default_value = "source")]
    container: String,
    /// Value of a parameter of the query: JSON, or else text (digits as text: zip='"28036"'); repeatable
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<Param>,
    /// Ask this partition key only, as text or as a JSON array of its components
    #[arg(long, value_name = "KEY", value_parser = PartitionKey::parse)]
    pk: Option<PartitionKey>,
    /// Stop after this many documents
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// Print only how many documents there are, counted here page by page
    #[arg(long)]
    count: bool,
    /// How to print; json and jsonl keep each document's text as stored
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub async fn run(args: QueryArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    if args.sql.trim().is_empty() {
        return Err(CliError::usage("the query is empty", "write one, such as \"SELECT * FROM c\""));
    }
    let (cosmos, names) = args.connection.open()?;
    let name = ConnectionArgs::container_name(&names, &args.container);
    let container = cosmos.container(&names.database, name).await?;
    if let Some(pk) = &args.pk {
        check_key(pk, container.name(), container.key_paths())?;
    }
    let mut pages =
        container.query(&args.sql, &args.params, args.pk.as_ref(), None).await.map_err(|f| explain(f, &args))?;
    let mut documents = ui.documents(args.format);
    let counting = args.count.then(|| ui.screen().begin("count", None));
    let mut count = 0u64;
    let mut stopped = false;
    'pages: while let Some(page) = pages.next().await {
        for document in page.map_err(|f| explain(f, &args))?.documents {
            if args.max.is_some_and(|max| count >= max) {
                stopped = true;
                break 'pages;
            }
            count += 1;
            match &counting {
                Some(step) => step.advance(1),
                None => documents.push(document)?,
            }
        }
        documents.flush()?;
    }
    if let Some(step) = counting {
        drop(step);
        ui.summary(args.format, &[("count", count.into())])?;
    } else {
        documents.finish()?;
    }
    let ended = if stopped { " (stopped at --max)" } else { "" };
    ui.spent(&format!("{}{ended}", count_of(count, "document")), &cosmos, started);
    Ok(Exit::Done)
}

/// Refuses a key with more components than the container's, which the service would answer in its own terms.
pub(super) fn check_key(key: &PartitionKey, container: &str, paths: &KeyPaths) -> Result<(), CliError> {
    if key.0.len() <= paths.len() { Ok(()) } else { Err(wrong_key(key, container, paths)) }
}

/// A key that has more components than the container's, or fewer where all are needed.
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

/// The client library's own refusals, in words that say what to do.
fn explain(failure: Failure, args: &QueryArgs) -> CliError {
    let aggregate = "pass --pk KEY when one partition key is meant, or select the plain values and count with --count";
    let hint = match (failure.status.code, failure.status.sub) {
        (400, 20113) => {
            Some(format!("aggregates, GROUP BY and DISTINCT work within one partition key only: {aggregate}"))
        }
        (400, 20125) => {
            Some("over all partitions it needs a TOP or OFFSET .. LIMIT in the query; or pass --pk KEY".to_owned())
        }
        _ if failure.status.is_bad_request() && args.sql.contains('"') => {
            Some("strings in SQL take single quotes: c.city_name = 'Davidson'".to_owned())
        }
        _ => None,
    };
    let error = CliError::from(failure);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use crate::cosmos::Status;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        args: QueryArgs,
    }

    #[test]
    fn a_refused_aggregate_says_what_to_do() {
        let args = Wrapper::parse_from(["query", "SELECT VALUE COUNT(1) FROM c"]).args;
        let error =
            explain(Failure::from_status("query".into(), Status::new(400, 20113), "unsupported feature", None), &args);
        assert!(error.hints[0].to_string().contains("--count"));
        let error =
            explain(Failure::from_status("query".into(), Status::new(400, 0), "Syntax error near 'x'", None), &args);
        assert!(error.to_string().contains("Syntax error"));
        assert!(error.hints.is_empty());
    }
}
