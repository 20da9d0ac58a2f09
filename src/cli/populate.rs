//! `populate`: writes generated zip-code documents, or documents from a file, into the source container.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use clap::Args;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    CliError, ConnectionArgs, Exit,
    output::{self, Format, Progress, count_of, number, tenths},
};
use crate::{
    change::{
        edit,
        key::{ItemKey, KeyPaths, KeyValue, parse_path, render_path},
        raw::{RawDocument, unescape},
    },
    cosmos::{Action, Bulk, Failure, Job, Observer, Tally},
    input, zipcodes,
};

/// Problems of the input that are printed one by one; the rest is only counted.
const SHOWN_PROBLEMS: u64 = 10;

/// Flags of `populate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind populate --count 5000 --rate 200
  cosmos-rewind populate --file zips.json --id-from /postal_cd --pk-from /postal_cd --updates 5000
  cat documents.jsonl | cosmos-rewind populate --file -")]
pub struct PopulateArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// How many upserts of randomly picked North Carolina zip codes [default: 5000]
    #[arg(long, value_name = "N", conflicts_with = "file")]
    count: Option<u64>,
    /// Write the documents of a file instead: a JSON array, JSON lines, or one object; - is standard input
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Copy the value at this path into the document's id
    #[arg(long, value_name = "/PATH", requires = "file")]
    id_from: Option<String>,
    /// Copy the value at this path into the container's partition key; repeat for a hierarchical key
    #[arg(long, value_name = "/PATH", requires = "file")]
    pk_from: Vec<String>,
    /// After the file, update documents of it at random this many times, with new seq, timestamp and epoch
    #[arg(long, value_name = "N", requires = "file", default_value_t = 0)]
    updates: u64,
    /// Repeat the random choices of an earlier run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// At most this many documents a second
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Writes in flight
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub async fn run(args: PopulateArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    if let Some(rate) = args.rate
        && !(rate.is_finite() && rate > 0.0)
    {
        return Err(CliError::usage(
            format!("--rate {rate} is not a rate"),
            "write documents a second, such as 50 or 0.5",
        ));
    }
    let id_from = args.id_from.as_deref().map(|p| path("--id-from", p)).transpose()?;
    let pk_from = args.pk_from.iter().map(|p| path("--pk-from", p)).collect::<Result<Vec<_>, _>>()?;
    let file = match &args.file {
        Some(path) => Some(opened(path).map_err(|e| {
            CliError::usage(
                format!("cannot open {}: {e}", path.display()),
                "name a readable file, or - for standard input",
            )
        })?),
        None => None,
    };

    let (cosmos, names) = args.connection.open()?;
    let container = cosmos.container(&names.database, &names.source).await?;
    let shape = Shape { key_paths: container.key_paths().clone(), id_from, pk_from };
    shape.check()?;

    let mut rng = args.seed.map_or_else(|| StdRng::from_rng(&mut rand::rng()), StdRng::seed_from_u64);
    let count = args.count.unwrap_or(5000);
    let progress = Arc::new(Progress::new("populate", file.is_none().then_some(count)));
    let problems = Arc::new(Problems { progress: progress.clone(), count: AtomicU64::new(0) });
    let observer: Observer = {
        let problems = problems.clone();
        Arc::new(move |item: &ItemKey, failure: Option<&Failure>| {
            problems.progress.inc(1);
            if let Some(failure) = failure {
                problems.report(&format!("document {:?} ({}): {failure}", item.id, item.partition_key));
            }
        })
    };
    let sink = Sink {
        bulk: Bulk::start(
            &container,
            usize::from(args.concurrency),
            crate::cosmos::RuLimiter::new(cosmos.meter(), None),
            observer,
        ),
        pace: RuLimiter::new(args.rate),
    };

    let mut rejected = 0;
    let mut read_failure = None;
    match file {
        None => generate(&sink, &shape, &mut rng, count).await?,
        Some(file) => {
            let (kept, bad, failure) = from_file(&sink, &shape, file, &problems, args.updates > 0).await;
            (rejected, read_failure) = (bad, failure);
            if read_failure.is_none() {
                update(&sink, &kept, &mut rng, args.updates).await?;
            }
        }
    }
    let (tally, fatal) = sink.bulk.finish().await;
    progress.finish();
    problems.end();

    if tally == Tally::default() && fatal.is_none() {
        if let Some(e) = read_failure {
            return Err(CliError::usage(
                format!("cannot read the input: {e}"),
                "give a JSON array, JSON lines, or one object",
            ));
        }
        if rejected > 0 {
            return Err(CliError::usage(
                format!("no document of the input could be used ({} rejected)", number(rejected)),
                "see the problems above",
            ));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    output::summary(
        args.format,
        &[
            ("container", json!(format!("{}/{}", names.database, names.source))),
            ("written", json!(tally.done())),
            ("created", json!(tally.created)),
            ("updated", json!(tally.updated)),
            ("rejected", json!(rejected)),
            ("failed", json!(tally.failed)),
            ("ru", tenths(cosmos.meter().total())),
            ("seconds", tenths(seconds)),
            ("per_second", tenths(tally.done() as f64 / seconds.max(0.001))),
        ],
    )?;
    if let Some(failure) = fatal {
        return Err(failure.into());
    }
    if let Some(e) = read_failure {
        return Err(CliError::failed(format!("cannot read the input to its end: {e}")));
    }
    if rejected + tally.failed == 0 {
        return Ok(Exit::Done);
    }
    output::note(&format!("warning: {} rejected, {} failed", number(rejected), number(tally.failed)));
    Ok(Exit::Incomplete)
}

/// `-` is standard input.
fn opened(path: &Path) -> io::Result<Box<dyn io::BufRead + Send>> {
    if path.as_os_str() == "-" { Ok(Box::new(io::BufReader::new(io::stdin()))) } else { input::open(path) }
}

fn path(flag: &str, text: &str) -> Result<Vec<String>, CliError> {
    parse_path(text)
        .map_err(|problem| CliError::usage(format!("{flag}: {problem}"), format!("write {flag} /postal_cd")))
}

/// Prints the first problems, counts the others.
struct Problems {
    progress: Arc<Progress>,
    count: AtomicU64,
}

impl Problems {
    fn report(&self, text: &str) {
        if self.count.fetch_add(1, Ordering::Relaxed) < SHOWN_PROBLEMS {
            self.progress.note(&output::printable(text));
        }
    }

    fn end(&self) {
        let hidden = self.count.load(Ordering::Relaxed).saturating_sub(SHOWN_PROBLEMS);
        if hidden > 0 {
            output::note(&format!("... and {} more", count_of(hidden, "problem")));
        }
    }
}

/// Where documents go: at a pace.
struct Sink {
    bulk: Bulk,
    pace: RuLimiter,
}

impl Sink {
    /// False when nothing more can be written.
    async fn upsert(&self, item: ItemKey, text: String) -> bool {
        self.pace.wait().await;
        self.bulk.send(Job { item, action: Action::Upsert(text.into_bytes()) }).await
    }
}

/// At most so many a second.
struct RuLimiter {
    start: tokio::time::Instant,
    rate: Option<f64>,
    sent: AtomicU64,
}

impl RuLimiter {
    fn new(rate: Option<f64>) -> Self {
        Self { start: tokio::time::Instant::now(), rate, sent: AtomicU64::new(0) }
    }

    async fn wait(&self) {
        let sent = self.sent.fetch_add(1, Ordering::Relaxed);
        if let Some(rate) = self.rate
            && let Ok(due) = Duration::try_from_secs_f64(sent as f64 / rate)
            && let Some(due) = self.start.checked_add(due)
        {
            tokio::time::sleep_until(due).await;
        }
    }
}

/// What a document must carry, and where it is taken from.
#[derive(Debug, Clone)]
struct Shape {
    key_paths: KeyPaths,
    id_from: Option<Vec<String>>,
    pk_from: Vec<Vec<String>>,
}

impl Shape {
    fn check(&self) -> Result<(), CliError> {
        if self.pk_from.is_empty() || self.pk_from.len() == self.key_paths.len() {
            return Ok(());
        }
        Err(CliError::usage(
            format!("--pk-from is given {} times, the container's key is {}", self.pk_from.len(), self.key_paths),
            "give it once for each path of the key, in order",
        ))
    }

    /// The document with its id and key, or what it lacks.
    fn prepare(&self, text: &str) -> Result<(ItemKey, String), String> {
        let mut text = text.to_owned();
        if let Some(from) = &self.id_from {
            let value = copied(&text, from)?;
            text = edit::set(&text, &["id".to_owned()], &edit::quote(&value))?;
        }
        for (from, to) in self.pk_from.iter().zip(self.key_paths.segments()) {
            let value = copied(&text, from)?;
            text = edit::set(&text, to, &edit::quote(&value))?;
        }
        let document = RawDocument::parse(&text).map_err(|e| e.to_string())?;
        let id = match document.get("id").map(|raw| raw.get()) {
            None => return Err("has no id; name the field to take it from with --id-from /FIELD".into()),
            Some("\"\"") => return Err("has an empty id; name another field with --id-from /FIELD".into()),
            Some(raw) if raw.starts_with('"') => unescape(raw).into_owned(),
            Some(raw) => {
                return Err(format!("has the id {raw}, which is not a string; write --id-from /id to make it one"));
            }
        };
        let partition_key = self.key_paths.extract(&document);
        if let Some(at) = partition_key.0.iter().position(|part| *part == KeyValue::Undefined) {
            let missing = self.key_paths.segments().get(at).map(|p| render_path(p)).unwrap_or_default();
            return Err(format!(
                "has no partition key value at {missing}; name the field to take it from with --pk-from /FIELD"
            ));
        }
        drop(document);
        Ok((ItemKey { id, partition_key }, text))
    }
}

/// The scalar at a path, as a string.
fn copied(text: &str, from: &[String]) -> Result<String, String> {
    let document = RawDocument::parse(text).map_err(|e| e.to_string())?;
    match KeyPaths::extract_one(from, &document) {
        KeyValue::String(s) if !s.is_empty() => Ok(s),
        KeyValue::Undefined | KeyValue::Null | KeyValue::String(_) => {
            Err(format!("has no value at {} to take its id or partition key from", render_path(from)))
        }
        // A number's own text, so that 1.10 stays 1.10.
        _ => Ok(raw_at(from, text).unwrap_or_default()),
    }
}

fn raw_at(path: &[String], text: &str) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let document = RawDocument::parse(text).ok()?;
    let value = document.get(first)?.get();
    if rest.is_empty() { Some(value.to_owned()) } else { raw_at(rest, value) }
}

async fn generate(sink: &Sink, shape: &Shape, rng: &mut StdRng, count: u64) -> Result<(), CliError> {
    for seq in 1..=count {
        let zip = zipcodes::pick(rng);
        let (item, text) = zip_document(zip, &shape.key_paths, seq, Utc::now()).map_err(CliError::failed)?;
        if !sink.upsert(item, text).await {
            return Ok(());
        }
    }
    Ok(())
}

/// A generated document for a container with these key paths: those it lacks hold the zip code.
pub fn zip_document(
    zip: &zipcodes::Zipcode,
    key_paths: &KeyPaths,
    seq: u64,
    now: DateTime<Utc>,
) -> Result<(ItemKey, String), String> {
    let mut text = zip.document(seq, now);
    let mut partition_key = key_paths.extract(&RawDocument::parse(&text).map_err(|e| e.to_string())?);
    for (path, part) in key_paths.segments().iter().zip(&mut partition_key.0) {
        if *part == KeyValue::Undefined {
            text = edit::set(&text, path, &edit::quote(zip.zip))?;
            *part = KeyValue::String(zip.zip.to_owned());
        }
    }
    Ok((ItemKey { id: zip.zip.to_owned(), partition_key }, text))
}

/// Writes the documents of a file once each. Returns those written when they are to be kept, how many could not be
/// used, and the failure that ended the reading early.
async fn from_file(
    sink: &Sink,
    shape: &Shape,
    file: Box<dyn io::BufRead + Send>,
    problems: &Problems,
    keep: bool,
) -> (Vec<(ItemKey, String)>, u64, Option<io::Error>) {
    let (items, mut read) = mpsc::channel::<input::Item>(64);
    let reader = tokio::task::spawn_blocking(move || input::read(file, |item| items.blocking_send(item).is_ok()));
    let mut kept = Vec::new();
    let mut rejected = 0;
    while let Some(item) = read.recv().await {
        match item.text.and_then(|text| shape.prepare(&text)) {
            Ok((key, text)) => {
                if keep {
                    kept.push((key.clone(), text.clone()));
                }
                if !sink.upsert(key, text).await {
                    break;
                }
            }
            Err(problem) => {
                rejected += 1;
                problems.report(&format!("{} {problem}", item.place));
            }
        }
    }
    // The reader stops at its next document when nobody listens any more.
    drop(read);
    let failure = match reader.await {
        Ok(Ok(())) => None,
        Ok(Err(e)) => Some(e),
        Err(e) => Some(io::Error::other(e)),
    };
    (kept, rejected, failure)
}

/// Writes documents again at random, with fresh `seq`, `timestamp` and `epoch`.
async fn update(sink: &Sink, kept: &[(ItemKey, String)], rng: &mut StdRng, count: u64) -> Result<(), CliError> {
    if kept.is_empty() {
        return Ok(());
    }
    for seq in 1..=count {
        let (item, text) = &kept[rng.random_range(0..kept.len())];
        let text = refreshed(text, seq, Utc::now()).map_err(CliError::failed)?;
        if !sink.upsert(item.clone(), text).await {
            return Ok(());
        }
    }
    Ok(())
}

fn refreshed(text: &str, seq: u64, now: DateTime<Utc>) -> Result<String, String> {
    let text = edit::set(text, &["seq".to_owned()], &seq.to_string())?;
    let text = edit::set(&text, &["timestamp".to_owned()], &edit::quote(&zipcodes::timestamp(now).to_string()))?;
    edit::set(&text, &["epoch".to_owned()], &now.timestamp().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(key_paths: &[&str], id_from: Option<&str>, pk_from: &[&str]) -> Shape {
        Shape {
            key_paths: KeyPaths::parse(key_paths).unwrap(),
            id_from: id_from.map(|p| parse_path(p).unwrap()),
            pk_from: pk_from.iter().map(|p| parse_path(p).unwrap()).collect(),
        }
    }

    #[test]
    fn id_and_key_are_copied_and_the_rest_keeps_its_text() {
        let shape = shape(&["/pk"], Some("/postal_cd"), &["/postal_cd"]);
        let (item, text) = shape.prepare("{\n  \"postal_cd\": \"28036\",  \"latitude\": 35.4833060\n}").unwrap();
        assert_eq!((item.id.as_str(), item.partition_key.to_string().as_str()), ("28036", "28036"));
        assert_eq!(text, "{\n  \"postal_cd\": \"28036\",  \"latitude\": 35.4833060,\"id\":\"28036\",\"pk\":\"28036\"}");
        let (item, text) = shape.prepare(r#"{"postal_cd":28.10,"id":1}"#).unwrap();
        assert_eq!((item.id.as_str(), text.as_str()), ("28.10", r#"{"postal_cd":28.10,"id":"28.10","pk":"28.10"}"#));
    }

    #[test]
    fn a_hierarchical_key_is_filled_path_by_path() {
        let shape = shape(&["/tenant", "/user/id"], None, &["/t", "/u"]);
        let (item, text) = shape.prepare(r#"{"id":"a","t":"x","u":true}"#).unwrap();
        assert_eq!(item.partition_key.to_string(), r#"["x","true"]"#);
        assert_eq!(text, r#"{"id":"a","t":"x","u":true,"tenant":"x","user":{"id":"true"}}"#);
    }

    #[test]
    fn what_a_document_lacks_is_said_with_the_fix() {
        let plain = shape(&["/pk"], None, &[]);
        for (text, problem) in [
            ("{}", "--id-from"),
            (r#"{"id":7,"pk":1}"#, "--id-from /id"),
            (r#"{"id":"","pk":1}"#, "--id-from"),
            (r#"{"id":"a"}"#, "at /pk"),
            (r#"{"id":"a","pk":{}}"#, "--pk-from"),
        ] {
            let error = plain.prepare(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!(plain.prepare(r#"{"id":"a","pk":null}"#).is_ok());
        let from = shape(&["/pk"], Some("/code"), &[]);
        assert!(from.prepare(r#"{"pk":1,"code":null}"#).unwrap_err().contains("/code"));
        assert!(shape(&["/a", "/b"], None, &["/x"]).check().is_err());
    }

    #[test]
    fn an_update_changes_three_members_and_nothing_else() {
        let now = DateTime::from_timestamp(1_592_927_008, 0).unwrap();
        assert_eq!(
            refreshed(r#"{"id": "a", "seq": 1, "n": 1.10}"#, 7, now).unwrap(),
            r#"{"id": "a", "seq": 7, "n": 1.10,"timestamp":"2020-06-23 15:43:28","epoch":1592927008}"#
        );
    }

    #[test]
    fn generated_documents_fit_any_key() {
        let now = DateTime::from_timestamp(0, 0).unwrap();
        let zip = &zipcodes::all()[0];
        for paths in [&["/pk"][..], &["/id"], &["/tenant", "/city_name"], &["/a/b"]] {
            let paths = KeyPaths::parse(paths).unwrap();
            let (item, text) = zip_document(zip, &paths, 1, now).unwrap();
            assert_eq!(paths.extract(&RawDocument::parse(&text).unwrap()), item.partition_key);
            assert!(!item.partition_key.0.contains(&KeyValue::Undefined));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_is_kept() {
        let pace = RuLimiter::new(Some(10.0));
        for _ in 0..21 {
            pace.wait().await;
        }
        assert_eq!(pace.start.elapsed().as_secs(), 2);
    }
}
