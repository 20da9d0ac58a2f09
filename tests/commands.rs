//! Commands that need no account: sizing, completions, manual pages.

use std::process::{Command, Output};

use clap::CommandFactory as _;
use cosmos_rewind::cli::Cli;
use serde_json::Value;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cosmos-rewind")).args(args).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_sizing_example_is_the_programs_output() {
    let document = std::fs::read_to_string("docs/deploy/sizing.md").unwrap();
    let start = document.find("$ cosmos-rewind cost ").expect("an example of cost");
    let example = document[start..].split("\n```").next().unwrap();
    let (line, printed) = example.split_once('\n').unwrap();
    let args: Vec<&str> = line.split_whitespace().skip(2).collect();
    let output = run(&args);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout).trim_end(), printed.trim_end());
    assert!(text(&output.stderr).contains("published charges"), "the output names the source of the rule");
}

#[test]
fn prices_must_be_complete_and_costs_without_them_are_null() {
    let plain = ["cost", "--docs-per-day", "86400", "--format", "json"];
    let figures: Value = serde_json::from_slice(&run(&plain).stdout).unwrap();
    assert_eq!((&figures["ru_per_version"], &figures["month_storage"]), (&8.14.into(), &Value::Null));
    let priced = [&plain[..], &["--price-ru", "0.008", "--price-gb", "0.25"]].concat();
    let figures: Value = serde_json::from_slice(&run(&priced).stdout).unwrap();
    assert_eq!(figures["month_throughput"], 23.36, "400 RU/s for 730 hours");
    for wrong in [
        &[&plain[..], &["--price-ru", "1"]].concat()[..],
        &[&plain[..], &["--fidelity", "2"]].concat(),
        &[&plain[..], &["--peak", "0.5"]].concat(),
        &[&plain[..], &["--size", "3000000"]].concat(),
        &["cost"],
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn every_shell_gets_a_script_that_knows_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}");
        for command in Cli::command().get_subcommands() {
            assert!(text(&output.stdout).contains(command.get_name()), "{shell}: {}", command.get_name());
        }
    }
    assert_eq!(run(&["completions", "csh"]).status.code(), Some(2));
}

#[cfg(unix)]
#[test]
fn bash_takes_the_script() {
    let script = run(&["completions", "bash"]).stdout;
    // Calls the function that the script registers, as a shell does.
    let asked = r#"f=$(complete -p cosmos-rewind | sed 's/.*-F \([^ ]*\).*/\1/')
COMP_WORDS=(cosmos-rewind new-); COMP_CWORD=1; $f cosmos-rewind new- cosmos-rewind; echo "${COMPREPLY[@]}""#;
    let line = format!("{}\n{asked}\n", text(&script));
    let output = Command::new("bash").args(["--norc", "-c", &line]).output().unwrap();
    assert_eq!(text(&output.stdout).trim(), "new-function", "{}", text(&output.stderr));
}

#[test]
fn there_is_a_manual_page_for_the_program_and_for_each_command() {
    let page = run(&["man"]).stdout;
    assert!(text(&page).contains(".TH COSMOS-REWIND 1") && text(&page).contains("restore"));
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["man", "--out", folder.path().join("man1").to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    for command in Cli::command().get_subcommands() {
        let name = format!("cosmos-rewind-{}", command.get_name());
        let page = std::fs::read_to_string(folder.path().join("man1").join(format!("{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH {} 1", name.to_uppercase())), "{name}");
        assert!(page.contains("SYNOPSIS") && page.contains("OPTIONS"), "{name}");
    }
    let refused = run(&["man", "--out", "/dev/null/man"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("hint: name a folder"), "{refused:?}");
}
