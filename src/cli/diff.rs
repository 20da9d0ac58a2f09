//! `diff`: the fields of one document that differ between two moments, or between a moment and the live document.

use std::time::Instant;

use clap::Args;

use super::{
    CliError, ConnectionArgs, Exit,
    lookup::{self, describe, time},
    output::{self, Cell, Format, Rows, count_of, printable},
};
use crate::{
    change::{
        diff::{self, Difference},
        key::PartitionKey,
        raw::RawDocument,
        record,
        time::PointInTime,
        version::Version,
    },
    config::Names,
    cosmos::{Cosmos, Disposition, PATIENCE, Retry},
    history::{
        as_of::{State, as_of},
        reader::Item,
    },
};

/// Flags of `diff`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind diff --id 28036 --pk 28036 --from \"2h30m ago\"
  cosmos-rewind diff --id 28036 --from 2026-11-20T14:05:00Z --to \"yesterday 18:00Z\" --format json

Lines are `~ /path before -> after`, `+ /path added`, `- /path removed`; --format json is a JSON
Patch (RFC 6902) that leads from the first to the second. Numbers are compared as numbers of any
size: 1.10 is 1.1. The exit code is 0 whether anything differs or not.")]
pub struct DiffArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Document that is compared
    #[arg(long, value_name = "ID")]
    id: String,
    /// Its partition key, as text or as a JSON array of the components; needed when several documents share the id
    #[arg(long, value_name = "KEY", value_parser = PartitionKey::parse)]
    pk: Option<PartitionKey>,
    /// What it was then: RFC 3339 with a zone, epoch seconds, 15m, "2h30m ago", "yesterday 14:05Z"
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Compare with that: a time, `now` (the newest version in the history), or `live` (the live document)
    #[arg(long, value_name = "TIME", default_value = "live")]
    to: String,
    /// How to print; json is a JSON Patch
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One of the two that are compared.
#[derive(Debug, Clone, Copy)]
enum Side {
    Live,
    At(PointInTime),
}

impl Side {
    fn parse(flag: &str, text: &str) -> Result<Self, CliError> {
        if text.trim().eq_ignore_ascii_case("live") {
            return Ok(Self::Live);
        }
        lookup::point(flag, text).map(Self::At)
    }
}

/// Runs the command.
pub async fn run(args: DiffArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (from, to) = (Side::parse("--from", &args.from)?, Side::parse("--to", &args.to)?);
    let (cosmos, names) = args.connection.open()?;
    let found = lookup::document(&cosmos, &names, &args.id, args.pk.as_ref()).await?;
    let before = text_of(from, "--from", &found.item, &cosmos, &names).await?;
    let after = text_of(to, "--to", &found.item, &cosmos, &names).await?;
    let count = print(before.as_deref(), after.as_deref(), args.format)?;
    let what = if count == 0 { "no difference".to_owned() } else { count_of(count as u64, "difference") };
    output::spent(&what, &cosmos, started);
    Ok(found.exit)
}

/// The document of one side; `None` when it is known that there was none. Says on stderr which version it is.
async fn text_of(
    side: Side,
    flag: &str,
    item: &Item,
    cosmos: &Cosmos,
    names: &Names,
) -> Result<Option<String>, CliError> {
    let name = flag.trim_start_matches('-');
    let at = match side {
        Side::Live => return live(name, item, cosmos, names).await,
        Side::At(at) => at,
    };
    let answer = as_of(&item.versions, at);
    match answer.state {
        State::Document(_) | State::Deleted(_) => {
            output::note(&format!("{name}: {}", describe(&answer).unwrap_or_default()));
            lookup::note_caveats(&answer.caveats);
        }
        State::NotYet { earliest } if answer.created_later() => {
            output::note(&format!("{name}: no document: it was created at {}", time(earliest.ts)));
        }
        State::NotYet { .. } | State::Empty => {
            return Err(lookup::not_there(&item.key.id, &answer, &item.versions, flag));
        }
    }
    Ok(answer.version().and_then(|v| v.document.clone()))
}

async fn live(name: &str, item: &Item, cosmos: &Cosmos, names: &Names) -> Result<Option<String>, CliError> {
    let source = cosmos.container(&names.database, &names.source).await.map_err(|failure| {
        let missing = failure.disposition == Disposition::NotFound;
        let mut error = CliError::from(failure);
        if missing {
            error.hint = Some("--to now compares with the newest version in the history".into());
        }
        error
    })?;
    let newest = item.versions.last();
    let retry = Retry::for_at_most(PATIENCE);
    let Some(bytes) = retry.run(|| source.read(&item.key.partition_key, &item.key.id)).await? else {
        output::note(&format!("{name}: no live document"));
        if newest.is_some_and(|v| v.document.is_some()) {
            output::note("note: its delete is not in the history (yet)");
        }
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes).map_err(|e| CliError::failed(format!("the live document: {e}")))?;
    let not_json = |e| CliError::failed(format!("the live document is not understood: {e}"));
    let document = RawDocument::parse(text).map_err(not_json)?;
    let written = document.get_i64("_ts").map(|ts| format!(", written at {}", time(ts))).unwrap_or_default();
    output::note(&printable(&format!("{name}: the live document{written}")));
    let own = record::own_text(text).map_err(not_json)?;
    if newest.is_some_and(|v| !is_version(v, &document, &own)) {
        output::note("note: the live version is not in the history (yet)");
    }
    Ok(Some(own))
}

/// Whether a live document is this version; where the version has no etag, by its content.
fn is_version(version: &Version, live: &RawDocument<'_>, own: &str) -> bool {
    match (&version.etag, live.get_str("_etag")) {
        (Some(a), Some(b)) => *a == b,
        _ => version.document.as_deref().is_some_and(|text| diff::same(text, own)),
    }
}

/// Prints what differs, and returns how many fields that are.
fn print(before: Option<&str>, after: Option<&str>, format: Format) -> Result<usize, CliError> {
    if format == Format::Json {
        let found = match (before, after) {
            (Some(before), Some(after)) => diff::between(before, after),
            (None, None) => Vec::new(),
            (before, after) => vec![Difference { path: Vec::new(), before, after }],
        };
        let mut rows = Rows::stdout(format, &["op", "path", "value"]);
        for one in &found {
            rows.push_cells(&[one.operation().into(), one.pointer().into(), Cell::Json(one.after)])?;
        }
        rows.finish()?;
        return Ok(found.len());
    }
    // A document that was not there is shown as one without fields.
    let found = diff::between(before.unwrap_or("{}"), after.unwrap_or("{}"));
    if format == Format::Table {
        output::differences(&found)?;
        return Ok(found.len());
    }
    let mut rows = Rows::stdout(format, &["path", "op", "before", "after"]);
    for one in &found {
        rows.push_cells(&[
            one.path_text().into(),
            one.operation().into(),
            Cell::Json(one.before),
            Cell::Json(one.after),
        ])?;
    }
    rows.finish()?;
    Ok(found.len())
}
