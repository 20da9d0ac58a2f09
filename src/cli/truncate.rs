//! `truncate`: deletes all documents of a container.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use clap::Args;
use serde_json::json;

use super::{
    CliError, ConnectionArgs, Exit,
    output::{self, Format, Progress, count_of, tenths},
};
use crate::{
    change::{
        key::{ItemKey, KeyPaths, PartitionKey},
        raw::RawDocument,
    },
    cosmos::{Action, Bulk, Container, Failure, Job, Observer, sql_path},
};

/// Failures that are printed one by one; the rest is only counted.
const SHOWN_FAILURES: u64 = 10;

/// Flags of `truncate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Deletes are changes too: with capture in all-versions mode they become tombstones in the history."
)]
pub struct TruncateArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// source, changes, leases, or a container's own name
    container: String,
    /// Delete at most this many
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    max: u64,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Deletes in flight
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub async fn run(args: TruncateArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (cosmos, names) = args.connection.open()?;
    let name = ConnectionArgs::container_name(&names, &args.container);
    let container = cosmos.container(&names.database, name).await?;

    let counting = Progress::new("count", None);
    let (items, more) = list(&container, args.max, &counting).await?;
    counting.finish();
    let total = items.len() as u64;
    let shown = format!("{}/{name}", names.database);
    if total == 0 {
        output::note(&format!("{shown} is empty"));
        return print(&args, &shown, 0, 0, &cosmos, started).map(|()| Exit::Done);
    }
    let which = if more { "the first " } else { "" };
    let warning = if name == names.changes {
        " They are the history: nothing can be restored from them afterwards."
    } else if name == names.leases {
        " The trigger starts over without them."
    } else {
        ""
    };
    let question = format!("Delete {which}{} of {shown}?{warning}", count_of(total, "document"));
    output::confirm(&question, name, args.yes)?;

    let progress = Arc::new(Progress::new("delete", Some(total)));
    let failures = Arc::new(AtomicU64::new(0));
    let observer: Observer = {
        let (progress, failures) = (progress.clone(), failures.clone());
        Arc::new(move |item: &ItemKey, failure: Option<&Failure>| {
            progress.inc(1);
            if let Some(failure) = failure
                && failures.fetch_add(1, Ordering::Relaxed) < SHOWN_FAILURES
            {
                progress
                    .note(&output::printable(&format!("document {:?} ({}): {failure}", item.id, item.partition_key)));
            }
        })
    };
    let bulk = Bulk::start(
        &container,
        usize::from(args.concurrency),
        crate::cosmos::RuLimiter::new(cosmos.meter(), None),
        observer,
    );
    for item in items {
        if !bulk.send(Job { item, action: Action::Delete }).await {
            break;
        }
    }
    let (tally, fatal) = bulk.finish().await;
    progress.finish();
    let hidden = failures.load(Ordering::Relaxed).saturating_sub(SHOWN_FAILURES);
    if hidden > 0 {
        output::note(&format!("... and {} more", count_of(hidden, "failure")));
    }
    print(&args, &shown, tally.deleted, tally.failed, &cosmos, started)?;
    if more {
        output::hint(&format!("--max {} was reached; run the command again for the rest", args.max));
    }
    match fatal {
        Some(failure) => Err(failure.into()),
        None if tally.failed > 0 => Ok(Exit::Incomplete),
        None => Ok(Exit::Done),
    }
}

fn print(
    args: &TruncateArgs,
    shown: &str,
    deleted: u64,
    failed: u64,
    cosmos: &crate::cosmos::Cosmos,
    started: Instant,
) -> Result<(), CliError> {
    output::summary(
        args.format,
        &[
            ("container", json!(shown)),
            ("deleted", json!(deleted)),
            ("failed", json!(failed)),
            ("ru", tenths(cosmos.meter().total())),
            ("seconds", tenths(started.elapsed().as_secs_f64())),
        ],
    )
}

/// Id and key of every document up to `max`, and whether there are more.
async fn list(container: &Container, max: u64, progress: &Progress) -> Result<(Vec<ItemKey>, bool), CliError> {
    let sql = list_sql(container.key_paths());
    let mut pages = container.query(&sql, &[], None, None).await?;
    let mut items = Vec::new();
    while let Some(page) = pages.next().await {
        for row in page?.documents {
            if items.len() as u64 >= max {
                return Ok((items, true));
            }
            items.push(item(row.get(), container.key_paths().len()).map_err(CliError::failed)?);
            progress.inc(1);
        }
    }
    Ok((items, false))
}

/// Only ids and key components, each under a name of its own: a missing one stays missing, as undefined.
fn list_sql(paths: &KeyPaths) -> String {
    let mut sql = String::from("SELECT c.id AS id");
    for (i, path) in paths.segments().iter().enumerate() {
        sql.push_str(&format!(", {} AS k{i}", sql_path(path)));
    }
    sql + " FROM c"
}

fn item(row: &str, components: usize) -> Result<ItemKey, String> {
    let row = RawDocument::parse(row).map_err(|e| format!("a row of the listing is not understood: {e}"))?;
    let id = row.get_str("id").ok_or("a row of the listing has no id")?.into_owned();
    let parts = (0..components).map(|i| KeyPaths::extract_one(&[format!("k{i}")], &row)).collect();
    Ok(ItemKey { id, partition_key: PartitionKey(parts) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listing_asks_for_ids_and_keys_only() {
        let paths = KeyPaths::parse(&["/tenant", "/user/\"a/b\""]).unwrap();
        assert_eq!(list_sql(&paths), "SELECT c.id AS id, c['tenant'] AS k0, c['user']['a/b'] AS k1 FROM c");
    }

    #[test]
    fn a_key_keeps_the_difference_between_null_and_undefined() {
        let item = item(r#"{"id":"a","k1":null,"k2":4.5}"#, 3).unwrap();
        assert_eq!(item.partition_key.to_string(), "[{},null,4.5]");
        assert!(super::item("{}", 1).is_err());
    }
}
