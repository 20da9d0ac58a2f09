//! Flags of `revert`, and the request they form.

use clap::Args;

use super::{
    ConnectionArgs,
    applying::ApplyArgs,
    files, lookup,
    restore_args::DeleteLimit,
    selection::{SelectionArgs, full_key, paths},
};
use crate::{
    change::merge::{ArrayKey, MergeRules, Prefer},
    config::Names,
    console::{CliError, Ui},
    cosmos::Shard,
    history::{Account, Containers, past::Selection},
    restore::{NamedDocument, Targets},
    revert::Request,
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
    pub(super) which: SelectionArgs,
    /// Revert several containers, with one confirmation and one undo: names, each with =CHANGES unless a function of
    /// the app captures it
    #[arg(long, value_name = "NAME[=CHANGES]", value_delimiter = ',', conflicts_with = "id")]
    pub(super) containers: Vec<String>,
    /// Take back writes from this time on: 2026-11-20T14:05:00Z, epoch seconds, 15m, "yesterday 14:05Z"
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Up to and including this time
    #[arg(long, value_name = "TIME")]
    to: String,
    /// Of these, only the writes that this expression matches (CEL, as for follow)
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Take back only this field; repeatable
    #[arg(long, value_name = "PATH")]
    only: Vec<String>,
    /// Fields that every writer sets, such as /updatedBy: a later value stays, and is not a conflict
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    bookkeeping: Vec<String>,
    /// The key that identifies the elements of an array, as in /items=/sku, so that each is merged by itself;
    /// repeatable
    #[arg(long, value_name = "ARRAY=KEY")]
    array_key: Vec<ArrayKey>,
    /// The value of a conflicting field: today's (ours), or the one before these writes (base)
    #[arg(long, value_enum)]
    prefer: Option<Preferred>,
    /// Delete documents that these writes created; with a number, at most that many
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "none")]
    delete_created: Option<DeleteLimit>,
    /// Treat consecutive versions as consecutive writes even when that is not certain: in latest-version mode, and
    /// where versions are missing
    #[arg(long)]
    assume_no_gaps: bool,
    /// Only the i-th of n equal parts of the items, by partition key, so that n machines can share the work
    #[arg(long, value_name = "I/N", conflicts_with_all = ["id", "ids_file"])]
    feed_range: Option<Shard>,
    /// Only show the plan
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Save the plan in a file, for `restore --plan`
    #[arg(long, value_name = "FILE", value_parser = files::to_write())]
    pub(super) plan_out: Option<std::path::PathBuf>,
    /// Wait until capture has passed the end of the window
    #[arg(long)]
    pub(super) wait: bool,
    #[command(flatten)]
    pub(super) how: ApplyArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

/// Whose value a conflicting field gets.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Preferred {
    /// Today's: the later write stands.
    Ours,
    /// The one before the first write that is taken back: the later write is lost.
    Base,
}

/// The documents that are asked for.
fn which(selected: Option<Selection>, names: &Names, containers: &Containers) -> Result<Targets, CliError> {
    Ok(match selected {
        None => Targets::All,
        Some(Selection::One { id, key }) => {
            // The first components are enough for reading, not for writing.
            key.iter().try_for_each(|key| full_key(key, names, containers))?;
            Targets::Named(vec![NamedDocument { id, key }])
        }
        Some(Selection::Items(items)) => Targets::Items(items),
        Some(Selection::Where { predicate, params }) => Targets::Where { predicate, params },
    })
}

impl RevertArgs {
    /// The request that the flags form.
    ///
    /// # Errors
    /// When a flag's value is malformed, or does not fit the container.
    pub(super) async fn request(
        &self,
        ui: &Ui,
        account: &dyn Account,
        names: &Names,
        containers: &Containers,
    ) -> Result<Request, CliError> {
        let which = which(self.which.optional(names, containers)?, names, containers)?;
        let from = lookup::point(ui, account, "--from", &self.from).await?;
        let to = lookup::point(ui, account, "--to", &self.to).await?;
        lookup::in_order(from, to)?;
        Ok(Request {
            filter: self.filter.clone(),
            rules: MergeRules {
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
