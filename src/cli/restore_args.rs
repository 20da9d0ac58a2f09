//! Flags of `restore`, and the request they form.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;

use super::{
    ConnectionArgs,
    applying::ApplyArgs,
    connection::container,
    files, lookup,
    selection::{full_key, list_text, parse_list},
};
use crate::{
    archive::Archive,
    change::key::PartitionKey,
    config::Names,
    console::{CliError, Ui},
    cosmos::{Param, Shard},
    history::{Account, Containers},
    restore::{NamedDocument, NotListed, Request, TargetState, Targets, each_its_own},
};

/// Flags of `restore`
#[derive(Debug, Args)]
#[command(
    disable_version_flag = true,
    after_help = "Examples:\n  \
    cosmos-rewind restore --id 28036 --pk 28036 --at 2026-11-20T14:05:00Z --dry-run\n  \
    cosmos-rewind restore --where \"c.city_name = @city\" --param city=Davidson --at 15m\n  \
    cosmos-rewind restore --plan plan.json --yes"
)]
pub struct RestoreArgs {
    /// Document to restore; repeatable, each with its --pk
    #[arg(long, value_name = "ID", group = "scope")]
    id: Vec<String>,
    /// Partition key of the --id before it, as text or as a JSON array of its components
    #[arg(long, value_name = "KEY", requires = "id")]
    pk: Vec<String>,
    /// Documents to restore: one JSON object per line with id and pk, and with before, version or at when each goes
    /// back to its own version, as find --format jsonl writes them; with --containers also container; - is standard
    /// input
    #[arg(long, value_name = "FILE", group = "scope")]
    pub(super) ids_file: Option<PathBuf>,
    /// The part of a list of several containers that belongs to each.
    #[arg(skip)]
    pub(super) lists: BTreeMap<String, String>,
    /// Documents that matched this predicate at the point in time; your own SQL on `c`
    #[arg(long = "where", value_name = "PREDICATE", group = "scope")]
    predicate: Option<String>,
    /// Value of a parameter of the predicate; repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "predicate")]
    param: Vec<Param>,
    /// Restore several containers to the same moment, with one confirmation and one undo: names, each with =CHANGES
    /// unless a function of the app captures it
    #[arg(long, value_name = "NAME[=CHANGES]", value_delimiter = ',',
        conflicts_with_all = ["id", "plan", "into", "from_archive", "version"])]
    pub(super) containers: Vec<String>,
    /// All documents of the history and of the target
    #[arg(long, group = "scope")]
    all: bool,
    /// Take the versions from what `follow` wrote to a folder or to blobs, instead of from the history: FOLDER, or
    /// blob:URL
    #[arg(long, value_name = "ARCHIVE", conflicts_with_all = ["predicate", "feed_range"])]
    pub(super) from_archive: Option<String>,
    /// Documents whose version at the point in time matches this expression (CEL, as for follow)
    #[arg(long, value_name = "EXPR", group = "scope", requires = "from_archive")]
    filter: Option<String>,
    /// Only the i-th of n equal parts of the items, by partition key, so that n machines can share a restore
    #[arg(long, value_name = "I/N", conflicts_with_all = ["id", "ids_file", "plan"])]
    feed_range: Option<Shard>,
    /// Point in time: 2026-11-20T14:05:00Z, epoch seconds, 15m, "yesterday 14:05Z"
    #[arg(long, value_name = "TIME", conflicts_with = "plan")]
    at: Option<String>,
    /// Only show the plan
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Save the plan in a file
    #[arg(long, value_name = "FILE", conflicts_with = "plan", value_parser = files::to_write())]
    pub(super) plan_out: Option<PathBuf>,
    /// Apply a saved plan, exactly that one
    #[arg(long, value_name = "FILE", group = "scope")]
    pub(super) plan: Option<PathBuf>,
    /// Put back only this field of existing documents; repeatable
    #[arg(long, value_name = "PATH", conflicts_with_all = ["plan", "into"])]
    only: Vec<String>,
    /// Restore into another container with the same partition key, to compare; documents that are already there stay
    #[arg(long, value_name = "CONTAINER", value_parser = container)]
    pub(super) into: Option<String>,
    /// Delete documents that did not exist at the point in time; with a number, at most that many
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "none",
        conflicts_with_all = ["plan", "into", "only"])]
    delete_newer: Option<DeleteLimit>,
    /// Recreate documents even when latest-version mode cannot tell whether they were deleted before the point in time
    #[arg(long, conflicts_with = "plan")]
    recreate_deleted: bool,
    /// Restore this version of the one --id: a record of the history, an LSN or an etag, as `history` shows them
    #[arg(long, value_name = "RECORD|LSN|ETAG", requires = "id",
        conflicts_with_all = ["at", "all", "predicate", "ids_file", "plan", "delete_newer", "from_archive"])]
    version: Option<String>,
    /// Wait until capture has passed the point in time
    #[arg(long, conflicts_with_all = ["plan", "from_archive"])]
    pub(super) wait: bool,
    /// Do not add `restored_at`: write exactly the version's content
    #[arg(long, conflicts_with = "plan")]
    no_stamp: bool,
    /// Overwrite documents that were changed after the plan was made (their current text is saved first)
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) how: ApplyArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

/// The value of `--delete-newer=`, if there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeleteLimit(pub(super) Option<usize>);

impl std::str::FromStr for DeleteLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            number => {
                number.parse().map(|n| Self(Some(n))).map_err(|_| "write a number after the =, such as 20".into())
            }
        }
    }
}

impl RestoreArgs {
    /// The request that the flags form.
    pub(super) async fn request<'a>(
        &self,
        ui: &Ui,
        archive: Option<&'a Archive>,
        account: &dyn Account,
        names: &Names,
        containers: &Containers,
    ) -> Result<Request<'a>, CliError> {
        let at = match &self.at {
            Some(at) => Some(lookup::point(ui, account, "--at", at).await?),
            None => None,
        };
        let listed = match (self.lists.get(&names.source), &self.ids_file) {
            (Some(list), _) => Some(parse_list(list, names, containers)?),
            (None, Some(file)) => Some(parse_list(&list_text(file)?, names, containers)?),
            (None, None) => None,
        };
        let each = match &listed {
            Some(listed) => {
                let time = async |line: usize, text: &str| {
                    lookup::point(ui, account, &format!("--ids-file line {line}, at"), text).await
                };
                each_its_own(listed, at, time).await.map_err(not_listed)?
            }
            None => None,
        };
        let state = match (each, at, &self.version) {
            (Some(each), ..) => TargetState::Each(each),
            (None, Some(at), _) => TargetState::At(at),
            (None, None, Some(version)) => TargetState::Version(version.clone()),
            (None, None, None) => {
                return Err(CliError::usage(
                    "no point in time",
                    "say when, as in --at 15m or --at 2026-11-20T14:05:00Z; or which --version of one --id",
                ));
            }
        };
        Ok(Request {
            which: match listed {
                Some(listed) => Targets::Items(listed.into_iter().map(|listed| listed.item).collect()),
                None => self.which(names, containers)?,
            },
            state,
            archive,
            only: self.only.clone(),
            delete_newer: self.delete_newer.is_some(),
            max_deletes: self.delete_newer.and_then(|limit| limit.0),
            recreate_deleted: self.recreate_deleted,
            wait: self.wait,
            stamp: !self.no_stamp,
            shard: self.feed_range,
            concurrency: self.how.concurrency.into(),
            ru_limit: self.how.ru_limit,
            together: Vec::new(),
        })
    }

    fn which(&self, names: &Names, containers: &Containers) -> Result<Targets, CliError> {
        if let Some(filter) = &self.filter {
            return Ok(Targets::Filter(filter.clone()));
        }
        if self.all {
            return Ok(Targets::All);
        }
        if let Some(predicate) = &self.predicate {
            return Ok(Targets::Where { predicate: predicate.clone(), params: self.param.clone() });
        }
        if self.id.is_empty() {
            return Err(CliError::usage(
                "nothing to restore",
                "name documents with --id and --pk, --ids-file, --where, or --all",
            ));
        }
        if !self.pk.is_empty() && self.pk.len() != self.id.len() {
            return Err(CliError::usage(
                format!("{} --id and {} --pk", self.id.len(), self.pk.len()),
                "give each --id its own --pk, or no --pk at all",
            ));
        }
        if self.version.is_some() && self.id.len() != 1 {
            return Err(CliError::usage("--version with several --id", "name one document"));
        }
        let named = self.id.iter().enumerate().map(|(i, id)| {
            let key = self.pk.get(i).map(|key| {
                let key = PartitionKey::parse(key)
                    .map_err(|e| CliError::usage(e, "such as --pk 28036 or --pk '[\"t1\",42]'"))?;
                full_key(&key, names, containers)?;
                Ok::<_, CliError>(key)
            });
            Ok(NamedDocument { id: id.clone(), key: key.transpose()? })
        });
        Ok(Targets::Named(named.collect::<Result<_, CliError>>()?))
    }
}

/// A list that does not say what each of its documents goes back to.
fn not_listed(bad: NotListed<CliError>) -> CliError {
    match bad {
        NotListed::Nothing { .. } => CliError::usage(
            format!("--ids-file {bad}"),
            "other lines do: give it before, version or at, or add --at for those without",
        ),
        NotListed::Twice { .. } => CliError::usage(format!("--ids-file {bad}"), "name each document once"),
        NotListed::Time(error) => error,
    }
}
