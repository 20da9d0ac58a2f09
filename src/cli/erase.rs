//! `erase`: every trace of one item, proved to be gone, with a receipt that names nobody.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::SecondsFormat;
use clap::Args;
use futures::TryStreamExt as _;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    CliError, ConnectionArgs, Exit,
    from_archive::open_archive,
    output::{self, Format, count_of, note, printable, tenths},
    restore,
    selection::full_key,
    verify::span,
};
use crate::{
    archive::{Archive, erase::Mentions},
    change::{
        Op,
        key::{ItemKey, KeyValue, PartitionKey},
        record::{ORIGINAL_ID, hex},
        time::PointInTime,
    },
    config::{self, Account, CaptureConfig, Names},
    cosmos::{Cosmos, RETRY_TIMEOUT, Retry, RuLimiter, Status},
    dead_letters::{DeadLetterError, DeadLetterStore},
    history::scan::{Containers, LiveDetail, PIECE_ROWS, Scan, Scope, facts_of_id},
    restore::forget,
    upkeep::letters::is_about,
};

/// What is typed to go on; the id would be in the terminal's log.
const ANSWER: &str = "erase";

/// Flags of `erase`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind erase --id 28036 --pk 28036 --live
Backups and saved plans are not looked at.")]
pub struct EraseArgs {
    /// The document
    #[arg(long, value_name = "ID")]
    id: String,
    /// Its partition key, as text or as a JSON array of the components
    #[arg(long, value_name = "KEY", value_parser = PartitionKey::parse)]
    pk: PartitionKey,
    /// The live document too
    #[arg(long)]
    live: bool,
    /// After the live document was deleted, wait so long for capture to deliver that: a span such as 30s or 2m
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "30s")]
    settle: i64,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Directory or blob container URL [setting: REWIND_DEAD_LETTERS]
    #[arg(long, value_name = "DIR|URL")]
    dead_letters: Option<String>,
    /// Folder of the local journals of restores
    #[arg(long, value_name = "DIR", default_value = ".cosmos-rewind")]
    journal: PathBuf,
    /// What follow wrote to a folder or to blobs, too: FOLDER, or blob:URL; repeatable
    #[arg(long, value_name = "ARCHIVE")]
    archive: Vec<String>,
    /// How to print the receipt
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
///
/// # Errors
/// When something cannot be read or deleted; what was erased before stays erased, and the next run goes on. Whatever is
/// found afterwards makes the exit code 3.
pub async fn run(args: EraseArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let settings = args.connection.settings_with(args.dead_letters.as_ref())?;
    let names = Names::from_settings(&settings, None)?;
    let account = Account::from_settings(&settings)?;
    let config = CaptureConfig::from_settings(&settings, &config::app_root())?;
    let open = |text: &String| open_archive("--archive", text, &account.credential);
    let archives = args.archive.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let letters = DeadLetterStore::open(&config.dead_letters, &account.credential).map_err(|e| unreadable(&e))?;
    let cosmos = Cosmos::new(account);
    let containers = restore::containers(&cosmos, &names, None).await?;
    full_key(&args.pk, &names, &containers)?;
    let item = ItemKey { id: args.id.clone(), partition_key: args.pk.clone() };
    if containers.record_key(&item, "").is_none() {
        return Err(CliError::usage(
            format!(
                "{} is keyed {}: where a record lies does not follow from its document's key",
                names.changes,
                containers.changes.key_paths()
            ),
            "erase needs a history keyed by paths of the source's key, /_originalId or /id, as provision makes it",
        ));
    }
    let pace = RuLimiter::new(cosmos.meter(), None);
    let items = items(&item, &containers);
    let eraser = Eraser { args: &args, containers: &containers, letters, archives, item, items, pace };

    let there = eraser.look().await?;
    let live = if args.live { "the live document" } else { "not the live document" };
    let question = format!(
        "{}, {}, {} in {} of restores, {} in {} of archives and {live} will be erased from {} of {}. They cannot be had back.",
        count_of(there.records.len() as u64, "version"),
        count_of(there.letters.len() as u64, "dead letter"),
        count_of(there.journals.mentions + there.local.mentions, "mention"),
        count_of(there.journals.journals + there.local.journals, "journal"),
        count_of(there.archived.events, "event"),
        count_of(there.archived.files, "file"),
        names.database,
        cosmos.endpoint()
    );
    let found = !there.is_empty(args.live);
    let mut others = Vec::new();
    if found {
        output::confirm(&question, ANSWER, args.yes)?;
    } else {
        let (documents, _) = facts_of_id(&containers, &eraser.pace, &args.id, None).await?;
        others = documents.into_iter().map(|other| format!("--pk '{}'", other.item.partition_key)).collect();
        note("there is nothing of it: no version, dead letter or journal has this id and partition key");
    }
    let (erased, live) = eraser.erase(there).await?;
    let left = eraser.look().await?;
    if left.live && !args.live {
        note("note: the live document stays, and its next change is captured again; --live erases it too");
    }
    let receipt = [
        ("item", json!(digest(&eraser.item))),
        ("found", json!(found)),
        ("versions", json!(erased.records.len())),
        ("dead_letters", json!(erased.letters.len())),
        ("journals", json!(erased.journals.journals + erased.local.journals)),
        ("archived", json!(erased.archived.events)),
        ("live", json!(live)),
        ("left", json!(left.count(args.live))),
        ("at", json!(crate::surroundings::now().to_rfc3339_opts(SecondsFormat::Secs, true))),
        ("ru", tenths(cosmos.meter().total())),
        ("seconds", tenths(started.elapsed().as_secs_f64())),
    ];
    output::summary(args.format, &receipt)?;
    if !others.is_empty() {
        output::hint(&printable(&format!("the history has this id under another key: {}", others.join(", "))));
        return Ok(Exit::Incomplete);
    }
    if left.is_empty(args.live) {
        return Ok(Exit::Done);
    }
    output::hint("something of it is there, captured meanwhile or not to be deleted: run the command again");
    Ok(Exit::Incomplete)
}

/// What stands for the item in the receipt: the SHA-256 of `["<id>",[<key components>]]`.
fn digest(item: &ItemKey) -> String {
    hex(&Sha256::digest(json!([item.id, item.partition_key.to_json()]).to_string().as_bytes()))
}

fn unreadable(e: &DeadLetterError) -> CliError {
    CliError { message: e.to_string(), hint: Some("check REWIND_DEAD_LETTERS".into()), exit: Exit::Failed }
}

/// What there is of an item.
#[derive(Debug, Default)]
struct Traces {
    /// Ids of records and where they lie; tombstones last, because they hide the others.
    records: Vec<(String, PartitionKey)>,
    /// Names of letters.
    letters: Vec<String>,
    journals: forget::Mentions,
    local: forget::Mentions,
    archived: Mentions,
    live: bool,
}

impl Traces {
    fn count(&self, with_live: bool) -> u64 {
        let live = u64::from(self.live && with_live);
        let journals = self.journals.mentions + self.local.mentions;
        self.records.len() as u64 + self.letters.len() as u64 + journals + self.archived.events + live
    }

    fn is_empty(&self, with_live: bool) -> bool {
        self.count(with_live) == 0
    }
}

struct Eraser<'a> {
    args: &'a EraseArgs,
    containers: &'a Containers,
    letters: DeadLetterStore,
    archives: Vec<Archive>,
    item: ItemKey,
    /// The item, and what its tombstones are found under.
    items: Arc<[ItemKey]>,
    pace: RuLimiter,
}

/// The item, and the key under which its tombstones are found: they have only the members of the history's own key.
/// Where the source's are not among them, nobody can tell whose a tombstone is but by the id.
fn items(item: &ItemKey, containers: &Containers) -> Arc<[ItemKey]> {
    let source = containers.source.key_paths().segments();
    let named = containers.changes.key_paths().segments();
    if source.iter().all(|path| named.contains(path) && *path != [ORIGINAL_ID] && *path != ["id"]) {
        return [item.clone()].into();
    }
    let key = source.iter().map(|path| match path.as_slice() {
        [name] if name == "id" => KeyValue::String(item.id.clone()),
        _ => KeyValue::Undefined,
    });
    [item.clone(), ItemKey { id: item.id.clone(), partition_key: PartitionKey(key.collect()) }].into()
}

impl Eraser<'_> {
    /// Everything there is.
    async fn look(&self) -> Result<Traces, CliError> {
        let item = &self.item;
        let read = || self.containers.source.read(&item.partition_key, &item.id);
        Ok(Traces {
            records: self.records().await?,
            letters: self.letters().await?,
            journals: forget::in_history(&self.containers.changes, &self.items, false).await?,
            local: self.local(false).await?,
            archived: self.archived(false).await?,
            live: Retry::for_at_most(RETRY_TIMEOUT).run(read).await?.is_some(),
        })
    }

    async fn records(&self) -> Result<Vec<(String, PartitionKey)>, CliError> {
        let scope = Scope::Items(self.items.to_vec());
        let scan = Scan {
            containers: self.containers,
            wanted: &scope,
            at: PointInTime::END,
            hash_ranges: &[],
            live: LiveDetail::No,
            piece_rows: PIECE_ROWS,
            pace: &self.pace,
            needs_text: &|_| false,
        };
        let pieces: Vec<_> = scan.pieces().try_collect().await?;
        let mut records = Vec::new();
        for found in pieces.into_iter().flat_map(|piece| piece.found) {
            let own = Some(&found.item) == self.items.first();
            let unkeyed = found.unkeyed.iter().filter(|_| own);
            for version in found.versions.iter().chain(unkeyed) {
                let gone = version.op.is_some_and(Op::is_tombstone);
                if (own || gone)
                    && let Some(key) = self.containers.record_key(&found.item, &version.record_id)
                {
                    records.push((gone, version.record_id.clone(), key));
                }
            }
        }
        records.sort_by_key(|(gone, ..)| *gone);
        Ok(records.into_iter().map(|(_, id, key)| (id, key)).collect())
    }

    async fn letters(&self) -> Result<Vec<String>, CliError> {
        let mut found = Vec::new();
        for name in self.letters.list().await.map_err(|e| unreadable(&e))? {
            let letter = self.letters.get(&name).await.map_err(|e| unreadable(&e))?;
            if is_about(&letter, &self.item, self.containers.source.key_paths()) {
                found.push(name);
            }
        }
        Ok(found)
    }

    async fn local(&self, remove: bool) -> Result<forget::Mentions, CliError> {
        let (folder, items) = (self.args.journal.clone(), self.items.clone());
        let shown = folder.display().to_string();
        let found = tokio::task::spawn_blocking(move || forget::in_folder(&folder, &items, remove)).await;
        found.map_err(std::io::Error::other).and_then(|found| found).map_err(|e| CliError {
            message: format!("journals in {shown}: {e}"),
            hint: Some("--journal names their folder".into()),
            exit: Exit::Failed,
        })
    }

    async fn archived(&self, remove: bool) -> Result<Mentions, CliError> {
        let mut all = Mentions::default();
        // In an archive a tombstone has its document's own key.
        let item = Arc::from([self.item.clone()]);
        for archive in &self.archives {
            let found = archive.mentions(&item, remove).await.map_err(|damage| CliError {
                message: format!("--archive: {damage}"),
                hint: Some(
                    "whose it is cannot be told; move away what is no part of the archive, and run the command again"
                        .into(),
                ),
                exit: Exit::Failed,
            })?;
            all.events += found.events;
            all.files += found.files;
        }
        Ok(all)
    }

    /// Erases what there is; and whether there was a live document that was deleted.
    async fn erase(&self, mut there: Traces) -> Result<(Traces, bool), CliError> {
        let item = &self.item;
        let live = self.args.live && there.live;
        if live {
            let delete = || self.containers.source.delete(&item.partition_key, &item.id, None);
            deleted(Retry::for_at_most(RETRY_TIMEOUT).run(delete).await.map(drop))?;
            // Capture delivers the delete, and may heal the version before it: both have to be there to be erased.
            let wait = Duration::from_secs(u64::try_from(self.args.settle).unwrap_or_default());
            if !wait.is_zero() {
                note(&format!("waiting    {} s for capture to deliver the delete (--settle)", wait.as_secs()));
                tokio::time::sleep(wait).await;
            }
            there = self.look().await?;
        }
        for name in &there.letters {
            self.letters.delete(name).await.map_err(|e| unreadable(&e))?;
        }
        for (id, key) in &there.records {
            self.pace.wait().await;
            deleted(
                Retry::for_at_most(RETRY_TIMEOUT).run(|| self.containers.changes.delete(key, id, None)).await.map(drop),
            )?;
        }
        if there.journals.mentions > 0 {
            forget::in_history(&self.containers.changes, &self.items, true).await?;
        }
        if there.local.mentions > 0 {
            self.local(true).await?;
        }
        if there.archived.events > 0 {
            self.archived(true).await?;
        }
        Ok((there, live))
    }
}

/// What is gone already is as good as deleted. The service's message names the item: it is left out.
fn deleted(result: Result<(), crate::cosmos::Failure>) -> Result<(), CliError> {
    match result {
        Err(f) if f.status == Status::NO_ITEM => Ok(()),
        Err(f) => Err(CliError {
            message: format!("{}: {}; what was erased before stays erased", f.context, f.status),
            hint: Some("run the command again when that is mended: it goes on".into()),
            exit: Exit::Failed,
        }),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receipt_has_a_digest_that_can_be_repeated() {
        let item = ItemKey { id: "28036".into(), partition_key: PartitionKey::parse("28036").unwrap() };
        // printf '%s' '["28036",["28036"]]' | sha256sum
        assert_eq!(digest(&item), hex(&Sha256::digest(br#"["28036",["28036"]]"#)));
    }
}
