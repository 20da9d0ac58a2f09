//! `diff --fork`: the changes that were made in a copy of a moment, as a plan that brings them into the live documents.

use std::{path::PathBuf, time::Instant};

use clap::Args;

use super::{
    ConnectionArgs, files,
    restore_args::DeleteLimit,
    selection::paths,
    together::{names_of, save_parts},
};
use crate::{
    change::merge::{ArrayKey, MergeRules, Prefer},
    console::{CliError, Exit, Ui, render::together::show_plans},
    cosmos::Cosmos,
    fork::{self, Request},
    format::Format,
    restore::together::{OnePlan, pairs, plan_each},
};

/// Flags of `diff`: the difference between a fork and the live documents
#[derive(Debug, Args)]
pub struct ForkArgs {
    /// Compare the changes made in this copy with the live documents: an endpoint that `at --writable` printed. The
    /// output is a plan that brings the changes into them
    #[arg(long, value_name = "URL", conflicts_with_all = ["which", "from", "version", "to"])]
    pub(super) fork: Option<String>,
    /// Save the plan in a file, for `restore --plan`
    #[arg(long, value_name = "FILE", requires = "fork", value_parser = files::to_write())]
    plan_out: Option<PathBuf>,
    /// Delete documents that were deleted in the fork; with a number, at most that many
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "none",
        requires = "fork")]
    delete_removed: Option<DeleteLimit>,
    /// Bring in only this field of documents that exist; repeatable
    #[arg(long, value_name = "PATH", requires = "fork")]
    only: Vec<String>,
    /// Fields that every writer sets, such as /updatedBy: a live value that was changed since stays, and is not a
    /// conflict
    #[arg(long, value_name = "PATH", value_delimiter = ',', requires = "fork")]
    bookkeeping: Vec<String>,
    /// The key that identifies the elements of an array, as in /items=/sku, so that each is merged by itself;
    /// repeatable
    #[arg(long, value_name = "ARRAY=KEY", requires = "fork")]
    array_key: Vec<ArrayKey>,
    /// The value of a field that was changed both in the fork and in the live document: the live one, or the fork's
    #[arg(long, value_enum, requires = "fork")]
    prefer: Option<Preferred>,
}

/// Whose value a conflicting field gets.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Preferred {
    /// Today's: the fork's change of this field is dropped.
    Live,
    /// The fork's: what was written since is lost.
    Fork,
}

/// Plans, shows and saves.
///
/// # Errors
/// When the address is not that of a fork, or an account cannot be used.
pub(super) async fn run(
    args: &ForkArgs,
    url: &str,
    connection: &ConnectionArgs,
    containers: &[String],
    format: Format,
    ui: &Ui,
) -> Result<Exit, CliError> {
    let started = Instant::now();
    let only = paths("--only", &args.only)?;
    let bookkeeping = paths("--bookkeeping", &args.bookkeeping)?;
    let (cosmos, names) = connection.open()?;
    let all = if containers.is_empty() { vec![names.clone()] } else { names_of(connection, containers)? };
    let fork = fork::account(connection.settings()?, url).map_err(|problem| {
        CliError::usage(
            format!("--fork {url}: {problem}"),
            "name the endpoint that at --writable printed, such as http://127.0.0.1:8082/",
        )
    })?;
    let fork = Cosmos::new(fork);
    let cx = ui.careful_context(&cosmos, &names).any();
    let together = plan_each::<CliError>(&all, &cx, async |_, containers, cx| {
        let request = Request {
            fork: &fork,
            rules: MergeRules {
                array_keys: args.array_key.clone(),
                only: only.clone(),
                bookkeeping: bookkeeping.clone(),
                prefer: args.prefer.map(|preferred| match preferred {
                    Preferred::Live => Prefer::Ours,
                    Preferred::Fork => Prefer::Base,
                }),
            },
            delete_removed: args.delete_removed.is_some(),
            max_deletes: args.delete_removed.and_then(|limit| limit.0),
            together: if all.len() > 1 { pairs(&all) } else { Vec::new() },
        };
        Ok(fork::plan(&request, containers, cx).await.map(OnePlan::from))
    })
    .await?;
    if let Some(file) = &args.plan_out {
        save_parts(ui, &together, file)?;
    }
    let exit = show_plans(ui, &together, format, true, together.parts.len() > 1)?;
    ui.spent("planned, nothing written", &cosmos, started);
    Ok(exit)
}
