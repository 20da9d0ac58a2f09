//! `restore`: puts documents back to what they were at a moment. Plans, shows, asks, saves, writes, reports.

use std::{
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;

use super::{
    CliError, ConnectionArgs, Exit,
    applying::{ApplyArgs, Use, apply, planned_exit, show_plan, shown},
    connection::hash_ranges,
    from_archive::{FROM, Request, open_archive, planned_from, planned_texts},
    lookup,
    output::{self, Progress, note},
    selection::{full_key, read_ids},
};
use crate::{
    archive::{Archive, versions::Texts},
    change::{
        Op,
        key::{ItemKey, PartitionKey, parse_path},
        time::PointInTime,
        version::container_of,
    },
    config::{Account, Names},
    cosmos::{Cosmos, Param, RuLimiter, Shard},
    history::ends::{Which, from_previous_container},
    history::scan::{Containers, LiveDetail, PIECE_ROWS, Scan, ScannedItem, Scope, facts_of_id, look},
    restore::{
        apply::{Applier, ApplyOptions, Prefetched},
        plan::{Action, Chosen, PLAN_VERSION, PlanTarget, Rules, Step, is_exact},
        plan_file::{Draft, Head, Plan},
        removals,
        survey::{kept, planned, survey},
    },
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
    /// Take the versions from what `follow` wrote to a folder or to blobs, instead of from the history: FOLDER, or
    /// blob:URL
    #[arg(long, value_name = "ARCHIVE", conflicts_with_all = ["predicate", "feed_range"])]
    from_archive: Option<String>,
    /// Documents whose version at the point in time this expression (CEL, as for follow) says yes to
    #[arg(long, value_name = "EXPR", group = "scope", requires = "from_archive")]
    filter: Option<String>,
    /// Only the i-th of n equal parts of the items, by partition key: so that n machines can share a restore
    #[arg(long, value_name = "I/N", conflicts_with_all = ["id", "ids_file", "plan"])]
    feed_range: Option<Shard>,
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
    /// Delete documents that did not exist at the point in time; with a number, at most so many
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "none",
        conflicts_with_all = ["plan", "into"])]
    delete_newer: Option<DeleteLimit>,
    /// Make documents again of which latest-version mode cannot tell whether they were deleted before the point in time
    #[arg(long, conflicts_with = "plan")]
    recreate_deleted: bool,
    /// Restore this version of the one --id: a record of the history, an LSN or an etag, as `history` shows them
    #[arg(long, value_name = "RECORD|LSN|ETAG", requires = "id",
        conflicts_with_all = ["at", "plan", "delete_newer", "from_archive"])]
    version: Option<String>,
    /// Wait until capture has passed the point in time
    #[arg(long, conflicts_with_all = ["plan", "from_archive"])]
    wait: bool,
    /// Leave out `restored_at`: exactly the version's content
    #[arg(long, conflicts_with = "plan")]
    no_stamp: bool,
    #[command(flatten)]
    how: ApplyArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What stands behind `--delete-newer=`, if anything does.
#[derive(Debug, Clone, Copy)]
struct DeleteLimit(Option<usize>);

impl std::str::FromStr for DeleteLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            number => {
                number.parse().map(|n| Self(Some(n))).map_err(|_| "write a number, as in --delete-newer=20".into())
            }
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the request or the plan is wrong, or the account cannot be used. A document that could not be restored is
/// reported and makes the exit code 3.
pub async fn run(args: RestoreArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (cosmos, names) = args.connection.open()?;
    let containers = containers(&cosmos, &names, args.into.as_deref()).await?;
    let place = place_of(&cosmos, &names, &containers);
    let credential = Account::from_settings(&args.connection.settings()?)?.credential;
    let archive = args.from_archive.as_deref().map(|text| open_archive(FROM, text, &credential)).transpose()?;
    let (plan, texts, bad) = match (&args.plan, &archive) {
        (Some(file), archive) => {
            let plan = load_plan(file, &place)?;
            let texts = planned_texts(&plan, archive.as_ref(), &containers).await?;
            (plan, texts, Exit::Done)
        }
        (None, archive) => make_plan(&args, &cosmos, &names, &containers, place, archive.as_ref()).await?,
    };
    if let Some(file) = &args.plan_out {
        write_new(file, &plan)?;
        note(&format!(
            "plan       saved in {}; apply it with: cosmos-rewind restore --plan {}",
            file.display(),
            file.display()
        ));
    }
    show_plan(&plan, args.how.format, args.dry_run)?;
    if args.dry_run {
        output::spent("planned, nothing written", &cosmos, started);
        return Ok(planned_exit(&plan).and(bad));
    }
    // A plan may be used twice: each use has its own journal.
    let run = if args.plan.is_some() { new_id() } else { plan.head.id.clone() };
    let this = Use { run: &run, made_now: args.plan.is_none() };
    Ok(apply(&plan, this, &containers, texts.as_ref(), &args.how, &cosmos, started).await?.and(bad))
}

/// Opens the containers.
pub(super) async fn containers(cosmos: &Cosmos, names: &Names, into: Option<&str>) -> Result<Containers, CliError> {
    let Containers { changes, source, .. } = Containers::open(cosmos, names).await?;
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
    Ok(Containers { changes, source, target })
}

/// What the plan is valid for.
pub(super) fn place_of(cosmos: &Cosmos, names: &Names, containers: &Containers) -> PlanTarget {
    PlanTarget {
        account: cosmos.endpoint().to_owned(),
        database: names.database.clone(),
        source: names.source.clone(),
        changes: names.changes.clone(),
        target: containers.target.name().to_owned(),
    }
}

/// A new restore's id: sorts by time.
pub(super) fn new_id() -> String {
    format!("{}-{:06x}", crate::surroundings::now().format("%Y%m%dT%H%M%S%3fZ"), rand::random::<u32>() & 0x00ff_ffff)
}

async fn make_plan(
    args: &RestoreArgs,
    cosmos: &Cosmos,
    names: &Names,
    containers: &Containers,
    place: PlanTarget,
    archive: Option<&Archive>,
) -> Result<(Plan, Option<Texts>, Exit), CliError> {
    for path in &args.only {
        let path =
            parse_path(path).map_err(|e| CliError::usage(format!("--only: {e}"), "such as --only /address/zip"))?;
        let is_key = containers.source.key_paths().segments().contains(&path);
        if is_key || path == ["id"] {
            return Err(CliError::usage("--only: id and partition key cannot be changed", "name another field"));
        }
    }
    let pace = RuLimiter::new(cosmos.meter(), args.how.ru_limit);
    let wanted = args.version.as_deref();
    let at = match (&args.at, wanted) {
        (Some(at), _) => lookup::point(cosmos, "--at", at).await?,
        (None, Some(_)) => PointInTime::END,
        (None, None) => {
            return Err(CliError::usage(
                "no point in time",
                "say when, as in --at 15m or --at 2026-11-20T14:05:00Z; or which --version of one --id",
            ));
        }
    };
    let scope = scope(args, names, containers, &pace).await?;
    let hash_ranges = hash_ranges(containers, args.feed_range, "one machine restores everything")?;
    let made = cosmos.now().await.timestamp();
    let manner = ApplyOptions { stamp: (!args.no_stamp).then_some(made), only: args.only.clone() };
    let container = container_of(containers.source.rid());
    let delete_newer = args.delete_newer.is_some();
    let recreated = delete_newer
        && archive.is_none()
        && from_previous_container(&containers.changes, &containers.source, Which::OldestVersion).await?;
    let dropped_before =
        if archive.is_none() { removals::read(&containers.changes).await?.dropped_before } else { None };
    let rules = Rules {
        at,
        delete_newer,
        recreate_deleted: args.recreate_deleted,
        named: !args.id.is_empty(),
        container,
        recreated,
        dropped_before,
    };
    let frontier = match archive {
        None if wanted.is_none() => lookup::frontier(cosmos, names, containers, at, args.wait, &pace).await?,
        _ => lookup::no_frontier(),
    };
    let beyond = archive.is_none() && wanted.is_none() && !frontier.covers(at);
    let head = Head {
        v: PLAN_VERSION,
        id: new_id(),
        undoes: None,
        place,
        at: wanted.is_none().then(|| at.seconds()),
        feed_range: args.feed_range.map(|share| share.to_string()),
        archive: archive.map(ToString::to_string),
        frontier: frontier.until().filter(|_| beyond).map(PointInTime::seconds),
        beyond,
        max_deletes: args.delete_newer.and_then(|limit| limit.0),
        made,
        manner,
    };
    let mut draft = Draft::new(head.clone()).map_err(|e| kept(&e))?;
    let planning = Progress::new("planning", None);
    let concurrency = args.how.concurrency.into();
    let applier = Applier {
        containers,
        manner: &head.manner,
        force: false,
        fresh: true,
        texts: None,
        begun: None,
        pace: pace.clone(),
    };
    if let Some(archive) = archive {
        let request = Request { archive, filter: args.filter.as_deref(), scope };
        let texts = planned_from(request, applier, rules, concurrency, &mut draft, |n| planning.inc(n)).await?;
        planning.finish();
        let plan = sealed(draft, cosmos, at)?;
        return Ok((plan, Some(texts), Exit::Done));
    }
    if let (Some(wanted), Scope::Items(items)) = (wanted, &scope) {
        let item = items.first().ok_or_else(|| CliError::failed("no document is named"))?;
        let step = version_step(&applier, item, wanted, &pace).await?;
        draft.push(step).map_err(|e| kept(&e))?;
        planning.finish();
        return Ok((sealed(draft, cosmos, at)?, None, Exit::Done));
    }
    // One that differs is put back, unless its content turns out to be the same.
    let needs_text = |found: &ScannedItem| {
        let etag = found.live.as_ref().map(|live| live.etag.as_str());
        found.document_at(at).is_some_and(|version| etag.is_none() || version.etag.as_deref() != etag)
    };
    let scan = |wanted| Scan {
        containers,
        wanted,
        at,
        hash_ranges: &hash_ranges,
        live: LiveDetail::Text,
        piece_rows: PIECE_ROWS,
        pace: &pace,
        needs_text: &needs_text,
    };
    let surveyed =
        survey(&scan(&scope), &applier, &frontier, rules, concurrency, &mut draft, |n| planning.inc(n)).await;
    let mut bad = surveyed.map_err(|f| explain(f, args.predicate.is_some()))?;
    // A predicate's documents that match now and were made after the point in time.
    if delete_newer && let Some(predicate) = &args.predicate {
        let now = Scope::Live { predicate: predicate.clone(), params: args.param.clone() };
        let surveyed =
            survey(&scan(&now), &applier, &frontier, rules, concurrency, &mut draft, |n| planning.inc(n)).await;
        bad.extend(surveyed.map_err(|f| explain(f, true))?);
    }
    planning.finish();
    let exit = lookup::note_bad(&bad);
    Ok((sealed(draft, cosmos, at)?, None, exit))
}

/// The step that puts back one version that the caller names.
async fn version_step(applier: &Applier<'_>, item: &ItemKey, wanted: &str, pace: &RuLimiter) -> Result<Step, CliError> {
    let containers = applier.containers;
    let (found, bad) = facts_of_id(containers, pace, &item.id, Some(&item.partition_key)).await?;
    lookup::note_bad(&bad);
    let versions = found.into_iter().find(|found| found.item == *item).map(|found| found.versions).unwrap_or_default();
    let version = lookup::version_named(&versions, wanted)?;
    if version.op.is_some_and(Op::is_tombstone) {
        return Err(CliError::usage(
            format!("--version {wanted}: it is a delete, of {}", PointInTime::from_epoch(version.ts)),
            "name a version that has a document; history lists them",
        ));
    }
    let live = look(containers, pace, item, true).await?;
    let etag = live.as_ref().map(|live| live.etag.clone());
    let action = match &etag {
        None => Action::Recreate,
        Some(etag) if version.etag.as_ref() == Some(etag) => Action::Keep,
        Some(_) => Action::Restore,
    };
    let saved = etag.is_some() && versions.iter().any(|v| v.etag == etag && is_exact(v));
    let mut step = Step {
        id: item.id.clone(),
        pk: item.partition_key.to_json(),
        action,
        version: Some(Chosen::from(version)),
        live: etag,
        saved,
        sha256: None,
        changed: Vec::new(),
        ru: 0.0,
        notes: Vec::new(),
    };
    if version.is_partial() {
        step.action = Action::Unknown;
        step.notes.push("the history holds only a part of that version (follow --fields or --redact)".into());
    }
    let hand = Prefetched { version: None, live: Some(live.and_then(|live| live.text)) };
    Ok(planned(applier, step, hand).await?)
}

/// The plan, unless nothing is in it.
fn sealed(draft: Draft, cosmos: &Cosmos, at: PointInTime) -> Result<Plan, CliError> {
    let plan = draft.seal().map_err(|e| kept(&e))?;
    if plan.totals.steps == 0 {
        return Err(CliError {
            message: format!("no document in scope at {}", shown(at)),
            hint: Some(format!(
                "look at the history first: cosmos-rewind history --where \"...\"; account {}",
                cosmos.endpoint()
            )),
            exit: Exit::Failed,
        });
    }
    Ok(plan)
}

/// A refused query is nearly always the predicate.
pub(super) fn explain(failure: crate::cosmos::Failure, predicate: bool) -> CliError {
    let refused = predicate && failure.status.is_bad_request();
    let mut error = CliError::from(failure);
    if refused {
        error.exit = Exit::Usage;
        error.hint = Some("check --where: a predicate on c, strings in single quotes or as --param name=value".into());
    }
    error
}

async fn scope(
    args: &RestoreArgs,
    names: &Names,
    containers: &Containers,
    pace: &RuLimiter,
) -> Result<Scope, CliError> {
    if args.all || args.filter.is_some() {
        return Ok(Scope::All);
    }
    if let Some(predicate) = &args.predicate {
        return Ok(Scope::Where { predicate: predicate.clone(), params: args.param.clone() });
    }
    let mut items = Vec::new();
    if let Some(file) = &args.ids_file {
        return Ok(Scope::Items(read_ids(file, names, containers)?));
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
    if args.version.is_some() && args.id.len() != 1 {
        return Err(CliError::usage("--version with several --id", "name one document"));
    }
    for (i, id) in args.id.iter().enumerate() {
        if let Some(key) = args.pk.get(i) {
            let key =
                PartitionKey::parse(key).map_err(|e| CliError::usage(e, "such as --pk 28036 or --pk '[\"t1\",42]'"))?;
            full_key(&key, names, containers)?;
            items.push(ItemKey { id: id.clone(), partition_key: key });
            continue;
        }
        let (found, bad) = facts_of_id(containers, pace, id, None).await?;
        lookup::note_bad(&bad);
        match found.as_slice() {
            [one] => items.push(one.item.clone()),
            [] => {
                return Err(CliError {
                    message: format!("document {id:?} is not in the history"),
                    hint: Some("check the id; what was written before capture began has no version".into()),
                    exit: Exit::Failed,
                });
            }
            several => {
                let keys: Vec<String> = several.iter().map(|i| format!("--pk '{}'", i.item.partition_key)).collect();
                return Err(CliError::usage(
                    format!("{} documents have the id {id:?}", several.len()),
                    format!("add one of: {}", keys.join(", ")),
                ));
            }
        }
    }
    Ok(Scope::Items(items))
}

fn load_plan(file: &Path, place: &PlanTarget) -> Result<Plan, CliError> {
    let text = std::fs::File::open(file)
        .map_err(|e| CliError::usage(format!("--plan {}: {e}", file.display()), "make one with --plan-out"))?;
    Plan::read(text, Some(place)).map_err(|e| {
        CliError::usage(
            format!("--plan {}: {e}", file.display()),
            "make a new plan with --plan-out, for these containers",
        )
    })
}

fn write_new(file: &Path, plan: &Plan) -> Result<(), CliError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(file).and_then(|mut f| {
        io::copy(&mut plan.text(), &mut f)?;
        f.sync_all()
    });
    written.map_err(|e| {
        CliError::usage(format!("--plan-out {}: {e}", file.display()), "name a file that does not exist yet")
    })
}
