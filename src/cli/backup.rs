//! `backup`: documents of the live container, or of a moment, into a file.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use chrono::{SecondsFormat, Utc};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use super::{
    CliError, ConnectionArgs, Exit,
    backup_file::Writer,
    connection::ru_limit,
    lookup,
    output::{self, Format, Progress, count_of, printable, tenths},
    restore,
};
use crate::{
    change::{key::ItemKey, record, time::PointInTime},
    config::Names,
    cosmos::{Cosmos, Disposition, Failure, Pace, Param, Share, Span},
    history::as_of::{State, as_of},
    restore::{
        apply::read_version,
        sweep::{Found, LiveWish, PIECE_ROWS, Places, Scope, Sweep},
    },
};

/// Documents of a moment that are sorted by id and key, if there are no more.
const SORTED: usize = 10_000;
/// The same in bytes.
const SORTED_BYTES: usize = 16 << 20;

/// Documents that are named when nothing is known of them; the rest is counted.
const SHOWN_UNKNOWN: u64 = 10;

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
    /// Only the i-th of n equal parts of the documents, by partition key
    #[arg(long, value_name = "I/N")]
    feed_range: Option<Share>,
    /// File to make, one document a line; compressed when its name ends in .gz
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Versions read at the same time, with --at
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// At most this many request units a second, on average
    #[arg(long, value_name = "RU/S", value_parser = ru_limit)]
    ru_limit: Option<f64>,
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
    let pace = Pace::new(cosmos.meter(), args.ru_limit);
    let job = Job { args: &args, cosmos: &cosmos, names: &names, pace, progress: Progress::new("backup", None) };
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
    pace: Pace,
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
        let part = self.args.feed_range.map_or(Span::WHOLE, Share::span);
        let mut pages = container.query_span(&sql, &self.args.param, part).await.map_err(|f| self.explain(f))?;
        loop {
            self.pace.wait().await;
            let Some(page) = pages.next().await else { break };
            for document in page.map_err(|f| self.explain(f))?.documents {
                let text = record::own_text(document.get())
                    .map_err(|e| CliError::failed(format!("a document is not understood: {e}")))?;
                self.push(&mut writer, &text)?;
            }
        }
        Ok(writer)
    }

    /// Also how many documents nothing is known of.
    async fn as_of(&self, writer: Writer, at: PointInTime) -> Result<(Writer, u64), CliError> {
        let places = &restore::places(self.cosmos, self.names, None).await?;
        if self.args.feed_range.is_some() {
            places.can_be_shared().map_err(|e| {
                CliError::usage(format!("--feed-range: {e}"), "leave it out; one file has everything then")
            })?;
        }
        let scope = match &self.args.predicate {
            Some(predicate) => Scope::Where { predicate: predicate.clone(), params: self.args.param.clone() },
            None => Scope::All,
        };
        let sweep = Sweep {
            places,
            wanted: &scope,
            at,
            share: self.args.feed_range,
            // Which documents exist that no version is known of.
            live: if self.args.all { LiveWish::Etag } else { LiveWish::No },
            piece_rows: PIECE_ROWS,
            pace: &self.pace,
            needs_text: &|found| matches!(as_of(&found.versions, at).state, State::Document(_)),
        };
        let mut past = Past { writer, held: Some((Vec::new(), 0)), caveats: BTreeMap::new(), unknown: 0 };
        let mut pieces = std::pin::pin!(sweep.pieces());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|f| self.explain(f))?;
            let texts: Vec<(ItemKey, Result<String, Failure>)> = stream::iter(piece)
                .filter_map(|found| std::future::ready(past.chosen(found, at, &self.progress)))
                .map(|chosen| self.text_of(places, chosen))
                .buffered(self.args.concurrency.into())
                .try_collect()
                .await?;
            for (item, text) in texts {
                match text {
                    Ok(text) => past.push(item, text).map_err(|e| disk(&self.args.out, &e))?,
                    Err(bad) => past.unknown(&item, &bad.message, &self.progress),
                }
                self.progress.inc(1);
            }
        }
        past.release().map_err(|e| disk(&self.args.out, &e))?;
        for (name, count) in past.caveats {
            self.progress.note(&format!("note: {} with the caveat {name}", count_of(count, "document")));
        }
        if let Some(more) = past.unknown.checked_sub(SHOWN_UNKNOWN).filter(|n| *n > 0) {
            self.progress.note(&format!("... and {} more", count_of(more, "document")));
        }
        Ok((past.writer, past.unknown))
    }

    /// The text of a version; a failure of its own is no reason to leave the others out.
    async fn text_of(&self, places: &Places, chosen: Chosen) -> Result<(ItemKey, Result<String, Failure>), CliError> {
        let Chosen { item, record_id, text } = chosen;
        if let Some(text) = text {
            return Ok((item, Ok(text)));
        }
        self.pace.wait().await;
        match read_version(places, &item, &record_id).await {
            Err(f) if f.disposition != Disposition::Poison => {
                let mut error = CliError::from(f);
                error.message = format!("document {:?} ({}): {}", item.id, item.partition_key, error.message);
                Err(error)
            }
            text => Ok((item, text)),
        }
    }
}

/// The version of a document that goes into the file.
struct Chosen {
    item: ItemKey,
    record_id: String,
    text: Option<String>,
}

/// A moment that is being written.
struct Past {
    writer: Writer,
    /// Held back to be sorted, as long as they are few; and their bytes.
    held: Option<(Vec<(ItemKey, String)>, usize)>,
    caveats: BTreeMap<&'static str, u64>,
    unknown: u64,
}

impl Past {
    /// What of a document goes into the file; what nothing is known of is counted and named.
    fn chosen(&mut self, found: Found, at: PointInTime, progress: &Progress) -> Option<Chosen> {
        let state = as_of(&found.versions, at);
        match state.state {
            State::Document(version) => {
                for caveat in &state.caveats {
                    *self.caveats.entry(caveat.name()).or_default() += 1;
                }
                let (record_id, text) = (version.record_id.clone(), version.document.clone());
                Some(Chosen { item: found.item, record_id, text })
            }
            State::Deleted(_) => None,
            State::NotYet { .. } if state.created_later() => None,
            State::NotYet { .. } | State::Empty => {
                self.unknown(&found.item, "nothing is known of that time", progress);
                None
            }
        }
    }

    fn unknown(&mut self, item: &ItemKey, why: &str, progress: &Progress) {
        self.unknown += 1;
        if self.unknown <= SHOWN_UNKNOWN {
            progress.note(&printable(&format!(
                "warning: document {:?} ({}): {why}; it is not in the file",
                item.id, item.partition_key
            )));
        }
    }

    fn push(&mut self, item: ItemKey, text: String) -> io::Result<()> {
        let Some((held, bytes)) = &mut self.held else { return self.writer.push(&text) };
        *bytes += text.len();
        held.push((item, text));
        if held.len() > SORTED || *bytes > SORTED_BYTES { self.release() } else { Ok(()) }
    }

    fn release(&mut self) -> io::Result<()> {
        let (mut held, _) = self.held.take().unwrap_or_default();
        held.sort_by_cached_key(|(item, _)| item.sort_key());
        held.iter().try_for_each(|(_, text)| self.writer.push(text))
    }
}
