//! Which documents a command works on: one, a list, or those that a predicate finds.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::query::wrong_key;
use crate::{
    change::key::{ItemKey, PartitionKey, parse_path},
    config::Names,
    console::CliError,
    cosmos::Param,
    history::{Account, Containers, past::Selection},
    input::{self, ListError, ListedDocument},
};
use clap::Args;

/// Which documents: flags of `show` and `diff`.
#[derive(Debug, Args)]
pub struct SelectionArgs {
    /// The document
    #[arg(long, value_name = "ID", group = "which")]
    pub(super) id: Option<String>,
    /// Its partition key, as text or as a JSON array of the components; needed when several documents share the id
    #[arg(long, value_name = "KEY", value_parser = PartitionKey::parse, requires = "id")]
    pub(super) pk: Option<PartitionKey>,
    /// The documents of a list: one JSON object per line with id and pk; - is standard input
    #[arg(long, value_name = "FILE", group = "which")]
    ids_file: Option<PathBuf>,
    /// The documents that matched this predicate then; your own SQL on `c`
    #[arg(long = "where", value_name = "PREDICATE", group = "which")]
    predicate: Option<String>,
    /// The part of a list of several containers that belongs to each.
    #[arg(skip)]
    lists: BTreeMap<String, String>,
    /// Value of a parameter of the predicate: JSON, or else text (digits as text: zip='"28036"'); repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "predicate")]
    param: Vec<Param>,
}

impl SelectionArgs {
    /// The selection of the flags.
    ///
    /// # Errors
    /// When nothing is selected, or a list cannot be read.
    pub(super) async fn selection(&self, account: &dyn Account, names: &Names) -> Result<Selection, CliError> {
        let selected = match &self.ids_file {
            Some(_) => self.optional(names, &account.containers(names, None).await?)?,
            None => self.without_list(),
        };
        selected.ok_or_else(|| {
            CliError::usage("no document is named", "name one with --id and --pk, several with --ids-file or --where")
        })
    }

    /// The selection of the flags; `None` when they select nothing.
    ///
    /// # Errors
    /// When a list cannot be read.
    pub(super) fn optional(&self, names: &Names, containers: &Containers) -> Result<Option<Selection>, CliError> {
        match &self.ids_file {
            Some(file) => {
                let items = match self.lists.get(&names.source) {
                    Some(list) => ids(list, names, containers)?,
                    None => read_ids(file, names, containers)?,
                };
                Ok(Some(Selection::Items(items)))
            }
            None => Ok(self.without_list()),
        }
    }

    /// Reads a list of several containers, and keeps of the containers those that the list names.
    ///
    /// # Errors
    /// When a line does not name one of them.
    pub(super) fn share_list(&mut self, all: &mut Vec<Names>) -> Result<(), CliError> {
        if let Some(file) = &self.ids_file {
            self.lists = input::lists_of(&list_text(file)?, all).map_err(bad_list)?;
        }
        Ok(())
    }

    /// The same for a list that may apply to all of the containers alike.
    ///
    /// # Errors
    /// When some lines name a container, and a line does not name one of these.
    pub(super) fn share_list_or_repeat(&mut self, all: &mut Vec<Names>) -> Result<(), CliError> {
        if let Some(file) = &self.ids_file {
            self.lists = input::lists_or_repeated(&list_text(file)?, all).map_err(bad_list)?;
        }
        Ok(())
    }

    fn without_list(&self) -> Option<Selection> {
        match (&self.id, &self.predicate) {
            (Some(id), _) => Some(Selection::One { id: id.clone(), key: self.pk.clone() }),
            (None, Some(predicate)) => {
                Some(Selection::Where { predicate: predicate.clone(), params: self.param.clone() })
            }
            (None, None) => None,
        }
    }

    /// Checks whether `--version` can name one of the versions.
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

/// Refuses a partition key without all of its components.
pub(super) fn full_key(key: &PartitionKey, names: &Names, containers: &Containers) -> Result<(), CliError> {
    let paths = containers.source.key_paths();
    if key.0.len() == paths.len() { Ok(()) } else { Err(wrong_key(key, &names.source, paths)) }
}

/// The items of a list, one per line, without duplicates.
pub(super) fn read_ids(file: &Path, names: &Names, containers: &Containers) -> Result<Vec<ItemKey>, CliError> {
    ids(&list_text(file)?, names, containers)
}

fn ids(text: &str, names: &Names, containers: &Containers) -> Result<Vec<ItemKey>, CliError> {
    input::items_of(text, &names.source, containers.source.key_paths()).map_err(bad_list)
}

/// The documents of a list's text, and what each line says its document goes back to.
pub(super) fn parse_list(text: &str, names: &Names, containers: &Containers) -> Result<Vec<ListedDocument>, CliError> {
    input::listed_of(text, &names.source, containers.source.key_paths()).map_err(bad_list)
}

const EXAMPLE: &str = r#"write lines like {"id":"28036","pk":"28036"} or {"id":"a","pk":["t1",42]}"#;

/// The text of a list.
pub(super) fn list_text(file: &Path) -> Result<String, CliError> {
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    text.map_err(|e| CliError::usage(format!("--ids-file {}: {e}", file.display()), EXAMPLE))
}

/// A list that cannot be used.
pub(super) fn bad_list(bad: ListError) -> CliError {
    match bad {
        ListError::Bad(bad) => CliError::usage(format!("--ids-file: {bad}"), EXAMPLE),
        ListError::Elsewhere { .. } => {
            CliError::usage(format!("--ids-file {bad}"), "name all containers of the list with --containers")
        }
        ListError::NotAsked(other) => {
            CliError::usage(format!("--ids-file: {other} is not one of --containers"), "name it there too")
        }
    }
}

/// The fields that a flag names.
pub(super) fn paths(flag: &str, paths: &[String]) -> Result<Vec<Vec<String>>, CliError> {
    let parsed = paths.iter().map(|path| parse_path(path)).collect::<Result<Vec<_>, _>>();
    parsed.map_err(|e| CliError::usage(format!("{flag}: {e}"), format!("such as {flag} /address/zip")))
}

/// The columns that `--columns` names: fields, or paths that begin with a slash.
pub(super) fn columns(columns: &[String]) -> Result<Vec<Vec<String>>, CliError> {
    let column = |text: &String| {
        if text.starts_with('/') {
            return parse_path(text).map_err(|problem| {
                CliError::usage(format!("--columns: {problem}"), "write --columns city_name,/address/zip")
            });
        }
        if text.is_empty() {
            return Err(CliError::usage("--columns has an empty name", "write --columns city_name,seq"));
        }
        Ok(vec![text.clone()])
    };
    columns.iter().map(column).collect()
}
