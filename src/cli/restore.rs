//! `restore`: puts documents back to what they were at a moment. Plans, shows, asks, saves, writes, reports.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use chrono::Utc;
use clap::Args;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    CliError, ConnectionArgs, Exit, lookup,
    output::{self, Format, Progress, Rows, note},
    query::check_key,
};
use crate::{
    change::{
        key::{ItemKey, PartitionKey, parse_path},
        time::PointInTime,
    },
    config::Names,
    cosmos::{Cosmos, Param},
    history::reader,
    restore::{
        apply::{Applier, Fate, Manner, Outcome},
        journal::Journal,
        pace::Pace,
        plan::{Action, PLAN_VERSION, Place, Plan, Rules, Step},
        survey::{Places, Scope, survey},
    },
};

/// Unchanged documents that the table names; the rest is counted.
const SHOWN_KEPT: usize = 20;

/// Flags of `restore`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cosmos-rewind restore --id 28036 --pk 28036 --at 2026-11-20T14:05:00Z --dry-run\n  \
    cosmos-rewind restore --where \"c.city_name = @city\" --param city=Davidson --at 15m\n  \
    cosmos-rewind restore --plan plan.json --yes")]
pub struct RestoreArgs {
    /// Document to restore; repeatable, each with its --pk
    #[arg(long, value_name = "ID", group = "scope")]
    id: Vec<String>,
    /// Partition key of the --id before it, as text or as a JSON array of its components
    #[arg(long, value_name = "KEY", requires = "id")]
    pk: Vec<String>,
    /// Documents to restore: a JSON object a line with id and pk; - is standard input
    #[arg(long, value_name = "FILE", group = "scope")]
    ids_file: Option<PathBuf>,
    /// Documents that matched this predicate at the point in time; your own SQL on `c`
    #[arg(long = "where", value_name = "PREDICATE", group = "scope")]
    predicate: Option<String>,
    /// Value of a parameter of the predicate; repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "predicate")]
    param: Vec<Param>,
    /// All documents of the history and of the target
    #[arg(long, group = "scope")]
    all: bool,
    /// Point in time: 2026-11-20T14:05:00Z, epoch seconds, 15m, "yesterday 14:05Z"
    #[arg(long, value_name = "TIME", conflicts_with = "plan")]
    at: Option<String>,
    /// Only show the plan
    #[arg(long)]
    dry_run: bool,
    /// Save the plan in a file
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    plan_out: Option<PathBuf>,
    /// Apply a saved plan, exactly that one
    #[arg(long, value_name = "FILE", group = "scope")]
    plan: Option<PathBuf>,
    /// Put back only this field of a document that exists; repeatable
    #[arg(long, value_name = "PATH", conflicts_with_all = ["plan", "into"])]
    only: Vec<String>,
    /// Restore into another container of the same partition key, to compare; documents that are there stay
    #[arg(long, value_name = "CONTAINER")]
    into: Option<String>,
    /// Delete documents that did not exist at the point in time
    #[arg(long, conflicts_with_all = ["plan", "into"])]
    delete_newer: bool,
    /// Leave out `restored_at`: exactly the version's content
    #[arg(long, conflicts_with = "plan")]
    no_stamp: bool,
    #[command(flatten)]
    how: ApplyArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// How a plan is applied: flags of `restore` and `undo`
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Overwrite documents that were changed after the plan was made (what they were is saved first)
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Refuse to write more documents than this without --yes
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max: usize,
    /// Documents in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// At most this many request units a second, on average, while planning and while applying
    #[arg(long, value_name = "RU/S", value_parser = ru_limit)]
    ru_limit: Option<f64>,
    /// Folder of the local journals
    #[arg(long, value_name = "DIR", default_value = ".cosmos-rewind")]
    journal: PathBuf,
    /// How to print the plan and the outcomes
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// Runs the command.
///
/// # Errors
/// When the request or the plan is wrong, or the account cannot be used. A document that could not be restored is
/// reported and makes the exit code 3.
pub async fn run(args: RestoreArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (cosmos, names) = args.connection.open()?;
    let places = places(&cosmos, &names, args.into.as_deref()).await?;
    let place = place_of(&cosmos, &names, &places);
    let plan = match &args.plan {
        Some(file) => load_plan(file, &place)?,
        None => make_plan(&args, &cosmos, &names, &places, place).await?,
    };
    if let Some(file) = &args.plan_out {
        write_new(file, &plan.to_file())?;
        note(&format!(
            "plan       saved in {}; apply it with: cosmos-rewind restore --plan {}",
            file.display(),
            file.display()
        ));
    }
    show_plan(&plan, args.how.format, args.dry_run)?;
    if args.dry_run {
        output::spent("planned, nothing written", &cosmos, started);
        return Ok(Exit::Done);
    }
    apply(&plan, &places, &args.how, &cosmos, started).await
}

/// A limit on request units a second.
pub(super) fn ru_limit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(limit) if limit.is_finite() && limit >= 1.0 => Ok(limit),
        _ => Err("write a number of request units a second, 1 or more".into()),
    }
}

/// Opens the containers.
pub(super) async fn places(cosmos: &Cosmos, names: &Names, into: Option<&str>) -> Result<Places, CliError> {
    let changes = cosmos.container(&names.database, &names.changes).await?;
    let source = cosmos.container(&names.database, &names.source).await?;
    let target = match into {
        Some(name) if name == names.changes => {
            return Err(CliError::usage("--into: that is the history itself", "name a container of its own"));
        }
        Some(name) => cosmos.container(&names.database, name).await?,
        None => source.clone(),
    };
    if target.key_paths() != source.key_paths() {
        return Err(CliError::usage(
            format!("--into: {} is keyed {}, the source {}", target.name(), target.key_paths(), source.key_paths()),
            "restore into a container with the source's partition key",
        ));
    }
    Ok(Places { changes, source, target })
}

/// What the plan is valid for.
pub(super) fn place_of(cosmos: &Cosmos, names: &Names, places: &Places) -> Place {
    Place {
        account: cosmos.endpoint().to_owned(),
        database: names.database.clone(),
        source: names.source.clone(),
        changes: names.changes.clone(),
        target: places.target.name().to_owned(),
    }
}

/// A new restore's id: sorts by time.
pub(super) fn new_id() -> String {
    format!("{}-{:06x}", Utc::now().format("%Y%m%dT%H%M%S%3fZ"), rand::random::<u32>() & 0x00ff_ffff)
}

async fn make_plan(
    args: &RestoreArgs,
    cosmos: &Cosmos,
    names: &Names,
    places: &Places,
    place: Place,
) -> Result<Plan, CliError> {
    let Some(at) = &args.at else {
        return Err(CliError::usage("no point in time", "say when, as in --at 15m or --at 2026-11-20T14:05:00Z"));
    };
    let at = lookup::point("--at", at)?;
    for path in &args.only {
        let path =
            parse_path(path).map_err(|e| CliError::usage(format!("--only: {e}"), "such as --only /address/zip"))?;
        let is_key = places.source.key_paths().segments().contains(&path);
        if is_key || path == ["id"] {
            return Err(CliError::usage("--only: id and partition key cannot be changed", "name another field"));
        }
    }
    let scope = scope(args, names, places).await?;
    let made = Utc::now().timestamp();
    let manner = Manner { stamp: (!args.no_stamp).then_some(made), only: args.only.clone() };
    let rules = Rules { at, delete_newer: args.delete_newer };
    let planning = Progress::new("planning", None);
    let steps = survey(places, &scope, rules).await.map_err(|f| explain(f, args.predicate.is_some()))?;
    let pace = Pace::new(cosmos.meter(), args.how.ru_limit);
    let applier = Applier { places, manner: &manner, force: false, pace };
    let mut steps = applier.refine(steps, args.how.concurrency.into()).await?;
    planning.finish();
    if !manner.only.is_empty() {
        for step in steps.iter_mut().filter(|s| matches!(s.action, Action::Recreate | Action::Delete)) {
            step.action = Action::Unknown;
            step.sha256 = None;
            step.notes = vec!["there is no document to put single fields into, leave --only out".into()];
        }
    }
    if steps.is_empty() {
        return Err(CliError {
            message: format!("no document in scope at {}", shown(at)),
            hint: Some(format!(
                "look at the history first: cosmos-rewind history --where \"...\"; account {}",
                cosmos.endpoint()
            )),
            exit: Exit::Failed,
        });
    }
    Ok(Plan { v: PLAN_VERSION, id: new_id(), undoes: None, place, at: Some(at.seconds()), made, manner, steps })
}

fn shown(at: PointInTime) -> String {
    if at == PointInTime::END { "now".into() } else { at.to_string() }
}

/// A refused query is nearly always the predicate.
pub(super) fn explain(failure: crate::cosmos::Failure, predicate: bool) -> CliError {
    let mut error = CliError::from(failure);
    if predicate && error.message.contains("400") {
        error.exit = Exit::Usage;
        error.hint = Some("check --where: a predicate on c, strings in single quotes or as --param name=value".into());
    }
    error
}

async fn scope(args: &RestoreArgs, names: &Names, places: &Places) -> Result<Scope, CliError> {
    if args.all {
        return Ok(Scope::All);
    }
    if let Some(predicate) = &args.predicate {
        return Ok(Scope::Where { predicate: predicate.clone(), params: args.param.clone() });
    }
    let mut items = Vec::new();
    if let Some(file) = &args.ids_file {
        return Ok(Scope::Items(read_ids(file, names, places)?));
    }
    if args.id.is_empty() {
        return Err(CliError::usage(
            "nothing to restore",
            "name documents with --id and --pk, --ids-file, --where, or --all",
        ));
    }
    if !args.pk.is_empty() && args.pk.len() != args.id.len() {
        return Err(CliError::usage(
            format!("{} --id and {} --pk", args.id.len(), args.pk.len()),
            "give each --id its own --pk, or no --pk at all",
        ));
    }
    for (i, id) in args.id.iter().enumerate() {
        if let Some(key) = args.pk.get(i) {
            let key =
                PartitionKey::parse(key).map_err(|e| CliError::usage(e, "such as --pk 28036 or --pk '[\"t1\",42]'"))?;
            full_key(&key, names, places)?;
            items.push(ItemKey { id: id.clone(), partition_key: key });
            continue;
        }
        let found = reader::histories(&places.changes, places.source.key_paths(), id, None).await?;
        match found.items.as_slice() {
            [one] => items.push(one.key.clone()),
            [] => {
                return Err(CliError {
                    message: format!("document {id:?} is not in the history"),
                    hint: Some("check the id; what was written before capture began has no version".into()),
                    exit: Exit::Failed,
                });
            }
            several => {
                let keys: Vec<String> = several.iter().map(|i| format!("--pk '{}'", i.key.partition_key)).collect();
                return Err(CliError::usage(
                    format!("{} documents have the id {id:?}", several.len()),
                    format!("add one of: {}", keys.join(", ")),
                ));
            }
        }
    }
    Ok(Scope::Items(items))
}

fn full_key(key: &PartitionKey, names: &Names, places: &Places) -> Result<(), CliError> {
    let paths = places.source.key_paths();
    check_key(key, &names.source, paths)?;
    if key.0.len() != paths.len() {
        return Err(CliError::usage(
            format!(
                "--pk {key}: {} of {} components; the key of {} is {paths}",
                key.0.len(),
                paths.len(),
                names.source
            ),
            "give all components as a JSON array",
        ));
    }
    Ok(())
}

fn read_ids(file: &Path, names: &Names, places: &Places) -> Result<Vec<ItemKey>, CliError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line {
        id: String,
        pk: Value,
    }
    let example = r#"write lines like {"id":"28036","pk":"28036"} or {"id":"a","pk":["t1",42]}"#;
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|e| CliError::usage(format!("--ids-file {}: {e}", file.display()), example))?;
    let mut items = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let wrong = |e: String| CliError::usage(format!("--ids-file line {}: {e}", number + 1), example);
        let line: Line = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        let pk = if line.pk.is_array() { line.pk } else { json!([line.pk]) };
        let key = PartitionKey::parse(&pk.to_string()).map_err(wrong)?;
        full_key(&key, names, places)?;
        items.push(ItemKey { id: line.id, partition_key: key });
    }
    Ok(items)
}

fn load_plan(file: &Path, place: &Place) -> Result<Plan, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| CliError::usage(format!("--plan {}: {e}", file.display()), "make one with --plan-out"))?;
    Plan::from_file(text.trim_end(), place).map_err(|e| {
        CliError::usage(
            format!("--plan {}: {e}", file.display()),
            "make a new plan with --plan-out, for these containers",
        )
    })
}

fn write_new(file: &Path, text: &str) -> Result<(), CliError> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file).and_then(|mut f| f.write_all(text.as_bytes())).map_err(|e| {
        CliError::usage(format!("--plan-out {}: {e}", file.display()), "name a file that does not exist yet")
    })
}

/// Prints the plan: the whole value for programs, what matters for people. For programs it is part of the report when
/// one follows.
pub(super) fn show_plan(plan: &Plan, format: Format, alone: bool) -> Result<(), CliError> {
    if matches!(format, Format::Json | Format::Jsonl) {
        return if alone { output::summary(Format::Json, &[("plan", json!(plan))]) } else { Ok(()) };
    }
    let mut rows = Rows::stdout(format, &["action", "id", "pk", "version", "changed", "notes"]);
    let mut kept = 0;
    for step in &plan.steps {
        if step.action == Action::Keep && format == Format::Table {
            kept += 1;
            if kept > SHOWN_KEPT {
                continue;
            }
        }
        let key = step.item().map_or_else(|_| step.pk.to_string(), |i| i.partition_key.to_string());
        let version =
            step.version.as_ref().filter(|v| v.ts > 0).map(|v| {
                format!("{} {}", PointInTime::from_epoch(v.ts), v.op.map_or("legacy", crate::change::Op::as_str))
            });
        rows.push(&[
            json!(step.action),
            json!(step.id),
            json!(key),
            json!(version),
            json!(few(&step.changed, format)),
            json!(step.notes.join("; ")),
        ])?;
    }
    rows.finish()?;
    let count = |action| plan.count(action);
    let at = plan.at.map_or_else(|| "before the restore".to_owned(), |t| shown(PointInTime::from_epoch(t)));
    note(&format!(
        "plan       {} to {at}: {} restore, {} recreate, {} delete, {} keep, {} unknown; about {:.0} RU",
        plan.place.target,
        count(Action::Restore),
        count(Action::Recreate),
        count(Action::Delete),
        count(Action::Keep),
        count(Action::Unknown),
        plan.forecast()
    ));
    Ok(())
}

/// Changed paths: for people the first few.
fn few(paths: &[String], format: Format) -> String {
    const FEW: usize = 4;
    match paths.len().checked_sub(FEW) {
        Some(more) if more > 0 && format == Format::Table => format!("{} and {more} more", paths[..FEW].join(", ")),
        _ => paths.join(", "),
    }
}

/// Asks, journals, writes and reports.
pub(super) async fn apply(
    plan: &Plan,
    places: &Places,
    how: &ApplyArgs,
    cosmos: &Cosmos,
    started: Instant,
) -> Result<Exit, CliError> {
    let unknown = plan.count(Action::Unknown);
    let writes = plan.writes();
    if writes == 0 {
        report(plan, &[], how.format)?;
        output::spent("nothing to write", cosmos, started);
        return Ok(if unknown == 0 { Exit::Done } else { Exit::Incomplete });
    }
    let what = format!(
        "{} of {}/{} will be written.",
        output::count_of(writes as u64, "document"),
        plan.place.database,
        plan.place.target
    );
    let over = if writes > how.max { format!(" That is more than --max {}.", how.max) } else { String::new() };
    output::confirm(&format!("{what}{over}"), &plan.place.target, how.yes)?;

    let mut journal = Journal::begin(plan, &places.changes, &how.journal).await.map_err(|e| CliError {
        message: e,
        hint: Some("without a journal nothing is written; --journal names its folder".into()),
        exit: Exit::Failed,
    })?;
    let stop = CancellationToken::new();
    let watcher = tokio::spawn({
        let stop = stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        }
    });
    let pace = Pace::new(cosmos.meter(), how.ru_limit);
    let applier = Applier { places, manner: &plan.manner, force: how.force, pace };
    let progress = Progress::new("restoring", Some(writes as u64));
    let mut journal_failed = None;
    let mut all: Vec<Outcome> = Vec::with_capacity(writes);
    let steps: Vec<&Step> = plan.steps.iter().filter(|s| s.action.writes()).collect();
    for group in steps.chunks(GROUP) {
        if stop.is_cancelled() || journal_failed.is_some() {
            break;
        }
        let outcomes = applier
            .run(group, how.concurrency.into(), &stop, |outcome| {
                progress.inc(1);
                if let Err(e) = journal.note(outcome) {
                    // Nothing more is begun that could not be undone.
                    stop.cancel();
                    journal_failed.get_or_insert(e.to_string());
                }
            })
            .await;
        all.extend(outcomes);
        if let Err(e) = journal.flush(false).await {
            journal_failed.get_or_insert(e.to_string());
        }
    }
    progress.finish();
    watcher.abort();
    if let Err(e) = journal.flush(true).await {
        journal_failed.get_or_insert(e.to_string());
    }
    report(plan, &all, how.format)?;
    let mut fates: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in &all {
        *fates.entry(fate_name(outcome.fate)).or_default() += 1;
    }
    let count = |fate| fates.get(fate_name(fate)).copied().unwrap_or(0);
    let not_begun = writes - all.len();
    note(&format!("applied    {:.1} RU, {:.1} were expected", applier.pace.used(), plan.forecast()));
    output::spent(
        &format!(
            "{} written, {} already so, {} conflicts, {} failed, {not_begun} not begun, {unknown} unknown",
            count(Fate::Done),
            count(Fate::Already),
            count(Fate::Conflict),
            count(Fate::Failed)
        ),
        cosmos,
        started,
    );
    if count(Fate::Done) + count(Fate::Already) > 0 {
        note(&format!("undo       cosmos-rewind undo {}   (journal {})", plan.id, journal.path().display()));
    }
    if let Some(e) = journal_failed {
        return Err(CliError {
            message: format!("the journal could not be written: {e}"),
            hint: Some("no further document was begun".into()),
            exit: Exit::Incomplete,
        });
    }
    let whole = count(Fate::Conflict) + count(Fate::Failed) + not_begun + unknown == 0;
    Ok(if whole { Exit::Done } else { Exit::Incomplete })
}

/// Steps between two flushes of the journal.
const GROUP: usize = 100;

fn fate_name(fate: Fate) -> &'static str {
    match fate {
        Fate::Done => "done",
        Fate::Already => "already",
        Fate::Conflict => "conflict",
        Fate::Failed => "failed",
    }
}

/// Outcomes: all of them for programs, for people only what was not done.
fn report(plan: &Plan, outcomes: &[Outcome], format: Format) -> Result<(), CliError> {
    if matches!(format, Format::Json | Format::Jsonl) {
        return output::summary(
            Format::Json,
            &[("restore", json!(plan.id)), ("plan", json!(plan)), ("outcomes", json!(outcomes))],
        );
    }
    let bad: Vec<&Outcome> =
        outcomes.iter().filter(|o| format == Format::Csv || matches!(o.fate, Fate::Conflict | Fate::Failed)).collect();
    if bad.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::stdout(format, &["outcome", "id", "pk", "action", "message"]);
    for o in bad {
        rows.push(&[
            json!(fate_name(o.fate)),
            json!(o.id),
            json!(o.pk.to_string()),
            json!(o.action),
            json!(o.message),
        ])?;
    }
    rows.finish()
}
