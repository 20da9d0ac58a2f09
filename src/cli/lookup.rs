//! The one document that `--id` and `--pk` name, with its history; and what is said about the version in force.

use chrono::Local;
use serde_json::Value;

use super::{
    CliError, Exit,
    output::{self, count_of, printable},
    query::check_key,
};
use crate::{
    change::{
        Op,
        key::{ItemKey, KeyPaths, PartitionKey, render_path},
        record::ORIGINAL_ID,
        time::{PointInTime, span_text},
        version::{Version, container_of},
    },
    config::Names,
    cosmos::{Container, Cosmos, Disposition},
    history::{
        as_of::{self, AsOf, Caveat, State},
        reader::{self, Item},
    },
};

/// A document's history.
pub(super) struct Found {
    /// The document; it has one version at least.
    pub item: Item,
    /// Done, or incomplete when there were records that nobody understands: one of them may be a version.
    pub exit: Exit,
}

/// Reads the history of a document. Records that are not understood are named on stderr.
///
/// # Errors
/// When there is none, or when several documents have the id.
pub(super) async fn document(
    cosmos: &Cosmos,
    names: &Names,
    id: &str,
    key: Option<&PartitionKey>,
) -> Result<Found, CliError> {
    let changes = cosmos.container(&names.database, &names.changes).await?;
    let source_paths = source_paths(cosmos, names, &changes).await?;
    if let Some(key) = key {
        check_key(key, &names.source, &source_paths)?;
    }
    let mut found = reader::histories(&changes, &source_paths, id, key).await?;
    for bad in &found.bad {
        output::note(&printable(&format!("warning: {bad}")));
    }
    if found.items.len() > 1 {
        let keys: Vec<String> = found
            .items
            .iter()
            .map(|item| {
                let count = count_of(item.versions.len() as u64, "version");
                printable(&format!("  --pk '{}'  ({count})", item.key.partition_key)).into_owned()
            })
            .collect();
        return Err(CliError::usage(
            printable(&format!("{} documents have the id {id:?}", found.items.len())).into_owned(),
            format!("name one of them:\n{}", keys.join("\n")),
        ));
    }
    let exit = if found.bad.is_empty() { Exit::Done } else { Exit::Incomplete };
    match found.items.pop() {
        Some(item) => Ok(Found { item, exit }),
        None => Err(CliError {
            message: format!("no version of document {id:?} in {}/{}", names.database, names.changes),
            hint: Some("check the id and --pk; what was written before capture began has no version".into()),
            exit: Exit::Failed,
        }),
    }
}

/// The source's key paths; of a source that is gone, what the history's own say.
pub(super) async fn source_paths(cosmos: &Cosmos, names: &Names, changes: &Container) -> Result<KeyPaths, CliError> {
    match cosmos.container(&names.database, &names.source).await {
        Ok(source) => Ok(source.key_paths().clone()),
        Err(failure) if failure.disposition == Disposition::NotFound => {
            output::note(&format!("note: there is no container {}/{}", names.database, names.source));
            let own = changes.key_paths().segments().iter().filter(|p| p.as_slice() != [ORIGINAL_ID]);
            KeyPaths::parse(&own.map(|p| render_path(p)).collect::<Vec<_>>()).map_err(CliError::failed)
        }
        Err(failure) => Err(failure.into()),
    }
}

/// The source container that there is today, to tell versions of one before it; `None` when it cannot be asked.
pub(super) async fn today(cosmos: &Cosmos, names: &Names) -> Option<u64> {
    container_of(cosmos.container(&names.database, &names.source).await.ok()?.rid())
}

/// The time a flag names; `now` is after every version, whatever this machine's clock says.
///
/// # Errors
/// When it cannot be used.
pub(super) fn point(flag: &str, text: &str) -> Result<PointInTime, CliError> {
    if text.trim().eq_ignore_ascii_case("now") {
        return Ok(PointInTime::END);
    }
    PointInTime::parse(text, &crate::surroundings::now().with_timezone(&Local))
        .map_err(|bad| CliError::usage(printable(&format!("{flag}: {bad}")).into_owned(), bad.hint))
}

/// Epoch seconds as RFC 3339 in UTC.
pub(super) fn time(ts: i64) -> String {
    PointInTime::from_epoch(ts).to_string()
}

/// The partition key in JSON output: a single component by itself.
pub(super) fn pk_json(key: &ItemKey) -> Value {
    match key.partition_key.0.as_slice() {
        [one] => one.to_json(),
        _ => key.partition_key.to_json(),
    }
}

/// What happened, as it is shown.
pub(super) fn op(version: &Version) -> &'static str {
    version.op.map_or("legacy", Op::as_str)
}

/// The version in force in a few words: its time, what happened, how it was captured, how far from the moment.
pub(super) fn describe(as_of: &AsOf<'_>) -> Option<String> {
    let version = as_of.version()?;
    let what = if version.document.is_some() { "version of" } else { "no document since" };
    let mut text = format!("{what} {} ({}", time(version.ts), op(version));
    if let Some(via) = &version.via {
        text.push_str(&format!(", via {via}"));
    }
    if let Some(fidelity) = &version.fidelity {
        text.push_str(&format!(", {fidelity}"));
    }
    text.push(')');
    match as_of.distance() {
        Some(0) => text.push_str(", in that very second"),
        Some(seconds) => text.push_str(&format!(", {} before {}", span_text(seconds), as_of.at)),
        None => text.push_str(", the newest"),
    }
    Some(printable(&text).into_owned())
}

/// Says on stderr what cannot be known.
pub(super) fn note_caveats(caveats: &[Caveat]) {
    for caveat in caveats {
        output::note(&format!("note: {caveat}"));
    }
}

/// Why there is no document at the moment, with the next step. `flag` names the time that was asked for.
pub(super) fn not_there(id: &str, as_of: &AsOf<'_>, versions: &[Version], flag: &str) -> CliError {
    let at = if as_of.at == PointInTime::END { "now".to_owned() } else { format!("at {}", as_of.at) };
    let (message, hint) = match &as_of.state {
        State::Deleted(tombstone) => {
            let what = if tombstone.op == Some(Op::Expire) { "it expired" } else { "it was deleted" };
            let before = PointInTime::from_epoch(tombstone.ts.saturating_sub(1));
            let hint = match as_of::boundary(versions, before) {
                Some(last) if last.document.is_some() => {
                    format!("{flag} {} has the document as it was before that", time(last.ts))
                }
                _ => "history lists its versions".to_owned(),
            };
            (format!("document {id:?} does not exist {at}: {what} at {}", time(tombstone.ts)), hint)
        }
        State::NotYet { earliest } if as_of.created_later() => (
            format!("no version of document {id:?} at or before {}: it was created at {}", as_of.at, time(earliest.ts)),
            format!("{flag} {} has it as of then", time(earliest.ts)),
        ),
        State::NotYet { earliest } => (
            format!(
                "no version of document {id:?} at or before {}: the earliest known is of {} ({})",
                as_of.at,
                time(earliest.ts),
                op(earliest)
            ),
            "what was written before capture began has no version; history lists those that are known".to_owned(),
        ),
        State::Document(_) | State::Empty => {
            (format!("no version of document {id:?}"), "check the id and --pk".to_owned())
        }
    };
    CliError { message: printable(&message).into_owned(), hint: Some(hint), exit: Exit::Failed }
}
