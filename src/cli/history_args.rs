//! Flags of `history`, and the request they form.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::{ConnectionArgs, selection::read_ids};
use crate::{
    change::key::PartitionKey,
    config::Names,
    console::CliError,
    cosmos::Param,
    format::Format,
    history::{Account, past::Selection},
};

/// Flags of `history`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("what").required(true).args(["id", "ids_file", "predicate"])),
    after_help = "Examples:
  cosmos-rewind history --id 28036 --pk 28036
  cosmos-rewind history --id 28036 --changes-of /city_name
  cosmos-rewind history --where \"c.city_name = 'Davidson'\" --changes-of /city_name
  cosmos-rewind history --where \"c.city_name = @city\" --param city=Davidson --columns city_name,seq

A document's versions are listed with their time (UTC), what happened, and the top-level
fields that differ from the version before (+ added, - removed). The op `legacy` marks copies
of the original demo; their time is the copy's.

--where takes your own Cosmos SQL, put in parentheses behind WHERE and run on both containers;
the document is c, as it is or was: its own id, its whole body, and no deletes."
)]
pub struct HistoryArgs {
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
    /// Document whose versions are shown
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// Its partition key, as text or as a JSON array of the components; needed when several documents share the id
    #[arg(long, value_name = "KEY", value_parser = PartitionKey::parse)]
    pub(super) pk: Option<PartitionKey>,
    /// Documents whose versions are shown: one JSON object per line with id and pk; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "pk")]
    pub(super) ids_file: Option<PathBuf>,
    /// Show only when this field changed, and to what: /city_name, /address/zip, /lines/0
    #[arg(long, value_name = "/PATH")]
    pub(super) changes_of: Option<String>,
    /// Report live documents and versions that match this predicate, by time; with --changes-of, the changes of
    /// documents with a version that matches
    #[arg(long = "where", value_name = "PREDICATE")]
    pub(super) predicate: Option<String>,
    /// Value of a parameter of the predicate: JSON, or else text (digits as text: zip='"28036"'); repeatable
    #[arg(long = "param", value_name = "NAME=VALUE", requires = "predicate")]
    pub(super) params: Vec<Param>,
    /// Further columns of the report: fields, or paths such as /address/zip
    #[arg(
        long,
        value_name = "FIELD,...",
        value_delimiter = ',',
        requires = "predicate",
        conflicts_with = "changes_of"
    )]
    pub(super) columns: Vec<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

impl HistoryArgs {
    /// Which documents.
    ///
    /// # Errors
    /// When the flags select nothing, or a list cannot be read.
    pub(super) async fn selection(&self, account: &dyn Account, names: &Names) -> Result<Selection, CliError> {
        match (&self.id, &self.ids_file, &self.predicate) {
            (Some(id), ..) => Ok(Selection::One { id: id.clone(), key: self.pk.clone() }),
            (None, Some(file), _) => {
                read_ids(file, names, &account.containers(names, None).await?).map(Selection::Items)
            }
            (None, None, Some(_)) if self.pk.is_some() => {
                Err(CliError::usage("--pk with --where and --changes-of", "put the key into the predicate"))
            }
            (None, None, Some(predicate)) => {
                Ok(Selection::Where { predicate: predicate.clone(), params: self.params.clone() })
            }
            (None, None, None) => {
                Err(CliError::usage("nothing is asked for", "pass --id ID, --ids-file FILE or --where PREDICATE"))
            }
        }
    }
}
