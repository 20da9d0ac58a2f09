//! Errors of `load`.

use crate::{
    backup::{LoadError, file::FileError},
    causes::chain,
    cli::from_archive::damaged,
    console::CliError,
};

impl From<LoadError> for CliError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NoMoment => Self::usage(
                "--mode if-newer needs the moment of the backup, and without a trailer there is none",
                "leave one of the two flags out",
            ),
            LoadError::MomentAtEnd => Self::usage(
                "--mode if-newer needs the moment of the backup, which is at the end of the file",
                "save the input in a file and name that",
            ),
            LoadError::File { name, is_backup, problem } => {
                let hint = match &problem {
                    FileError::NoTrailer => {
                        "JSON that another program made is loaded with --no-trailer; a backup that was cut off is not whole"
                    }
                    FileError::Io(_)
                    | FileError::Format(_)
                    | FileError::LongLine(_)
                    | FileError::NotUtf8(_)
                    | FileError::Trailer
                    | FileError::AfterTrailer
                    | FileError::Count { .. }
                    | FileError::Checksum
                    | FileError::Time(_)
                    | FileError::Stopped => match is_backup {
                        true => {
                            "nothing was written; take another copy of the file, or what can be read of it with --no-trailer"
                        }
                        false => "nothing was written; take another copy of the file",
                    },
                };
                Self::failed(format!("{} {}", name.display(), chain(&problem))).hint(hint)
            }
            LoadError::Archive(damage) => damaged("--archive", &damage),
            LoadError::Open(failure) => failure.into(),
            LoadError::Stopped => Self::failed(error.to_string()),
        }
    }
}
