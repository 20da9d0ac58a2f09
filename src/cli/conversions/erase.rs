//! Errors of `erase`.

use std::io;

use crate::{
    archive::{Damage, Problem},
    causes::chain,
    cli::query::wrong_key,
    console::{CliError, words::pk_flag},
    erase::EraseError,
};

/// What to do about an archive from which nothing could be erased.
fn next_step(damage: &Damage) -> &'static str {
    match &damage.problem {
        Problem::Blob(error) if error.is_transient() => {
            "look at the address and the network, then run the command again: it continues where it stopped"
        }
        Problem::Blob(_) => {
            "see that the container is there, and that you may list, read, write and delete in it, then run the command again"
        }
        Problem::KeepsChanging => "others erase from it at the same time",
        _ => {
            "it cannot be read, so it may name the document; move away files that do not belong to the archive, and run the command again"
        }
    }
}

impl From<EraseError> for CliError {
    fn from(error: EraseError) -> Self {
        let message = error.to_string();
        match error {
            EraseError::Cosmos(failure) => failure.into(),
            EraseError::Key { key, container, paths } => wrong_key(&key, &container, &paths),
            EraseError::OtherKey { expected, .. } => {
                Self::usage(message, format!("if this is the document, name its key: {}", pk_flag(&expected)))
            }
            EraseError::HistoryKeys { .. } => Self::usage(
                message,
                "erase needs a history keyed by paths of the source's key, /_originalId or /id, as provision makes it",
            ),
            EraseError::DeadLetters(e) => {
                Self::letters(&e, |message| Self::failed(message).hint("check REWIND_DEAD_LETTERS"))
            }
            EraseError::Journals { error, .. } => {
                let hint = match error.kind() {
                    io::ErrorKind::ResourceBusy => "its restore is running: run the command again when that has ended",
                    _ => "--journal names their folder",
                };
                Self::failed(message).because(error).hint(hint)
            }
            EraseError::Archive(damage) => {
                Self::failed(format!("--archive: {}", chain(&damage))).hint(next_step(&damage))
            }
            EraseError::Delete { .. } | EraseError::Interrupted => Self::failed(message)
                .leaving("what was erased before stays erased")
                .hint("run the command again when that is fixed: it continues where it stopped"),
        }
    }
}
