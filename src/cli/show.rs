//! `show`: one document as it was at a moment.

use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    CliError, ConnectionArgs, Exit,
    lookup::{self, describe, op, time},
    output::{self, Cell, printable},
};
use crate::{
    change::{
        key::{ItemKey, PartitionKey},
        time::PointInTime,
    },
    history::as_of::{AsOf, State, as_of},
};

/// Flags of `show`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind show --id 28036 --pk 28036 --at \"2h30m ago\"
  cosmos-rewind show --id 28036 --at 2026-11-20T14:05:00+02:00 --pretty

The document's exact text goes to stdout; stderr says which version it is, how far from the time
it was written, and what cannot be known about it. The exit code is 1 when there was no document.")]
pub struct ShowArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Document that is shown
    #[arg(long, value_name = "ID")]
    id: String,
    /// Its partition key, as text or as a JSON array of the components; needed when several documents share the id
    #[arg(long, value_name = "KEY", value_parser = PartitionKey::parse)]
    pk: Option<PartitionKey>,
    /// Show what it was then: RFC 3339 with a zone, epoch seconds, 15m, "2h30m ago", "yesterday 14:05Z"
    #[arg(long, value_name = "TIME", default_value = "now")]
    at: String,
    /// Indent the document
    #[arg(long)]
    pretty: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ShowFormat,
}

/// How a document is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum ShowFormat {
    /// The document's exact text
    #[default]
    Text,
    /// One object: the version's particulars, and the document
    Json,
}

/// Runs the command.
pub async fn run(args: ShowArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let at = lookup::point("--at", &args.at)?;
    let (cosmos, names) = args.connection.open()?;
    let found = lookup::document(&cosmos, &names, &args.id, args.pk.as_ref()).await?;
    let answer = as_of(&found.item.versions, at);
    if args.format == ShowFormat::Json {
        object(&found.item.key, &answer)?;
    }
    let State::Document(version) = answer.state else {
        return Err(lookup::not_there(&args.id, &answer, &found.item.versions, "--at"));
    };
    if args.format == ShowFormat::Text {
        output::document(version.document.as_deref().unwrap_or_default(), args.pretty)?;
    }
    if let Some(text) = describe(&answer) {
        output::note(&printable(&format!("document {:?}: {text}", args.id)));
    }
    lookup::note_caveats(&answer.caveats);
    output::spent("1 document", &cosmos, started);
    Ok(found.exit)
}

fn object(key: &ItemKey, answer: &AsOf<'_>) -> Result<(), CliError> {
    let version = answer.version();
    let state = match answer.state {
        State::Document(_) => "document",
        State::Deleted(_) => "deleted",
        State::NotYet { .. } => "not-yet",
        State::Empty => "unknown",
    };
    let caveats: Vec<Value> =
        answer.caveats.iter().map(|c| json!({"name": c.name(), "meaning": c.to_string()})).collect();
    let at = (answer.at != PointInTime::END).then(|| answer.at.to_string());
    let pk = match key.partition_key.0.as_slice() {
        [one] => one.to_json(),
        _ => key.partition_key.to_json(),
    };
    output::object(&[
        ("state", state.into()),
        ("id", key.id.as_str().into()),
        ("pk", pk.into()),
        ("at", at.into()),
        ("time", version.map(|v| time(v.ts)).into()),
        ("ts", version.map(|v| v.ts).into()),
        ("op", version.map(op).into()),
        ("lsn", version.and_then(|v| v.lsn).into()),
        ("etag", version.and_then(|v| v.etag.clone()).into()),
        ("via", version.and_then(|v| v.via.clone()).into()),
        ("fidelity", version.and_then(|v| v.fidelity.clone()).into()),
        ("captured", version.and_then(|v| v.at.clone()).into()),
        ("record", version.map(|v| v.record_id.clone()).into()),
        ("distance", answer.distance().into()),
        ("next", answer.next.map(|v| time(v.ts)).into()),
        ("caveats", caveats.into()),
        ("document", version.and_then(|v| v.document.as_deref()).map_or(Value::Null.into(), |d| Cell::Json(Some(d)))),
    ])
}
