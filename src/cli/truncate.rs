//! `truncate`: deletes all documents of a container.

use clap::Args;

use super::{ConnectionArgs, connection::container};
use crate::{
    console::{CliError, Exit, Ui, render::truncate as render},
    figures::count_of,
    format::Format,
    truncate::{self, Request, TruncateError},
};

/// Flags of `truncate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Deletes are changes too: with capture in all-versions mode they become tombstones in the history."
)]
pub struct TruncateArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// source, changes, leases, or a container's own name
    #[arg(value_parser = container)]
    container: String,
    /// Delete at most this many
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    max: u64,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Deletes in flight [default: 100, and up to 1000 small ones while requests are packed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: Option<u16>,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
///
/// # Errors
/// When the container cannot be read, the answer is no, or the service refuses.
pub async fn run(args: TruncateArgs, ui: &Ui) -> Result<Exit, CliError> {
    let (cosmos, names) = args.connection.open()?;
    let name = ConnectionArgs::container_name(&names, &args.container);
    let cx = ui.context(&cosmos, &names);
    let request = Request { container: name.to_owned(), max: args.max, concurrency: args.concurrency.into() };
    let plan = truncate::plan(request, &cx).await?;
    if plan.documents() == 0 {
        ui.note(&format!("{} is empty", plan.shown));
    } else {
        ui.confirm(&render::question(&plan, name, &names), name, args.yes)?;
    }
    let more = plan.more;
    ui.heed();
    let report = truncate::apply(plan, &cx).await;
    render::show(ui, &report, args.format)?;
    if more {
        ui.hint(&format!("--max {} was reached; run the command again for the rest", args.max));
    }
    match report.refused {
        Some(failure) => Err(failure.into()),
        None if report.left > 0 => {
            ui.hint(&format!("stopped; {} left: run the command again", count_of(report.left, "document")));
            Ok(Exit::Incomplete)
        }
        None if report.failed > 0 => Ok(Exit::Incomplete),
        None => Ok(Exit::Done),
    }
}

impl From<TruncateError> for CliError {
    fn from(error: TruncateError) -> Self {
        let message = error.to_string();
        match error {
            TruncateError::Service(failure) => failure.into(),
            TruncateError::Row(cause) => Self::failed(message).because(cause),
            TruncateError::NoId => Self::failed(message),
        }
    }
}
