//! Where an archive lies.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    blob::{BlobContainer, BlobError},
    config::{BlobUrl, ConfigError, Credential, DeadLetterLocation, without_secrets},
};

/// Where an archive lies.
#[derive(Clone)]
pub enum Archive {
    /// A folder on this machine, with its subfolders.
    Folder(PathBuf),
    /// Blobs below a prefix.
    Blobs(Arc<BlobContainer>, String),
}

/// Why an archive cannot be opened: what was given, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{shown}")]
pub struct NoArchive {
    /// The given location, without a signature.
    shown: String,
    #[source]
    problem: NotThere,
}

/// Why a place holds no archive.
#[derive(Debug, thiserror::Error)]
enum NotThere {
    #[error("a URL begins with blob:")]
    NoPrefix,
    #[error("it is a file; name the folder that it is in")]
    AFile,
    #[error(transparent)]
    Folder(io::Error),
    #[error("it is not a URL")]
    NotAUrl,
    /// The setting's name means nothing here: only the problem is told.
    #[error("{}", .0.problem)]
    Url(ConfigError),
    #[error(transparent)]
    Blob(BlobError),
}

/// How an archive is named on a command line.
pub const HOW: &str = "FOLDER, or blob:https://<account>.blob.core.windows.net/<container>/<prefix>";

impl std::fmt::Display for Archive {
    /// The location, without a signature.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Blobs(store, folder) => write!(f, "blob:{}/{folder}", store.shown().trim_end_matches('/')),
        }
    }
}

impl Archive {
    /// Parses a location from the command line; contacts nobody.
    ///
    /// # Errors
    /// When there is no such folder, or the URL is malformed.
    pub fn open(text: &str, credential: &Credential) -> Result<Self, NoArchive> {
        let shown = without_secrets(text);
        let wrong = |problem| NoArchive { shown: shown.clone(), problem };
        let Some(url) = text.strip_prefix("blob:") else {
            if text.contains("://") {
                return Err(wrong(NotThere::NoPrefix));
            }
            return match fs::metadata(text) {
                Ok(kind) if kind.is_dir() => Ok(Self::Folder(text.into())),
                Ok(_) => Err(wrong(NotThere::AFile)),
                Err(e) => Err(wrong(NotThere::Folder(e))),
            };
        };
        let url: BlobUrl = match DeadLetterLocation::parse("the archive", url, Path::new("")) {
            Ok(DeadLetterLocation::Blob(url)) => url,
            Ok(DeadLetterLocation::Directory(_)) => return Err(wrong(NotThere::NotAUrl)),
            Err(e) => return Err(wrong(NotThere::Url(e))),
        };
        let (container, folder) = url.split();
        let store = BlobContainer::open(&container, credential).map_err(|e| wrong(NotThere::Blob(e)))?;
        Ok(Self::Blobs(Arc::new(store), folder))
    }

    /// The prefix that the names of all its files share.
    pub(super) fn root(&self) -> String {
        match self {
            Self::Folder(path) => format!("{}/", path.to_string_lossy().trim_end_matches('/')),
            Self::Blobs(_, folder) if folder.is_empty() => String::new(),
            Self::Blobs(_, folder) => format!("{folder}/"),
        }
    }
}
