//! `load`: the documents of a backup, of any JSON file, or of an archive of `follow`, into the source container. Running it
//! again is harmless.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use clap::{Args, ValueEnum};
use flate2::bufread::MultiGzDecoder;
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    CliError, ConnectionArgs, Exit,
    backup_file::{self, Problem, Trailer},
    connection::ru_limit,
    from_archive::{damaged, open_archive, read_archive},
    input, lookup,
    output::{self, Format, Progress, printable, tenths},
};
use crate::{
    archive::Newest,
    change::{
        key::{ItemKey, KeyPaths},
        raw::RawDocument,
        record,
        time::PointInTime,
    },
    config::Account,
    cosmos::{Action, Bulk, Container, Cosmos, Failure, Job, Observer, RuLimiter, Tally},
};

/// What happens to documents that exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Replaced
    Upsert,
    /// Left alone
    #[default]
    CreateOnly,
    /// Replaced when they were last written before the moment of the backup or archive
    IfNewer,
}

/// Flags of `load`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind load events.jsonl.gz
  cosmos-rewind load events.jsonl --mode upsert
  cosmos-rewind load --no-trailer demo_backup.json
  cosmos-rewind load --archive ./archive --at 2026-11-20T14:05Z")]
pub struct LoadArgs {
    /// File that `backup` made, compressed or not; - is standard input
    #[arg(required_unless_present = "archive", conflicts_with = "archive")]
    file: Option<PathBuf>,
    /// Folder, or blob:URL, to which follow wrote: files with one event, or with one a line, compressed or not
    #[arg(long, value_name = "DIR|blob:URL")]
    archive: Option<String>,
    /// From an archive, the version of each document that was in force then [default: the newest]
    #[arg(long, value_name = "TIME", requires = "archive")]
    at: Option<String>,
    /// What happens to documents that exist
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Take a file without count and checksum too: JSON lines, a JSON array, or one object; system properties are left out
    #[arg(long, conflicts_with = "archive")]
    no_trailer: bool,
    /// Writes in flight
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

/// Runs the command.
///
/// # Errors
/// When the input cannot be used, or the service refuses.
pub async fn run(args: LoadArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (lines, read) = mpsc::channel::<input::Item>(64);
    if let Some(text) = &args.archive {
        let settings = args.connection.settings()?;
        let (cosmos, _) = args.connection.open()?;
        let at = match &args.at {
            Some(text) => Some(lookup::point(&cosmos, "--at", text).await?),
            None => None,
        };
        let archive = open_archive("--archive", text, &Account::from_settings(&settings)?.credential)?;
        let target = Target::open(&args).await?;
        let newest = Newest::of(archive, at.map(PointInTime::seconds)).await;
        let newest = newest.map_err(|damage| damaged("--archive", &damage))?;
        let documents = newest.documents();
        read_archive(Some(documents), newest.counts);
        // What was written in that second may be the version itself.
        let moment = at.map_or(newest.time(), |at| at.seconds().min(newest.time()));
        let reader = tokio::spawn(newest.send(lines));
        let written = target.write(&args, read, Some(documents), moment).await;
        let ended = reader.await.map_err(|e| e.to_string()).and_then(|ended| ended.map_err(|e| e.to_string()));
        return written.report(&args, &target, started, ended.map_err(|problem| format!("--archive: {problem}")));
    }
    let Some(file) = &args.file else { return Err(CliError::usage("there is no FILE", "name one, or --archive")) };
    if args.mode == Mode::IfNewer && args.no_trailer {
        return Err(CliError::usage(
            "--mode if-newer needs the moment of the backup, and without a trailer there is none",
            "leave one of the two flags out",
        ));
    }
    let mut source = Source::open(file).map_err(|e| {
        CliError::usage(
            format!("cannot open {}: {e}", file.display()),
            "name a file that backup made, or - for standard input; a folder that follow wrote to with --archive",
        )
    })?;
    if args.mode == Mode::IfNewer && matches!(source, Source::Stream(_)) {
        return Err(CliError::usage(
            "--mode if-newer needs the moment of the backup, which is at the end of the file",
            "save the input in a file and name that",
        ));
    }
    // Settings that are wrong are told before a long file is read.
    args.connection.open()?;
    let mut trailer = None;
    if !args.no_trailer && matches!(source, Source::Seekable(_)) {
        let checking = Progress::new("check", None);
        let checked = tokio::task::spawn_blocking(move || {
            let found = backup_file::read(source.reader()?, |_, _| {
                checking.inc(1);
                true
            });
            found.map(|trailer| (trailer, source))
        });
        let (found, same) = joined(checked.await).map_err(|p| refused(file, &p))?;
        (trailer, source) = (Some(found), same);
    }
    let moment = match &trailer {
        Some(trailer) => trailer.moment().map_err(|e| refused(file, &Problem::Damaged(e)))?,
        None => 0,
    };
    let target = Target::open(&args).await?;
    let no_trailer = args.no_trailer;
    let reader = tokio::task::spawn_blocking(move || pass_on(source, no_trailer, lines));
    let written = target.write(&args, read, trailer.as_ref().map(|t| t.documents), moment).await;
    let ended = joined(reader.await);
    if let Err(problem) = &ended
        && written.is_nothing()
    {
        return Err(refused(file, problem));
    }
    let ended = ended.map(drop).map_err(|problem| format!("{} {problem}", file.display()));
    written.report(&args, &target, started, ended)
}

/// The container that is written to.
struct Target {
    cosmos: Cosmos,
    container: Container,
    shown: String,
}

/// What became of the documents.
struct Written {
    tally: Tally,
    /// Those that could not be sent at all.
    unusable: u64,
    fatal: Option<Failure>,
}

impl Target {
    async fn open(args: &LoadArgs) -> Result<Self, CliError> {
        let (cosmos, names) = args.connection.open()?;
        let container = cosmos.container(&names.database, &names.source).await?;
        let shown = format!("{}/{}", names.database, names.source);
        Ok(Self { cosmos, container, shown })
    }

    /// Writes what is read, until nothing more comes or every other write would fail too.
    async fn write(
        &self,
        args: &LoadArgs,
        mut read: mpsc::Receiver<input::Item>,
        total: Option<u64>,
        moment: i64,
    ) -> Written {
        let progress = Arc::new(Progress::new("load", total));
        let observer: Observer = {
            let progress = progress.clone();
            Arc::new(move |item: &ItemKey, failure: Option<&Failure>| {
                progress.inc(1);
                if let Some(failure) = failure {
                    progress.note(&printable(&format!("document {:?} ({}): {failure}", item.id, item.partition_key)));
                }
            })
        };
        let pace = RuLimiter::new(self.cosmos.meter(), args.ru_limit);
        let bulk = Bulk::start(&self.container, usize::from(args.concurrency), pace, observer);
        let mut unusable = 0;
        while let Some(line) = read.recv().await {
            match line.text.and_then(|text| prepare(&text, self.container.key_paths())) {
                Ok((item, text)) => {
                    let text = text.into_bytes();
                    let action = match args.mode {
                        Mode::Upsert => Action::Upsert(text),
                        Mode::CreateOnly => Action::Create(text),
                        Mode::IfNewer => Action::ReplaceOlder(text, moment),
                    };
                    if !bulk.send(Job { item, action }).await {
                        break;
                    }
                }
                Err(problem) => {
                    unusable += 1;
                    progress.note(&printable(&format!("{} {problem}", line.place)));
                }
            }
        }
        // The reader stops at its next line when nobody listens any more.
        drop(read);
        let (tally, fatal) = bulk.finish().await;
        progress.finish();
        Written { tally, unusable, fatal }
    }
}

impl Written {
    fn is_nothing(&self) -> bool {
        self.tally == Tally::default() && self.unusable == 0 && self.fatal.is_none()
    }

    /// Prints the summary; `ended` says why the input ended too early, if it did.
    fn report(
        self,
        args: &LoadArgs,
        target: &Target,
        started: Instant,
        ended: Result<(), String>,
    ) -> Result<Exit, CliError> {
        let (tally, failed) = (self.tally, self.tally.failed + self.unusable);
        output::summary(
            args.format,
            &[
                ("container", json!(target.shown)),
                ("written", json!(tally.done())),
                ("created", json!(tally.created)),
                ("updated", json!(tally.updated)),
                ("skipped", json!(tally.skipped)),
                ("failed", json!(failed)),
                ("ru", tenths(target.cosmos.meter().total())),
                ("seconds", tenths(started.elapsed().as_secs_f64())),
            ],
        )?;
        let again = match args.mode {
            Mode::CreateOnly => "run the command again when that is mended: documents that exist are left alone",
            Mode::IfNewer => "run the command again when that is mended: what is newer than the file is left alone",
            Mode::Upsert => {
                "documents were replaced; run the command again when that is mended, which replaces what was changed since as well"
            }
        };
        if let Some(failure) = self.fatal {
            let mut error = CliError::from(failure);
            error.hint.get_or_insert(again.into());
            return Err(error);
        }
        if let Err(problem) = ended {
            return Err(CliError {
                message: format!("{problem}; what came before that was written"),
                hint: Some(again.into()),
                exit: Exit::Incomplete,
            });
        }
        if failed > 0 {
            output::hint(again);
            return Ok(Exit::Incomplete);
        }
        Ok(Exit::Done)
    }
}

fn joined<T>(result: Result<Result<T, Problem>, tokio::task::JoinError>) -> Result<T, Problem> {
    result.unwrap_or_else(|e| Err(Problem::Io(io::Error::other(e))))
}

fn refused(file: &Path, problem: &Problem) -> CliError {
    let hint = match problem {
        Problem::NoTrailer => {
            "JSON that another program made is loaded with --no-trailer; a backup that was cut off is not whole"
        }
        _ => "nothing was written; take another copy of the file, or what can be read of it with --no-trailer",
    };
    CliError { message: format!("{} {problem}", file.display()), hint: Some(hint.into()), exit: Exit::Failed }
}

/// Where the lines come from.
enum Source {
    /// A file, which can be read twice.
    Seekable(File),
    /// Standard input or a pipe.
    Stream(Box<dyn BufRead + Send>),
}

impl Source {
    fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stream(Box::new(BufReader::new(io::stdin()))));
        }
        let file = File::open(path)?;
        let kind = file.metadata()?;
        if kind.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        Ok(if kind.is_file() { Self::Seekable(file) } else { Self::Stream(Box::new(BufReader::new(file))) })
    }

    /// From the beginning; expanded when it is gzip.
    fn reader(&mut self) -> io::Result<Box<dyn BufRead + '_>> {
        let mut plain: Box<dyn BufRead + '_> = match self {
            Self::Seekable(file) => {
                file.rewind()?;
                Box::new(BufReader::with_capacity(1 << 16, file))
            }
            Self::Stream(input) => Box::new(input),
        };
        let gzip = plain.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        Ok(if gzip { Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(plain))) } else { plain })
    }
}

/// Reads everything and sends it on. The checksum is looked at again: the file may have changed since the first look,
/// and of a stream there was none.
fn pass_on(mut source: Source, no_trailer: bool, lines: mpsc::Sender<input::Item>) -> Result<Option<Trailer>, Problem> {
    let reader = source.reader()?;
    if no_trailer {
        return input::read(reader, |item| {
            matches!(&item.text, Ok(text) if backup_file::is_trailer(text)) || lines.blocking_send(item).is_ok()
        })
        .map(|()| None)
        .map_err(Problem::Io);
    }
    let read = backup_file::read(reader, |number, text| {
        lines.blocking_send(input::Item { place: format!("line {number}"), text: Ok(text.to_owned()) }).is_ok()
    });
    match read {
        Ok(trailer) => Ok(Some(trailer)),
        // The writers stopped, and say why.
        Err(Problem::Stopped) => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// The document without system properties, and which one it is.
fn prepare(text: &str, paths: &KeyPaths) -> Result<(ItemKey, String), String> {
    let text = record::own_text(text).map_err(|e| format!("is not a JSON object: {e}"))?;
    let document = RawDocument::parse(&text).map_err(|e| format!("is not a JSON object: {e}"))?;
    let id = document.get_str("id").filter(|id| !id.is_empty()).ok_or("has no id that is a string")?.into_owned();
    let partition_key = paths.extract(&document);
    drop(document);
    Ok((ItemKey { id, partition_key }, text))
}
