//! The documents match the program, their links lead somewhere, and their pages stay short.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::CommandFactory as _;
use cosmos_rewind::{change::time::PointInTime, cli::Cli, config::SETTINGS};

use crate::support::files_of_kind;

/// The documents outside the book.
const BESIDE: [&str; 4] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// Every page below docs/, SUMMARY.md included.
fn pages() -> Vec<PathBuf> {
    let pages: Vec<_> = files_of_kind("docs", "md").collect();
    assert!(pages.len() > 50, "{pages:?}");
    pages
}

/// All pages, and the documents outside the book.
fn documents() -> Vec<PathBuf> {
    pages().into_iter().chain(BESIDE.map(PathBuf::from)).collect()
}

/// The lines outside code blocks with their numbers; a fence counts as an empty line.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            lines.push((index + 1, ""));
        } else if !in_code {
            lines.push((index + 1, line));
        }
    }
    lines
}

/// The targets of a document's links. Code that looks like a link is ignored.
fn links(text: &str) -> Vec<String> {
    let mut plain = String::new();
    for (_, line) in prose(text) {
        plain.extend(line.split('`').step_by(2));
        plain.push('\n');
    }
    plain.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

/// The anchor of a heading, as GitHub and mdBook generate it.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    prose(text).into_iter().filter(|(_, line)| line.starts_with('#')).map(|(_, line)| anchor(line)).collect()
}

/// Whether a line belongs to a paragraph, not to a heading, table, list, quotation or comment.
fn is_of_a_paragraph(line: &str) -> bool {
    let is_numbered = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    !line.is_empty() && !line.starts_with(['|', '#', '<', '>', ' ']) && !line.starts_with("- ") && !is_numbered
}

/// The section under a heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no section {heading:?}"));
    let rest = &text[start + heading.len() + 2..];
    &rest[..rest.find("\n### ").unwrap_or(rest.len())]
}

#[test]
fn every_flag_of_every_command_is_in_the_flag_pages() {
    let pages = ["flags", "flags-setup", "flags-restore", "flags-operate"];
    let text = pages.map(|page| read(format!("docs/reference/{page}.md"))).concat();
    let common = section(&text, "## Common flags");
    for command in Cli::command().get_subcommands() {
        let own = section(&text, &format!("### {}", command.get_name()));
        for argument in command.get_arguments() {
            let Some(flag) = argument.get_long() else { continue };
            if ["help", "version"].contains(&flag) {
                continue;
            }
            let flag = format!("`--{flag}");
            let is_there = own.contains(&flag) || common.contains(&flag);
            assert!(is_there, "docs/reference/flags*.md: {} {flag}`", command.get_name());
        }
    }
}

#[test]
fn every_command_is_on_the_page_of_commands() {
    let text = read("docs/reference/commands.md");
    for command in Cli::command().get_subcommands() {
        assert!(text.contains(&format!("\n| `{}` |", command.get_name())), "{}", command.get_name());
    }
}

#[test]
fn the_settings_table_matches_the_program() {
    let text = read("docs/reference/settings.md");
    for setting in SETTINGS {
        let line = format!("| `{}` | {} | {} |", setting.name, setting.default, setting.meaning).replace("|  |", "| |");
        assert!(text.contains(&line), "docs/reference/settings.md lacks: {line}");
    }
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    for file in documents().into_iter().chain([PathBuf::from("fuzz/README.md")]) {
        for link in links(&read(&file)) {
            if link.starts_with("http") {
                continue;
            }
            let (page, section) = link.split_once('#').unwrap_or((link.as_str(), ""));
            let target = if page.is_empty() { file.clone() } else { file.parent().unwrap().join(page) };
            assert!(target.exists(), "{}: {link}", file.display());
            let has_section = section.is_empty() || anchors(&read(&target)).contains(section);
            assert!(has_section, "{}: {link} names no section", file.display());
        }
    }
}

#[test]
fn every_page_is_in_the_summary_and_the_summary_names_no_other() {
    let listed = links(&read("docs/SUMMARY.md"));
    let named: BTreeSet<PathBuf> = listed.iter().map(|link| Path::new("docs").join(link)).collect();
    assert_eq!(named.len(), listed.len(), "a page is listed twice");
    let there: BTreeSet<PathBuf> = pages().into_iter().filter(|page| !page.ends_with("SUMMARY.md")).collect();
    assert_eq!(named, there, "named in the summary (left) and existing (right)");
}

#[test]
fn every_page_has_fewer_than_250_lines_and_the_readme_fewer_than_200() {
    for page in pages() {
        let lines = read(&page).lines().count();
        assert!(lines < 250, "{} has {lines} lines", page.display());
    }
    let lines = read("README.md").lines().count();
    assert!(lines < 200, "README.md has {lines} lines");
}

#[test]
fn lines_outside_tables_code_and_links_have_at_most_100_columns() {
    for file in documents() {
        for (number, line) in prose(&read(&file)) {
            let is_free = line.starts_with('|') || line.contains("](") || line.contains("http");
            assert!(is_free || line.chars().count() <= 100, "{}:{number}: {line}", file.display());
        }
    }
}

#[test]
fn no_paragraph_outside_lists_tables_and_code_has_more_than_eighty_words() {
    for file in documents() {
        let mut words = 0;
        for (number, line) in prose(&read(&file)) {
            words = if is_of_a_paragraph(line) { words + line.split_whitespace().count() } else { 0 };
            assert!(words <= 80, "{}:{number}: a paragraph has more than 80 words", file.display());
        }
    }
}

/// The values of a flag in examples, without quotes. Placeholders are in capitals and ignored.
fn values_of<'t>(text: &'t str, flag: &'t str) -> impl Iterator<Item = &'t str> {
    let lines = text.lines().filter(|line| line.contains("cosmos-rewind "));
    lines.flat_map(move |line| line.split(flag).skip(1)).filter_map(|rest| {
        let quote = rest.chars().next().filter(|c| ['\'', '"'].contains(c));
        match quote {
            Some(quote) => rest[1..].split(quote).next(),
            None => rest.split([' ', '`', '|', ',', ')', '&']).next(),
        }
    })
}

#[test]
fn the_times_of_examples_are_times_that_the_program_reads() {
    let helps = Cli::command()
        .get_subcommands()
        .filter_map(|one| one.get_after_help().map(ToString::to_string))
        .collect::<Vec<_>>();
    let texts = documents().iter().map(read).chain(helps).collect::<Vec<_>>();
    let now = "2099-01-01T23:59:59Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let mut looked_at = 0;
    for text in &texts {
        for value in ["--at ", "--from ", "--to "].into_iter().flat_map(|flag| values_of(text, flag)) {
            let is_name = value.chars().all(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit());
            if is_name || ["live", "beginning", "big-bang"].contains(&value) {
                continue;
            }
            looked_at += 1;
            assert!(PointInTime::parse(value, &now).is_ok(), "{value:?} is not a time");
        }
    }
    assert!(looked_at > 20, "{looked_at}");
}
