//! The second pass over an archive: reads the texts of the chosen events.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;

use super::{
    Damage, NoDocument, Problem, READS, blocking,
    event::EventHead,
    file::{FileKind, each_event},
    get,
    location::Archive,
    place,
};

/// An event whose text is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedEvent {
    /// The file's name, as the first pass saw it.
    pub file: Arc<str>,
    /// Its line; 0 when the file is a single event.
    pub line: u64,
    /// Id of the version.
    pub version: Box<str>,
}

impl WantedEvent {
    /// Its place.
    pub fn place(&self) -> String {
        place(&self.file, self.line)
    }
}

/// Makes a result of a chosen event, or of the reason why it cannot be read.
type Make<T> = fn(&WantedEvent, Result<EventHead<'_>, NoDocument>) -> T;

impl Archive {
    /// Reads the chosen events in any order and passes on the results, until the receiver is dropped.
    ///
    /// # Errors
    /// When something that the first pass saw cannot be read now.
    pub(super) async fn send<T: Send + 'static>(
        self,
        mut wanted: Vec<WantedEvent>,
        out: mpsc::Sender<T>,
        make: Make<T>,
    ) -> Result<(), Damage> {
        wanted.sort_unstable_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        match self {
            Self::Folder(_) => {
                blocking(move || {
                    for chosen in wanted.chunk_by(|a, b| a.file == b.file) {
                        let name = &*chosen[0].file;
                        let file = File::open(name).map_err(|e| Damage::new(name, Problem::Read(e)))?;
                        if !pass_on(chosen, BufReader::with_capacity(1 << 16, file), &out, make)? {
                            break;
                        }
                    }
                    Ok(())
                })
                .await
            }
            Self::Blobs(store, _) => {
                // Files with many events are read one at a time: each is held in memory, compressed.
                let (ones, files): (Vec<WantedEvent>, Vec<WantedEvent>) =
                    wanted.into_iter().partition(|chosen| FileKind::of(&chosen.file) == Some(FileKind::One));
                let mut read = stream::iter(ones)
                    .map(|one| async { get(&store, &one.file).await.map(|bytes| (one, bytes)) })
                    .buffer_unordered(READS);
                while let Some((one, bytes)) = read.try_next().await? {
                    if out.send(made(&bytes, &one, make)).await.is_err() {
                        return Ok(());
                    }
                }
                for chosen in files.chunk_by(|a, b| a.file == b.file) {
                    let (chosen, out) = (chosen.to_vec(), out.clone());
                    let bytes = get(&store, &chosen[0].file).await?;
                    if !blocking(move || pass_on(&chosen, bytes.as_slice(), &out, make)).await? {
                        return Ok(());
                    }
                }
                Ok(())
            }
        }
    }
}

/// Passes on the chosen events of one file, which are sorted by line; false when the receiver was dropped.
fn pass_on<T>(
    chosen: &[WantedEvent],
    input: impl BufRead,
    out: &mpsc::Sender<T>,
    make: Make<T>,
) -> Result<bool, Damage> {
    let Some(first) = chosen.first() else { return Ok(true) };
    let kind = FileKind::of(&first.file).unwrap_or(FileKind::Lines);
    let mut left = chosen.iter().peekable();
    let mut listening = true;
    each_event(&first.file, kind, input, |line, text| {
        if let Some(one) = left.next_if(|one| one.line == line) {
            listening = out.blocking_send(made(text, one, make)).is_ok();
        }
        Ok(listening && left.peek().is_some())
    })?;
    match left.next() {
        Some(one) if listening => Err(Damage::new(one.place(), Problem::Gone)),
        _ => Ok(listening),
    }
}

/// Makes the result of a chosen event.
fn made<T>(text: &[u8], chosen: &WantedEvent, make: Make<T>) -> T {
    let head = match serde_json::from_slice::<EventHead<'_>>(text) {
        Ok(head) if *head.version == *chosen.version => Ok(head),
        _ => Err(NoDocument::Changed),
    };
    make(chosen, head)
}
