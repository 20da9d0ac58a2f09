//! `diff`: the fields of documents that differ between two moments, or between a moment and the live document.

use std::time::Instant;

use clap::Args;

use super::{
    CliError, ConnectionArgs, Exit, Ui,
    lookup::{self, describe, time},
    selection::SelectionArgs,
};
use crate::{
    change::{
        diff::{self, Difference},
        edit::quote,
    },
    cosmos::Cosmos,
    figures::count_of,
    format::{Cell, Format, Rows, printable},
    history::{
        as_of::State,
        histories::Item,
        past::{self, Comparison, DiffRequest, Live, Seen, Side},
    },
};

/// Flags of `diff`.
#[derive(Debug, Args)]
#[command(
    disable_version_flag = true,
    after_help = "Examples:
  cosmos-rewind diff --id 28036 --pk 28036 --from \"2h30m ago\"
  cosmos-rewind diff --id 28036 --from 2026-11-20T14:05:00Z --to \"yesterday 18:00Z\" --format json
  cosmos-rewind diff --where \"c.city_name = 'Davidson'\" --from 15m

Lines are `~ /path before -> after`, `+ /path added`, `- /path removed`; --format json is a JSON
Patch (RFC 6902) that leads from the first to the second. Numbers are compared as numbers of any
size: 1.10 is 1.1. The exit code is 0 whether anything differs or not. --where means the documents
that matched at --from (at --to when that is `live`)."
)]
pub struct DiffArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    which: SelectionArgs,
    /// What it was then: RFC 3339 with a zone, epoch seconds, 15m, "2h30m ago", "yesterday 14:05Z"
    #[arg(long, value_name = "TIME", required_unless_present = "version")]
    from: Option<String>,
    /// Compare this version of the one --id instead: a record of the history, an LSN or an etag, as `history` shows them
    #[arg(long, value_name = "RECORD|LSN|ETAG", conflicts_with = "from")]
    version: Option<String>,
    /// Compare with that: a time, `now` (the newest version in the history), or `live` (the live document)
    #[arg(long, value_name = "TIME", default_value = "live")]
    to: String,
    /// How to print; json is a JSON Patch
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub async fn run(args: DiffArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    args.which.check_version(args.version.as_ref())?;
    let (cosmos, names) = args.connection.open()?;
    let from = match (&args.version, &args.from) {
        (Some(version), _) => Side::Version(version.clone()),
        (None, from) => side(ui, &cosmos, "--from", from.as_deref().unwrap_or("now")).await?,
    };
    let to = side(ui, &cosmos, "--to", &args.to).await?;
    let request = DiffRequest { which: args.which.selection(&cosmos, &names).await?, from, to };
    let cx = ui.context(&cosmos, &names).any();
    let mut documents = past::diff(&request, &cx).await?;
    let mut out = Out::new(ui, args.format, args.which.is_list());
    let mut differing = 0_u64;
    let mut count = 0;
    let mut exit = Exit::Done;
    while let Some(Comparison { item, from, to }) = documents.next().await? {
        match describe_side(ui, "from", &item, &from).and_then(|()| describe_side(ui, "to", &item, &to)) {
            Ok(()) => {}
            // Nothing is known of one of the times.
            Err(error) if args.which.is_list() => {
                ui.note(&format!("warning: {error}"));
                exit = Exit::Incomplete;
                continue;
            }
            Err(error) => return Err(error),
        }
        let found = out.push(ui, &item, from.text(), to.text())?;
        differing += u64::from(found > 0);
        count += found as u64;
    }
    out.finish()?;
    let what = if count == 0 { "no difference".to_owned() } else { count_of(count, "difference") };
    let of = if args.which.is_list() {
        format!(" in {} of {}", differing, count_of(documents.asked(), "document"))
    } else {
        String::new()
    };
    ui.spent(&format!("{what}{of}"), &cosmos, started);
    Ok(if documents.is_incomplete() { Exit::Incomplete } else { exit })
}

async fn side(ui: &Ui, cosmos: &Cosmos, flag: &str, text: &str) -> Result<Side, CliError> {
    if text.trim().eq_ignore_ascii_case("live") {
        return Ok(Side::Live);
    }
    lookup::point(ui, cosmos, flag, text).await.map(Side::At)
}

/// Says on stderr which state it is, and what is not sure about that.
///
/// # Errors
/// When nothing is known of the moment.
fn describe_side(ui: &Ui, name: &str, item: &Item, seen: &Seen) -> Result<(), CliError> {
    match seen {
        Seen::Live(Live { text: None, is_uncaptured, .. }) => {
            ui.note(&format!("{name}: no live document"));
            if *is_uncaptured {
                ui.note("note: its delete is not in the history (yet)");
            }
        }
        Seen::Live(Live { ts, is_uncaptured, .. }) => {
            let written = ts.map(|ts| format!(", written at {}", time(ts))).unwrap_or_default();
            ui.note(&printable(&format!("{name}: the live document{written}")));
            if *is_uncaptured {
                ui.note("note: the live version is not in the history (yet)");
            }
        }
        Seen::Version(version, _) => {
            ui.note(&format!("{name}: version of {} ({})", time(version.ts), lookup::op(version)));
        }
        Seen::At { known, .. } => {
            if let Some(doubt) = &known.doubt {
                ui.note(&printable(&format!("warning: {name}: {doubt}")));
            }
            let Some(answer) = seen.answer() else { return Ok(()) };
            match answer.state {
                _ if !seen.is_known() => {
                    return Err(lookup::not_there(&item.key.id, &answer, &known.versions, &format!("--{name}")));
                }
                State::NotYet { earliest } => {
                    ui.note(&format!("{name}: no document: it was created at {}", time(earliest.ts)));
                }
                _ => {
                    ui.note(&format!("{name}: {}", describe(&answer).unwrap_or_default()));
                    lookup::note_caveats(ui, &answer.caveats);
                }
            }
        }
    }
    Ok(())
}

/// What differs, as it is printed: of one document alone, or of each in a list.
enum Out {
    /// Lines for people.
    Lines { list: bool },
    /// The fields as rows, or the operations of a patch.
    Rows { rows: Rows, patch: bool, list: bool },
    /// A patch for each document.
    Patches(Rows),
}

impl Out {
    fn new(ui: &Ui, format: Format, list: bool) -> Self {
        match (format, list) {
            (Format::Table, _) => Self::Lines { list },
            (Format::Json, true) => Self::Patches(ui.rows(format, &["id", "pk", "patch"])),
            (Format::Json, false) => Self::Rows { rows: ui.rows(format, &["op", "path", "value"]), patch: true, list },
            (_, true) => {
                let rows = ui.rows(format, &["id", "pk", "path", "op", "before", "after"]);
                Self::Rows { rows, patch: false, list }
            }
            (_, false) => Self::Rows { rows: ui.rows(format, &["path", "op", "before", "after"]), patch: false, list },
        }
    }

    /// Prints what differs of a document, and returns how many fields that are.
    fn push(&mut self, ui: &Ui, item: &Item, before: Option<&str>, after: Option<&str>) -> Result<usize, CliError> {
        let is_patch = matches!(self, Self::Patches(_) | Self::Rows { patch: true, .. });
        let found = match (before, after) {
            (Some(before), Some(after)) => diff::between(before, after),
            (None, None) => Vec::new(),
            (before, after) if is_patch => vec![Difference { path: Vec::new(), before, after }],
            // For people, a document that was not there is one without fields.
            (before, after) => diff::between(before.unwrap_or("{}"), after.unwrap_or("{}")),
        };
        let (id, pk) = (item.key.id.as_str(), lookup::pk_json(&item.key));
        match self {
            Self::Lines { list } => {
                if *list && !found.is_empty() {
                    ui.heading(&format!("{id:?} ({})", item.key.partition_key))?;
                }
                ui.differences(&found)?;
            }
            Self::Patches(_) if found.is_empty() => {}
            Self::Patches(rows) => {
                let patch: Vec<String> = found.iter().map(operation).collect();
                let patch = format!("[{}]", patch.join(","));
                rows.push_cells(&[id.into(), pk.into(), Cell::Json(Some(&patch))])?;
            }
            Self::Rows { rows, patch, list } => {
                for one in &found {
                    let mut cells: Vec<Cell<'_>> = Vec::new();
                    if *patch {
                        cells.extend([one.operation().into(), one.pointer().into(), Cell::Json(one.after)]);
                    } else {
                        if *list {
                            cells.extend([id.into(), pk.clone().into()]);
                        }
                        let (before, after) = (Cell::Json(one.before), Cell::Json(one.after));
                        cells.extend([one.path_text().into(), one.operation().into(), before, after]);
                    }
                    rows.push_cells(&cells)?;
                }
            }
        }
        Ok(found.len())
    }

    fn finish(self) -> Result<(), CliError> {
        match self {
            Self::Lines { .. } => Ok(()),
            Self::Rows { rows, .. } | Self::Patches(rows) => Ok(rows.finish()?),
        }
    }
}

/// An operation of a JSON Patch; values as they are written.
fn operation(one: &Difference<'_>) -> String {
    let value = one.after.map_or_else(String::new, |value| format!(",\"value\":{value}"));
    format!("{{\"op\":{},\"path\":{}{value}}}", quote(one.operation()), quote(&one.pointer()))
}
