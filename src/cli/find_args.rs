//! Flags of `find`, and the request they form.

use clap::{ArgGroup, Args};

use super::{ConnectionArgs, connection::PartArgs, together::SeveralArgs};
use crate::{
    change::key::PartitionKey,
    console::CliError,
    cosmos::Param,
    find::{BadCondition, Condition, FindError, SearchMode, SearchedDocuments},
    format::Format,
};

/// Flags of `find`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("condition").required(true).args(["when", "sql"])),
    after_help = "Examples:
  cosmos-rewind find --when 'doc.price < 0' --from 2h
  cosmos-rewind find --when 'changed(\"/price\") && doc.price > previous.price * 10.0' --from 1d --to 1h
  cosmos-rewind find --sql 'c.price < 0' --id 28036 --flips-once
  cosmos-rewind find --when 'doc.price < 0' --from 2h --format jsonl > bad.jsonl
  cosmos-rewind restore --ids-file bad.jsonl --dry-run

For each document the first version is shown of which the condition is true, and which came after
one of which it was not. `before` is the version to go back to; restore --ids-file takes it. With
--containers each line of json, jsonl and csv names its container."
)]
pub struct FindArgs {
    /// Expression that is true for a bad version (CEL): doc, previous, op, ts, lsn, id, pk, changed("/path")
    #[arg(long, value_name = "EXPR")]
    pub(super) when: Option<String>,
    /// Predicate on `c` that matches a bad version, instead of an expression
    #[arg(long, value_name = "PREDICATE")]
    pub(super) sql: Option<String>,
    /// Only writes from this time on: 2026-11-20T14:05:00Z, epoch seconds, 15m, "yesterday 14:05Z"
    #[arg(long, value_name = "TIME")]
    pub(super) from: Option<String>,
    /// Only writes up to this time
    #[arg(long, value_name = "TIME")]
    pub(super) to: Option<String>,
    /// Only in this document
    #[arg(long, value_name = "ID", conflicts_with_all = ["predicate", "feed_range"])]
    pub(super) id: Option<String>,
    /// Its partition key, as text or as a JSON array of the components; needed when several documents share the id
    #[arg(long, value_name = "KEY", value_parser = PartitionKey::parse, requires = "id")]
    pub(super) pk: Option<PartitionKey>,
    /// Only in documents with a version that matches this predicate; your own SQL on `c`
    #[arg(long = "where", value_name = "PREDICATE")]
    pub(super) predicate: Option<String>,
    /// Value of a parameter of --where or --sql: JSON, or else text (digits as text: zip='"28036"'); repeatable
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub(super) params: Vec<Param>,
    /// Only the earliest write of all
    #[arg(long, conflicts_with = "flips_once")]
    pub(super) first: bool,
    /// The condition becomes true once and stays true: find the write by binary search, without reading all versions
    #[arg(long, requires = "id")]
    pub(super) flips_once: bool,
    /// Field that names who wrote a version, such as /updatedBy: shown and counted
    #[arg(long, value_name = "/PATH")]
    pub(super) actor: Option<String>,
    #[command(flatten)]
    pub(super) part: PartArgs,
    /// How to print the writes
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) several: SeveralArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

impl FindArgs {
    pub(super) fn condition(&self) -> Result<Condition, CliError> {
        let condition = match (&self.when, &self.sql) {
            (Some(expression), _) => Condition::expression(expression),
            (None, sql) => Condition::sql(sql.as_deref().unwrap_or_default(), &self.params),
        };
        condition.map_err(|bad| match bad {
            BadCondition::Expression(bad) => {
                CliError::usage(format!("--when: {bad}"), "an example: --when 'doc.price < 0 && op == \"replace\"'")
            }
            BadCondition::Sql(bad) => CliError::usage(
                format!("--sql: {bad}"),
                "an example: --sql \"c.price < 0\"; --when takes an expression",
            ),
        })
    }

    pub(super) fn manner(&self) -> SearchMode {
        match (self.first, self.flips_once) {
            (true, _) => SearchMode::First,
            (_, true) => SearchMode::FlipsOnce,
            _ => SearchMode::Each,
        }
    }

    pub(super) fn which(&self) -> SearchedDocuments {
        match (&self.id, &self.predicate) {
            (Some(id), _) => SearchedDocuments::One { id: id.clone(), key: self.pk.clone() },
            (None, Some(predicate)) => {
                SearchedDocuments::Where { predicate: predicate.clone(), params: self.params.clone() }
            }
            (None, None) => SearchedDocuments::All,
        }
    }

    pub(super) fn explain(&self, error: FindError) -> CliError {
        match error {
            FindError::Undeclared(why) => {
                CliError::usage(format!("--when: {why}"), "functions of CEL are known, and changed(\"/path\")")
            }
            FindError::OnceWithPrevious => CliError::usage(format!("--flips-once: {error}"), "leave it out"),
            other => other.into(),
        }
    }
}
