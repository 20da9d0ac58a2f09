//! Where dead letters and other blobs go: a folder, or the URL of a blob container.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use url::Url;

use super::{ConfigError, is_loopback};

/// Where records go that can never be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterLocation {
    /// A local directory.
    Directory(PathBuf),
    /// A blob container; a SAS, if there is one, is part of the URL and therefore secret.
    Blob(BlobUrl),
}

/// A text that should be a URL, without what may be secret in it: a signature, or a password before the host.
pub fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    // Even when the question mark was forgotten.
    let text = text.split("sig=").next().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    format!("{scheme}://{}{path}", authority.rsplit('@').next().unwrap_or_default())
}

/// URL of a blob container. Displayed without its query, which may hold a signature.
#[derive(Clone, PartialEq, Eq)]
pub struct BlobUrl(Url);

impl BlobUrl {
    /// The full URL, for the client library.
    pub fn expose(&self) -> &Url {
        &self.0
    }

    /// Whether the URL carries its own authorisation.
    pub fn has_sas(&self) -> bool {
        self.0.query_pairs().any(|(name, _)| name == "sig")
    }
}

impl BlobUrl {
    /// The container's own URL, and the folder below it that this one names (empty, or without slashes at its ends). On
    /// this machine the account is the first part of the path, as in Azurite's URLs.
    pub fn split(&self) -> (Self, String) {
        let account = usize::from(is_loopback(&self.0));
        let parts: Vec<&str> = self.0.path().split('/').filter(|part| !part.is_empty()).collect();
        let at = (account + 1).min(parts.len());
        let mut container = self.0.clone();
        container.set_path(&parts[..at].join("/"));
        (Self(container), parts[at..].join("/"))
    }

    /// Whether another URL leads to the same container and folder, whatever its signature and its spelling.
    pub fn is_at(&self, other: &Self) -> bool {
        let place = |url: &Self| {
            let (container, folder) = url.split();
            let host = if is_loopback(&url.0) { None } else { url.0.host_str().map(str::to_owned) };
            let path = format!("{}/{folder}", container.0.path());
            let path = percent_encoding::percent_decode_str(&path).decode_utf8_lossy().into_owned();
            (host, url.0.port_or_known_default(), path)
        };
        place(self) == place(other)
    }
}

impl fmt::Display for BlobUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.set_query(None);
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for BlobUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobUrl({self})")
    }
}

impl DeadLetterLocation {
    /// Parses a directory or a blob container's URL; a relative directory is under `app_root`.
    pub fn parse(name: &str, text: &str, app_root: &Path) -> Result<Self, ConfigError> {
        if text.starts_with("http://") || text.starts_with("https://") {
            let fix =
                "write https://<account>.blob.core.windows.net/<container>, with a SAS or none for keyless identity";
            // The parse error quotes nothing of the URL, so a signature cannot leak through it.
            let url = Url::parse(text).map_err(|e| ConfigError::new(name, format!("is not a URL: {e}"), fix))?;
            if url.scheme() == "http" && !is_loopback(&url) {
                return Err(ConfigError::new(name, "is plain http on another machine", fix));
            }
            // Neither is sent to the service, and both would appear wherever the URL is shown.
            if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
                return Err(ConfigError::new(name, "carries credentials or a fragment (#) beside its query", fix));
            }
            if url.path_segments().is_none_or(|mut s| s.all(str::is_empty)) {
                return Err(ConfigError::new(name, "names no blob container", fix));
            }
            return Ok(Self::Blob(BlobUrl(url)));
        }
        if text.contains("://") {
            return Err(ConfigError::new(
                name,
                "has an unknown scheme",
                "write a directory, or an https URL of a blob container",
            ));
        }
        Ok(Self::Directory(app_root.join(text)))
    }
}

impl fmt::Display for DeadLetterLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Blob(url) => write!(f, "{url}"),
        }
    }
}
