//! `replay`: lists dead letters, and captures them again when their cause is fixed.

use clap::Args;

use super::ConnectionArgs;
use crate::{
    capture::replay::{ReplayError, Request, replay},
    config::{self, AccountSettings, CaptureConfig, DeadLetterLocation},
    console::{CliError, Exit, Ui, render::replay::Letters},
    cosmos::Cosmos,
    dead_letters::DeadLetterStore,
    format::Format,
};

/// Flags of `replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Only list the letters; nothing is written
    #[arg(long)]
    list: bool,
    /// Only letters of this function
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Only letters of this document id
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Directory or blob container URL [setting: REWIND_DEAD_LETTERS]
    #[arg(long, value_name = "DIR|URL")]
    dead_letters: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
///
/// # Errors
/// When the store cannot be read. A letter that still cannot be stored is reported and kept, and makes the exit code 3.
pub async fn run(args: ReplayArgs, ui: &Ui) -> Result<Exit, CliError> {
    let settings = args.connection.settings_with(args.dead_letters.as_ref())?;
    // Letters are listed whatever they are of.
    if !args.list {
        args.connection.refuse_mongo(&settings)?;
    }
    let account = AccountSettings::from_settings(&settings)?;
    let config = CaptureConfig::from_settings(&settings, &config::app_root())?;
    // The folder that the setting names is created when it is needed; one that the command line names must exist.
    if let (Some(named), DeadLetterLocation::Directory(path)) = (&args.dead_letters, &config.dead_letters)
        && !path.exists()
    {
        return Err(CliError::usage(format!("--dead-letters {named}: there is no such directory"), "check the path"));
    }
    let store = DeadLetterStore::open(&config.dead_letters, &account.credential).map_err(ReplayError::from)?;
    let cosmos = Cosmos::new(account);
    let (list_only, function, id) = (args.list, args.function, args.id);
    ui.heed();
    let stop = ui.stop().clone();
    let request = Request { list_only, function, id, settings, config, store, stop };
    let mut letters = Letters::new(ui, args.format);
    let report = replay(request, &cosmos, ui.screen(), |one| letters.push(one)).await?;
    letters.finish(&report, list_only)
}

impl From<ReplayError> for CliError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Store(e) => {
                Self::letters(&e, |message| Self::failed(message).hint("check REWIND_DEAD_LETTERS"))
            }
            ReplayError::Setting(e) => e.into(),
        }
    }
}
