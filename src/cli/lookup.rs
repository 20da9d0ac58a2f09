//! The one document that `--id` and `--pk` name, with its history; and what is said about the version in force.

use chrono::{DateTime, Local, Utc};
use serde_json::Value;

use super::{
    CliError, Exit,
    output::{self, count_of, printable},
    query::check_key,
    screen::Screen,
};
use crate::{
    change::{
        Op,
        key::{ItemKey, KeyPaths, PartitionKey, render_path},
        record::ORIGINAL_ID,
        time::{BadTime, PointInTime, span_text},
        version::{BadRecord, Version, container_of},
    },
    config::Names,
    cosmos::{Container, Cosmos, Disposition, RuLimiter},
    frontier,
    history::{
        as_of::{self, AsOf, Caveat, State},
        odd_records,
        reader::{self, Item, Texts},
        scan::{Containers, Live, look_at},
        timeline::Timeline,
    },
    restore::plan::{Facts, with_live},
};

/// A document's history.
pub(super) struct FoundDocument {
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
    texts: Texts,
) -> Result<FoundDocument, CliError> {
    let changes = cosmos.container(&names.database, &names.changes).await?;
    let source_paths = source_paths(cosmos, names, &changes).await?;
    if let Some(key) = key {
        check_key(key, &names.source, &source_paths)?;
    }
    let mut found = reader::histories(&changes, &source_paths, id, key, texts).await?;
    let exit = note_bad(&found.bad);
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
    match found.items.pop() {
        Some(item) => Ok(FoundDocument { item, exit }),
        None => Err(CliError::not_there(
            format!("no version of document {id:?} in {}/{}", names.database, names.changes),
            "check the id and --pk; what was written before capture began has no version",
        )),
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

/// The time a flag names; `now` is after every version, whatever this machine's clock says. What is meant from now on
/// back goes by the service's clock, whose time `_ts` is.
///
/// # Errors
/// When it cannot be used.
pub(super) async fn point(cosmos: &Cosmos, flag: &str, text: &str) -> Result<PointInTime, CliError> {
    if text.trim().eq_ignore_ascii_case("now") {
        return Ok(PointInTime::END);
    }
    let here = crate::surroundings::now();
    let parse = |now: DateTime<Utc>| PointInTime::parse(text, &now.with_timezone(&Local));
    // An absolute time is the same whatever day it is, and one that is wrong stays wrong.
    match (parse(here), parse(here + chrono::TimeDelta::days(1))) {
        (Ok(one), Ok(other)) if one == other => return Ok(one),
        (Err(bad), Err(_)) => return Err(wrong(flag, &bad)),
        _ => {}
    }
    let now = match cosmos.service_time().await {
        Some(now) => now,
        None => {
            output::note("warning: the service does not say what time it is; this machine's clock is used");
            here
        }
    };
    parse(now).map_err(|bad| wrong(flag, &bad))
}

fn wrong(flag: &str, bad: &BadTime) -> CliError {
    CliError::usage(printable(&format!("{flag}: {bad}")).into_owned(), bad.hint.clone())
}

/// Names records that were set aside.
pub(super) fn note_bad(bad: &[BadRecord]) -> Exit {
    odd_records::tell(bad, &Screen);
    if bad.is_empty() { Exit::Done } else { Exit::Incomplete }
}

/// The text of a version, read when it is not in hand; `None` for a delete.
///
/// # Errors
/// When it cannot be read, or is gone.
pub(super) async fn text_of(
    changes: &Container,
    source: &KeyPaths,
    item: &ItemKey,
    version: &Version,
) -> Result<Option<String>, CliError> {
    if version.document.is_some() || version.op.is_some_and(Op::is_tombstone) {
        return Ok(version.document.clone());
    }
    let record = reader::record(changes, source, item, &version.record_id).await?;
    match record.and_then(|record| record.document) {
        Some(text) => Ok(Some(text)),
        None => Err(CliError::failed(format!("record {:?} is not in the history any more", version.record_id))),
    }
}

/// What a document was at a moment, with the live document where that tells more than the history.
pub(super) struct Known {
    /// The versions, with the live one.
    pub versions: Vec<Version>,
    /// Why the answer may be another one.
    pub doubt: Option<String>,
}

/// Adds to a document's history what its live document tells of a moment.
///
/// # Errors
/// When the source or the frontier cannot be read.
pub(super) async fn known_at(cosmos: &Cosmos, names: &Names, item: &Item, at: PointInTime) -> Result<Known, CliError> {
    let plain = || Known { versions: item.versions.clone(), doubt: None };
    let (chosen, next) = {
        let line = Timeline::of(&item.versions);
        let (chosen, next) = line.at(at);
        (chosen.cloned(), next.is_some())
    };
    // A later version from the feed: everything before it is there, unless deletes cannot be told apart.
    if next && item.unkeyed.is_empty() {
        return Ok(plain());
    }
    let containers = match Containers::open(cosmos, names).await {
        Ok(containers) => containers,
        Err(f) if f.disposition == Disposition::NotFound => return Ok(plain()),
        Err(f) => return Err(f.into()),
    };
    let pace = RuLimiter::new(cosmos.meter(), None);
    let live = look_at(&containers.source, &pace, &item.key, true).await?;
    let own = |text: &str| crate::change::record::own_text(text).ok();
    let live = live.map(|live| Live { text: live.text.as_deref().and_then(own), ..live });
    let mut versions = with_live(&item.key.id, &item.versions, live.as_ref()).into_owned();
    let proved = {
        let (now, _) = Timeline::of(&versions).at(at);
        let now = now.zip(live.as_ref()).filter(|(v, live)| v.etag.as_deref() == Some(live.etag.as_str()));
        now.map(|(v, _)| v.record_id.clone())
    };
    if let Some(record_id) = proved {
        // The live document is that version: its text is in hand.
        let whole = |v: &&mut Version| v.record_id == record_id && !v.is_partial() && !v.is_normalized();
        if let (Some(version), Some(live)) = (versions.iter_mut().find(whole), live) {
            version.document = version.document.take().or(live.text);
        }
        return Ok(Known { versions, doubt: None });
    }
    if chosen.is_none() {
        return Ok(Known { versions, doubt: None });
    }
    let frontier = frontier::read(cosmos, names, &containers, Some(at), &pace).await?;
    let facts = Facts {
        versions: &item.versions,
        unkeyed: &item.unkeyed,
        target: live.as_ref(),
        source: live.as_ref(),
        reach: frontier.reach(&containers.source, &item.key.partition_key),
    };
    let doubt = {
        let answer = as_of::as_of(&versions, at);
        facts.doubt(&item.key, &answer, live.as_ref().map(|live| live.etag.as_str()))
    };
    Ok(Known { versions, doubt })
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
    let gone = version.op.is_some_and(Op::is_tombstone);
    if version.is_live() {
        return Some(format!("the live document of {}, which the history does not have yet", time(version.ts)));
    }
    let what = if gone { "no document since" } else { "version of" };
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
                Some(last) if !last.op.is_some_and(Op::is_tombstone) => {
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
    CliError::not_there(printable(&message).into_owned(), hint)
}
