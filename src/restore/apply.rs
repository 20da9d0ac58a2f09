//! Applies a plan: conditional writes, nothing overwritten that is not in the history, every outcome recorded.

use std::collections::HashMap;

use futures::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};

pub use super::{
    compose::{Composed, is_noted, same_document},
    outcome::{Outcome, StepResult},
};
use super::{
    compose::{compose, without_system},
    error::{GivenUp, StepError},
    journal::Intents,
    outcome::{conflicting, overtaken},
    plan::{Action, Step},
};
use crate::{
    archive::texts::KeptTexts,
    causes::chain,
    change::{
        key::ItemKey,
        merge::{self, Edit, is_own_version},
    },
    clock::Clock,
    cosmos::{Disposition, Failure, RETRY_TIMEOUT, Retry, RuLimiter, Written},
    history::{
        Containers,
        live::{self, etag_of},
    },
};

/// How a plan is applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyOptions {
    /// Epoch seconds written into restored documents as [`STAMP`](super::plan::STAMP); `None` writes the exact content.
    #[serde(default)]
    pub stamp: Option<i64>,
    /// Only these fields are put back into the live document; empty means the whole document.
    #[serde(default)]
    pub only: Vec<String>,
}

/// Applies steps to a target.
pub struct Applier<'a> {
    /// The containers.
    pub containers: &'a Containers,
    /// How.
    pub manner: &'a ApplyOptions,
    /// Whether documents that changed since the plan was made are overwritten.
    pub force: bool,
    /// Whether what the plan says about the history still holds: it was made a short while ago, and nothing was removed
    /// from the history since.
    pub fresh: bool,
    /// When applying began, by the service's clock, epoch seconds: what is older is not our own.
    pub begun: Option<i64>,
    /// Where it is noted that a step is about to be written; `None` while planning.
    pub intents: Option<&'a Intents>,
    /// Where the versions' texts are, when they come from an archive.
    pub texts: Option<&'a KeptTexts>,
    /// Request units a second.
    pub pace: RuLimiter,
    /// The time of this machine.
    pub clock: &'a dyn Clock,
}

/// The result of preparing a step: the document to write, and the one that exists.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The text to write; `None` for a delete.
    pub text: Option<Composed>,
    /// The live document's text, with system properties.
    pub live: Option<String>,
}

/// Texts that were read while planning; `None` means not read.
#[derive(Debug, Clone, Default)]
pub struct Prefetched {
    /// The version in force.
    pub version: Option<String>,
    /// The live document, `Some(None)` when it does not exist.
    pub live: Option<Option<String>>,
}

impl Applier<'_> {
    /// Reads the version and the live document of a step, and composes the text to write.
    ///
    /// # Errors
    /// When either cannot be read, or the version is not a document.
    pub async fn prepare(&self, step: &Step, hand: Prefetched) -> Result<Prepared, StepError> {
        let item = step.item().map_err(|e| Failure::invalid("read plan".into(), e))?;
        let live = match hand.live {
            Some(live) => live,
            None => self.read_live(&item, step.live.as_deref()).await?,
        };
        if step.action == Action::Delete {
            return Ok(Prepared { text: None, live });
        }
        let text = self.text(step, &item, hand.version, live.as_deref()).await?;
        Ok(Prepared { text: Some(text), live })
    }

    /// The text that a step writes.
    pub(super) async fn text(
        &self,
        step: &Step,
        item: &ItemKey,
        version: Option<String>,
        live: Option<&str>,
    ) -> Result<Composed, StepError> {
        let document = match version {
            Some(version) => version,
            None if !step.edits.is_empty() => self.edited(step, item, live).await?,
            None => {
                let facts = step
                    .version
                    .as_ref()
                    .ok_or_else(|| Failure::invalid("read plan".into(), "a step to write has no version".into()))?;
                match self.texts {
                    Some(texts) => texts.get(item, &facts.record_id)?,
                    None => self.containers.document(item, &facts.record_id).await?,
                }
            }
        };
        let composed = compose(&document, live, self.manner);
        let mut composed = composed.map_err(|e| Failure::invalid("compose document".into(), chain(&e)))?;
        let target = &self.containers.target;
        for text in [Some(&mut composed.text), composed.stamped.as_mut()].into_iter().flatten() {
            if let Some(stored) = target.as_stored(text)? {
                *text = stored;
                composed.is_exact = true;
            }
        }
        Ok(composed)
    }

    /// The live document with the values of a revert put back.
    async fn edited(&self, step: &Step, item: &ItemKey, live: Option<&str>) -> Result<String, StepError> {
        let mut texts = HashMap::new();
        for record in step.edits.iter().flat_map(Edit::records) {
            if !texts.contains_key(record) {
                let text = match self.texts.filter(|_| is_own_version(record)) {
                    Some(texts) => texts.get(item, record)?,
                    None => self.containers.document(item, record).await?,
                };
                texts.insert(record.to_owned(), text);
            }
        }
        let wrong = |problem: String| Failure::invalid("compose document".into(), problem);
        let live = live.map(without_system).transpose().map_err(|e| wrong(chain(&e)))?;
        let text = merge::edited(live.as_deref(), &step.edits, &texts).map_err(|e| wrong(e.to_string()))?;
        Ok(text.ok_or_else(|| wrong("a step to write has no document".into()))?)
    }

    /// Whether the text is the one that was planned.
    fn check(&self, step: &Step, text: Option<&Composed>) -> Result<(), Failure> {
        match (text, &step.sha256) {
            // Single fields go into whatever the document is now; its etag guards that.
            (Some(text), Some(expected)) if self.manner.only.is_empty() && !is_noted(&text.text, expected) => {
                Err(Failure::invalid(
                    "compose document".into(),
                    "the version is not the one that was planned; make a new plan".into(),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Applies steps, `concurrency` at a time. Once stopped, nothing new is begun; what has begun is finished.
    pub fn outcomes<'s>(
        &'s self,
        steps: impl Iterator<Item = Result<Step, GivenUp>> + 's,
        concurrency: usize,
        stop: &'s tokio_util::sync::CancellationToken,
    ) -> impl Stream<Item = Result<Outcome, GivenUp>> + 's {
        stream::iter(steps)
            .take_while(|_| std::future::ready(!stop.is_cancelled()))
            .map(move |step| async move {
                let _underway = self.pace.begin().await;
                self.one(&step?).await
            })
            .buffer_unordered(concurrency.max(1))
    }

    async fn one(&self, step: &Step) -> Result<Outcome, GivenUp> {
        let mut outcome = Outcome {
            id: step.id.clone(),
            pk: step.pk.clone(),
            action: step.action,
            fate: StepResult::Failed,
            before: step.live.clone(),
            before_record: None,
            after: None,
            message: None,
        };
        let written = async {
            match self.write_at_once(step, &mut outcome).await? {
                Attempt::Done => Ok(()),
                Attempt::NotMade => self.write(step, None, &mut outcome).await,
                Attempt::Moved { tried } => self.write(step, Some(tried), &mut outcome).await,
            }
        };
        match written.await {
            Ok(()) => {}
            Err(StepError::Failed(failure)) => outcome.message = Some(failure.to_string()),
            Err(StepError::Texts(error)) => return Err(GivenUp::Texts(error)),
            Err(StepError::Journal(error)) => return Err(GivenUp::Journal(error)),
        }
        Ok(outcome)
    }

    /// The common case, with half the requests: nothing has to be saved first, because there is nothing or it is in the
    /// history, and the plan's etag guards the rest. Anything else goes the long way.
    async fn write_at_once(&self, step: &Step, outcome: &mut Outcome) -> Result<Attempt, StepError> {
        let saved = step.live.is_none() || (step.saved && self.fresh && !self.containers.is_elsewhere());
        if !saved || !self.manner.only.is_empty() || step.is_edit() || !step.action.writes() {
            return Ok(Attempt::NotMade);
        }
        let item = step.item().map_err(|e| Failure::invalid("read plan".into(), e))?;
        let text = match step.action {
            Action::Delete => None,
            _ => Some(self.text(step, &item, None, None).await?),
        };
        self.check(step, text.as_ref())?;
        // Once the answer to a delete is lost, nothing tells who deleted the document; checked beforehand, it is known.
        if text.is_none()
            && self.read_live(&item, step.live.as_deref()).await?.as_deref().and_then(etag_of) != step.live
        {
            return Ok(Attempt::NotMade);
        }
        self.mark(step)?;
        let retry = Retry::for_at_most(RETRY_TIMEOUT);
        let body = text.as_ref().map(|text| &text.text);
        match self.put(&retry, &item, body, step.live.as_deref()).await {
            Ok(written) => {
                outcome.fate = StepResult::Done;
                outcome.before_record = step.live_record();
                outcome.after = written.etag.filter(|_| text.is_some());
                Ok(Attempt::Done)
            }
            Err(f) if moved(&f) => Ok(Attempt::Moved { tried: retry.may_be_done(&f) }),
            Err(f) => Err(f.into()),
        }
    }

    /// Notes that a step is about to be written. Not earlier, so that what somebody else had done before is not taken
    /// for it.
    fn mark(&self, step: &Step) -> Result<(), StepError> {
        self.intents.map_or(Ok(()), |intents| intents.note(step)).map_err(StepError::Journal)
    }

    /// Writes the text, or deletes, while the document has this etag or is not there.
    async fn put(
        &self,
        retry: &Retry,
        item: &ItemKey,
        text: Option<&String>,
        etag: Option<&str>,
    ) -> Result<Written, Failure> {
        let target = &self.containers.target;
        let (key, id) = (&item.partition_key, item.id.as_str());
        let mut written = retry
            .run(|| async {
                match (text, etag) {
                    (Some(text), Some(etag)) => target.replace(key, id, text.clone().into_bytes(), etag).await,
                    (Some(text), None) => target.create(key, id, text.clone().into_bytes()).await,
                    (None, etag) => target.delete(key, id, etag).await,
                }
            })
            .await?;
        // Without the new etag nobody could take this write back. It is written all the same.
        if let Some(text) = text.filter(|_| written.etag.is_none())
            && let Ok(Some(live)) = self.read_live(item, None).await
            && same_document(text, &live, false)
        {
            written.etag = etag_of(&live);
        }
        Ok(written)
    }

    /// Reads first, saves what is there, and writes. After an attempt, `tried` says whether it may have been stored
    /// although it was reported as failed.
    async fn write(&self, step: &Step, tried: Option<bool>, outcome: &mut Outcome) -> Result<(), StepError> {
        let item = step.item().map_err(|e| Failure::invalid("read plan".into(), e))?;
        // An attempt has shown that the document is another one.
        let assumed = step.live.as_deref().filter(|_| tried.is_none());
        let live = self.read_live(&item, assumed).await?;
        let etag = live.as_deref().and_then(etag_of);
        let has_moved = etag != step.live;
        let prepared = match self.prepare(step, Prefetched { version: None, live: Some(live) }).await {
            // What contained a value may be gone since.
            Err(StepError::Failed(failure)) if has_moved && step.is_edit() && failure.is_own() => {
                conflicting(outcome, step, etag.as_ref());
                return Ok(());
            }
            prepared => prepared?,
        };
        // A merge belongs to the document that was read; with another document the text would differ.
        if !(has_moved && step.is_edit()) {
            self.check(step, prepared.text.as_ref())?;
        }
        let there = match (&prepared.text, &prepared.live) {
            (Some(text), Some(live)) => text.is_there(live),
            (None, None) => true,
            _ => false,
        };
        if there {
            // Somebody else may have had the same effect before an attempt of ours whose answer was lost.
            let ours = tried == Some(true)
                && match (&prepared.text, &prepared.live) {
                    (Some(text), Some(live)) => text.is(live) && !self.is_older(live),
                    _ => true,
                };
            outcome.fate = if ours { StepResult::Done } else { StepResult::Already };
            outcome.before_record = step.live_record();
            outcome.after = etag;
            return Ok(());
        }
        // A merge does not know somebody's later edit, which would be lost: so it cannot be forced.
        if has_moved && (!self.force || !step.edits.is_empty()) {
            conflicting(outcome, step, etag.as_ref());
            return Ok(());
        }
        outcome.before = etag.clone();
        if let Some(live) = &prepared.live {
            if self.containers.is_elsewhere() {
                // The documents there are not the source's: saved in the history they would pass for versions of it. So
                // nothing is replaced there, and only what a restore itself created is deleted (by an undo, on its
                // etag).
                if step.action != Action::Delete || self.force {
                    outcome.fate = StepResult::Conflict;
                    outcome.message =
                        Some("the container has another document there; it cannot be saved, so it stays".into());
                    return Ok(());
                }
            } else if step.saved && self.fresh && !has_moved {
                outcome.before_record = step.live_record();
            } else {
                outcome.before_record = Some(self.save(&item, live).await?);
            }
        }
        self.mark(step)?;
        let body = prepared.text.as_ref().map(|text| &text.text);
        let written = self.put(&Retry::for_at_most(RETRY_TIMEOUT), &item, body, etag.as_deref()).await;
        match written {
            Ok(written) => {
                outcome.fate = StepResult::Done;
                outcome.after = written.etag.filter(|_| prepared.text.is_some());
                Ok(())
            }
            Err(f) if moved(&f) => {
                // Either somebody was quicker, or an attempt of ours was stored although it was reported as failed.
                let now = self.read_live(&item, None).await?;
                let ours = match (&prepared.text, &now) {
                    (Some(text), Some(now)) => text.is(now),
                    (None, None) => true,
                    _ => false,
                };
                let now = now.as_deref().and_then(etag_of);
                overtaken(outcome, ours, now == etag);
                outcome.after = now.filter(|_| ours);
                Ok(())
            }
            Err(f) => Err(f.into()),
        }
    }

    async fn read_live(&self, item: &ItemKey, assumed: Option<&str>) -> Result<Option<String>, Failure> {
        live::read_now(&*self.containers.target, item, assumed).await
    }
}

/// The result of an attempt without reading first.
enum Attempt {
    Done,
    NotMade,
    Moved { tried: bool },
}

/// Whether a conditional write found another document than expected. A 404 may also concern the container, which the
/// next read will reveal.
fn moved(failure: &Failure) -> bool {
    matches!(failure.disposition, Disposition::PreconditionFailed | Disposition::Conflict | Disposition::NotFound)
}
