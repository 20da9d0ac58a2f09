//! Errors of `follow`.

use crate::{
    causes::chain,
    console::{CliError, ErrorKind, room},
    cosmos::Disposition,
    follow::{
        CheckpointError, CheckpointFileError, FollowError,
        sink::{Busy, Refused, SinkError},
    },
};

impl From<FollowError> for CliError {
    fn from(error: FollowError) -> Self {
        match error {
            // The reader of the output has seen enough, as with `| head`.
            FollowError::Sink(SinkError::Closed) => ErrorKind::Unread.into(),
            FollowError::Sink(SinkError::Refused(why)) => {
                let full = match &why {
                    Refused::File { error, .. } | Refused::Stdout(error) => room(error),
                    _ => None,
                };
                Self::failed(chain(&why)).hint_of(full.or_else(|| why.hint()))
            }
            FollowError::Sink(SinkError::Busy(why)) => {
                let full = match &why {
                    Busy::File { error, .. } => room(error),
                    _ => None,
                };
                Self::failed(chain(&why)).hint_of(full)
            }
            FollowError::Filter(e) => Self::usage(
                e.to_string(),
                "functions are those of CEL, such as size, startsWith and matches, and changed(\"/path\")",
            ),
            FollowError::NoPrevious => Self::usage(
                "--filter asks for the document before, which the latest-version feed does not have",
                "use --mode all-versions, or leave previous and changed() out",
            ),
            FollowError::OneCollection => Self::usage(
                "--sink changes: a history is of one collection, and the whole database or deployment is followed",
                "name one with --database and --collection, or pass the changes on to stdout, file:PATH or blob:URL",
            ),
            FollowError::OtherSource { ref checkpoint, .. } => {
                let fix = format!(
                    "give this container a history of its own (--changes); if that follower is no longer used, delete the item {checkpoint} of the lease container"
                );
                Self::usage(error.to_string(), fix)
            }
            FollowError::OtherCollection { other, own } => Self::usage(
                format!("--sink changes: the history is of {other}, not of {own}"),
                "give each collection a history of its own: --changes NAME, made by provision",
            ),
            FollowError::NoRedactKey => Self::usage(
                "--redact /path=hash needs a key: without one, a hash is undone by trying all values",
                "set REWIND_REDACT_KEY to a secret text, or drop the field with --redact /path",
            ),
            FollowError::Redact(problem) => {
                Self::usage("--redact", "name a field of the document's content").because(problem)
            }
            FollowError::DeadLetters(e) => Self::letters(&e, |message| {
                Self::usage(message, "check --dead-letters, or REWIND_DEAD_LETTERS")
            }),
            FollowError::Blob { container, error } => {
                Self::usage(format!("--sink blob:{container}"), "check the URL").because(error)
            }
            FollowError::Source(f) if f.disposition == Disposition::Poison => Self::from(f).hint(
                "a checkpoint may be older than what the feed still has: another --name (or --checkpoint-file) starts again, \
                 without what was lost",
            ),
            FollowError::Open(f) | FollowError::Source(f) | FollowError::Store(CheckpointError::Service(f)) => f.into(),
            FollowError::Store(e @ (CheckpointError::Foreign { .. } | CheckpointError::Document { .. })) => Self::usage(
                chain(&e),
                "give another --name (or --checkpoint-file), or the flags that it was started with",
            ),
            FollowError::Store(CheckpointError::File { path, problem }) => {
                let hint = match &problem {
                    CheckpointFileError::NoName | CheckpointFileError::NotACheckpoint(_) => None,
                    CheckpointFileError::Lock(e) | CheckpointFileError::Disk(e) => {
                        Some(room(e).unwrap_or("name a file in a folder that is there, which may be read and written"))
                    }
                };
                let message = chain(&CheckpointError::File { path, problem });
                match hint {
                    None => Self::usage(
                        message,
                        "put a copy of the file back, or name another --checkpoint-file, which begins where --from says",
                    ),
                    Some(hint) => Self::failed(message).hint(hint),
                }
            }
            e @ FollowError::Range(_) => Self::usage(
                chain(&e),
                "put a copy of the checkpoint back, or give another --name (or --checkpoint-file), which begins where --from \
                 says",
            ),
            e @ (FollowError::Store(CheckpointError::Lost | CheckpointError::Expired)
            | FollowError::Interrupted
            | FollowError::Reader(_)) => Self::failed(chain(&e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_sink_for_which_there_is_no_room_asks_for_room() {
        let file = |error| Refused::File { path: "a.jsonl".into(), error }.into();
        let busy = |error| Busy::File { path: "a.jsonl".into(), error }.into();
        let refused: [&dyn Fn(io::Error) -> SinkError; 3] = [&file, &busy, &|error| Refused::Stdout(error).into()];
        for make in refused {
            let hints = |kind: io::ErrorKind| {
                let error = CliError::from(FollowError::Sink(make(kind.into())));
                error.hints.iter().map(ToString::to_string).collect::<String>()
            };
            assert!(hints(io::ErrorKind::StorageFull).contains("make room"));
            assert!(!hints(io::ErrorKind::PermissionDenied).contains("make room"));
        }
    }

    #[test]
    fn a_checkpoint_for_which_there_is_no_room_asks_for_room() {
        let of = |kind: io::ErrorKind| {
            let problem = CheckpointFileError::Disk(kind.into());
            CliError::from(FollowError::Store(CheckpointError::File { path: "c.json".into(), problem })).hints[0]
                .to_string()
        };
        let (full, forbidden) = (of(io::ErrorKind::StorageFull), of(io::ErrorKind::PermissionDenied));
        assert!(full.contains("make room"), "{full}");
        assert!(forbidden.contains("a folder that is there"), "{forbidden}");
    }
}
