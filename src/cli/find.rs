//! `find`: which writes made a condition true, and when.

use std::{ops::ControlFlow, sync::Arc, time::Instant};

pub use super::find_args::FindArgs;
use super::{ConnectionArgs, lookup, together::SeveralArgs};
use crate::{
    change::{key::parse_path, time::PointInTime},
    console::{
        CliError, Exit, Ui,
        render::find::{Extra, Writes},
        words,
    },
    find::{self, Request},
    history::Account,
};

/// Runs the command.
///
/// # Errors
/// When the condition makes no sense, or the account cannot be used.
pub async fn run(args: FindArgs, ui: &Ui) -> Result<Exit, CliError> {
    let all = args.several.names(&args.connection)?;
    SeveralArgs::each(all, &args.connection, ui, async |connection| one(&args, connection, ui).await).await
}

async fn one(args: &FindArgs, connection: &ConnectionArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    let when = args.condition()?;
    let actor = args.actor.as_deref().map(parse_path).transpose();
    let actor =
        actor.map_err(|problem| CliError::usage(format!("--actor: {problem}"), "such as --actor /updatedBy"))?;
    let opened = connection.opened().await?;
    let cosmos = &opened.cosmos;
    let from = point(ui, opened.account(), "--from", args.from.as_deref()).await?;
    let to = point(ui, opened.account(), "--to", args.to.as_deref()).await?;
    // With several containers, each row names its container, as a list of documents of several containers does.
    let container = (!args.several.containers().is_empty()).then_some(opened.names.source.as_str());
    if let (Some(from), Some(to)) = (from, to) {
        lookup::in_order(from, to)?;
    }
    let request = Request {
        when: Arc::new(when),
        which: args.which(),
        from,
        to,
        manner: args.manner(),
        actor,
        shard: args.part.feed_range,
        ru_limit: args.part.ru_limit,
    };
    let mut writes = Writes::new(ui, args.format, Extra { container, has_actor: args.actor.is_some() });
    let mut unwritten = None;
    let cx = opened.careful_context(ui);
    let report = find::find(request, &cx, |write| match writes.push(&write) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            unwritten = Some(error);
            ControlFlow::Break(())
        }
    });
    let report = report.await.map_err(|error| args.explain(error))?;
    if let Some(error) = unwritten {
        return Err(error);
    }
    writes.finish(&report)?;
    words::note_bad(ui, &report.bad);
    words::note_bad(ui, &report.tally.unreadable);
    ui.spent(&Writes::told(&report), cosmos, started);
    Ok(if report.is_complete() { Exit::Done } else { Exit::Incomplete })
}

async fn point(
    ui: &Ui,
    account: &dyn Account,
    flag: &str,
    text: Option<&str>,
) -> Result<Option<PointInTime>, CliError> {
    match text {
        Some(text) => lookup::point(ui, account, flag, text).await.map(Some),
        None => Ok(None),
    }
}
