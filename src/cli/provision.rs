//! `provision`.

use clap::Args;

use super::{CliError, ConnectionArgs, Exit};

/// Flags of `provision`.
#[derive(Debug, Args)]
pub struct ProvisionArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub async fn run(args: ProvisionArgs) -> Result<Exit, CliError> {
    let _ = args.connection.open()?;
    Ok(Exit::Done)
}
