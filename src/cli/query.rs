//! `query`.

use clap::Args;

use super::{CliError, ConnectionArgs, Exit};

/// Flags of `query`.
#[derive(Debug, Args)]
pub struct QueryArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub async fn run(args: QueryArgs) -> Result<Exit, CliError> {
    let _ = args.connection.open()?;
    Ok(Exit::Done)
}
