//! Which documents a command is about: one, a list, or those that a predicate finds.

use std::path::{Path, PathBuf};

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use serde_json::{Value, json};

use super::{
    CliError, Exit, lookup,
    output::{count_of, note, printable},
    query::wrong_key,
    restore::explain,
};
use crate::{
    change::{
        key::{ItemKey, PartitionKey},
        time::PointInTime,
        version::BadRecord,
    },
    config::Names,
    cosmos::{Cosmos, Failure, Param, RuLimiter},
    history::reader::{self, Histories, Item, Texts},
    history::scan::{Containers, LiveDetail, PIECE_ROWS, Scan, Scope},
};

/// Histories read at the same time.
const CONCURRENCY: usize = 16;

/// Which documents: flags of `show` and `diff`.
#[derive(Debug, Args)]
pub struct SelectionArgs {
    /// The document
    #[arg(long, value_name = "ID", group = "which")]
    pub(super) id: Option<String>,
    /// Its partition key, as text or as a JSON array of the components; needed when several documents share the id
    #[arg(long, value_name = "KEY", value_parser = PartitionKey::parse, requires = "id")]
    pub(super) pk: Option<PartitionKey>,
    /// The documents of a list: a JSON object a line with id and pk; - is standard input
    #[arg(long, value_name = "FILE", group = "which")]
    ids_file: Option<PathBuf>,
    /// The documents that matched this predicate then; your own SQL on `c`
    #[arg(long = "where", value_name = "PREDICATE", group = "which")]
    predicate: Option<String>,
    /// Value of a parameter of the predicate: JSON, or else text (digits as text: zip='"28036"'); repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "predicate")]
    param: Vec<Param>,
}

impl SelectionArgs {
    /// The documents; of a predicate those that matched at the moment. Their histories are read one after the other
    /// ([`Documents::next`]).
    ///
    /// # Errors
    /// When nothing is selected, or nothing is found.
    pub(super) async fn documents(
        &self,
        cosmos: &Cosmos,
        names: &Names,
        at: PointInTime,
    ) -> Result<Documents, CliError> {
        if let Some(id) = &self.id {
            let found = lookup::document(cosmos, names, id, self.pk.as_ref(), Texts::None).await?;
            return Ok(Documents::one(found.item, found.exit));
        }
        let containers = Containers::open(cosmos, names).await?;
        let (items, exit) = match (&self.ids_file, &self.predicate) {
            (Some(file), _) => (read_ids(file, names, &containers)?, Exit::Done),
            (None, Some(predicate)) => matched(cosmos, &containers, predicate, &self.param, Matching::At(at)).await?,
            (None, None) => {
                return Err(CliError::usage(
                    "no document is named",
                    "name one with --id and --pk, several with --ids-file or --where",
                ));
            }
        };
        let documents = histories(cosmos, names, items, Texts::None).await?;
        Ok(documents.with(exit))
    }

    /// Whether `--version` may name one of the versions.
    ///
    /// # Errors
    /// When no single document is named.
    pub(super) fn check_version(&self, version: Option<&String>) -> Result<(), CliError> {
        if version.is_some() && self.id.is_none() {
            return Err(CliError::usage("--version without --id", "name the document with --id and --pk"));
        }
        Ok(())
    }

    /// Whether more than one document may be shown.
    pub(super) fn is_list(&self) -> bool {
        self.id.is_none()
    }
}

/// Which of the versions that match a predicate make an item one of those asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Matching {
    /// The one in force at the moment.
    At(PointInTime),
    /// Any.
    Ever,
}

/// The items that a predicate finds, in order of id and key.
pub(super) async fn matched(
    cosmos: &Cosmos,
    containers: &Containers,
    predicate: &str,
    params: &[Param],
    matching: Matching,
) -> Result<(Vec<ItemKey>, Exit), CliError> {
    let scope = Scope::Where { predicate: predicate.to_owned(), params: params.to_vec() };
    let scan = Scan {
        containers,
        wanted: &scope,
        at: if let Matching::At(at) = matching { at } else { PointInTime::END },
        hash_ranges: &containers.hash_ranges(None).map_err(CliError::failed)?,
        live: LiveDetail::No,
        piece_rows: PIECE_ROWS,
        pace: &RuLimiter::new(cosmos.meter(), None),
        needs_text: &|_| false,
    };
    match matching {
        Matching::At(_) => {
            let mut items = Vec::new();
            let mut bad = Vec::new();
            let mut pieces = std::pin::pin!(scan.pieces());
            while let Some(piece) = pieces.try_next().await.map_err(|f| explain(f, true))? {
                bad.extend(piece.bad);
                for found in piece.found {
                    if let Some(problem) = found.undecided {
                        bad.push(BadRecord { record_id: found.item.id.clone(), problem });
                    }
                    items.push(found.item);
                }
            }
            let exit = lookup::note_bad(&bad);
            Ok((sorted(items, "at that time")?, exit))
        }
        Matching::Ever => {
            let (items, bad) = scan.ever_matched().await.map_err(|f| explain(f, true))?;
            let exit = lookup::note_bad(&bad);
            Ok((sorted(items.into_iter().collect(), "at any time")?, exit))
        }
    }
}

fn sorted(mut items: Vec<ItemKey>, when: &str) -> Result<Vec<ItemKey>, CliError> {
    if items.is_empty() {
        return Err(CliError::not_there(
            format!("no document of the history matched {when}"),
            "check --where: a predicate on c, strings in single quotes or as --param name=value",
        ));
    }
    items.sort_by_cached_key(ItemKey::sort_key);
    Ok(items)
}

/// Documents whose histories are read as they are asked for, in their order.
pub(super) struct Documents {
    reading: BoxStream<'static, (ItemKey, Result<Histories, Failure>)>,
    one: Option<Item>,
    count: usize,
    found: usize,
    /// Done; or incomplete, when something was named on stderr that is not in the answer.
    pub(super) exit: Exit,
}

impl Documents {
    /// One whose history is known already.
    pub(super) fn one(item: Item, exit: Exit) -> Self {
        Self { reading: futures::stream::empty().boxed(), one: Some(item), count: 1, found: 0, exit }
    }

    /// The same, with how they were found.
    pub(super) fn with(self, exit: Exit) -> Self {
        Self { exit: self.exit.and(exit), ..self }
    }

    /// How many were asked for.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The next history. Documents that have none are named on stderr.
    ///
    /// # Errors
    /// When the history cannot be read, or none of the documents has any.
    pub(super) async fn next(&mut self) -> Result<Option<Item>, CliError> {
        if let Some(item) = self.one.take() {
            self.found += 1;
            return Ok(Some(item));
        }
        while let Some((item, read)) = self.reading.next().await {
            let mut read = read?;
            self.exit = self.exit.and(lookup::note_bad(&read.bad));
            match read.items.pop() {
                Some(one) => {
                    self.found += 1;
                    return Ok(Some(one));
                }
                None => {
                    note(&printable(&format!("warning: document {:?} ({}): no version", item.id, item.partition_key)));
                    self.exit = Exit::Incomplete;
                }
            }
        }
        if self.found > 0 {
            return Ok(None);
        }
        Err(CliError::not_there(
            format!("no version of {}", count_of(self.count as u64, "document")),
            "check the ids and keys; what was written before capture began has no version",
        ))
    }
}

/// The histories of these items.
pub(super) async fn histories(
    cosmos: &Cosmos,
    names: &Names,
    items: Vec<ItemKey>,
    texts: Texts,
) -> Result<Documents, CliError> {
    let changes = cosmos.container(&names.database, &names.changes).await?;
    let paths = lookup::source_paths(cosmos, names, &changes).await?;
    let count = items.len();
    let reading = futures::stream::iter(items)
        .map(move |item| {
            let (changes, paths) = (changes.clone(), paths.clone());
            async move {
                let read = reader::histories(&changes, &paths, &item.id, Some(&item.partition_key), texts).await;
                (item, read)
            }
        })
        .buffered(CONCURRENCY)
        .boxed();
    Ok(Documents { reading, one: None, count, found: 0, exit: Exit::Done })
}

/// Refuses a partition key that does not have all components.
pub(super) fn full_key(key: &PartitionKey, names: &Names, containers: &Containers) -> Result<(), CliError> {
    let paths = containers.source.key_paths();
    if key.0.len() == paths.len() { Ok(()) } else { Err(wrong_key(key, &names.source, paths)) }
}

/// The items of a list, one a line.
pub(super) fn read_ids(file: &Path, names: &Names, containers: &Containers) -> Result<Vec<ItemKey>, CliError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line {
        id: String,
        pk: Value,
    }
    let example = r#"write lines like {"id":"28036","pk":"28036"} or {"id":"a","pk":["t1",42]}"#;
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|e| CliError::usage(format!("--ids-file {}: {e}", file.display()), example))?;
    let mut items = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let wrong = |e: String| CliError::usage(format!("--ids-file line {}: {e}", number + 1), example);
        let line: Line = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        let pk = if line.pk.is_array() { line.pk } else { json!([line.pk]) };
        let key = PartitionKey::parse(&pk.to_string()).map_err(wrong)?;
        full_key(&key, names, containers)?;
        items.push(ItemKey { id: line.id, partition_key: key });
    }
    if items.is_empty() {
        return Err(CliError::usage(format!("--ids-file {}: it names no document", file.display()), example));
    }
    Ok(items)
}
