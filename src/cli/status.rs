//! `status`: how capture and the history are doing, without reading the whole history.

use std::time::Instant;

use clap::Args;

use super::{ConnectionArgs, connection::ru_limit, verify::span};
use crate::{
    causes::chain,
    config::{self, AccountSettings, CaptureConfig, Names},
    console::{CliError, Exit, Ui, render},
    cosmos::Cosmos,
    dead_letters::DeadLetterStore,
    format::{Format, printable},
    status::{self, Request},
};

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Count the source, the history and everything that waits, and estimate bytes: reads every page
    #[arg(long)]
    count: bool,
    /// Directory or blob container URL [setting: REWIND_DEAD_LETTERS]
    #[arg(long, value_name = "DIR|URL")]
    dead_letters: Option<String>,
    /// At most this many request units a second, on average, while counting
    #[arg(long, value_name = "RU/S", value_parser = ru_limit)]
    ru_limit: Option<f64>,
    /// Take a change that waits for longer than this as a sign that capture stands still
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "1m")]
    stalled_after: i64,
    /// How to print the report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
///
/// # Errors
/// When the source or the history cannot be read. Leases and dead letters that cannot be read are named and left out.
pub async fn run(args: StatusArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    let settings = args.connection.settings_with(args.dead_letters.as_ref())?;
    args.connection.refuse_mongo(&settings)?;
    let names = Names::from_settings(&settings, None)?;
    let account = AccountSettings::from_settings(&settings)?;
    let config = CaptureConfig::from_settings(&settings, &config::app_root())?;
    let letters = DeadLetterStore::open(&config.dead_letters, &account.credential);
    let request = Request {
        count: args.count,
        dead_letters: letters.map_err(|e| ui.note(&format!("letters    {}", chain(&e)))).ok(),
        ru_limit: args.ru_limit,
        stalled_after: args.stalled_after,
    };
    let cosmos = Cosmos::new(account);
    let report = status::read(request, ui.context(&cosmos, &names)).await?;
    render::status::print(ui, &report, args.format)?;
    if report.history.recreated == Some(true) {
        ui.hint(
            "the history has versions of a container of this name that was deleted since; they are not versions of today's documents",
        );
    }
    if args.format != Format::Json {
        report.stalled.iter().for_each(|text| ui.note(&printable(&format!("warning: {text}"))));
    }
    if args.format == Format::Table {
        ui.spent("looked", &cosmos, started);
    }
    Ok(if report.stalled.is_empty() { Exit::Done } else { Exit::Incomplete })
}
