//! `populate`.

use clap::Args;

use super::{CliError, ConnectionArgs, Exit};

/// Flags of `populate`.
#[derive(Debug, Args)]
pub struct PopulateArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub async fn run(args: PopulateArgs) -> Result<Exit, CliError> {
    let _ = args.connection.open()?;
    Ok(Exit::Done)
}
