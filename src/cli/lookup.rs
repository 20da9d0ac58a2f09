//! Times that flags name, and what is said of the version in force.

use serde_json::Value;

use super::{CliError, Exit, Ui};
use crate::{
    change::{
        Op,
        key::PartitionKey,
        time::{PointInTime, span_text},
        version::{BadRecord, Version},
    },
    cosmos::Cosmos,
    format::printable,
    history::{
        as_of::{self, AsOf, Caveat, State},
        odd_records,
    },
};

/// The time a flag names.
///
/// # Errors
/// When it cannot be used.
pub(super) async fn point(ui: &Ui, cosmos: &Cosmos, flag: &str, text: &str) -> Result<PointInTime, CliError> {
    let named = cosmos.point_in_time(text, &**ui.clock(), ui.screen()).await;
    named.map_err(|bad| CliError::usage(printable(&format!("{flag}: {bad}")).into_owned(), bad.hint))
}

/// Refuses a time that ends before it begins.
pub(super) fn in_order(from: PointInTime, to: PointInTime) -> Result<(), CliError> {
    if from <= to {
        return Ok(());
    }
    Err(CliError::usage(format!("--to {to} is before --from {from}"), "name the earlier time with --from"))
}

/// Names records that were set aside.
pub(super) fn note_bad(ui: &Ui, bad: &[BadRecord]) -> Exit {
    odd_records::tell(bad, ui.screen());
    if bad.is_empty() { Exit::Done } else { Exit::Incomplete }
}

/// Epoch seconds as RFC 3339 in UTC.
pub(super) fn time(ts: i64) -> String {
    PointInTime::from_epoch(ts).to_string()
}

/// The partition key in JSON output: a single component by itself.
pub(super) fn pk_json(key: &PartitionKey) -> Value {
    match key.0.as_slice() {
        [one] => one.to_json(),
        _ => key.to_json(),
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
pub(super) fn note_caveats(ui: &Ui, caveats: &[Caveat]) {
    for caveat in caveats {
        ui.note(&format!("note: {caveat}"));
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
