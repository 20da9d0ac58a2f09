//! `replay`: lists dead letters, and captures them again when their cause is fixed.

use std::sync::{Arc, atomic::AtomicBool};

use clap::Args;
use serde_json::json;

use super::{
    CliError, ConnectionArgs, Exit,
    output::{Format, Progress, Rows, note},
};
use crate::{
    capture::{Capture, Limits, Recent},
    change::{Via, fidelity::Delivery},
    config::{self, Account, CaptureConfig, Fidelity, Names},
    cosmos::Cosmos,
    dead_letters::{DeadLetter, DeadLetterStore},
    history::CosmosHistory,
    projection::Projection,
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
/// When the store cannot be read. A letter that still cannot be stored is reported, kept, and makes the exit code 3.
pub async fn run(args: ReplayArgs) -> Result<Exit, CliError> {
    let app_root = config::app_root();
    let settings = args.connection.settings_with(args.dead_letters.as_ref())?;
    let account = Account::from_settings(&settings)?;
    let config = CaptureConfig::from_settings(&settings, &app_root)?;
    let failed = |e: crate::dead_letters::StoreError| CliError {
        message: e.to_string(),
        hint: Some("check REWIND_DEAD_LETTERS".into()),
        exit: Exit::Failed,
    };
    let store = Arc::new(DeadLetterStore::open(&config.dead_letters, &account.credential).map_err(failed)?);
    let names = store.list().await.map_err(failed)?;

    let mut rows = Rows::stdout(args.format, &["letter", "at", "function", "id", "status", "outcome", "reason"]);
    let cosmos = Cosmos::new(account);
    let limits = Limits::new(config.max_writes, config.max_rereads, config.deadline);
    let progress = Progress::new(if args.list { "reading letters" } else { "replaying" }, Some(names.len() as u64));
    let (mut count, mut stored, mut kept) = (0, 0, 0);
    for name in names {
        let letter = match store.get(&name).await {
            Ok(letter) => letter,
            Err(e) => {
                kept += 1;
                rows.push(&[
                    name.into(),
                    json!(null),
                    json!(null),
                    json!(null),
                    json!(null),
                    "unreadable".into(),
                    e.to_string().into(),
                ])?;
                continue;
            }
        };
        if args.function.as_ref().is_some_and(|f| *f != letter.function)
            || args.id.as_ref().is_some_and(|id| letter.id.as_ref() != Some(id))
        {
            continue;
        }
        count += 1;
        let outcome = if args.list {
            Ok("waiting")
        } else {
            // A letter of a part of a document has that part; anything else is shaped like what is delivered today.
            let projection = match &letter.partial {
                Some(_) => None,
                None => Projection::from_settings(&settings, Some(&letter.function))?,
            };
            let capture = Capture {
                function: letter.function.clone(),
                history: CosmosHistory::new(cosmos.clone(), Names::from_settings(&settings, Some(&letter.function))?),
                dead_letters: store.clone(),
                // Reading a document again would bring back what was left out of its letter.
                fidelity: if letter.partial.is_some() { Fidelity::Payload } else { config.fidelity },
                delivery: Delivery::DatesRewritten,
                identity_told: AtomicBool::new(false),
                limits: limits.clone(),
                via: Via::Trigger,
                recent: Recent::default(),
                partial: letter.partial.clone(),
                projection,
            };
            replay_one(&capture, &letter, &store, &name).await
        };
        progress.inc(1);
        let (outcome, reason) = match outcome {
            Ok("waiting") => ("waiting", letter.reason.clone()),
            Ok(done) => {
                stored += 1;
                (done, letter.reason.clone())
            }
            Err(reason) => {
                kept += 1;
                ("kept", reason)
            }
        };
        rows.push(&[
            name.into(),
            letter.at.into(),
            letter.function.into(),
            json!(letter.id),
            letter.status.into(),
            outcome.into(),
            reason.into(),
        ])?;
    }
    progress.finish();
    rows.finish()?;
    if args.list {
        note(&format!("{count} dead letters in {}", config.dead_letters));
        return Ok(Exit::Done);
    }
    note(&format!("{stored} replayed, {kept} kept, {:.1} RU, store {}", cosmos.meter().total(), config.dead_letters));
    Ok(if kept == 0 { Exit::Done } else { Exit::Incomplete })
}

/// Captures a letter's item again; the letter goes only when the item is durable in the history.
async fn replay_one(
    capture: &Capture<CosmosHistory>,
    letter: &DeadLetter,
    store: &DeadLetterStore,
    name: &str,
) -> Result<&'static str, String> {
    let summary = capture.run(&[&letter.item], "replay").await.map_err(|e| e.to_string())?;
    if summary.dead_letters > 0 {
        // It was put away again under the same name, with today's reason.
        let reason = store.get(name).await.map(|l| l.reason);
        return Err(reason.unwrap_or_else(|e| e.to_string()));
    }
    store.delete(name).await.map_err(|e| e.to_string())?;
    Ok("stored")
}
