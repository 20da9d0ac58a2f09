//! Applies a plan: conditional writes, nothing overwritten that is not in the history, every outcome recorded.

use std::sync::Mutex;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    pace::{Pace, read_ru, write_ru},
    plan::{Action, STAMP, Step},
    survey::{Places, etag_of},
};
use crate::{
    change::{
        Change, Op, Shape, Via, diff, edit,
        key::ItemKey,
        raw::RawDocument,
        record::{self, RecordContext},
        version::Version,
    },
    cosmos::{Disposition, Failure, PATIENCE, Retry},
    history::{HistoryWriter, reader::scope},
};

/// How a plan is applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manner {
    /// Epoch seconds written into restored documents as [`STAMP`]; `None`: the exact content.
    #[serde(default)]
    pub stamp: Option<i64>,
    /// Only these fields are put back into the live document; empty: the whole document.
    #[serde(default)]
    pub only: Vec<String>,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Written.
    Done,
    /// Found as it should be: an earlier run had done it.
    Already,
    /// The document moved since the plan was made; untouched.
    Conflict,
    /// Could not be done; untouched, as far as is known.
    Failed,
}

/// The record of one step, kept in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The document's id.
    pub id: String,
    /// Its partition key, as a JSON array.
    pub pk: serde_json::Value,
    /// What was to be done.
    pub action: Action,
    /// What became of it.
    pub fate: Fate,
    /// Etag of the document that was replaced or deleted.
    #[serde(default)]
    pub before: Option<String>,
    /// Record in the history that holds that document.
    #[serde(default)]
    pub before_record: Option<String>,
    /// Etag of the document that was written.
    #[serde(default)]
    pub after: Option<String>,
    /// Why not, where it was not done.
    #[serde(default)]
    pub message: Option<String>,
}

/// Applies steps to a target.
pub struct Applier<'a> {
    /// The containers.
    pub places: &'a Places,
    /// How.
    pub manner: &'a Manner,
    /// Overwrite documents that moved since the plan was made.
    pub force: bool,
    /// Request units a second.
    pub pace: Pace,
}

/// What a step comes to: the document to be written, and the one that is there.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The text to write; `None` for a delete.
    pub text: Option<String>,
    /// The live document's text, with system properties.
    pub live: Option<String>,
}

impl Applier<'_> {
    /// Reads the version and the live document of a step; the text that would be written.
    ///
    /// # Errors
    /// When either cannot be read or the version is no document.
    pub async fn prepare(&self, step: &Step) -> Result<Prepared, Failure> {
        let item = step.item().map_err(|e| Failure::invalid("read plan".into(), e))?;
        let live = self.read_live(&item).await?;
        if step.action == Action::Delete {
            return Ok(Prepared { text: None, live });
        }
        let facts = step
            .version
            .as_ref()
            .ok_or_else(|| Failure::invalid("read plan".into(), "a step to write has no version".into()))?;
        let document = read_version(self.places, &item, &facts.record_id).await?;
        let text = compose(&document, live.as_deref(), self.manner)
            .map_err(|e| Failure::invalid("compose document".into(), e))?;
        Ok(Prepared { text: Some(text), live })
    }

    /// Applies steps, several at a time, and tells `each` about every outcome as it comes.
    pub async fn run(
        &self,
        steps: &[&Step],
        concurrency: usize,
        stop: &tokio_util::sync::CancellationToken,
        each: impl FnMut(&Outcome),
    ) -> Vec<Outcome> {
        let each = Mutex::new(each);
        stream::iter(steps)
            // Once stopped, nothing new is begun; what has begun is finished and reported.
            .take_while(|_| std::future::ready(!stop.is_cancelled()))
            .map(|step| async {
                self.pace.wait().await;
                let outcome = self.one(step).await;
                if let Ok(mut each) = each.lock() {
                    each(&outcome);
                }
                outcome
            })
            .buffer_unordered(concurrency.max(1))
            .collect()
            .await
    }

    async fn one(&self, step: &Step) -> Outcome {
        let mut outcome = Outcome {
            id: step.id.clone(),
            pk: step.pk.clone(),
            action: step.action,
            fate: Fate::Failed,
            before: step.live.clone(),
            before_record: None,
            after: None,
            message: None,
        };
        if let Err(failure) = self.write(step, &mut outcome).await {
            outcome.message = Some(failure.to_string());
        }
        outcome
    }

    async fn write(&self, step: &Step, outcome: &mut Outcome) -> Result<(), Failure> {
        let item = step.item().map_err(|e| Failure::invalid("read plan".into(), e))?;
        let prepared = self.prepare(step).await?;
        if let (Some(text), Some(expected)) = (&prepared.text, &step.sha256)
            && sha256(text) != *expected
            // Single fields go into whatever the document is now; its etag guards that.
            && self.manner.only.is_empty()
        {
            return Err(Failure::invalid(
                "compose document".into(),
                "the version is not the one that was planned; make a new plan".into(),
            ));
        }
        let etag = prepared.live.as_deref().and_then(|live| etag_of(live.as_bytes()));
        let there = match (&prepared.text, &prepared.live) {
            (Some(text), Some(live)) => same_document(text, live, self.manner.stamp.is_some()),
            (None, None) => true,
            _ => false,
        };
        if there {
            outcome.fate = Fate::Already;
            outcome.before_record = step.live.as_deref().map(|etag| record::id_of_version(&item.id, etag));
            outcome.after = etag;
            return Ok(());
        }
        if etag != step.live && !self.force {
            outcome.fate = Fate::Conflict;
            outcome.message = Some(match (&step.live, &etag) {
                (Some(_), None) => "was deleted since the plan was made".into(),
                (None, Some(_)) => "was created since the plan was made".into(),
                _ => "was changed since the plan was made".into(),
            });
            return Ok(());
        }
        outcome.before = etag.clone();
        if let Some(live) = &prepared.live {
            if self.places.is_elsewhere() {
                // Its documents are not the source's: saved in the history they would pass for versions of it. So
                // nothing is replaced there, and only what a restore made itself is deleted (an undo, by its etag).
                if step.action != Action::Delete || self.force {
                    outcome.fate = Fate::Conflict;
                    outcome.message =
                        Some("the container has another document there; it cannot be saved, so it stays".into());
                    return Ok(());
                }
            } else {
                outcome.before_record = Some(self.save(&item, live).await?);
            }
        }
        let retry = Retry::for_at_most(PATIENCE);
        let target = &self.places.target;
        let (key, id) = (&item.partition_key, item.id.as_str());
        let written = retry
            .run(|| async {
                match (&prepared.text, &etag) {
                    (Some(text), Some(etag)) => target.replace(key, id, text.clone().into_bytes(), etag).await,
                    (Some(text), None) => target.create(key, id, text.clone().into_bytes()).await,
                    (None, etag) => target.delete(key, id, etag.as_deref()).await,
                }
            })
            .await;
        match written {
            Ok(written) => {
                outcome.fate = Fate::Done;
                outcome.after = written.etag.filter(|_| prepared.text.is_some());
                Ok(())
            }
            Err(f)
                if matches!(
                    f.disposition,
                    Disposition::PreconditionFailed | Disposition::Conflict | Disposition::NotFound
                ) =>
            {
                // Either somebody was quicker, or an attempt of ours was stored although it was reported as failed.
                let now = self.read_live(&item).await?;
                let ours = match (&prepared.text, &now) {
                    (Some(text), Some(now)) => same_document(text, now, false),
                    (None, None) => true,
                    _ => false,
                };
                outcome.fate = if ours { Fate::Done } else { Fate::Conflict };
                outcome.after = now.as_deref().filter(|_| ours).and_then(|now| etag_of(now.as_bytes()));
                outcome.message = (!ours).then(|| "was changed while it was being restored".into());
                Ok(())
            }
            Err(f) => Err(f),
        }
    }

    /// Makes sure that the live document is in the history before it is overwritten. Returns its record's id.
    async fn save(&self, item: &ItemKey, live: &str) -> Result<String, Failure> {
        let wrong = |e: String| Failure::invalid("save live version".into(), e);
        let document = RawDocument::parse(live).map_err(|e| wrong(e.to_string()))?;
        let change = Change {
            op: Op::Upsert,
            id: item.id.as_str().into(),
            ts: document.get_i64("_ts"),
            document,
            text: live,
            shape: Shape::Stored,
            lsn: None,
            prev_lsn: None,
            metadata_key: None,
            healed: false,
        };
        let now = chrono::Utc::now();
        let at = now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let paths = self.places.changes.key_paths();
        let context = RecordContext { via: Via::Restore, at: &at, at_seconds: now.timestamp(), paths };
        let mut record = record::build(&change, None, false, context).map_err(|e| wrong(e.reason))?;
        // Capture may have stored it, with an LSN that is not known here.
        record.create_only = true;
        Retry::for_at_most(PATIENCE).run(|| HistoryWriter::write(&self.places.changes, &record)).await?;
        Ok(record.id)
    }

    async fn read_live(&self, item: &ItemKey) -> Result<Option<String>, Failure> {
        let bytes = Retry::for_at_most(PATIENCE).run(|| self.places.target.read(&item.partition_key, &item.id)).await?;
        bytes
            .map(|b| String::from_utf8(b.to_vec()))
            .transpose()
            .map_err(|_| Failure::invalid("read item".into(), "the service sent text that is not UTF-8".into()))
    }
}

/// The document of a record; the record's key follows from the item's.
///
/// # Errors
/// When it cannot be read, or is no document.
pub async fn read_version(places: &Places, item: &ItemKey, record_id: &str) -> Result<String, Failure> {
    let changes = &places.changes;
    let key = scope(changes.key_paths(), places.source.key_paths(), &item.partition_key, Some(&item.id));
    let missing =
        || Failure::invalid("read version".into(), format!("record {record_id} is not in the history any more"));
    let retry = Retry::for_at_most(PATIENCE);
    let text = match key {
        Some(key) if key.0.len() == changes.key_paths().len() => {
            let bytes = retry.run(|| changes.read(&key, record_id)).await?.ok_or_else(missing)?;
            String::from_utf8(bytes.to_vec()).map_err(|_| missing())?
        }
        part => {
            let params = [crate::cosmos::Param::new("id", record_id)];
            let found = changes.query_all("SELECT * FROM c WHERE c.id = @id", &params, part.as_ref()).await?;
            found.first().ok_or_else(missing)?.get().to_owned()
        }
    };
    let version = Version::parse(&text).map_err(|e| Failure::invalid("read version".into(), e.to_string()))?;
    version
        .document
        .ok_or_else(|| Failure::invalid("read version".into(), format!("record {record_id} is a tombstone")))
}

/// The text that is written: the version, or the live document with single fields of the version; and the stamp.
fn compose(version: &str, live: Option<&str>, manner: &Manner) -> Result<String, String> {
    let mut text = match live {
        Some(live) if !manner.only.is_empty() => {
            let mut text = without_system(live)?;
            for path in &manner.only {
                let path = crate::change::key::parse_path(path)?;
                text = match diff::value_at(version, &path) {
                    Some(value) => edit::set(&text, &path, value)?,
                    None => edit::remove(&text, &path)?,
                };
            }
            text
        }
        _ => version.to_owned(),
    };
    if let Some(stamp) = manner.stamp {
        text = edit::set(&text, &[STAMP.to_owned()], &stamp.to_string())?;
    }
    Ok(text)
}

/// A document as the user wrote it.
fn without_system(text: &str) -> Result<String, String> {
    record::own_text(text).map_err(|e| format!("the document is not a JSON object: {e}"))
}

/// Whether two documents mean the same, system properties aside, and the stamp too when it is not looked at.
pub fn same_document(a: &str, b: &str, ignore_stamp: bool) -> bool {
    let plain = |text: &str| {
        let text = without_system(text).ok()?;
        if ignore_stamp { edit::remove(&text, &[STAMP.to_owned()]).ok() } else { Some(text) }
    };
    match (plain(a), plain(b)) {
        (Some(a), Some(b)) => diff::same(&a, &b),
        _ => false,
    }
}

/// SHA-256 of a text, hexadecimal.
pub fn sha256(text: &str) -> String {
    record::hex(&Sha256::digest(text.as_bytes()))
}

/// Most changed paths that a step names.
const SHOWN_PATHS: usize = 12;

impl Applier<'_> {
    /// Completes the steps that would write: what changes, and the checksum of what would be written. A document that
    /// means the same already is kept. Nothing is written.
    ///
    /// # Errors
    /// When a version or a live document cannot be read.
    pub async fn refine(&self, steps: Vec<Step>, concurrency: usize) -> Result<Vec<Step>, Failure> {
        stream::iter(steps).map(|step| self.refine_one(step)).buffered(concurrency.max(1)).try_collect().await
    }

    async fn refine_one(&self, mut step: Step) -> Result<Step, Failure> {
        if !step.action.writes() {
            return Ok(step);
        }
        self.pace.wait().await;
        let prepared = self.prepare(&step).await?;
        let live = prepared.live.as_ref().map_or(0, String::len);
        // Two reads, the version that is saved, and the write.
        step.ru = read_ru(live) + if live > 0 { write_ru(live) } else { 0.0 };
        let Some(text) = &prepared.text else {
            step.ru += write_ru(live);
            return Ok(step);
        };
        step.ru += read_ru(text.len()) + write_ru(text.len());
        if let Some(live) = &prepared.live {
            if same_document(text, live, self.manner.stamp.is_some()) {
                step.action = Action::Keep;
                step.notes = vec!["has that content already".into()];
                return Ok(step);
            }
            let plain = without_system(live).map_err(|e| Failure::invalid("compare documents".into(), e))?;
            let changed = diff::between(&plain, text);
            step.changed = changed.iter().take(SHOWN_PATHS).map(|d| d.path_text()).collect();
        }
        step.sha256 = Some(sha256(text));
        Ok(step)
    }
}
