//! `status`: how capture and history stand, without reading them through.

use std::time::Instant;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    CliError, ConnectionArgs, Exit,
    connection::ru_limit,
    output::{self, Format, Progress, Rows, note, number, printable, tenths},
    verify::span,
};
use crate::{
    change::time::{PointInTime, span_text},
    config::{self, Account, CaptureConfig, Names},
    cosmos::{Container, Cosmos, Failure, FeedRange, RuLimiter},
    dead_letters::DeadLetterStore,
    follow::Checkpoint,
    history::frontier::Evidence,
    history::scan::Containers,
    upkeep::{
        frontier,
        lag::{Waiting, not_captured, not_followed},
        standing::{self, End, Lease, Size, Which, end, is_of_another},
    },
};

/// Waiting items that are counted without `--count`; a page of the feed.
const MOST: u64 = 1000;

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Count source, history and all that waits, and estimate bytes: reads every page
    #[arg(long)]
    count: bool,
    /// Directory or blob container URL [setting: REWIND_DEAD_LETTERS]
    #[arg(long, value_name = "DIR|URL")]
    dead_letters: Option<String>,
    /// At most this many request units a second, on average, while counting
    #[arg(long, value_name = "RU/S", value_parser = ru_limit)]
    ru_limit: Option<f64>,
    /// A change that waits for longer than this says that capture stands still
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "1m")]
    stalled_after: i64,
    /// How to print the report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The report, as programs read it.
#[derive(Serialize)]
struct Report {
    source: Source,
    history: History,
    /// Seconds since the oldest change was written that is not captured yet.
    behind: Option<i64>,
    /// What holds capture up, where that can be told.
    stalled: Vec<String>,
    leases: Option<Vec<LeaseRow>>,
    dead_letters: Option<usize>,
    ru: Value,
    seconds: Value,
}

#[derive(Serialize)]
struct Source {
    container: String,
    newest: Option<String>,
    documents: Option<u64>,
    bytes: Option<u64>,
}

#[derive(Serialize)]
struct History {
    container: String,
    oldest: Option<String>,
    newest: Option<String>,
    /// From when on everything is in the history: the latest of the first captures of all feed ranges.
    restorable_from: Option<String>,
    /// Up to when everything is in the history; `null` when nothing tells.
    complete_until: Option<String>,
    /// Whether it has versions of another container of the source's name.
    recreated: Option<bool>,
    records: Option<u64>,
    bytes: Option<u64>,
}

#[derive(Serialize)]
struct LeaseRow {
    lease: String,
    token: String,
    owner: Option<String>,
    checkpoint: Option<String>,
    age: Option<i64>,
    range: Option<String>,
    /// Items that wait, when they could be counted.
    items: Option<u64>,
    /// Whether there are more than that.
    more: bool,
    /// Seconds since the first of them was written.
    lag: Option<i64>,
}

/// Runs the command.
///
/// # Errors
/// When source or history cannot be read. Leases and dead letters that cannot be read are named, and left out.
pub async fn run(args: StatusArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let settings = args.connection.settings_with(args.dead_letters.as_ref())?;
    let names = Names::from_settings(&settings, None)?;
    let account = Account::from_settings(&settings)?;
    let letters = waiting(&CaptureConfig::from_settings(&settings, &config::app_root())?, &account).await;
    let cosmos = Cosmos::new(account);
    let containers = Containers::open(&cosmos, &names).await?;
    let (source, changes) = (&containers.source, &containers.changes);
    let (oldest, newest) = (end(changes, Which::OldestVersion).await?, end(changes, Which::NewestVersion).await?);
    let live = end(source, Which::NewestDocument).await?;
    let pace = RuLimiter::new(cosmos.meter(), args.ru_limit);
    let frontier = frontier::read(&cosmos, &names, &containers, None, &pace).await?;
    frontier.problems.iter().for_each(|problem| note(&printable(&format!("warning: {problem}"))));
    // A part of which nothing was captured yet has nothing to be promised.
    let mut begins: Option<PointInTime> = None;
    for part in &frontier.parts {
        begins = begins.max(frontier::begins(&containers, &part.range).await?);
    }
    let now = cosmos.service_time().await.unwrap_or_else(crate::surroundings::now).timestamp();
    let leases = match standing::leases(cosmos.container(&names.database, &names.leases).await).await {
        Ok(Some((leases, followers))) => Some(rows(&containers, &names, leases, followers, args.count).await),
        Ok(None) => {
            note(&format!("leases     there is no container {}/{}", names.database, names.leases));
            None
        }
        Err(e) => {
            note(&format!("leases     cannot be read: {e}"));
            None
        }
    };
    let (live_size, history_size) = match args.count {
        true => {
            let pace = RuLimiter::new(cosmos.meter(), args.ru_limit);
            (Some(counted(source, &pace).await?), Some(counted(changes, &pace).await?))
        }
        false => (None, None),
    };
    let time = |end: &Option<End>| end.as_ref().map(|end| PointInTime::from_epoch(end.ts).to_string());
    let others = [&oldest, &newest]
        .into_iter()
        .filter_map(|end| is_of_another(end.as_ref()?.rid.as_deref()?, source.rid()))
        .reduce(|a, b| a || b);
    let lag = frontier.parts.iter().filter_map(|part| part.next.as_ref()).map(|next| now - next.ts.seconds()).max();
    let by_newest = live.as_ref().zip(newest.as_ref()).map(|(live, newest)| (live.ts - newest.ts).max(0));
    let by_readers = frontier.parts.iter().all(|part| matches!(part.evidence, Evidence::Reader(_)));
    let report = Report {
        // Where every feed range has a reader, what waits for it tells; the newest version does not.
        behind: if by_readers { Some(lag.unwrap_or(0).max(0)) } else { by_newest.max(lag) },
        stalled: frontier::stalled(&frontier, now, args.stalled_after),
        source: Source {
            container: format!("{}/{}", names.database, names.source),
            newest: time(&live),
            documents: live_size.map(|s| s.items),
            bytes: live_size.map(|s| s.estimate()),
        },
        history: History {
            container: format!("{}/{}", names.database, names.changes),
            oldest: time(&oldest),
            newest: time(&newest),
            restorable_from: begins.map(|begins| begins.to_string()),
            complete_until: frontier
                .until()
                .map(|until| if until == PointInTime::END { "now".into() } else { until.to_string() }),
            recreated: others,
            records: history_size.map(|s| s.items),
            bytes: history_size.map(|s| s.estimate()),
        },
        leases,
        dead_letters: letters,
        ru: tenths(cosmos.meter().total()),
        seconds: tenths(started.elapsed().as_secs_f64()),
    };
    print(&report, args.format)?;
    if others == Some(true) {
        output::hint(
            "the history has versions of a container of this name that was deleted since; they are not versions of today's documents",
        );
    }
    if args.format != Format::Json {
        report.stalled.iter().for_each(|text| note(&printable(&format!("warning: {text}"))));
    }
    if args.format == Format::Table {
        output::spent("looked", &cosmos, started);
    }
    Ok(if report.stalled.is_empty() { Exit::Done } else { Exit::Incomplete })
}

/// The trigger's leases and the ranges of followers, with what waits in each.
async fn rows(
    containers: &Containers,
    names: &Names,
    leases: Vec<Lease>,
    followers: Vec<Checkpoint>,
    count: bool,
) -> Vec<LeaseRow> {
    let now = crate::surroundings::now().timestamp();
    let most = if count { u64::MAX } else { MOST };
    let uncounted = |what: &str, e: Failure| note(&format!("items      of {what} cannot be counted: {e}"));
    let mut rows = Vec::new();
    for lease in leases {
        // A history that is cut in another way cannot be asked for this part; another container's lease neither.
        let range = lease.range.as_ref().filter(|_| containers.is_aligned() && lease.is_of(containers.source.rid()));
        let waiting = match range {
            Some(range) => not_captured(containers, range, most).await.map_err(|e| uncounted(&lease.token, e)).ok(),
            None => None,
        };
        rows.push(LeaseRow {
            lease: lease.id,
            token: lease.token,
            owner: lease.owner,
            checkpoint: lease.at.map(|at| PointInTime::from_epoch(at).to_string()),
            age: lease.at.map(|at| (now - at).max(0)),
            range: lease.range.map(|range| range.to_string()),
            items: waiting.map(|w| w.items),
            more: waiting.is_some_and(|w| w.more),
            lag: waiting.map(|w| lag(w, now)),
        });
    }
    let source = format!("{}/{}", names.database, names.source);
    for follower in followers.iter().filter(|follower| follower.source == source) {
        let counted = match follower.rid == containers.source.rid() {
            true => not_followed(&containers.source, follower, most).await.map_err(|e| uncounted(&follower.id, e)).ok(),
            false => {
                note(&format!("follower   {} read a container of this name that was deleted since", follower.follower));
                None
            }
        };
        let ranges = follower.ranges.iter().enumerate().map(|(number, position)| {
            let waiting = counted.as_ref().and_then(|counted| counted.get(number)).map(|(_, waiting)| *waiting);
            let range = FeedRange::parse(&position.min, &position.max).map(|range| range.to_string()).ok();
            LeaseRow {
                lease: follower.id.clone(),
                token: follower.follower.clone(),
                owner: follower.holder.clone(),
                checkpoint: Some(PointInTime::from_epoch(follower.saved.timestamp()).to_string()),
                age: Some((now - follower.saved.timestamp()).max(0)),
                range,
                items: waiting.map(|w| w.items),
                more: waiting.is_some_and(|w| w.more),
                lag: waiting.map(|w| lag(w, now)),
            }
        });
        rows.extend(ranges);
    }
    rows
}

/// Seconds since the first of the waiting items was written.
fn lag(waiting: Waiting, now: i64) -> i64 {
    waiting.since.map_or(0, |since| (now - since).max(0))
}

async fn counted(container: &Container, pace: &RuLimiter) -> Result<Size, CliError> {
    let progress = Progress::new("count", None);
    let size = standing::size(container, async |n| {
        progress.inc(n);
        pace.wait().await;
    })
    .await;
    progress.finish();
    Ok(size?)
}

/// How many dead letters there are, where they can be listed.
async fn waiting(config: &CaptureConfig, account: &Account) -> Option<usize> {
    let listed = match DeadLetterStore::open(&config.dead_letters, &account.credential) {
        Ok(store) => store.list().await,
        Err(e) => Err(e),
    };
    listed.map(|names| names.len()).map_err(|e| note(&format!("letters    {e}"))).ok()
}

fn print(report: &Report, format: Format) -> Result<(), CliError> {
    if matches!(format, Format::Json | Format::Jsonl) {
        return output::json(report);
    }
    let (source, history) = (&report.source, &report.history);
    let text = |value: &Option<String>| json!(value);
    let size = |items: Option<u64>, bytes: Option<u64>| {
        json!(items.zip(bytes).map(|(items, bytes)| format!("{}, about {} bytes", number(items), number(bytes))))
    };
    let figures = [
        ("source", json!(source.container)),
        ("newest document", text(&source.newest)),
        ("documents", size(source.documents, source.bytes)),
        ("history", json!(history.container)),
        ("oldest version", text(&history.oldest)),
        ("restorable from", text(&history.restorable_from)),
        ("complete until", text(&history.complete_until)),
        ("newest version", text(&history.newest)),
        ("records", size(history.records, history.bytes)),
        ("behind", json!(report.behind.map(span_text))),
        ("dead letters", json!(report.dead_letters)),
        ("leases", json!(report.leases.as_ref().map(Vec::len))),
    ];
    let shown: Vec<(&str, Value)> = figures.into_iter().filter(|(_, value)| !value.is_null()).collect();
    output::summary(format, &shown)?;
    if format == Format::Csv {
        return Ok(());
    }
    let mut rows = Rows::stdout(format, &["lease", "range", "owner", "checkpoint", "age", "items", "lag"]);
    for lease in report.leases.iter().flatten() {
        let items = lease.items.map(|n| format!("{}{}", number(n), if lease.more { "+" } else { "" }));
        rows.push(&[
            json!(lease.token),
            json!(lease.range),
            json!(lease.owner),
            json!(lease.checkpoint),
            json!(lease.age.map(span_text)),
            json!(items),
            json!(lease.lag.map(span_text)),
        ])?;
    }
    rows.finish()
}
