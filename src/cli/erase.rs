//! `erase`: removes every trace of one item, and writes a receipt that names nobody.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{ConnectionArgs, from_archive::open_archive, verify::span};
use crate::{
    change::key::{ItemKey, PartitionKey},
    config::{self, AccountSettings, CaptureConfig},
    console::{CliError, Exit, Ui, render::erase as render, words::pk_flag},
    dead_letters::DeadLetterStore,
    erase::{self, EraseError, Request},
    figures::count_of,
    format::Format,
};

/// The word that is typed to confirm; the id would stay in the terminal's log.
const ANSWER: &str = "erase";

/// Flags of `erase`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind erase --id 28036 --pk 28036 --live
It does not look into backups and saved plans.")]
pub struct EraseArgs {
    /// The document
    #[arg(long, value_name = "ID")]
    id: String,
    /// Its partition key, as text or as a JSON array of the components
    #[arg(long, value_name = "KEY", value_parser = PartitionKey::parse)]
    pk: PartitionKey,
    /// Delete the live document too
    #[arg(long)]
    live: bool,
    /// After deleting the live document or a dead letter, wait this long for capture to deliver the delete, and for a
    /// replay to end: a span such as 30s or 2m
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "30s")]
    settle: i64,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Directory or blob container URL [setting: REWIND_DEAD_LETTERS]
    #[arg(long, value_name = "DIR|URL")]
    dead_letters: Option<String>,
    /// Folder of the local journals of restores
    #[arg(long, value_name = "DIR", default_value = ".cosmos-rewind")]
    journal: PathBuf,
    /// Erase from an archive of follow, too: FOLDER, or blob:URL; repeatable
    #[arg(long, value_name = "ARCHIVE")]
    archive: Vec<String>,
    /// How to print the receipt
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
///
/// # Errors
/// When something cannot be read or deleted. What was erased before stays erased, and the next run goes on. Anything
/// that is found afterwards makes the exit code 3.
pub async fn run(args: EraseArgs, ui: &Ui) -> Result<Exit, CliError> {
    let settings = args.connection.settings_with(args.dead_letters.as_ref())?;
    let account = AccountSettings::from_settings(&settings)?;
    let config = CaptureConfig::from_settings(&settings, &config::app_root())?;
    args.connection.check_id(&settings, &args.id)?;
    let open = |text: &String| open_archive("--archive", text, &account.credential);
    let request = Request {
        archives: args.archive.iter().map(open).collect::<Result<_, _>>()?,
        dead_letters: DeadLetterStore::open(&config.dead_letters, &account.credential).map_err(EraseError::from)?,
        item: ItemKey { id: args.id, partition_key: args.pk },
        live: args.live,
        settle: Duration::from_secs(args.settle.try_into().unwrap_or_default()),
        journals: args.journal,
    };
    let opened = args.connection.opened_with(&settings).await?;
    let plan = erase::plan(request, opened.context(ui)).await?;
    if plan.found.anything {
        let place = format!("{} of {}", opened.names.database, opened.cosmos.endpoint());
        ui.confirm(&render::question(&plan.found, args.live, &place), ANSWER, args.yes)?;
    } else {
        ui.note("nothing to erase: no version, dead letter or journal has this id and partition key");
    }
    ui.heed();
    let receipt = plan.apply().await?;
    if receipt.live_stays {
        ui.note("note: the live document stays, and its next change is captured again; --live erases it too");
    }
    if receipt.delete_awaited {
        ui.note(
            "note: capture has not delivered the delete yet, which may bring versions of the document back: run the command again when it has",
        );
    }
    if receipt.shared > 0 {
        ui.note(&format!(
            "note: kept {} of this id: another document has it, and it is not known which of the two was deleted",
            count_of(receipt.shared, "delete")
        ));
    }
    render::print(ui, &receipt, args.format)?;
    if !receipt.other_keys.is_empty() {
        let others: Vec<String> = receipt.other_keys.iter().map(pk_flag).collect();
        ui.hint(&format!("the history has this id under another key: {}", others.join(", ")));
        return Ok(Exit::Incomplete);
    }
    if receipt.left == 0 {
        return Ok(Exit::Done);
    }
    ui.hint("traces of it remain, captured meanwhile or impossible to delete: run the command again");
    Ok(Exit::Incomplete)
}
