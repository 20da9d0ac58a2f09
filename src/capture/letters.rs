//! Puts away what can never be stored, and recognises when the documents are not at fault.

use std::collections::HashMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::value::RawValue;
use tracing::warn;

use super::{Capture, CaptureError, items::Poison};
use crate::{
    causes::chain,
    cosmos::{Failure, Status},
    dead_letters::{DeadLetter, DeadLetterError},
    history::History,
};

impl<H: History> Capture<H> {
    /// Puts poison away.
    pub(super) async fn dead_letter(
        &self,
        letters: DeadLetterSource<'_>,
        poison: &[Poison],
        invocation: &str,
    ) -> Result<(), DeadLetterError> {
        // Each letter has a deterministic name: the same item twice makes one letter, whichever is last.
        let puts: Vec<_> = poison.iter().map(|one| self.bury_one(letters, one, invocation)).collect();
        stream::iter(puts).buffer_unordered(LETTERS).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn bury_one(
        &self,
        letters: DeadLetterSource<'_>,
        one: &Poison,
        invocation: &str,
    ) -> Result<(), DeadLetterError> {
        let (item, partial) = letters.of(one);
        let letter = DeadLetter {
            v: 1,
            at: self.clock.stamp(),
            function: self.function.clone(),
            invocation: invocation.to_owned(),
            id: one.id.clone(),
            status: one.status().to_string(),
            reason: chain(&one.why),
            partial: partial.or(self.partial.as_deref()).map(str::to_owned),
            delivery: Some(self.delivery),
            source: self.history.source_name(),
            via: Some(self.via),
            item: item.to_owned(),
        };
        self.dead_letters.put(&letter).await?;
        warn!(
            function = self.function,
            invocation,
            id = letter.id,
            status = letter.status,
            reason = letter.reason,
            letter = letter.name(),
            "dead letter"
        );
        Ok(())
    }
}

/// How many letters are put away concurrently.
const LETTERS: usize = 16;

/// The content of a batch's dead letters.
#[derive(Clone, Copy)]
pub(super) struct DeadLetterSource<'a> {
    pub(super) items: &'a [&'a RawValue],
    pub(super) note: Option<&'a str>,
}

impl<'a> DeadLetterSource<'a> {
    /// The item, reduced to what may be kept, and the content of `_change.partial` then. An item that could not be
    /// decoded is kept as it was delivered; otherwise nobody could find out why.
    pub(super) fn of(self, poison: &'a Poison) -> (&'a RawValue, Option<&'a str>) {
        match &poison.shaped {
            Some(shaped) => (shaped, self.note),
            None => (self.items[poison.item], None),
        }
    }
}

/// When the container is to blame: at least this many of a payload's records, and nine in ten, are refused with the
/// same status, one that says nothing about the record itself.
const REFUSED_AT_LEAST: usize = 5;

/// Puts nothing away when nearly all of a payload is refused for the same reason. Whatever the reason, the next
/// payloads would follow, and their letters would be the only history.
pub(super) fn check_refusals(poison: &[Poison], stored: usize) -> Result<(), CaptureError> {
    let mut refused: HashMap<Status, Vec<&Failure>> = HashMap::new();
    for failure in poison.iter().filter_map(Poison::containers_refusal) {
        refused.entry(failure.status).or_default().push(failure);
    }
    let Some(failures) = refused.into_values().max_by_key(Vec::len) else { return Ok(()) };
    let (alike, records) = (failures.len(), failures.len() + stored);
    match failures.first() {
        Some(&failure) if alike >= REFUSED_AT_LEAST && alike * 10 >= records * 9 => {
            Err(CaptureError::Refused { alike, records, failure: failure.clone() })
        }
        _ => Ok(()),
    }
}
