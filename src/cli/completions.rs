//! `completions`: a script that completes commands and flags in a shell.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use crate::console::{CliError, Exit, Ui};

/// Flags of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind completions bash > ~/.local/share/bash-completion/completions/cosmos-rewind
  cosmos-rewind completions zsh > ~/.zfunc/_cosmos-rewind
  cosmos-rewind completions fish > ~/.config/fish/completions/cosmos-rewind.fish")]
pub struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// When stdout cannot be written.
pub async fn run(args: CompletionsArgs, ui: &Ui) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cosmos-rewind", &mut script);
    ui.text(&script)?;
    Ok(Exit::Done)
}
