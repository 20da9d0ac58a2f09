//! `backup`: documents of the live container, or of a moment, into a file.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use chrono::{SecondsFormat, Utc};
use clap::Args;
use futures::{StreamExt as _, stream};
use serde_json::json;

use super::{
    CliError, ConnectionArgs, Exit,
    backup_file::Writer,
    lookup,
    output::{self, Format, Progress, count_of, printable, tenths},
    restore,
};
use crate::{
    change::{key::ItemKey, record, time::PointInTime},
    config::Names,
    cosmos::{Cosmos, Failure, Param},
    history::as_of::{State, as_of},
    restore::{
        apply::read_version,
        survey::{Scope, facts, live_etags},
    },
};

/// Documents that are named when nothing is known of them; the rest is counted.
const SHOWN_UNKNOWN: usize = 10;

/// Flags of `backup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind backup --all --out events.jsonl.gz
  cosmos-rewind backup --where \"c.city_name = @city\" --param city=Davidson --at 2h --out davidson.jsonl")]
pub struct BackupArgs {
    /// Documents that match this predicate, with --at those that matched then; your own SQL on `c`
    #[arg(long = "where", value_name = "PREDICATE", required_unless_present = "all", conflicts_with = "all")]
    predicate: Option<String>,
    /// Value of a parameter of the predicate; repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "predicate")]
    param: Vec<Param>,
    /// All documents
    #[arg(long)]
    all: bool,
    /// As of this moment, from the history: 2026-11-20T14:05:00Z, epoch seconds, 15m, "yesterday 14:05Z"
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// File to make, one document a line; compressed when its name ends in .gz
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Versions read at the same time, with --at
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command. An error, and Ctrl-C, leave no file.
pub async fn run(args: BackupArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let made = Utc::now();
    let at = args.at.as_deref().map(|text| lookup::point("--at", text)).transpose()?;
    let (cosmos, names) = args.connection.open()?;
    let writer = Writer::create(&args.out).map_err(|e| {
        CliError::usage(
            format!("--out {}: {e}", args.out.display()),
            "name a file that does not exist yet, in a folder that can be written",
        )
    })?;
    let job = Job { args: &args, cosmos: &cosmos, names: &names, progress: Progress::new("backup", None) };
    let work = async {
        match at {
            None => job.live(writer).await.map(|writer| (writer, 0)),
            Some(at) => job.as_of(writer, at).await,
        }
    };
    let (writer, unknown) = tokio::select! {
        done = work => done?,
        Ok(()) = tokio::signal::ctrl_c() => return Err(CliError::failed("stopped; no file was made")),
    };
    job.progress.finish();
    let made = made.to_rfc3339_opts(SecondsFormat::Secs, true);
    let shown = at.map(|at| if at == PointInTime::END { made.clone() } else { at.to_string() });
    let source = format!("{}/{}", names.database, names.source);
    let trailer = writer.finish(source, shown, made).map_err(|e| disk(&args.out, &e))?;
    output::summary(
        args.format,
        &[
            ("container", json!(trailer.source)),
            ("file", json!(args.out.display().to_string())),
            ("documents", json!(trailer.documents)),
            ("unknown", json!(unknown)),
            ("at", json!(trailer.at)),
            ("sha256", json!(trailer.sha256)),
            ("ru", tenths(cosmos.meter().total())),
            ("seconds", tenths(started.elapsed().as_secs_f64())),
        ],
    )?;
    Ok(if unknown == 0 { Exit::Done } else { Exit::Incomplete })
}

fn disk(path: &Path, e: &io::Error) -> CliError {
    CliError::failed(format!("cannot write {}: {e}", path.display()))
}

struct Job<'a> {
    args: &'a BackupArgs,
    cosmos: &'a Cosmos,
    names: &'a Names,
    progress: Progress,
}

impl Job<'_> {
    fn explain(&self, failure: Failure) -> CliError {
        restore::explain(failure, self.args.predicate.is_some())
    }

    fn push(&self, writer: &mut Writer, text: &str) -> Result<(), CliError> {
        writer.push(text).map_err(|e| disk(&self.args.out, &e))?;
        self.progress.inc(1);
        Ok(())
    }

    async fn live(&self, mut writer: Writer) -> Result<Writer, CliError> {
        let container = self.cosmos.container(&self.names.database, &self.names.source).await?;
        let sql = match &self.args.predicate {
            // On lines of its own, so that a comment in it cannot swallow the parenthesis.
            Some(predicate) => format!("SELECT * FROM c WHERE (\n{predicate}\n)"),
            None => "SELECT * FROM c".to_owned(),
        };
        let mut pages = container.query(&sql, &self.args.param, None, None).await.map_err(|f| self.explain(f))?;
        while let Some(page) = pages.next().await {
            for document in page.map_err(|f| self.explain(f))?.documents {
                let text = record::own_text(document.get())
                    .map_err(|e| CliError::failed(format!("a document is not understood: {e}")))?;
                self.push(&mut writer, &text)?;
            }
        }
        Ok(writer)
    }

    /// Also how many documents nothing is known of.
    async fn as_of(&self, mut writer: Writer, at: PointInTime) -> Result<(Writer, u64), CliError> {
        let places = &restore::places(self.cosmos, self.names, None).await?;
        let scope = match &self.args.predicate {
            Some(predicate) => Scope::Where { predicate: predicate.clone(), params: self.args.param.clone() },
            None => Scope::All,
        };
        let items = facts(places, &scope, at).await.map_err(|f| self.explain(f))?;
        let mut unknown: Vec<ItemKey> = Vec::new();
        if self.args.all {
            unknown.extend(live_etags(&places.source).await?.into_keys().filter(|item| !items.contains_key(item)));
        }
        let mut chosen: Vec<(ItemKey, String)> = Vec::new();
        let mut caveats: BTreeMap<&str, u64> = BTreeMap::new();
        for (item, versions) in items {
            let found = as_of(&versions, at);
            match found.state {
                State::Document(version) => {
                    for caveat in &found.caveats {
                        *caveats.entry(caveat.name()).or_default() += 1;
                    }
                    chosen.push((item, version.record_id.clone()));
                }
                State::NotYet { .. } if !found.created_later() => unknown.push(item),
                State::Deleted(_) | State::NotYet { .. } | State::Empty => {}
            }
        }
        chosen.sort_by_cached_key(|(item, _)| item.sort_key());
        let mut reading = stream::iter(chosen)
            .map(|(item, record_id)| async move {
                let text = read_version(places, &item, &record_id).await;
                text.map_err(|f| {
                    let mut error = CliError::from(f);
                    error.message = format!("document {:?} ({}): {}", item.id, item.partition_key, error.message);
                    error
                })
            })
            .buffered(self.args.concurrency.into());
        while let Some(text) = reading.next().await {
            self.push(&mut writer, &text?)?;
        }
        for (name, count) in caveats {
            self.progress.note(&format!("note: {} with the caveat {name}", count_of(count, "document")));
        }
        unknown.sort_by_cached_key(ItemKey::sort_key);
        for item in unknown.iter().take(SHOWN_UNKNOWN) {
            self.progress.note(&printable(&format!(
                "warning: document {:?} ({}): nothing is known of that time; it is not in the file",
                item.id, item.partition_key
            )));
        }
        if let Some(more) = unknown.len().checked_sub(SHOWN_UNKNOWN).filter(|n| *n > 0) {
            self.progress.note(&format!("... and {} more", count_of(more as u64, "document")));
        }
        Ok((writer, unknown.len() as u64))
    }
}
