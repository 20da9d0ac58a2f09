//! `man`: manual pages, one for the program and one for each command.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};

use super::Cli;
use crate::{
    console::{CliError, Exit, Ui},
    figures::count_of,
};

/// Flags of `man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind man | man -l -
  cosmos-rewind man --out ~/.local/share/man/man1 && man cosmos-rewind-restore")]
pub struct ManArgs {
    /// Write a page for the program and one for each command into this folder, which is created [default: the program's
    /// page, on stdout]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When stdout or the folder cannot be written.
pub async fn run(args: ManArgs, ui: &Ui) -> Result<Exit, CliError> {
    let mut program = Cli::command();
    // Gives every command its full name and the common flags.
    program.build();
    let Some(folder) = &args.out else {
        ui.text(&page(&program, "cosmos-rewind")?)?;
        return Ok(Exit::Done);
    };
    let failed = |path: &Path, e: std::io::Error| {
        let error = CliError::failed(format!("cannot write {}", path.display())).because(e);
        error.hint("name a folder that you may write to and that has room")
    };
    std::fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
    let mut written = 0;
    let commands = program.get_subcommands().filter(|command| command.get_name() != "help");
    for (command, name) in std::iter::once((&program, "cosmos-rewind".to_owned()))
        .chain(commands.map(|command| (command, format!("cosmos-rewind-{}", command.get_name()))))
    {
        let path = folder.join(format!("{name}.1"));
        std::fs::write(&path, page(command, &name)?).map_err(|e| failed(&path, e))?;
        written += 1;
    }
    ui.note(&format!("{} in {}", count_of(written, "page"), folder.display()));
    Ok(Exit::Done)
}

fn page(command: &clap::Command, title: &str) -> Result<Vec<u8>, CliError> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(title.to_uppercase())
        .render(&mut text)
        .map_err(|e| CliError::failed(format!("cannot make the page {title}")).because(e))?;
    Ok(text)
}
