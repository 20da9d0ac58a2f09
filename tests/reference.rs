//! The generated tables of docs/reference: flags, settings, exit codes, metrics, log lines. The text around the tables
//! is written by hand.
//!
//! `COSMOS_REWIND_WRITE_DOCS=1 cargo test --test main reference` rewrites the tables.

use clap::{Arg, ArgAction, Command, CommandFactory as _};
use cosmos_rewind::{
    cli::Cli,
    config::SETTINGS,
    console::EXITS,
    telemetry::{LOG_LINES, LogLine, METRICS, Words},
};

use crate::support::files_of_kind;

const FLAG_PAGES: [&str; 3] =
    ["docs/reference/flags-setup.md", "docs/reference/flags-restore.md", "docs/reference/flags-operate.md"];
const COMMON: &str = "docs/reference/flags.md";

fn read(page: &str) -> String {
    std::fs::read_to_string(page).unwrap_or_else(|e| panic!("{page}: {e}"))
}

/// Compares a page with its expected text, or writes it.
fn settle(page: &str, should: &str) {
    let is = read(page);
    if std::env::var_os("COSMOS_REWIND_WRITE_DOCS").is_some() {
        if is != should {
            std::fs::write(page, should).unwrap();
        }
        return;
    }
    let first = is.lines().zip(should.lines()).find(|(is, should)| is != should);
    assert!(
        is == should,
        "{page} does not match the program; COSMOS_REWIND_WRITE_DOCS=1 cargo test --test main reference writes it: {first:#?}"
    );
}

/// A page with the first table under a heading replaced.
fn with_table(text: &str, heading: &str, table: &[String]) -> String {
    let mut out = Vec::new();
    let mut lines = text.lines().peekable();
    for line in lines.by_ref() {
        out.push(line.to_owned());
        if line == heading {
            break;
        }
    }
    assert_eq!(out.last().map(String::as_str), Some(heading), "there is no heading {heading:?}");
    while let Some(line) = lines.next_if(|line| !line.starts_with('|') && !line.starts_with('#')) {
        out.push(line.to_owned());
    }
    while lines.next_if(|line| line.starts_with('|')).is_some() {}
    out.extend(table.iter().cloned());
    out.extend(lines.map(str::to_owned));
    out.join("\n") + "\n"
}

/// Escapes text for a table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace("  ", " ")
}

fn is_of_connection(argument: &Arg) -> bool {
    argument.get_help_heading().is_some_and(|heading| heading.starts_with("Connection"))
}

/// The spelling of an argument: `--at TIME`, `-y, --yes`, `SQL`.
fn shape(argument: &Arg) -> String {
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let values: Vec<String> = argument.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
    let names: Vec<&str> = argument.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
    let value = if values.is_empty() { names.join(" ") } else { values.join("|") };
    let Some(long) = argument.get_long() else { return format!("`{}`", cell(&value)) };
    let is_optional = argument.get_num_args().is_some_and(|count| count.min_values() == 0);
    let value = match value.as_str() {
        _ if !takes_value => String::new(),
        value if is_optional => format!("[={value}]"),
        value => format!(" {value}"),
    };
    let short = argument.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    format!("{short}`--{long}{}`", cell(&value))
}

fn default_of(argument: &Arg) -> String {
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let values = argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
    if takes_value { cell(&values.collect::<Vec<_>>().join(",")) } else { String::new() }
}

/// A default that only the help text contains, as `text [default: x]`, because the parser does not know it.
fn default_in(help: &str) -> Option<(String, String)> {
    let (before, rest) = help.split_once("[default: ")?;
    let (default, after) = rest.split_once(']')?;
    Some((format!("{}{after}", before.trim_end()), default.to_owned()))
}

/// The table rows of a command's own flags.
fn flags(command: &Command) -> Vec<String> {
    let is_help = |argument: &Arg| {
        let action = argument.get_action();
        matches!(action, ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
    };
    let is_format = |argument: &Arg| argument.get_id() == "format" && argument.get_possible_values().len() == 4;
    let is_common = |argument: &Arg| is_of_connection(argument) || is_help(argument) || is_format(argument);
    let own = command.get_arguments().filter(|argument| !argument.is_hide_set() && !is_common(argument));
    let rows = own.map(|argument| {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let (help, named) = default_in(&help).map_or((help, None), |(help, default)| (help, Some(default)));
        let default = named.unwrap_or_else(|| default_of(argument));
        let default = match argument.get_env() {
            Some(name) => format!("`{}`, else {default}", name.to_string_lossy()),
            None => default,
        };
        let default = if default.is_empty() { " ".to_owned() } else { format!(" {default} ") };
        format!("| {} |{default}| {} |", shape(argument), cell(&help))
    });
    let rows: Vec<String> = rows.collect();
    if rows.is_empty() {
        return Vec::new();
    }
    ["| flag | default | meaning |", "|---|---|---|"].map(String::from).into_iter().chain(rows).collect()
}

#[test]
fn the_tables_of_flags_match_the_program() {
    let mut command = Cli::command();
    command.build();
    let mut seen = 0;
    for page in FLAG_PAGES {
        let mut text = read(page);
        for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
            let heading = format!("### {}", one.get_name());
            if text.lines().any(|line| line == heading) {
                text = with_table(&text, &heading, &flags(one));
                seen += 1;
            }
        }
        settle(page, &text);
    }
    assert_eq!(seen, command.get_subcommands().filter(|one| one.get_name() != "help").count(), "commands on the pages");
}

#[test]
fn the_common_flags_match_the_program() {
    let text = read(COMMON);
    let command = Cli::command();
    let restore = command.find_subcommand("restore").unwrap();
    for argument in restore.get_arguments().filter(|argument| is_of_connection(argument)) {
        let row = format!("| {} |", shape(argument));
        assert!(text.contains(&row), "{COMMON} lacks {row}");
    }
}

#[test]
fn the_table_of_settings_matches_the_program() {
    let rows = SETTINGS.iter().map(|setting| {
        let default = if setting.default.is_empty() { " ".to_owned() } else { format!(" {} ", setting.default) };
        format!("| `{}` |{default}| {} |", setting.name, setting.meaning)
    });
    let table: Vec<String> =
        ["| setting | default | meaning |", "|---|---|---|"].map(String::from).into_iter().chain(rows).collect();
    let page = "docs/reference/settings.md";
    settle(page, &with_table(&read(page), "# Settings", &table));
}

#[test]
fn the_table_of_exit_codes_matches_the_program() {
    let rows = EXITS.iter().map(|(exit, meaning)| format!("| {} | {meaning} |", *exit as u8));
    let rows = rows.chain([
        "| 200 | `serve` only: stopped by a signal after the host had started it (\"start me again, uncounted\") |"
            .to_owned(),
    ]);
    let table: Vec<String> =
        ["| exit code | meaning |", "|---|---|"].map(String::from).into_iter().chain(rows).collect();
    let page = "docs/reference/exit-codes.md";
    settle(page, &with_table(&read(page), "# Exit codes", &table));
}

#[test]
fn the_table_of_metrics_matches_the_program() {
    let rows = METRICS.iter().map(|metric| {
        format!("| `{}` | {}, {} | {} | {} |", metric.name, metric.kind, metric.unit, metric.from, metric.meaning)
    });
    let table: Vec<String> = ["| metric | kind, unit | from | meaning |", "|---|---|---|---|"]
        .map(String::from)
        .into_iter()
        .chain(rows)
        .collect();
    let page = "docs/reference/metrics.md";
    settle(page, &with_table(&read(page), "## Of OpenTelemetry", &table));
}

/// The last string in a call that is not a field's value, without escapes.
fn message(call: &str) -> String {
    let (mut last, mut text) = (String::new(), None::<String>);
    let mut is_value = false;
    let mut chars = call.chars();
    while let Some(c) = chars.next() {
        match (&mut text, c) {
            (Some(_), '\\') => drop(chars.next()),
            (Some(found), '"') => {
                if !is_value {
                    last = std::mem::take(found);
                }
                text = None;
            }
            (Some(found), c) => found.push(c),
            (None, '"') => text = Some(String::new()),
            (None, c) if !c.is_whitespace() => is_value = c == '=',
            _ => {}
        }
    }
    last
}

const LOG_PAGE: &str = "docs/reference/log-lines.md";

#[test]
fn the_table_of_log_lines_matches_the_program() {
    let rows = LOG_LINES.iter().map(|line| {
        let messages: Vec<String> = line.messages.iter().map(|message| format!("`{message}`")).collect();
        format!("| {} | {} | {} |", messages.join(", "), line.level, line.meaning)
    });
    let table: Vec<String> = ["| line | level | meaning, and what to do |", "|---|---|---|"]
        .map(String::from)
        .into_iter()
        .chain(rows)
        .collect();
    settle(LOG_PAGE, &with_table(&read(LOG_PAGE), "## Lines", &table));
}

/// Sources that `serve` does not use, except for `src/cli/serve.rs`.
const NOT_OF_THE_HANDLER: [&str; 4] = ["src/follow/", "src/mongo/", "src/local/", "src/cli/"];

/// The handler's sources by file, without unit tests.
fn sources_of_the_handler() -> Vec<(String, String)> {
    let is_of_it =
        |file: &str| file == "src/cli/serve.rs" || !NOT_OF_THE_HANDLER.iter().any(|folder| file.starts_with(folder));
    let files = files_of_kind("src", "rs").map(|file| file.display().to_string()).filter(|file| is_of_it(file));
    files
        .map(|file| {
            let text = read(&file);
            let code = text.split("#[cfg(test)]").next().unwrap();
            let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            (file, code.join("\n"))
        })
        .collect()
}

/// The log calls with their messages. Messages that start with a placeholder are skipped; the text they pass on is
/// found elsewhere.
fn logged(sources: &[(String, String)]) -> Vec<(String, &'static str, String)> {
    let mut found = Vec::new();
    for (file, code) in sources {
        for level in ["info", "warn", "error"] {
            for (at, _) in code.match_indices(&format!("{level}!(")) {
                let call = &code[at..];
                let message = message(&call[..call.find(");").unwrap_or(call.len())]);
                if !message.is_empty() && !message.starts_with('{') {
                    found.push((file.clone(), level, message));
                }
            }
        }
    }
    found
}

/// The beginning of a message, if the table abbreviates it.
fn beginning(message: &str) -> &str {
    message.trim_end_matches(" ...")
}

/// The table lists every message that `serve` may log, with its level, and no others.
#[test]
fn the_table_of_log_lines_matches_the_source() {
    let sources = sources_of_the_handler();
    let logged = logged(&sources);
    assert!(logged.len() > 20, "too few log calls were found: {logged:#?}");
    let is_of = |line: &LogLine, level: &str, message: &str| {
        line.level == level && line.messages.iter().any(|known| message.starts_with(beginning(known)))
    };
    let missing: Vec<_> =
        logged.iter().filter(|(_, level, message)| !LOG_LINES.iter().any(|line| is_of(line, level, message))).collect();
    assert!(missing.is_empty(), "src/telemetry/log_lines.rs lacks: {missing:#?}");

    let is_there = |line: &LogLine, known: &str| match line.words {
        Words::Own => logged.iter().any(|(_, level, message)| *level == line.level && message.starts_with(known)),
        Words::PassedOn => {
            sources.iter().any(|(file, code)| file.starts_with("src/host/") && code.contains(&format!("\"{known}")))
        }
        Words::Library => true,
    };
    let gone: Vec<&str> = LOG_LINES
        .iter()
        .flat_map(|line| line.messages.iter().map(move |known| (line, beginning(known))))
        .filter(|(line, known)| !is_there(line, known))
        .map(|(_, known)| known)
        .collect();
    assert!(gone.is_empty(), "nothing logs this any more, remove it from src/telemetry/log_lines.rs: {gone:#?}");
}
