//! `backup`: documents of the live container, or of a moment, into a file.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use chrono::SecondsFormat;
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    CliError, ConnectionArgs, Exit,
    backup_file::Writer,
    connection::{hash_ranges, ru_limit},
    lookup,
    output::{self, Format, Progress, count_of, note, printable, tenths},
    restore,
};
use crate::{
    change::{
        key::ItemKey,
        raw::RawDocument,
        record,
        time::PointInTime,
        version::{BadRecord, container_of},
    },
    config::Names,
    cosmos::{Cosmos, Disposition, Failure, HashRange, Param, RETRY_TIMEOUT, Retry, RuLimiter, Shard, Walk},
    history::{
        as_of::{State, as_of},
        frontier::Frontier,
        scan::{Containers, LiveDetail, PIECE_ROWS, Scan, ScannedItem, Scope, look_at},
    },
    restore::plan::{Facts, with_live},
};

/// Documents of a moment that are sorted by id and key, if there are no more.
const SORTED: usize = 10_000;
/// The same in bytes.
const SORTED_BYTES: usize = 4 << 20;

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
    /// Wait until capture has passed the moment
    #[arg(long, requires = "at")]
    wait: bool,
    /// Only the i-th of n equal parts of the documents, by partition key
    #[arg(long, value_name = "I/N")]
    feed_range: Option<Shard>,
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

/// Stretches of the live container that are read at the same time.
const LIVE_STRETCHES: u32 = 4;
/// Bytes that a piece of them should have.
const LIVE_PIECE_BYTES: usize = 4 << 20;
/// Bytes of text between two checkpoints.
const CHECKPOINT: usize = 4 << 20;

/// How far a backup is, and of what it is: what is kept to go on with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Backup {
    account: String,
    source: String,
    changes: String,
    predicate: Option<String>,
    params: Vec<(String, Value)>,
    feed_range: Option<String>,
    /// The moment as it was written; relative ones mean what they meant then.
    at_text: Option<String>,
    at: Option<i64>,
    /// When it was begun, RFC 3339.
    made: String,
    /// What is left of the hash space.
    left: Vec<HashRange>,
    unknown: u64,
    /// Whether the history is not known to be complete up to the moment.
    #[serde(default)]
    beyond: bool,
    caveats: BTreeMap<String, u64>,
}

impl Backup {
    fn is_same_backup(&self, other: &Self) -> bool {
        let facts = |s: &Self| {
            let names = (s.account.clone(), s.source.clone(), s.changes.clone());
            (names, s.predicate.clone(), s.params.clone(), s.feed_range.clone(), s.at_text.clone())
        };
        facts(self) == facts(other)
    }
}

/// Runs the command. An error, and Ctrl-C, leave no file, or one that the same command goes on with.
pub async fn run(args: BackupArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (cosmos, names) = args.connection.open()?;
    let at = match &args.at {
        Some(text) => Some(lookup::point(&cosmos, "--at", text).await?),
        None => None,
    };
    let containers = containers(&cosmos, &names, at.is_some()).await?;
    let left = match at {
        Some(_) => hash_ranges(&containers, args.feed_range, "one file has everything")?,
        None => live_stretches(&containers, args.feed_range),
    };
    let source = format!("{}/{}", names.database, names.source);
    let first = Backup {
        account: cosmos.endpoint().to_owned(),
        source: source.clone(),
        changes: names.changes.clone(),
        predicate: args.predicate.clone(),
        params: args.param.iter().map(|p| (p.name.clone(), p.value.clone())).collect(),
        feed_range: args.feed_range.map(|share| share.to_string()),
        at_text: args.at.clone(),
        at: at.map(PointInTime::seconds),
        made: crate::surroundings::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        left,
        unknown: 0,
        beyond: false,
        caveats: BTreeMap::new(),
    };
    let (writer, state, resumed) = Writer::open(&args.out, first.clone(), |known| known.is_same_backup(&first))
        .map_err(|e| {
            CliError::usage(
                format!("--out {}: {e}", args.out.display()),
                "name a file that does not exist yet, in a folder that can be written",
            )
        })?;
    let progress = Progress::new("backup", None);
    if resumed {
        progress.note(&format!("resumed    {} are in it already", count_of(writer.documents(), "document")));
        progress.inc(writer.documents());
    }
    let pace = RuLimiter::new(cosmos.meter(), args.ru_limit);
    let job = Job { args: &args, cosmos: &cosmos, names: &names, containers: &containers, pace, progress };
    let mut sink = Sink { writer, held: (!resumed).then(|| (Vec::new(), 0)), state };
    let at = sink.state.at.map(PointInTime::from_epoch);
    let done = tokio::select! {
        done = async { match at {
            None => job.live(&mut sink).await,
            Some(at) => job.as_of(&mut sink, at).await,
        }} => done,
        Ok(()) = tokio::signal::ctrl_c() => Err(CliError::failed("stopped")),
    };
    job.progress.finish();
    if let Err(mut error) = done {
        if sink.writer.can_go_on() {
            error.message.push_str("; what is done is kept");
            error.hint = Some("the same command goes on from there".into());
        } else {
            error.message.push_str("; no file was made");
        }
        return Err(error);
    }
    sink.release().map_err(|e| disk(&args.out, &e))?;
    let Sink { writer, state, .. } = sink;
    for (name, count) in &state.caveats {
        note(&format!("note: {} with the caveat {name}", count_of(*count, "document")));
    }
    if let Some(more) = state.unknown.checked_sub(SHOWN_UNKNOWN).filter(|n| *n > 0) {
        note(&format!("... and {} more", count_of(more, "document")));
    }
    let shown = at.map(|at| if at == PointInTime::END { state.made.clone() } else { at.to_string() });
    let trailer = writer.finish(source, shown, state.made).map_err(|e| disk(&args.out, &e))?;
    output::summary(
        args.format,
        &[
            ("container", json!(trailer.source)),
            ("file", json!(args.out.display().to_string())),
            ("documents", json!(trailer.documents)),
            ("unknown", json!(state.unknown)),
            ("at", json!(trailer.at)),
            ("sha256", json!(trailer.sha256)),
            ("ru", tenths(cosmos.meter().total())),
            ("seconds", tenths(started.elapsed().as_secs_f64())),
        ],
    )?;
    Ok(if state.unknown == 0 && !state.beyond { Exit::Done } else { Exit::Incomplete })
}

/// The containers; of a live backup the history is not needed.
async fn containers(cosmos: &Cosmos, names: &Names, with_history: bool) -> Result<Containers, CliError> {
    if with_history {
        return Ok(Containers::open(cosmos, names).await?);
    }
    let source = cosmos.container(&names.database, &names.source).await?;
    Ok(Containers { changes: source.clone(), target: source.clone(), source })
}

/// The live container is read in hash_ranges of its own hash space.
fn live_stretches(containers: &Containers, share: Option<Shard>) -> Vec<HashRange> {
    let part = share.map_or(HashRange::WHOLE, Shard::span);
    if containers.source.hash_space().is_some() { part.cut(LIVE_STRETCHES) } else { vec![part] }
}

fn disk(path: &Path, e: &io::Error) -> CliError {
    CliError::failed(format!("cannot write {}: {e}", path.display()))
}

struct Job<'a> {
    args: &'a BackupArgs,
    cosmos: &'a Cosmos,
    names: &'a Names,
    containers: &'a Containers,
    pace: RuLimiter,
    progress: Progress,
}

impl Job<'_> {
    fn explain(&self, failure: Failure) -> CliError {
        restore::explain(failure, self.args.predicate.is_some())
    }

    fn disk(&self, e: &io::Error) -> CliError {
        disk(&self.args.out, e)
    }

    async fn live(&self, sink: &mut Sink) -> Result<(), CliError> {
        let in_pieces = self.containers.source.hash_space().is_some();
        let sql = match &self.args.predicate {
            // On lines of its own, so that a comment in it cannot swallow the parenthesis.
            Some(predicate) => format!("SELECT * FROM c WHERE (\n{predicate}\n)"),
            None => "SELECT * FROM c".to_owned(),
        };
        let sql = &sql;
        let hash_ranges = sink.state.left.clone();
        let walks =
            stream::iter(hash_ranges).enumerate().flat_map_unordered(LIVE_STRETCHES as usize, |(number, left)| {
                Box::pin(stream::try_unfold(Walk::new(left, in_pieces), move |mut walk| async move {
                    let Some(piece) = walk.next_piece() else { return Ok(None) };
                    let retry = Retry::for_at_most(RETRY_TIMEOUT);
                    let documents = retry.run(|| self.live_piece(sql, piece)).await?;
                    let bytes: usize = documents.iter().map(|(_, text)| text.len()).sum();
                    walk.had(bytes as f64 / LIVE_PIECE_BYTES as f64);
                    Ok(Some(((documents, number, walk.rest()), walk)))
                }))
            });
        let mut walks = std::pin::pin!(walks);
        while let Some(piece) = walks.next().await {
            let (documents, number, rest) = piece.map_err(|f| self.explain(f))?;
            self.progress.inc(documents.len() as u64);
            for (item, text) in documents {
                sink.push(item, text).map_err(|e| self.disk(&e))?;
            }
            sink.walked(number, rest).map_err(|e| self.disk(&e))?;
        }
        Ok(())
    }

    async fn live_piece(&self, sql: &str, piece: HashRange) -> Result<Vec<(ItemKey, String)>, Failure> {
        let source = &self.containers.source;
        let mut pages = source.query_hash_range(sql, &self.args.param, piece).await?;
        let mut documents = Vec::new();
        loop {
            self.pace.wait().await;
            let Some(page) = pages.next().await else { return Ok(documents) };
            for document in page?.documents {
                let wrong = |e| Failure::invalid("read document".into(), format!("a document is not understood: {e}"));
                let text = record::own_text(document.get()).map_err(wrong)?;
                let parsed = RawDocument::parse(&text).map_err(wrong)?;
                let id = parsed.get_str("id").unwrap_or_default().into_owned();
                let item = ItemKey { id, partition_key: source.key_paths().extract(&parsed) };
                drop(parsed);
                documents.push((item, text));
            }
        }
    }

    async fn as_of(&self, sink: &mut Sink, at: PointInTime) -> Result<(), CliError> {
        let scope = match &self.args.predicate {
            Some(predicate) => Scope::Where { predicate: predicate.clone(), params: self.args.param.clone() },
            None => Scope::All,
        };
        let hash_ranges = sink.state.left.clone();
        let today = container_of(self.containers.source.rid());
        let wait = self.args.wait;
        let frontier = {
            let cx = super::screen::careful_context(self.cosmos, self.names);
            let read = crate::frontier::waiting::reach(self.containers, at, wait, &self.pace, &cx);
            read.await.map_err(|e| CliError::failed(e.to_string()))?
        };
        if !frontier.covers(at) {
            self.progress.note(&format!("warning: {}, before the point in time", frontier.describe()));
            sink.state.beyond = true;
        }
        let scan = Scan {
            containers: self.containers,
            wanted: &scope,
            at,
            hash_ranges: &hash_ranges,
            // Which documents exist that no version is known of, and which were in force already.
            live: LiveDetail::Etag,
            piece_rows: PIECE_ROWS,
            pace: &self.pace,
            needs_text: &|found| found.document_at(at).is_some(),
        };
        let mut pieces = std::pin::pin!(scan.pieces());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|f| self.explain(f))?;
            for bad in &piece.bad {
                sink.set_aside(bad, &self.progress);
            }
            let asked = Asked { at, today, all: self.args.all, frontier: &frontier, containers: self.containers };
            let chosen: Vec<Chosen> =
                piece.found.into_iter().filter_map(|found| sink.chosen(found, &asked, &self.progress)).collect();
            let texts: Vec<(ItemKey, Result<String, Failure>)> = stream::iter(chosen)
                .map(|chosen| self.text_of(chosen))
                .buffered(self.args.concurrency.into())
                .try_collect()
                .await?;
            for (item, text) in texts {
                match text {
                    Ok(text) => sink.push(item, text).map_err(|e| self.disk(&e))?,
                    Err(bad) => sink.unknown(&item, &bad.message, &self.progress),
                }
                self.progress.inc(1);
            }
            // Elsewhere, what exists without a version is known only at the very end.
            if let Some((number, rest)) = piece.walked.filter(|_| self.containers.is_aligned()) {
                sink.walked(number, rest).map_err(|e| self.disk(&e))?;
            }
        }
        Ok(())
    }

    /// The text of a version; a failure of its own is no reason to leave the others out.
    async fn text_of(&self, chosen: Chosen) -> Result<(ItemKey, Result<String, Failure>), CliError> {
        let Chosen { item, record_id, text, live } = chosen;
        if let Some(text) = text {
            return Ok((item, Ok(text)));
        }
        if let Some(etag) = live {
            let now = look_at(&self.containers.source, &self.pace, &item, true).await?;
            let moved = || {
                Failure::invalid(
                    "read document".into(),
                    "it was changed meanwhile, and its version is not in the history yet".into(),
                )
            };
            let text = now.filter(|now| now.etag == etag).and_then(|now| now.text);
            let text = text.ok_or_else(moved).and_then(|text| {
                record::own_text(&text).map_err(|e| Failure::invalid("read document".into(), e.to_string()))
            });
            return Ok((item, text));
        }
        self.pace.wait().await;
        match self.containers.document(&item, &record_id).await {
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
    /// The etag of the live document, when that is the version in force and the history does not have it.
    live: Option<String>,
}

/// What is asked of each document.
struct Asked<'a> {
    at: PointInTime,
    today: Option<u64>,
    /// Whether documents count of which the history has nothing.
    all: bool,
    frontier: &'a Frontier,
    containers: &'a Containers,
}

/// A file that is being written.
struct Sink {
    writer: Writer,
    /// Held back to be sorted, as long as they are few; and their bytes.
    held: Option<(Vec<(ItemKey, String)>, usize)>,
    state: Backup,
}

impl Sink {
    /// Notes how far a hash_range was read. While documents are held back there is nothing to go on from.
    fn walked(&mut self, number: usize, rest: HashRange) -> io::Result<()> {
        if let Some(left) = self.state.left.get_mut(number) {
            *left = rest;
        }
        if self.held.is_some() || self.writer.since_checkpoint() < CHECKPOINT {
            return Ok(());
        }
        self.writer.checkpoint(&self.state)
    }

    /// What of a document goes into the file; what nothing is known of is counted and named.
    fn chosen(&mut self, found: ScannedItem, asked: &Asked<'_>, progress: &Progress) -> Option<Chosen> {
        if found.versions.is_empty()
            && !asked.all
            && found.live.as_ref().is_none_or(|live| live.ts.is_none_or(|ts| ts > asked.at.seconds()))
        {
            return None;
        }
        let all = with_live(&found.item.id, &found.versions, found.live.as_ref());
        let state = as_of(&all, asked.at).today(asked.today);
        let facts = Facts {
            versions: &found.versions,
            unkeyed: &found.unkeyed,
            target: found.live.as_ref(),
            source: found.live.as_ref(),
            reach: asked.frontier.reach(&asked.containers.source, &found.item.partition_key),
        };
        let doubt = found
            .undecided
            .clone()
            .or_else(|| facts.doubt(&found.item, &state, found.live.as_ref().map(|live| live.etag.as_str())));
        if let Some(doubt) = doubt {
            self.unknown(&found.item, &doubt, progress);
            return None;
        }
        match state.state {
            State::Document(version) => {
                for caveat in &state.caveats {
                    *self.state.caveats.entry(caveat.name().to_owned()).or_default() += 1;
                }
                let (record_id, text) = (version.record_id.clone(), version.document.clone());
                let live = version.etag.clone().filter(|_| version.is_live());
                Some(Chosen { item: found.item.clone(), record_id, text, live })
            }
            State::Deleted(_) => None,
            State::NotYet { .. } if state.created_later() => None,
            State::NotYet { .. } | State::Empty => {
                self.unknown(&found.item, "nothing is known of that time", progress);
                None
            }
        }
    }

    fn set_aside(&mut self, bad: &BadRecord, progress: &Progress) {
        self.state.unknown += 1;
        if self.state.unknown <= SHOWN_UNKNOWN {
            progress.note(&printable(&format!("warning: {bad}; it is set aside")));
        }
    }

    fn unknown(&mut self, item: &ItemKey, why: &str, progress: &Progress) {
        self.state.unknown += 1;
        if self.state.unknown <= SHOWN_UNKNOWN {
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
