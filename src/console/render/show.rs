//! A document as it was, with the particulars of its version, as one object.

use serde_json::{Value, json};

use crate::{
    change::{key::ItemKey, time::PointInTime},
    console::{
        CliError, Ui,
        words::{op, pk_json, time},
    },
    format::Cell,
    history::as_of::{AsOf, State},
};

/// Prints the version and its document as one object.
pub(crate) fn object(
    ui: &Ui,
    key: &ItemKey,
    answer: &AsOf<'_>,
    text: Option<&str>,
    doubt: Option<&str>,
) -> Result<(), CliError> {
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
    ui.object(&[
        ("state", state.into()),
        ("id", key.id.as_str().into()),
        ("pk", pk_json(&key.partition_key).into()),
        ("at", at.into()),
        ("time", version.map(|v| time(v.ts)).into()),
        ("ts", version.map(|v| v.ts).into()),
        ("op", version.map(op).into()),
        ("lsn", version.and_then(|v| v.lsn).into()),
        ("etag", version.and_then(|v| v.etag.clone()).into()),
        ("via", version.and_then(|v| v.via.clone()).map(String::from).into()),
        ("fidelity", version.and_then(|v| v.fidelity.clone()).map(String::from).into()),
        ("captured", version.and_then(|v| v.at.clone()).into()),
        ("record", version.map(|v| v.record_id.clone()).into()),
        ("distance", answer.distance().into()),
        ("next", answer.next.map(|v| time(v.ts)).into()),
        ("caveats", caveats.into()),
        ("doubt", doubt.map(str::to_owned).into()),
        ("document", text.map_or(Value::Null.into(), |d| Cell::Json(Some(d)))),
    ])
}
