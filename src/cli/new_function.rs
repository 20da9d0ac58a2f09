//! `new-function`: adds a function folder, so that one app captures another container too.

use std::path::PathBuf;

use clap::Args;

use super::follow_args::FeedArg;
use crate::{
    config,
    console::{CliError, Exit, Ui, render::new_function as render},
    format::Format,
    host::app::NewFunction,
    new_function::{self, Request},
};

/// Flags of `new-function`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cosmos-rewind new-function --name CaptureOrders --source orders --changes orders-changes

The containers are made by `cosmos-rewind provision --source orders --changes orders-changes`.")]
pub struct NewFunctionArgs {
    /// Name of the function: its folder, and the prefix of its settings
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Live container it watches
    #[arg(long, value_name = "NAME")]
    source: String,
    /// History container its versions go to
    #[arg(long, value_name = "NAME")]
    changes: String,
    /// Its lease container [default: the app's, COSMOS_LEASE_CONTAINER]
    #[arg(long, value_name = "NAME")]
    leases: Option<String>,
    /// Its database [default: the app's, COSMOS_DATABASE]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Which change feed it gets
    #[arg(long, value_enum, default_value = "latest")]
    mode: FeedArg,
    /// Begin with the documents that are already in the container (latest mode)
    #[arg(long)]
    start_from_beginning: bool,
    /// Folder of host.json [default: the working directory]
    #[arg(long, value_name = "DIR")]
    app_root: Option<PathBuf>,
    /// Only show what would be written
    #[arg(long)]
    dry_run: bool,
    /// How to print the report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
///
/// # Errors
/// When a name is invalid or taken, or a file cannot be written; then nothing is left behind.
pub async fn run(args: NewFunctionArgs, ui: &Ui) -> Result<Exit, CliError> {
    let function = NewFunction {
        name: args.name,
        database: args.database,
        source: args.source,
        changes: args.changes,
        leases: args.leases,
        all_versions: args.mode == FeedArg::AllVersions,
        from_beginning: args.start_from_beginning,
    };
    let app_root = args.app_root.unwrap_or_else(config::app_root);
    let request = Request { app_root, function, dry_run: args.dry_run };
    let report = new_function::add(&request)?;
    render::show(ui, &request, &report, args.format)?;
    Ok(Exit::Done)
}
