//! `provision`: creates the database and its containers, or checks those that exist.

use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::{
    CliError, ConnectionArgs, Exit,
    output::{self, Format, Rows},
};
use crate::cosmos::{
    Disposition, Failure,
    provision::{self, Provisioned, Severity, Throughput, Wanted},
};

/// Flags of `provision`.
#[derive(Debug, Args)]
#[command(after_help = "What exists is checked and left as it is. Running it again is harmless.")]
pub struct ProvisionArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Partition key path of a new source container; repeat for a hierarchical key [default: /pk]
    #[arg(long = "pk", value_name = "PATH")]
    paths: Vec<String>,
    /// Also index this path in a new changes container, to search history by it; repeatable
    #[arg(long = "index", value_name = "PATH")]
    indexes: Vec<String>,
    /// Fixed throughput of new source and changes containers [default: the database's, or serverless]
    #[arg(long, value_name = "RU/S", conflicts_with = "autoscale", value_parser = clap::value_parser!(u64).range(400..=10_000_000))]
    throughput: Option<u64>,
    /// Autoscale maximum of new source and changes containers
    #[arg(long, value_name = "RU/S", value_parser = clap::value_parser!(u64).range(1000..=10_000_000))]
    autoscale: Option<u64>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub async fn run(args: ProvisionArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let example = "write paths like --pk /tenant --pk /user/id, --index /city_name";
    provision::check_paths(&args.paths).map_err(|problem| CliError::usage(format!("--pk: {problem}"), example))?;
    if let Some(bad) = args.indexes.iter().find(|p| !p.starts_with('/') || p.len() < 2) {
        return Err(CliError::usage(format!("--index: {bad:?} is not a path"), example));
    }
    let (cosmos, names) = args.connection.open()?;
    let wanted = Wanted {
        source_paths: args.paths,
        indexes: args.indexes,
        throughput: args.throughput.map(Throughput::Manual).or(args.autoscale.map(Throughput::Autoscale)),
    };
    let all = provision::provision(&cosmos, &names, &wanted).await.map_err(explain)?;

    let mut rows = Rows::stdout(args.format, &["role", "name", "state", "partition_key", "differs"]);
    for one in &all {
        rows.push(&row(one, args.format))?;
    }
    rows.finish()?;
    for (one, difference) in all.iter().flat_map(|one| one.differs.iter().map(move |d| (one, d))) {
        let level = if difference.severity == Severity::Note { "note" } else { "warning" };
        output::note(&format!("{level}: {} {}: {} (left as it is)", one.role.as_str(), one.name, difference.what));
    }
    let created = all.iter().filter(|one| one.created).count();
    output::spent(&format!("{created} created, {} found", all.len() - created), &cosmos, started);

    let unusable = all.iter().find(|one| one.differs.iter().any(|d| d.severity == Severity::Unusable));
    match unusable {
        None => Ok(Exit::Done),
        Some(one) => Err(CliError {
            message: format!("container {} cannot serve as {}", one.name, one.role.as_str()),
            hint: Some(format!("name another one with --{}, and it is created", one.role.as_str())),
            exit: Exit::Failed,
        }),
    }
}

fn row(one: &Provisioned, format: Format) -> [Value; 5] {
    let state = match (one.created, one.differs.is_empty()) {
        (true, _) => "created",
        (false, true) => "exists",
        (false, false) => "exists, differs",
    };
    let differs: Vec<&str> = one.differs.iter().map(|d| d.what.as_str()).collect();
    [
        json!(one.role.as_str()),
        json!(one.name),
        json!(state),
        json!(one.key.join(", ")),
        match format {
            // People read the details below the table.
            Format::Table if differs.is_empty() => Value::Null,
            Format::Table => json!("see below"),
            Format::Csv => json!(differs.join("; ")),
            Format::Json | Format::Jsonl => json!(differs),
        },
    ]
}

/// Data-plane roles may not create containers, which is not obvious from a 403.
fn explain(failure: Failure) -> CliError {
    let denied = failure.disposition == Disposition::Denied && failure.context.starts_with("create");
    let mut error = CliError::from(failure);
    if denied {
        error.hint = Some(
            "identities with data roles cannot create databases or containers: use the account key once, \
             or create them with az cosmosdb or Bicep"
                .into(),
        );
    }
    error
}
