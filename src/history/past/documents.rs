//! Selects documents, and reads their histories one after another.

use std::sync::Arc;

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};

use super::{AHEAD, LookError, Past};
use crate::{
    causes::chain,
    change::{
        key::{ItemKey, PartitionKey},
        time::PointInTime,
        version::{BadRecord, RecordProblem},
    },
    cosmos::{Param, RuLimiter},
    history::{
        AnyContext, Containers,
        histories::{Histories, Item, TextDetail, histories},
        live::{LiveDetail, look_at},
        odd_records,
        reading::LiveContainer,
        scan::{PIECE_ROWS, Scan, ScanTexts, Scope},
    },
    progress::Progress,
};

/// Which documents.
#[derive(Debug, Clone)]
pub enum Selection {
    /// One, by its id.
    One {
        /// The id.
        id: String,
        /// Its partition key, or its first components; needed when several documents share the id.
        key: Option<PartitionKey>,
    },
    /// A list.
    Items(Vec<ItemKey>),
    /// Those that match the operator's own SQL on `c`.
    Where {
        /// The predicate.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
}

/// Which of a document's versions must match a predicate.
#[derive(Debug, Clone, Copy)]
pub enum Matching {
    /// The one in force at the moment; when a live document was in force and is not captured yet, that one.
    At(PointInTime),
    /// The newest one.
    Newest,
    /// Any.
    Ever,
}

/// The selected documents.
pub(super) struct SelectedDocuments {
    one: Option<Item>,
    items: Vec<ItemKey>,
    /// Whether a document without versions may be known by its live one.
    or_live: bool,
    /// Whether something was reported that is not in the results.
    pub(super) incomplete: bool,
}

impl SelectedDocuments {
    fn len(&self) -> usize {
        self.items.len() + usize::from(self.one.is_some())
    }

    /// Processes each, in order, several at a time.
    pub(super) fn each<'a, T: Send + 'a, F>(
        self,
        past: Arc<Past<'a>>,
        texts: TextDetail,
        progress: &'a dyn Progress,
        look: impl Fn(Arc<Past<'a>>, Item) -> F + Send + Sync + 'a,
    ) -> DocumentStream<'a, T>
    where
        F: Future<Output = Result<T, LookError>> + Send + 'a,
    {
        let (asked, incomplete, or_live) = (self.len() as u64, self.incomplete, self.or_live);
        let is_list = self.one.is_none();
        let look = Arc::new(look);
        let one = {
            let (past, look) = (past.clone(), look.clone());
            stream::iter(self.one).then(move |item| {
                let (key, looked) = (item.key.clone(), look(past.clone(), item));
                async move { (key, Vec::new(), looked.await.map(Some)) }
            })
        };
        let all = stream::iter(self.items).map(move |key| {
            let (past, look) = (past.clone(), look.clone());
            async move {
                let read = histories(&*past.changes, &past.pace, &key.id, Some(&key.partition_key), texts).await;
                match read {
                    Err(failure) => (key, Vec::new(), Err(failure.into())),
                    Ok(Histories { mut items, bad, .. }) => {
                        let item = match items.pop() {
                            None if or_live => past.uncaptured(&key).await,
                            known => Ok(known),
                        };
                        let looked = match item {
                            Ok(None) => Ok(None),
                            Ok(Some(item)) => look(past, item).await.map(Some),
                            Err(error) => Err(error),
                        };
                        (key, bad, looked)
                    }
                }
            }
        });
        let looks = one.chain(all.buffered(AHEAD)).boxed();
        DocumentStream { looks, progress, asked, found: 0, is_list, unreadable: 0, incomplete }
    }
}

/// A document, the records that cannot be parsed, and the result; `None` for a document without versions.
type Look<T> = (ItemKey, Vec<BadRecord>, Result<Option<T>, LookError>);

/// Documents that are processed one after another.
pub(super) struct DocumentStream<'a, T> {
    looks: BoxStream<'a, Look<T>>,
    progress: &'a dyn Progress,
    /// How many were requested.
    pub(super) asked: u64,
    found: u64,
    /// Whether they are a list, so that a problem with one of them is no reason to leave out the others.
    is_list: bool,
    /// How many of them had such a problem.
    pub(super) unreadable: u64,
    /// Whether something was reported that is not in the results.
    pub(super) incomplete: bool,
}

impl<T> DocumentStream<'_, T> {
    /// The next one. Reports documents without versions, and those of a list that cannot be read.
    pub(super) async fn next(&mut self) -> Result<Option<T>, LookError> {
        while let Some((key, bad, looked)) = self.looks.next().await {
            odd_records::tell(&bad, self.progress);
            self.incomplete |= !bad.is_empty();
            let problem = match looked {
                Ok(Some(looked)) => {
                    self.found += 1;
                    return Ok(Some(looked));
                }
                Ok(None) => "no version".to_owned(),
                Err(error) if self.is_list && error.is_of_one_document() => {
                    self.found += 1;
                    self.unreadable += 1;
                    chain(&error)
                }
                Err(error) => return Err(error),
            };
            self.progress.note(&format!("warning: document {:?} ({}): {problem}", key.id, key.partition_key));
            self.incomplete = true;
        }
        if self.found > 0 { Ok(None) } else { Err(LookError::NoneInHistory(self.asked)) }
    }
}

impl Past<'_> {
    /// The documents of a selection. Reports records that cannot be parsed.
    pub(super) async fn documents(
        &self,
        which: &Selection,
        matching: Matching,
        texts: TextDetail,
        progress: &dyn Progress,
    ) -> Result<SelectedDocuments, LookError> {
        let or_live = !matches!(matching, Matching::Ever);
        match which {
            Selection::One { id, key } => self.one(id, key.as_ref(), or_live, texts, progress).await,
            Selection::Items(items) => {
                Ok(SelectedDocuments { one: None, items: items.clone(), or_live, incomplete: false })
            }
            Selection::Where { predicate, params } => {
                let (items, bad) = found(&self.containers()?, predicate, params, matching, &self.pace).await?;
                odd_records::tell(&bad, progress);
                if let Matching::At(at) = matching {
                    self.tell_beyond(at, progress).await?;
                }
                Ok(SelectedDocuments { one: None, items, or_live, incomplete: !bad.is_empty() })
            }
        }
    }

    /// Reports that other documents may have matched, when the history ends before the moment. What is live now is
    /// known.
    async fn tell_beyond(&self, at: PointInTime, progress: &dyn Progress) -> Result<(), LookError> {
        if at == PointInTime::END {
            return Ok(());
        }
        let frontier = self.frontier(at).await?;
        if !frontier.covers(at) {
            progress.note(&format!("warning: {}, before {at}: others may have matched then", frontier.describe()));
        }
        Ok(())
    }

    /// A document without versions in the history that is live: then the live document tells what it was.
    async fn uncaptured(&self, key: &ItemKey) -> Result<Option<Item>, LookError> {
        let Ok(source) = &self.source else { return Ok(None) };
        let live = look_at(&**source, &self.pace, key, None, false).await?;
        Ok(live.map(|_| Item::new(key.clone())))
    }

    /// The source, which must exist.
    pub(super) fn source(&self) -> Result<&Arc<dyn LiveContainer>, LookError> {
        self.source.as_ref().map_err(|failure| LookError::NoSource(failure.clone()))
    }

    fn containers(&self) -> Result<Containers, LookError> {
        let source = self.source()?.clone();
        Ok(Containers { changes: self.changes.clone(), target: source.clone(), source })
    }

    async fn one(
        &self,
        id: &str,
        key: Option<&PartitionKey>,
        or_live: bool,
        texts: TextDetail,
        progress: &dyn Progress,
    ) -> Result<SelectedDocuments, LookError> {
        let paths = self.changes.layout().source();
        if let Some(key) = key.filter(|key| key.0.len() > paths.len()) {
            let (key, container) = (key.clone(), self.names.source.clone());
            return Err(LookError::Key { key, container, paths: paths.clone() });
        }
        let mut found = histories(&*self.changes, &self.pace, id, key, texts).await?;
        odd_records::tell(&found.bad, progress);
        if found.items.len() > 1 {
            let keys = found.items.into_iter().map(|item| (item.key.partition_key, item.versions.len() as u64));
            return Err(LookError::Ambiguous { id: id.to_owned(), keys: keys.collect() });
        }
        let mut one = found.items.pop();
        if let (None, true, Some(key)) = (&one, or_live, key.filter(|key| key.0.len() == paths.len())) {
            one = self.uncaptured(&ItemKey { id: id.to_owned(), partition_key: key.clone() }).await?;
        }
        match one {
            Some(item) => {
                Ok(SelectedDocuments { one: Some(item), items: Vec::new(), or_live, incomplete: !found.bad.is_empty() })
            }
            None => Err(LookError::NotInHistory { id: id.to_owned(), history: self.names.history() }),
        }
    }
}

/// The documents that a predicate finds, sorted by id and key, and the records that could not be evaluated.
///
/// # Errors
/// When the service refuses the predicate, or nothing matches.
pub async fn matched(
    predicate: &str,
    params: &[Param],
    matching: Matching,
    cx: &AnyContext<'_>,
) -> Result<(Vec<ItemKey>, Vec<BadRecord>), LookError> {
    let past = Past::open(cx).await?;
    found(&past.containers()?, predicate, params, matching, &past.pace).await
}

async fn found(
    containers: &Containers,
    predicate: &str,
    params: &[Param],
    matching: Matching,
    pace: &RuLimiter,
) -> Result<(Vec<ItemKey>, Vec<BadRecord>), LookError> {
    let (predicate, params) = (predicate.to_owned(), params.to_vec());
    let (scope, live) = match matching {
        Matching::At(_) => (Scope::Then { predicate, params }, LiveDetail::Etag),
        Matching::Newest | Matching::Ever => (Scope::Where { predicate, params }, LiveDetail::No),
    };
    let scan = Scan {
        containers,
        wanted: &scope,
        at: if let Matching::At(at) = matching { at } else { PointInTime::END },
        hash_ranges: &containers.hash_ranges(None)?,
        live,
        piece_rows: PIECE_ROWS,
        pace,
        texts: ScanTexts::No,
    };
    let (mut items, bad) = match matching {
        Matching::At(_) | Matching::Newest => {
            let (mut items, mut bad) = (Vec::new(), Vec::new());
            let mut pieces = std::pin::pin!(scan.pieces());
            while let Some(piece) = pieces.try_next().await.map_err(LookError::of_predicate)? {
                bad.extend(piece.bad);
                for found in piece.found {
                    if let Some(problem) = found.undecided {
                        bad.push(BadRecord::new(found.item.id.clone(), RecordProblem::Asked(problem.into())));
                    }
                    items.push(found.item);
                }
            }
            (items, bad)
        }
        Matching::Ever => {
            let (items, bad) = scan.ever_matched().await.map_err(LookError::of_predicate)?;
            (items.into_iter().collect(), bad)
        }
    };
    if items.is_empty() {
        return Err(LookError::NoMatch { ever: matches!(matching, Matching::Ever) });
    }
    items.sort_by_cached_key(ItemKey::sort_key);
    Ok((items, bad))
}
