//! The writes that were found, as rows; and for people, what they have in common.

use serde_json::{Value, json};

use super::versions::key_cell;
use crate::{
    change::{Op, time::span_text},
    console::{
        CliError, Ui,
        words::{op, time},
    },
    figures::{count_of, number},
    find::{FoundWrite, NameCounts, Report},
    format::{Cell, Format, Rows, printable},
};

/// Rows of the table; the rest is counted.
const SHOWN: u64 = 1000;
/// Bars of the histogram.
const BARS: usize = 60;
/// Fields, and actors, that are named.
const NAMED: usize = 6;
/// Paths of a row of the table.
const PATHS: usize = 4;

/// Columns that not all results have.
#[derive(Clone, Copy)]
pub(crate) struct Extra<'e> {
    /// The container, when several are searched.
    pub(crate) container: Option<&'e str>,
    /// Whether a field was named that says who wrote.
    pub(crate) has_actor: bool,
}

/// Writes that are printed as they are found.
pub(crate) struct Writes<'u> {
    ui: &'u Ui,
    format: Format,
    extra: Extra<'u>,
    rows: Rows,
    count: u64,
}

impl<'u> Writes<'u> {
    /// Begins the rows.
    pub(crate) fn new(ui: &'u Ui, format: Format, extra: Extra<'u>) -> Self {
        Self { ui, format, extra, rows: ui.rows(format, &columns(format, extra)), count: 0 }
    }

    /// Prints a write.
    pub(crate) fn push(&mut self, write: &FoundWrite) -> Result<(), CliError> {
        self.count += 1;
        if self.format == Format::Table && self.count > SHOWN {
            return Ok(());
        }
        Ok(self.rows.push_cells(&row(write, self.format, self.extra))?)
    }

    /// Prints what the writes have in common, and what cannot be known.
    pub(crate) fn finish(self, report: &Report) -> Result<(), CliError> {
        self.rows.finish()?;
        if self.format == Format::Table && self.count > SHOWN {
            let rest = count_of(self.count - SHOWN, "document");
            self.ui.note(&format!("... and {rest}; --format csv shows all"));
        }
        for line in summary(report).into_iter().chain(notes(report)) {
            self.ui.note(&printable(&line));
        }
        Ok(())
    }

    /// Summarises the findings in a few words.
    pub(crate) fn told(report: &Report) -> String {
        let (tally, found) = (&report.tally, count_of(report.found, "document"));
        let looked = format!("{} of {}", count_of(tally.asked, "version"), count_of(tally.documents, "document"));
        format!("{found} found in {looked}")
    }
}

fn columns(format: Format, extra: Extra<'_>) -> Vec<&'static str> {
    let mut columns = match format {
        Format::Table => vec!["time", "id", "pk", "op", "before", "still", "changed", "notes"],
        _ => vec!["id", "pk", "before", "time", "ts", "op", "lsn", "record", "still", "changed", "notes"],
    };
    if extra.has_actor {
        columns.insert(columns.len() - 1, "actor");
    }
    if extra.container.is_some() && format != Format::Table {
        columns.insert(0, "container");
    }
    columns
}

fn row<'w>(write: &'w FoundWrite, format: Format, extra: Extra<'_>) -> Vec<Cell<'w>> {
    let version = &write.version;
    let key = key_cell(&write.item.partition_key, format);
    let still = write.still.name();
    let mut cells: Vec<Cell<'w>> = if format == Format::Table {
        let before = match &write.before {
            Some(before) => format!("{} {}", time(before.ts), op(before)),
            None if version.op == Some(Op::Create) => "none".to_owned(),
            None => "unknown".to_owned(),
        };
        let changed = match write.changed.len().checked_sub(PATHS) {
            Some(more) if more > 0 => format!("{} and {more} more", write.changed[..PATHS].join(", ")),
            _ => write.changed.join(", "),
        };
        let notes = write.notes.join("; ");
        [
            json!(time(version.ts)),
            json!(write.item.id),
            key,
            json!(op(version)),
            json!(before),
            json!(still),
            json!(changed),
            json!(notes),
        ]
        .map(Cell::Value)
        .into()
    } else {
        let list = |names: &[String]| if format == Format::Csv { json!(names.join(" ")) } else { json!(names) };
        let before = write.before.as_ref().map(|before| before.record_id.as_str());
        let values: [Value; 11] = [
            json!(write.item.id),
            key,
            json!(before),
            json!(time(version.ts)),
            json!(version.ts),
            json!(op(version)),
            json!(version.lsn),
            json!(version.record_id),
            json!(still),
            list(&write.changed),
            if format == Format::Csv { json!(write.notes.join("; ")) } else { json!(write.notes) },
        ];
        values.map(Cell::Value).into()
    };
    if extra.has_actor {
        cells.insert(cells.len() - 1, Cell::Json(write.actor.as_deref()));
    }
    // The table of each container follows its name.
    if let Some(container) = extra.container.filter(|_| format != Format::Table) {
        cells.insert(0, Cell::Value(json!(container)));
    }
    cells
}

/// When the writes happened, and what they have in common.
fn summary(report: &Report) -> Vec<String> {
    let Some((first, last)) = report.span else { return Vec::new() };
    let bars = report.histogram.bars(BARS);
    let mut lines = vec![format!(
        "writes     {} to {}: true of {} still, of {} no more, {} gone",
        time(first),
        time(last),
        number(report.still),
        number(report.healed),
        number(report.gone)
    )];
    if let [one, .., _] = bars.as_slice()
        && let Some(most) = bars.iter().max_by_key(|bar| bar.1)
    {
        let width = bars.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].0)).min().unwrap_or(1);
        lines.push(format!(
            "           {}  from {}, a bar is {}; most, {}, from {}",
            sparkline(&bars),
            time(one.0),
            span_text(width),
            number(most.1),
            time(most.0)
        ));
    }
    lines.extend(named("fields", &report.fields));
    lines.extend(named("actors", &report.actors));
    lines
}

fn sparkline(bars: &[(i64, u64)]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = bars.iter().map(|bar| bar.1).max().unwrap_or_default().max(1);
    let level = |count: u64| match count {
        0 => '·',
        _ => LEVELS[usize::try_from((count * 8).div_ceil(most)).map_or(7, |level| level.clamp(1, 8) - 1)],
    };
    bars.iter().map(|bar| level(bar.1)).collect()
}

/// The most frequent names with their counts.
fn named(what: &str, counts: &NameCounts) -> Option<String> {
    let (top, all) = counts.top(NAMED);
    if top.is_empty() {
        return None;
    }
    let shown: Vec<String> = top.iter().map(|(name, count)| format!("{name} {}", number(*count))).collect();
    let more = match all - top.len() {
        0 => String::new(),
        more => format!(" and {} more", number(more as u64)),
    };
    Some(format!("{what:<10} {}{more}", shown.join(", ")))
}

/// The caveats of a search.
fn notes(report: &Report) -> Vec<String> {
    let tally = &report.tally;
    let mut notes = Vec::new();
    let mut note = |count: u64, text: String| {
        if count > 0 {
            notes.push(text);
        }
    };
    let versions = |count: u64| count_of(count, "version");
    note(u64::from(report.ends_before), format!("warning: {}, before --to", report.frontier.describe()));
    note(
        u64::from(report.behind),
        format!("warning: {}: what was written since is not looked at", report.frontier.describe()),
    );
    for hole in &report.missed {
        note(1, format!("warning: {hole}: writes of that time may be missing here"));
    }
    note(u64::from(report.interrupted), "warning: stopped before the end".to_owned());
    note(
        tally.not_at_end,
        "warning: the condition is not true of the last version; leave --flips-once out to look at each".into(),
    );
    note(tally.partial, format!("warning: of {} the history holds a part only", versions(tally.partial)));
    note(tally.already, format!("note: of {} it was true before --from already", count_of(tally.already, "document")));
    for (why, count) in &tally.no_answer {
        note(*count, format!("note: the condition has no answer about {}: {why}", versions(*count)));
    }
    note(
        tally.latest,
        format!(
            "note: before {} other writes may be missing: latest-version mode and saved documents do not tell what was there",
            versions(tally.latest)
        ),
    );
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_how_many_and_none() {
        assert_eq!(sparkline(&[(0, 1), (1, 0), (2, 8), (3, 4), (4, 7)]), "▁·█▄▇");
        assert_eq!(sparkline(&[(0, 3), (1, 3)]), "██");
        assert_eq!(sparkline(&[]), "");
    }

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let record =
            json!({"id": "a~2", "_originalId": "a", "_change": {"v": 1, "op": "replace", "ts": 1592926845, "lsn": 8}});
        let version = crate::change::version::Version::parse(&record.to_string()).unwrap();
        let write = FoundWrite {
            item: crate::change::key::ItemKey {
                id: "a".into(),
                partition_key: crate::change::key::PartitionKey::parse("p").unwrap(),
            },
            before: None,
            still: crate::find::Still::Gone,
            changed: ["/a", "/b", "/c", "/d", "/e"].map(String::from).into(),
            actor: Some("\"me\"".into()),
            notes: Vec::new(),
            version,
        };
        for format in [Format::Table, Format::Csv, Format::Jsonl] {
            for (container, has_actor) in [(None, false), (None, true), (Some("c"), false), (Some("c"), true)] {
                let extra = Extra { container, has_actor };
                assert_eq!(row(&write, format, extra).len(), columns(format, extra).len());
            }
        }
        let shown = row(&write, Format::Table, Extra { container: None, has_actor: false });
        assert_eq!(shown[4], Cell::Value(json!("unknown")));
        assert_eq!(shown[6], Cell::Value(json!("/a, /b, /c, /d and 1 more")));
    }
}
