//! A document as it was, alone or with the details of its version.

use serde_json::{Value, json};

use crate::{
    backup::file::one_line,
    change::{key::ItemKey, time::PointInTime},
    console::{
        CliError, Ui,
        in_force::{self, describe},
        words::{op, pk_json, time},
    },
    format::{Cell, printable},
    history::{
        as_of::{AsOf, State},
        past::Shown,
    },
};

/// How a document is printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrintOptions {
    /// As one object with the details of its version, instead of its text.
    pub(crate) object: bool,
    /// Indented.
    pub(crate) pretty: bool,
    /// As one of several.
    pub(crate) list: bool,
}

/// Prints a document, and says which version it is and what cannot be known about it.
///
/// # Errors
/// When there was no document, or stdout cannot be written.
pub(crate) fn print(ui: &Ui, shown: &Shown, how: PrintOptions) -> Result<(), CliError> {
    let (item, answer) = (&shown.item, shown.answer());
    let key = if how.list { format!(" ({})", item.key.partition_key) } else { String::new() };
    let about = printable(&format!("document {:?}{key}", item.key.id)).into_owned();
    if how.object {
        object(ui, &item.key, &answer, shown.text.as_deref(), shown.known.doubt.as_deref())?;
    }
    if let Some(doubt) = &shown.known.doubt {
        ui.note(&printable(&format!("warning: {about}: {doubt}")));
    }
    if !matches!(answer.state, State::Document(_)) {
        in_force::note_caveats(ui, &answer.caveats);
        return Err(in_force::not_there(&item.key.id, &answer, &shown.known.versions, "--at"));
    }
    if let Some(version) = answer.version().filter(|version| version.is_absent() && shown.text.is_none()) {
        return Err(in_force::absent(&about, version));
    }
    if !how.object {
        let text = shown.text.as_deref().unwrap_or_default();
        let text = if how.list && !how.pretty { one_line(text) } else { text.into() };
        ui.document(&text, how.pretty)?;
    }
    if let Some(text) = describe(&answer) {
        ui.note(&format!("{about}: {text}"));
    }
    in_force::note_caveats(ui, &answer.caveats);
    Ok(())
}

/// Prints the version and its document as one object.
fn object(ui: &Ui, key: &ItemKey, answer: &AsOf<'_>, text: Option<&str>, doubt: Option<&str>) -> Result<(), CliError> {
    let version = answer.version();
    let state = match answer.state {
        State::Document(_) => "document",
        State::Deleted(_) => "deleted",
        State::NotYet { .. } if answer.created_later() => "not-yet",
        State::NotYet { .. } | State::Empty => "unknown",
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
