//! Records that can never be stored as they are: kept with their reason, listed, and replayed when the cause is fixed.
//!
//! A letter holds the payload item exactly as it was delivered. Its name is derived from that text, so the same
//! poison delivered twice is one letter.

mod directory;

pub(crate) use directory::replace_file;

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    blob::{BlobContainer, BlobError},
    change::{Via, fidelity::Delivery, record::hex},
    config::{Credential, DeadLetterLocation},
};

/// A payload item that could not be captured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Version of this format.
    pub v: u32,
    /// When it was put away, RFC 3339.
    pub at: String,
    /// The function that received it.
    pub function: String,
    /// The host's invocation id.
    pub invocation: String,
    /// The document's id, if one could be read.
    pub id: Option<String>,
    /// The service's status, or `-` when it was refused before it was sent.
    pub status: String,
    /// Why it could not be stored.
    pub reason: String,
    /// The text of `_change.partial`, when fields of the item were left out or hashed before it came here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
    /// How the item arrived, which determines what may have been altered in it. Letters of earlier releases do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// Database and container that it is a change of. Letters of earlier releases do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The entrance it came through. Letters of earlier releases do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// The item as delivered.
    pub item: Box<RawValue>,
}

impl DeadLetter {
    /// The name in the store: function, then a digest of the item.
    pub fn name(&self) -> String {
        let digest = Sha256::digest(self.item.get().as_bytes());
        format!("{}-{}.json", self.function, hex(&digest[..16]))
    }
}

/// A dead-letter store that failed: what was tried and where; the source says why.
#[derive(Debug, thiserror::Error)]
#[error("{action} dead letter in {location}")]
pub struct DeadLetterError {
    action: &'static str,
    location: String,
    #[source]
    cause: StoreError,
}

impl DeadLetterError {
    /// Why it failed.
    pub fn cause(&self) -> &StoreError {
        &self.cause
    }

    /// Whether there is no such letter (any more): whoever replayed it has removed it.
    pub fn is_gone(&self) -> bool {
        match &self.cause {
            StoreError::Blob(BlobError::NotThere) => true,
            StoreError::Directory(e) => e.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Why a dead-letter store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The blob container failed or refused.
    #[error(transparent)]
    Blob(BlobError),
    /// The directory could not be read or written.
    #[error(transparent)]
    Directory(io::Error),
    /// Something else is in its place.
    #[error("is not a dead letter")]
    NotALetter(#[source] serde_json::Error),
}

/// Where dead letters are kept.
///
/// Contract: `put` is `Ok` only when the letter is durable, and putting it again is harmless. `delete` of a letter
/// that is gone is `Ok`. One suite of tests runs over every kind.
#[derive(Debug)]
pub enum DeadLetterStore {
    /// A directory on this machine.
    Directory(directory::Directory),
    /// A blob container.
    Blob(BlobContainer),
}

impl DeadLetterStore {
    /// Opens a store; contacts nobody. A blob URL without a signature uses `credential`'s identity.
    ///
    /// # Errors
    /// When a blob client cannot be made for the URL.
    pub fn open(location: &DeadLetterLocation, credential: &Credential) -> Result<Self, DeadLetterError> {
        Ok(match location {
            DeadLetterLocation::Directory(path) => Self::Directory(directory::Directory::new(path.clone())),
            DeadLetterLocation::Blob(url) => Self::Blob(BlobContainer::open(url, credential).map_err(|e| {
                DeadLetterError { action: "open", location: url.to_string(), cause: StoreError::Blob(e) }
            })?),
        })
    }

    /// Checks whether letters can be put away, without leaving one.
    ///
    /// # Errors
    /// When the directory is something else, or cannot be created or written to; when the blob container does not
    /// exist, refuses writes, or does not answer.
    pub async fn check(&self) -> Result<(), DeadLetterError> {
        match self {
            Self::Directory(store) => store.check().await,
            Self::Blob(store) => store.probe().await.map_err(failed("look at", store)),
        }
    }

    /// Whether a refusal is final. A role that was just assigned to an identity takes minutes to take effect.
    pub fn is_final(&self, refusal: &DeadLetterError) -> bool {
        match (self, refusal.cause()) {
            (Self::Blob(store), StoreError::Blob(BlobError::Denied)) => store.is_signed(),
            (_, StoreError::Blob(_)) => false,
            (_, StoreError::Directory(_) | StoreError::NotALetter(_)) => true,
        }
    }

    /// Keeps a letter.
    ///
    /// # Errors
    /// When it may not be durable.
    pub async fn put(&self, letter: &DeadLetter) -> Result<(), DeadLetterError> {
        self.put_as(&letter.name(), letter).await
    }

    /// The same under an existing name.
    pub(crate) async fn put_as(&self, name: &str, letter: &DeadLetter) -> Result<(), DeadLetterError> {
        let text = serde_json::to_vec(letter).unwrap_or_default();
        match self {
            Self::Directory(store) => store.put(name, text).await,
            Self::Blob(store) => store.put(name, text).await.map_err(failed("write", store)),
        }
    }

    /// Names of all letters, sorted.
    ///
    /// # Errors
    /// When the store cannot be read. A directory that does not exist yet is empty; a blob container must exist.
    pub async fn list(&self) -> Result<Vec<String>, DeadLetterError> {
        let mut names = match self {
            Self::Directory(store) => store.list().await?,
            Self::Blob(store) => store.list().await.map_err(failed("list", store))?,
        };
        names.retain(|name| name.ends_with(".json"));
        names.sort();
        Ok(names)
    }

    /// Names of the leftovers of a process that was killed while it put a letter: the letter, or its beginning. They
    /// appear in no list, and nobody needs them: the item will be delivered again.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn unfinished(&self) -> Result<Vec<String>, DeadLetterError> {
        match self {
            Self::Directory(store) => store.parts().await,
            // A blob exists completely or not at all.
            Self::Blob(_) => Ok(Vec::new()),
        }
    }

    /// Reads one letter.
    ///
    /// # Errors
    /// When it is missing, cannot be read, or is not a dead letter.
    pub async fn get(&self, name: &str) -> Result<DeadLetter, DeadLetterError> {
        serde_json::from_slice(&self.bytes(name).await?).map_err(|e| DeadLetterError {
            action: "read",
            location: name.to_owned(),
            cause: StoreError::NotALetter(e),
        })
    }

    /// The same, not parsed yet.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    pub async fn bytes(&self, name: &str) -> Result<Vec<u8>, DeadLetterError> {
        match self {
            Self::Directory(store) => store.get(name).await,
            Self::Blob(store) => store.get(name).await.map_err(failed("read", store)),
        }
    }

    /// Removes a letter.
    ///
    /// # Errors
    /// When it may still be there.
    pub async fn delete(&self, name: &str) -> Result<(), DeadLetterError> {
        match self {
            Self::Directory(store) => store.delete(name).await,
            Self::Blob(store) => store.delete(name).await.map_err(failed("delete", store)),
        }
    }
}

fn failed(action: &'static str, store: &BlobContainer) -> impl FnOnce(BlobError) -> DeadLetterError {
    move |e| DeadLetterError { action, location: store.shown().to_owned(), cause: StoreError::Blob(e) }
}
