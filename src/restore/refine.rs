//! Completes the steps of a plan before it is shown: what would change, and what that costs.

use super::{
    apply::{Applier, ApplyOptions, Prefetched},
    compose::without_system,
    error::StepError,
    plan::{Action, STAMP, Step},
    price::{create_ru, history_item_ru, read_ru, record_bytes, replace_ru, values_in},
};
use crate::{
    causes::chain,
    change::{diff, raw::RawDocument, time::span_text},
    clock::Clock,
    cosmos::{Failure, RuLimiter},
    history::Containers,
};

/// The largest number of changed paths that a step names.
const SHOWN_PATHS: usize = 12;

impl<'a> Applier<'a> {
    /// An applier that writes nothing, to determine what the steps of a new plan come to.
    pub fn planning(
        containers: &'a Containers,
        manner: &'a ApplyOptions,
        pace: RuLimiter,
        clock: &'a dyn Clock,
    ) -> Self {
        Self { containers, manner, force: false, fresh: true, begun: None, intents: None, texts: None, pace, clock }
    }

    /// Completes a step that would write: what changes, the checksum of the text, and the cost. A document that already
    /// means the same is kept.
    ///
    /// # Errors
    /// When the version or the live document cannot be read.
    pub async fn refine(&self, step: &mut Step, hand: Prefetched) -> Result<(), StepError> {
        if !step.action.writes() {
            return Ok(());
        }
        if hand.live.is_none() || hand.version.is_none() {
            self.pace.wait().await;
        }
        let prepared = self.prepare(step, hand).await?;
        step.ru = self.price(step, prepared.live.as_deref(), prepared.text.as_ref().map(|composed| &*composed.text));
        let Some(composed) = &prepared.text else { return Ok(()) };
        let text = &composed.text;
        if let Some(live) = &prepared.live {
            if composed.is_there(live) {
                step.action = Action::Keep;
                // What is not known of the version is not known of this answer, either.
                step.notes.insert(0, "has that content already".into());
                step.notes.extend(composed.notes.iter().cloned());
                return Ok(());
            }
            let plain = without_system(live).map_err(|e| Failure::invalid("compare documents".into(), chain(&e)))?;
            let changed = diff::between(&plain, text);
            step.changed = changed.iter().take(SHOWN_PATHS).map(|d| d.path_text()).collect();
            if changed.iter().all(|difference| difference.path == [STAMP]) {
                step.notes.push("the same members in another order".into());
            }
        }
        step.notes.extend(composed.notes.iter().cloned());
        step.notes.extend(expiry_note(text, self.containers.target.default_ttl().await?));
        step.sha256 = Some(composed.checksum());
        Ok(())
    }

    /// The estimated request units of a step that replaces `live` by `text`; without a text it deletes it.
    fn price(&self, step: &Step, live: Option<&str>, text: Option<&str>) -> f64 {
        let of_live = match (live, text) {
            (Some(_), Some(text)) => replace_ru(text.len(), values_in(text)),
            (None, Some(text)) | (Some(text), None) => create_ru(text.len(), values_in(text)),
            (None, None) => 0.0,
        };
        let is_looked_at = !step.saved || text.is_none() || !self.manner.only.is_empty() || step.is_edit();
        let look = live.filter(|_| is_looked_at).map_or(0.0, |live| read_ru(live.len()));
        // A document that is not in the history yet is saved first.
        let save = live.filter(|_| !step.saved).map_or(0.0, |live| history_item_ru(record_bytes(live.len()), 0));
        let version = text.map_or(0.0, |text| read_ru(record_bytes(text.len())));
        // A collection of MongoDB has no request units of this account.
        let is_charged = self.containers.target.namespace().is_none();
        save + version + if is_charged { of_live + look } else { 0.0 }
    }
}

/// The time to live of a document, its own or its container's, which starts anew when the document is written. Without
/// one on the container, a document's own has no effect.
fn expiry_note(text: &str, default: Option<i64>) -> Option<String> {
    let ttl = RawDocument::parse(text).ok()?.get_i64("ttl").or(default).filter(|ttl| *ttl > 0)?;
    default?;
    Some(format!("its time to live begins anew: it expires {} after it is restored", span_text(ttl)))
}
