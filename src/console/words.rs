//! How times, versions, keys and records are written for people.

use serde_json::Value;

use super::{Exit, Ui};
use crate::{
    change::{
        Op,
        key::PartitionKey,
        time::PointInTime,
        version::{BadRecord, Version},
    },
    history::odd_records,
};

/// Names records that were set aside.
pub(crate) fn note_bad(ui: &Ui, bad: &[BadRecord]) -> Exit {
    odd_records::tell(bad, ui.screen());
    if bad.is_empty() { Exit::Done } else { Exit::Incomplete }
}

/// Epoch seconds as RFC 3339 in UTC.
pub(crate) fn time(ts: i64) -> String {
    PointInTime::from_epoch(ts).to_string()
}

/// The partition key in JSON output; a single component stands alone.
pub(crate) fn pk_json(key: &PartitionKey) -> Value {
    match key.0.as_slice() {
        [one] => one.to_json(),
        _ => key.to_json(),
    }
}

/// The operation, as it is shown.
pub(crate) fn op(version: &Version) -> &'static str {
    version.op.map_or("legacy", Op::as_str)
}

/// The flag that names a key, quoted for a shell.
pub(crate) fn pk_flag(key: &PartitionKey) -> String {
    let mut text = key.to_string();
    if text.chars().any(char::is_control) {
        let escaped = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.into() };
        text = key.to_json().to_string().chars().map(escaped).collect();
    }
    // After a blank, a dash would begin a flag.
    let between = if text.starts_with('-') { '=' } else { ' ' };
    format!("--pk{between}'{}'", text.replace('\'', r"'\''"))
}
