//! The command line: one file per command. All output goes through `console::Ui`.

mod applying;
#[cfg(feature = "local")]
mod at;
mod backfill;
mod backup;
mod completions;
mod connection;
mod conversions;
mod cost;
mod coverage;
#[cfg(feature = "local")]
mod demo;
mod diff;
mod diff_fork;
mod doctor;
mod erase;
mod files;
mod find;
mod find_args;
mod follow;
mod follow_args;
mod from_archive;
mod history;
mod history_args;
mod load;
#[cfg(feature = "local")]
mod local;
mod lookup;
mod man;
mod mongo_source;
mod new_function;
mod opened;
mod populate;
mod provision;
mod prune;
mod query;
mod replay;
mod restore;
mod restore_args;
mod retention_args;
mod revert;
mod revert_args;
mod selection;
mod serve;
mod show;
mod sinks;
mod status;
mod together;
mod truncate;
mod undo;
mod verify;

use std::num::IntErrorKind;

use clap::{
    Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind as ClapKind},
};

pub use connection::ConnectionArgs;

use crate::console::{Exit, Ui};

/// A time machine for Azure Cosmos DB: captures every document version, restores exactly the documents you name
#[derive(Debug, Parser)]
#[command(name = "cosmos-rewind", version, about, max_term_width = 110, propagate_version = true)]
pub struct Cli {
    /// The command to run
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// How many worker threads the command wants; `None` means one per core.
    ///
    /// The handler waits for Cosmos most of its time. One thread stores more than any container takes, and costs a
    /// third less memory and a tenth less CPU than two (docs/performance.md). `TOKIO_WORKER_THREADS` overrides it.
    pub fn worker_threads(&self) -> Option<usize> {
        let one = matches!(self.command, Command::Serve(_)) && std::env::var_os("TOKIO_WORKER_THREADS").is_none();
        one.then_some(1)
    }
}

/// The commands, in the order in which a person meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the change feed handler; this is what host.json starts
    Serve(serve::ServeArgs),
    /// Start an embedded Cosmos and the trigger on this machine, for development
    #[cfg(feature = "local")]
    Local(local::LocalArgs),
    /// Run the whole story on this machine and prove that nothing is lost or doubled
    #[cfg(feature = "local")]
    Demo(demo::DemoArgs),
    /// Create the database and its containers, or check those that exist
    Provision(provision::ProvisionArgs),
    /// Write generated zip-code documents, or documents from a file, into the source container
    Populate(populate::PopulateArgs),
    /// Delete all documents of a container
    Truncate(truncate::TruncateArgs),
    /// Run SQL against the source or the changes container
    Query(query::QueryArgs),
    /// Show the versions of a document, or all versions that match a predicate
    History(history::HistoryArgs),
    /// Show a document as it was at a moment
    Show(show::ShowArgs),
    /// Show the fields of a document that differ between two moments, or between one and now
    Diff(diff::DiffArgs),
    /// Find the writes that made a condition true: what broke the documents, and when
    Find(find::FindArgs),
    /// Start an account that shows the documents as they were at a moment, for any SDK and tool
    #[cfg(feature = "local")]
    At(at::AtArgs),
    /// Put documents back to what they were at a moment: planned, shown, saved first, reversible
    Restore(restore::RestoreArgs),
    /// Take back what some writes changed, field by field, and keep what all others changed
    Revert(revert::RevertArgs),
    /// Take a restore or a revert back
    Undo(undo::UndoArgs),
    /// Write documents to a file: the live ones, or those of a moment
    Backup(backup::BackupArgs),
    /// Load the documents of a backup into the source container
    Load(load::LoadArgs),
    /// Save the documents that existed before capture, as the baseline of their histories
    Backfill(backfill::BackfillArgs),
    /// Prove that the history has everything that is live, and that nothing is missing in between
    Verify(verify::VerifyArgs),
    /// Remove old versions, and keep a window of the history
    Prune(prune::PruneArgs),
    /// Show how far capture is, who works on the leases, and how far back documents can be restored
    Status(status::StatusArgs),
    /// Show which days the history covers, and how well
    Coverage(coverage::CoverageArgs),
    /// Erase every trace of one document, and prove it
    Erase(erase::EraseArgs),
    /// Capture without the Functions host: read the change feed and pass it on to one or several sinks
    Follow(follow::FollowArgs),
    /// List dead letters, and capture them again when their cause is fixed
    Replay(replay::ReplayArgs),
    /// Check settings, files, account and permissions, and say what to do
    Doctor(doctor::DoctorArgs),
    /// Add a function that captures another container
    NewFunction(new_function::NewFunctionArgs),
    /// Calculate the request units, throughput and storage that capture will need
    Cost(cost::CostArgs),
    /// Print a script that completes commands and flags in a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(man::ManArgs),
}

/// A command line that was not understood, with a guess at what was meant: a value that begins with a hyphen was taken
/// for a flag. Such values are not accepted, because then a forgotten value would swallow the next flag.
pub fn explained(mut error: clap::Error) -> clap::Error {
    let arguments: Vec<String> = std::env::args_os().map(|text| text.to_string_lossy().into_owned()).collect();
    let is_flag = |text: &str| text.starts_with("--") && text.len() > 2 && !text.contains('=');
    let is_value = |text: &str| text.starts_with('-') && text.len() > 1 && !text.starts_with("--");
    let flag = arguments.windows(2).find(|two| is_flag(&two[0]) && is_value(&two[1])).map(|two| &two[0]);
    if let (Some(flag), ClapKind::UnknownArgument | ClapKind::InvalidValue) = (flag, error.kind()) {
        let tip = format!("a value that begins with a hyphen stands behind an equals sign: {flag}='-...'");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidValue, ContextKind::InvalidSubcommand] {
        if let Some(ContextValue::String(text)) = error.get(kind)
            && let Some(text) = without_secret(text)
        {
            error.insert(kind, ContextValue::String(text));
        }
    }
    // The parser's own wording is for programmers.
    let number = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<std::num::ParseIntError>());
    if let Some(cause) = number {
        let tip = match cause.kind() {
            IntErrorKind::PosOverflow => "that is more than this flag takes",
            _ => "write a whole number in digits, such as 100",
        };
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// The beginning of a word that may hold a password, a signature or a key; `None` when it holds none.
fn without_secret(text: &str) -> Option<String> {
    let holds_one = text.contains("://") && (text.contains('@') || text.contains("sig="));
    let key = text.to_ascii_lowercase().find("accountkey=");
    match (holds_one, key) {
        (true, _) => text.split_once("://").map(|(scheme, _)| format!("{scheme}://...")),
        (false, Some(at)) => text.get(..at).map(|before| format!("{before}AccountKey=...")),
        (false, None) => None,
    }
}

/// Runs one command and reports how it ended; errors and hints go to standard error.
pub async fn run(cli: Cli, ui: &Ui) -> Exit {
    let result = match cli.command {
        Command::Serve(args) => serve::run(args).await,
        #[cfg(feature = "local")]
        Command::Local(args) => local::run(args, ui).await,
        #[cfg(feature = "local")]
        Command::Demo(args) => demo::run(args, ui).await,
        Command::Provision(args) => provision::run(args, ui).await,
        Command::Populate(args) => populate::run(args, ui).await,
        Command::Truncate(args) => truncate::run(args, ui).await,
        Command::Query(args) => query::run(args, ui).await,
        Command::History(args) => history::run(args, ui).await,
        Command::Show(args) => show::run(args, ui).await,
        Command::Diff(args) => diff::run(args, ui).await,
        Command::Find(args) => find::run(args, ui).await,
        #[cfg(feature = "local")]
        Command::At(args) => at::run(args, ui).await,
        Command::Restore(args) => restore::run(args, ui).await,
        Command::Revert(args) => revert::run(args, ui).await,
        Command::Undo(args) => undo::run(args, ui).await,
        Command::Backup(args) => backup::run(args, ui).await,
        Command::Load(args) => load::run(args, ui).await,
        Command::Backfill(args) => backfill::run(args, ui).await,
        Command::Verify(args) => verify::run(args, ui).await,
        Command::Prune(args) => prune::run(args, ui).await,
        Command::Status(args) => status::run(args, ui).await,
        Command::Coverage(args) => coverage::run(args, ui).await,
        Command::Erase(args) => erase::run(args, ui).await,
        Command::Follow(args) => follow::run(args, ui).await,
        Command::Replay(args) => replay::run(args, ui).await,
        Command::Doctor(args) => doctor::run(args, ui).await,
        Command::NewFunction(args) => new_function::run(args, ui).await,
        Command::Cost(args) => cost::run(args, ui).await,
        Command::Completions(args) => completions::run(args, ui).await,
        Command::Man(args) => man::run(args, ui).await,
    };
    result.unwrap_or_else(|error| {
        ui.error(&error);
        error.kind.exit()
    })
}
