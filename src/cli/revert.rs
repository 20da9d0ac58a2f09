//! `revert`: takes back what the writes of a window changed, and keeps everything else. Plans, shows, asks, writes,
//! reports.

use std::time::Instant;

use clap::Args;

use super::{
    CliError, ConnectionArgs, Exit, Ui,
    applying::{ApplyArgs, apply, save_plans},
    lookup,
    render::plan::{Shown, planned_exit, show_plan},
    restore_args::DeleteLimit,
    selection::{SelectionArgs, full_key, paths},
    together::{OnePlan, Then, names_of, pairs, plan_and_carry_out},
};
use crate::{
    change::merge::{ArrayKey, Prefer, Rules},
    config::Names,
    cosmos::{Cosmos, Shard},
    history::{Containers, past::Selection},
    restore::{self, Named, Use, Which},
    revert::{self, Request},
};

/// Flags of `revert`
#[derive(Debug, Args)]
#[command(
    disable_version_flag = true,
    after_help = "Examples:\n  \
    cosmos-rewind revert --from 'today 14:00Z' --to 'today 14:05Z' --filter 'doc.updatedBy == \"job-42\"' --dry-run\n  \
    cosmos-rewind revert --from 2h --to 1h --id 28036 --pk 28036 --only /price"
)]
pub struct RevertArgs {
    #[command(flatten)]
    which: SelectionArgs,
    /// Revert several containers, with one confirmation and one undo: names, each with =CHANGES unless a function of the app
    /// captures it
    #[arg(long, value_name = "NAME[=CHANGES]", value_delimiter = ',', conflicts_with = "id")]
    containers: Vec<String>,
    /// Take back writes from this time on: 2026-11-20T14:05:00Z, epoch seconds, 15m, "yesterday 14:05Z"
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Up to and including this time
    #[arg(long, value_name = "TIME")]
    to: String,
    /// Of these, the writes that this expression matches (CEL, as for follow)
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Take back only this field; repeatable
    #[arg(long, value_name = "PATH")]
    only: Vec<String>,
    /// Fields that every writer sets, such as /updatedBy: a later value of theirs stays, and is no conflict
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    bookkeeping: Vec<String>,
    /// What identifies the elements of an array, as in /items=/sku, so that each is merged by itself; repeatable
    #[arg(long, value_name = "ARRAY=KEY")]
    array_key: Vec<ArrayKey>,
    /// What a field in conflict gets: today's value (ours), or the one before these writes (base)
    #[arg(long, value_enum)]
    prefer: Option<Preferred>,
    /// Delete documents that these writes created; with a number, at most that many
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "none")]
    delete_created: Option<DeleteLimit>,
    /// Take versions that follow each other for writes that followed each other, also where nothing tells: in
    /// latest-version mode, and where versions are missing
    #[arg(long)]
    assume_no_gaps: bool,
    /// Only the i-th of n equal parts of the items, by partition key: so that n machines can share the work
    #[arg(long, value_name = "I/N", conflicts_with_all = ["id", "ids_file"])]
    feed_range: Option<Shard>,
    /// Only show the plan
    #[arg(long)]
    dry_run: bool,
    /// Save the plan in a file, for `restore --plan`
    #[arg(long, value_name = "FILE")]
    plan_out: Option<std::path::PathBuf>,
    /// Wait until capture has passed the end of the window
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    how: ApplyArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Whose value a field in conflict gets.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Preferred {
    /// Today's: the later write stands.
    Ours,
    /// The one before the first write that is taken back: the later write is lost.
    Base,
}

/// Runs the command.
///
/// # Errors
/// When the request is wrong, or the account cannot be used. A field in conflict and a document that could not be reverted
/// are reported and make the exit code 3.
pub async fn run(mut args: RevertArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    if !args.containers.is_empty() {
        return together(&mut args, ui).await;
    }
    let opened = args.connection.opened().await?;
    let (cosmos, names) = (&opened.cosmos, &opened.names);
    let cx = if args.wait { opened.careful_context(ui) } else { opened.context(ui) };
    let containers = restore::open(None, &cx).await?;
    let which = which(args.which.optional(names, &containers)?, names, &containers)?;
    let request = args.request(ui, cosmos, which).await?;
    let planned = revert::plan(&request, &containers, &cx).await?;
    let bad = if planned.bad.is_empty() { Exit::Done } else { Exit::Incomplete };
    if let Some(file) = &args.plan_out {
        save_plans(ui, &[(&planned.plan, None)], file)?;
    }
    let shown = Shown { plan: &planned.plan, fields: Some(&planned.fields), format: args.how.format };
    show_plan(ui, shown, args.dry_run)?;
    if args.dry_run {
        ui.spent("planned, nothing written", cosmos, started);
        return Ok(planned_exit(&planned.plan).and(bad));
    }
    let this = Use { run: &planned.plan.head.id, made_now: true, texts: None };
    Ok(apply(ui, shown, this, &containers, &args.how, (cosmos, names), started).await?.and(bad))
}

/// Several containers, the same writes.
async fn together(args: &mut RevertArgs, ui: &Ui) -> Result<Exit, CliError> {
    let (cosmos, _) = args.connection.open()?;
    let mut all = names_of(&args.connection, &args.containers)?;
    args.which.share_list(&mut all)?;
    let args = &*args;
    let then = Then { how: &args.how, dry_run: args.dry_run, plan_out: args.plan_out.as_deref() };
    plan_and_carry_out(ui, &cosmos, &all, then, async |names, containers, cx| {
        let which = which(args.which.optional(names, containers)?, names, containers)?;
        let request = Request { together: pairs(&all), ..args.request(ui, &cosmos, which).await? };
        let planned = revert::plan(&request, containers, cx).await;
        Ok(planned.map(|planned| OnePlan {
            plan: planned.plan,
            fields: Some(planned.fields),
            texts: None,
            is_odd: !planned.bad.is_empty(),
        }))
    })
    .await
}

fn which(selected: Option<Selection>, names: &Names, containers: &Containers) -> Result<Which, CliError> {
    Ok(match selected {
        None => Which::All,
        Some(Selection::One { id, key }) => {
            // The first components are enough to look, not to write.
            key.iter().try_for_each(|key| full_key(key, names, containers))?;
            Which::Named(vec![Named { id, key }])
        }
        Some(Selection::Items(items)) => Which::Items(items),
        Some(Selection::Where { predicate, params }) => Which::Where { predicate, params },
    })
}

impl RevertArgs {
    async fn request(&self, ui: &Ui, cosmos: &Cosmos, which: Which) -> Result<Request, CliError> {
        let from = lookup::point(ui, cosmos, "--from", &self.from).await?;
        let to = lookup::point(ui, cosmos, "--to", &self.to).await?;
        lookup::in_order(from, to)?;
        Ok(Request {
            filter: self.filter.clone(),
            rules: Rules {
                array_keys: self.array_key.clone(),
                bookkeeping: paths("--bookkeeping", &self.bookkeeping)?,
                only: paths("--only", &self.only)?,
                prefer: self.prefer.map(|preferred| match preferred {
                    Preferred::Ours => Prefer::Ours,
                    Preferred::Base => Prefer::Base,
                }),
            },
            delete_created: self.delete_created.is_some(),
            max_deletes: self.delete_created.and_then(|limit| limit.0),
            assume_no_gaps: self.assume_no_gaps,
            wait: self.wait,
            shard: self.feed_range,
            concurrency: self.how.concurrency.into(),
            ru_limit: self.how.ru_limit,
            ..Request::of(which, from, to)
        })
    }
}
