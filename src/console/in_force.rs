//! Messages about the version in force at a moment, or about a moment without one.

use super::{
    CliError, Ui,
    words::{op, time},
};
use crate::{
    change::{
        Op,
        time::{PointInTime, span_text},
        version::Version,
    },
    figures::count_of,
    format::printable,
    history::as_of::{self, AsOf, Caveat, State},
};

/// Describes the version in force: its time, what happened, how it was captured, and how far it is from the moment.
pub(crate) fn describe(as_of: &AsOf<'_>) -> Option<String> {
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

/// Prints on stderr what cannot be known.
pub(crate) fn note_caveats(ui: &Ui, caveats: &[Caveat]) {
    for caveat in caveats {
        ui.note(&format!("note: {caveat}"));
    }
}

/// Prints on stderr how many of many documents have each caveat.
pub(crate) fn count_caveats<'a>(ui: &Ui, counts: impl IntoIterator<Item = (&'a str, u64)>) {
    for (name, count) in counts {
        ui.note(&format!("note: {} with the caveat {name}", count_of(count, "document")));
    }
}

/// Why a version cannot be shown of which the history has nothing. `about` names the document.
pub(crate) fn absent(about: &str, version: &Version) -> CliError {
    CliError::not_there(
        format!("{about}: {}", version.why_partial()),
        format!("its version is of {}; replay --list shows the dead letters", time(version.ts)),
    )
}

/// Why there is no document at the moment, with a hint. `flag` names the time that was asked for.
pub(crate) fn not_there(id: &str, as_of: &AsOf<'_>, versions: &[Version], flag: &str) -> CliError {
    let at = if as_of.at == PointInTime::END { "now".to_owned() } else { format!("at {}", as_of.at) };
    let (message, hint) = match &as_of.state {
        State::Deleted(tombstone) => {
            let what = if tombstone.op == Some(Op::Expire) { "it expired" } else { "it was deleted" };
            let before = PointInTime::from_epoch(tombstone.ts.saturating_sub(1));
            let hint = match as_of::boundary(versions, before) {
                Some(last) if !last.op.is_some_and(Op::is_tombstone) && !last.is_absent() => {
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
