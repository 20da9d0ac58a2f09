//! One blob per version, whose name identifies the document and the version.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::SinkError;
use crate::{blob::BlobContainer, change::record::hex, follow::Event};

/// How many uploads of one page run concurrently.
const UPLOADS: usize = 16;
/// Characters that stay as they are in a part of a name. Slashes would make folders, and dots could lead out of them.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');
/// The longest part of a name; the service allows 1,024 characters in total.
const MAX_PART: usize = 200;

/// See the module's description.
#[derive(Debug)]
pub struct BlobSink {
    store: BlobContainer,
    folder: String,
}

impl BlobSink {
    /// Writes below `folder` (empty: at the top) of a container.
    pub fn new(store: BlobContainer, folder: String) -> Self {
        Self { store, folder }
    }

    pub(super) fn shown(&self) -> String {
        joined(self.store.shown(), &self.folder)
    }

    /// A version that exists already is the same one, delivered before.
    pub(super) async fn write(&self, events: &[Event<'_>]) -> Result<(), SinkError> {
        let blobs: Vec<(String, Vec<u8>)> =
            events.iter().map(|event| (joined(&self.folder, &name_of(event)), event.to_line().into_bytes())).collect();
        stream::iter(blobs)
            .map(|(name, text)| async move { self.store.create(&name, text, "application/json").await.map(|_| ()) })
            .buffer_unordered(UPLOADS)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }
}

/// Both with a slash between them.
pub(super) fn joined(folder: &str, name: &str) -> String {
    match (folder.trim_end_matches('/'), name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

/// `<pk>/<id>/<version>.json`, each part percent-encoded.
fn name_of(event: &Event<'_>) -> String {
    // The version's id begins with the document's, unless it was too long and is a digest.
    let version = event.version.strip_prefix(&*event.id).and_then(|rest| rest.strip_prefix('~'));
    let version = version.unwrap_or(&event.version);
    format!("{}/{}/{}.json", part(&event.pk.to_string()), part(&event.id), part(version))
}

/// A part of a name; one that is too long ends with its digest, so that two never collide.
fn part(text: &str) -> String {
    let encoded = utf8_percent_encode(text, ENCODED).to_string();
    if encoded.len() <= MAX_PART {
        return encoded;
    }
    let digest = hex(&Sha256::digest(text.as_bytes())[..16]);
    format!("{}~{digest}", &encoded[..MAX_PART - digest.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Op, key::PartitionKey};

    fn event(pk: &str, id: &str, version: &str) -> Event<'static> {
        Event {
            op: Op::Create,
            id: id.to_owned().into(),
            pk: PartitionKey::parse(pk).unwrap(),
            ts: None,
            lsn: None,
            version: version.into(),
            doc: None,
            previous: None,
            changed: None,
            partial: None,
            etag: None,
            native: None,
        }
    }

    #[test]
    fn a_name_is_made_of_key_id_and_version_and_leads_nowhere_else() {
        let name = |pk, id, version| name_of(&event(pk, id, version));
        assert_eq!(name("28036", "28036", "28036~0000-1"), "28036/28036/0000-1.json");
        assert_eq!(name(r#"["t",7]"#, "a~b", "a~b~del-9"), "%5B%22t%22%2C7%5D/a~b/del-9.json");
        assert_eq!(name("../..", "a/b", "deadbeef"), "%2E%2E%2F%2E%2E/a%2Fb/deadbeef.json");
        let long = "é".repeat(500);
        let (one, other) = (name(&long, "x", "1"), name(&format!("{long}!"), "x", "1"));
        assert!(one.len() < 300 && one != other);
    }
}
