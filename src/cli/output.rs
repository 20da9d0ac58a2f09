//! Where data, progress and errors are printed: data on stdout, everything else on stderr.

use super::CliError;

/// Prints an error and its hint on stderr.
pub fn error(error: &CliError) {
    eprintln!("error: {error}");
    if let Some(hint) = &error.hint {
        eprintln!("hint: {hint}");
    }
}
