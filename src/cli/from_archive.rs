//! The flag with which `load` and `restore` take an archive of `follow`.

use crate::{
    archive::{Archive, Damage, HOW, Problem},
    causes::chain,
    config::Credential,
    console::CliError,
};

/// The flag that names an archive.
pub(super) const FROM: &str = "--from-archive";

/// Opens the archive that a flag names.
pub(super) fn open_archive(flag: &str, text: &str, credential: &Credential) -> Result<Archive, CliError> {
    Archive::open(text, credential)
        .map_err(|problem| CliError::usage(format!("{flag} {}", chain(&problem)), format!("write {flag} {HOW}")))
}

/// An archive that cannot be used; nothing was written yet.
pub(super) fn damaged(flag: &str, damage: &Damage) -> CliError {
    let what = format!("{flag}: {}", chain(damage));
    if matches!(damage.problem, Problem::Nothing) {
        let fix = "name the folder, or container and prefix, that follow wrote to";
        return CliError::usage(what, fix);
    }
    // The store, and not a part of what is in it.
    if let Problem::Blob(error) = &damage.problem {
        return CliError::failed(what).hint(match error.is_transient() {
            true => "nothing was written; look at the address and the network, then run the command again",
            false => "nothing was written; see that the container is there, and that you may list and read it",
        });
    }
    let hint = match &damage.problem {
        Problem::NoTime => Some(
            "nothing was written: an account with request units (RU) tells no times of its changes; a history \
             (follow --sink changes) has those of their capture, and restores them",
        ),
        Problem::MixedUp(_) => Some(
            "nothing was written: follow one collection into an archive of its own, or put the documents of one back \
             with restore --from-archive --source mongodb://HOST/ --database NAME --collection NAME",
        ),
        // Not the archive, but a copy of what is needed of it.
        Problem::Make(_) | Problem::Write(_) => {
            Some("nothing was written: make room for temporary files, or name another folder for them with TMPDIR")
        }
        _ => None,
    };
    if let Some(hint) = hint {
        return CliError::failed(what).hint(hint);
    }
    CliError::failed(what).hint(
        "nothing was written: the newest version of a document may be what is missing; take another copy of it, \
         or move away files that do not belong to the archive",
    )
}
