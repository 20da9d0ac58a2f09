//! The documents say what the program does: flags, settings, commands.

use clap::CommandFactory as _;
use cosmos_rewind::{cli::Cli, config::SETTINGS};

/// The section of a document below a heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no section {heading:?}"));
    let rest = &text[start + heading.len() + 2..];
    &rest[..rest.find("\n### ").unwrap_or(rest.len())]
}

#[test]
fn every_flag_of_every_command_is_in_the_command_document() {
    let text = std::fs::read_to_string("docs/cli.md").unwrap();
    let common = section(&text, "## What holds for all commands");
    for command in Cli::command().get_subcommands() {
        let own = section(&text, &format!("### {}", command.get_name()));
        for argument in command.get_arguments() {
            let Some(flag) = argument.get_long() else { continue };
            if ["help", "version"].contains(&flag) {
                continue;
            }
            let flag = format!("`--{flag}");
            assert!(own.contains(&flag) || common.contains(&flag), "docs/cli.md: {} {flag}`", command.get_name());
        }
    }
}

#[test]
fn the_settings_table_is_the_programs_own() {
    let text = std::fs::read_to_string("docs/operations.md").unwrap();
    for setting in SETTINGS {
        let line = format!("| `{}` | {} | {} |", setting.name, setting.default, setting.meaning).replace("|  |", "| |");
        assert!(text.contains(&line), "docs/operations.md lacks: {line}");
    }
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let pages = ["cli", "operations", "architecture", "history-format", "local", "performance", "reliability"];
    let pages = pages.map(|page| format!("docs/{page}.md"));
    for file in ["README.md", "fuzz/README.md"].into_iter().chain(pages.iter().map(String::as_str)) {
        let text = std::fs::read_to_string(file).unwrap();
        let folder = std::path::Path::new(file).parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.starts_with("http") && !link.starts_with('#') {
                let page = link.split('#').next().unwrap_or_default();
                assert!(folder.join(page).exists(), "{file}: {link}");
            }
        }
    }
}
