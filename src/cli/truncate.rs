//! `truncate`.

use clap::Args;

use super::{CliError, ConnectionArgs, Exit};

/// Flags of `truncate`.
#[derive(Debug, Args)]
pub struct TruncateArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub async fn run(args: TruncateArgs) -> Result<Exit, CliError> {
    let _ = args.connection.open()?;
    Ok(Exit::Done)
}
