//! Keeps the texts of chosen versions in a temporary file. They come from an archive, or from anything else that is not
//! the history.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    sync::{Mutex, PoisonError},
};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{
    Archive, Damage, NoDocument, Problem, WantedEvent,
    event::{EventHead, is_event_altered},
};
use crate::{
    change::{
        key::{ItemKey, KeyPaths},
        raw::RawDocument,
        shape::LeftOut,
    },
    follow::{Event, Filter, NoAnswer},
};

/// Texts on their way from the reader.
const IN_FLIGHT: usize = 16;

/// A chosen version that has changed since the first pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} {problem}")]
pub struct Unusable {
    /// Its place.
    place: String,
    problem: NoDocument,
}

/// Why a version has no text.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The archive has something else in its place now.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The archive did not have it.
    #[error("version {0} is not in the archive any more")]
    Missing(String),
    /// The temporary file with the texts cannot be read.
    #[error("a temporary file cannot be read")]
    Disk(#[from] io::Error),
    /// The temporary file has other bytes than were written.
    #[error("a temporary file is damaged")]
    Damaged,
}

/// The texts of chosen versions, in an unnamed temporary file.
pub struct KeptTexts {
    file: Mutex<File>,
    places: HashMap<[u8; 16], Result<(u64, usize), Unusable>>,
    /// Versions for which the filter had no answer.
    pub no_answer: u64,
}

fn name_of(item: &ItemKey, version: &str) -> [u8; 16] {
    let mut digest = Sha256::new();
    for part in [item.partition_key.to_json().to_string().as_str(), item.id.as_str(), version] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    let mut name = [0; 16];
    name.copy_from_slice(&digest.finalize()[..16]);
    name
}

impl KeptTexts {
    /// Reads the chosen versions, and keeps those that pass the filter if there is one. For a version that has changed
    /// since the first pass it keeps the reason instead, so that the others can still be used.
    ///
    /// # Errors
    /// When a file cannot be read any more, or the filter uses a name that does not exist.
    pub async fn read(
        archive: &Archive,
        wanted: Vec<WantedEvent>,
        keys: &KeyPaths,
        filter: Option<&Filter>,
    ) -> Result<Self, Damage> {
        let unwritable = |e: io::Error| Damage::new("a temporary file", Problem::Write(e));
        let mut keeping = Keeping::new().map_err(unwritable)?;
        let mut no_answer = 0;
        let (out, mut read) = mpsc::channel::<(WantedEvent, Option<Event<'static>>)>(IN_FLIGHT);
        // When it is no event any more, nobody can tell whose it was; whoever asks for it will not find it.
        let make = |wanted: &WantedEvent, head: Result<EventHead<'_>, NoDocument>| {
            (wanted.clone(), head.and_then(|head| head.event()).ok())
        };
        let reader = tokio::spawn(archive.clone().send(wanted, out, make));
        while let Some((wanted, event)) = read.recv().await {
            let Some(event) = event else { continue };
            let hinges = |filter: &Filter| {
                let left_out = event.partial.as_deref().map(|note| LeftOut::parse(Some(note)));
                left_out.is_some_and(|left_out| filter.may_hinge_on(&left_out, keys, event.native.is_some()))
            };
            match filter.map(|filter| filter.matches(&event)) {
                None | Some(Ok(true)) => {}
                // What was left out may make it match. A part is not put back: the document will be unknown.
                Some(Ok(false) | Err(NoAnswer::Unknown(_))) if filter.is_some_and(hinges) => {}
                Some(Ok(false)) => continue,
                Some(Err(NoAnswer::Unknown(_))) => {
                    no_answer += 1;
                    continue;
                }
                Some(Err(e)) => return Err(Damage::new("the filter", Problem::Filter(e))),
            }
            let is_altered = is_event_altered(&event);
            let item = ItemKey { id: event.id.into_owned(), partition_key: event.pk };
            let own = if is_altered { Err(NoDocument::Altered) } else { own(event.doc, &item, keys) };
            match own {
                Ok(text) => keeping.add(&item, &wanted.version, &text).map_err(unwritable)?,
                Err(problem) => {
                    let unusable = Unusable { place: wanted.place(), problem };
                    keeping.places.insert(name_of(&item, &wanted.version), Err(unusable));
                }
            }
        }
        reader.await.unwrap_or_else(|e| Err(Damage::new("a reader", Problem::Ended(e))))?;
        Ok(Self { no_answer, ..keeping.finish().map_err(unwritable)? })
    }

    /// Whether there is a text for a version. From an archive: whether it was read and passed the filter.
    pub fn has(&self, item: &ItemKey, version: &str) -> bool {
        self.places.contains_key(&name_of(item, version))
    }

    /// The document of a version.
    ///
    /// # Errors
    /// When the archive did not have it, or has something else in its place.
    pub fn get(&self, item: &ItemKey, version: &str) -> Result<String, TextError> {
        let (start, size) = match self.places.get(&name_of(item, version)) {
            Some(Ok(place)) => *place,
            Some(Err(unusable)) => return Err(unusable.clone().into()),
            None => return Err(TextError::Missing(version.to_owned())),
        };
        let mut bytes = vec![0; size];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes))?;
        String::from_utf8(bytes).map_err(|_| TextError::Damaged)
    }

    /// The text of one version was lost with the temporary file.
    #[cfg(all(test, feature = "local"))]
    pub(crate) fn lost(item: &ItemKey, version: &str) -> io::Result<Self> {
        let places = HashMap::from([(name_of(item, version), Ok((0, 1)))]);
        Ok(Self { file: Mutex::new(tempfile::tempfile()?), places, no_answer: 0 })
    }
}

/// Collects texts one by one.
pub struct Keeping {
    file: BufWriter<File>,
    end: u64,
    places: HashMap<[u8; 16], Result<(u64, usize), Unusable>>,
}

impl Keeping {
    /// Begins without any.
    ///
    /// # Errors
    /// When no temporary file can be made.
    pub fn new() -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(tempfile::tempfile()?), end: 0, places: HashMap::new() })
    }

    /// Keeps the text of a version.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn add(&mut self, item: &ItemKey, version: &str, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.places.insert(name_of(item, version), Ok((self.end, text.len())));
        self.end += text.len() as u64;
        Ok(())
    }

    /// All of them.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn finish(self) -> io::Result<KeptTexts> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(KeptTexts { file: Mutex::new(file), places: self.places, no_answer: 0 })
    }
}

/// The event's document, when the event is about the item.
fn own(doc: Option<Cow<'_, str>>, item: &ItemKey, keys: &KeyPaths) -> Result<String, NoDocument> {
    let text = doc.ok_or(NoDocument::None)?;
    let document = RawDocument::parse(&text).map_err(|_| NoDocument::NoObject)?;
    if document.get_str("id").as_deref() != Some(item.id.as_str()) || keys.extract(&document) != item.partition_key {
        return Err(NoDocument::Other);
    }
    Ok(text.into_owned())
}
