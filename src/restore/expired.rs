//! The fate of a document that a restore wrote and that is gone since: one that has expired by its time to live was
//! changed by nobody.

use super::{
    apply::Applier,
    plan::{Action, Step},
};
use crate::{
    change::{Op, key::ItemKey, time::PointInTime, version::Version},
    cosmos::{Disposition, Failure},
    history::{
        histories::{TextDetail, histories},
        known::place_of_live,
        timeline::Timeline,
    },
};

/// When the restore was planned, and when it is taken back, epoch seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct UndoTimes {
    pub(super) restored: i64,
    pub(super) undone: i64,
}

/// Why a document is gone that a restore wrote.
#[derive(Debug, PartialEq, Eq)]
enum WhyGone {
    /// It has expired. Without the restore it would be there, or it would not; `None` when that is not known.
    Expired { would_be_there: Option<bool> },
    /// Its time to live ended then. No delete is in the history (yet).
    Ended(PointInTime),
    /// It was deleted, or nothing is known.
    Otherwise,
}

/// The step that takes back what a restore wrote, when the document is gone since. What has expired stays gone, unless
/// it expired because of the restore.
///
/// # Errors
/// When the history cannot be read.
pub(super) async fn of_gone(
    applier: &Applier<'_>,
    back: &mut Step,
    item: &ItemKey,
    times: UndoTimes,
) -> Result<(), Failure> {
    let gone = why_gone(applier, back, item, times).await?;
    let (action, note) = match (back.action, gone) {
        (Action::Delete, WhyGone::Expired { .. }) | (_, WhyGone::Expired { would_be_there: Some(false) }) => {
            (Action::Keep, "has expired since, and stays gone".to_owned())
        }
        (Action::Delete, _) => (Action::Keep, "is gone already".to_owned()),
        (_, WhyGone::Expired { would_be_there: Some(true) }) => {
            (Action::Recreate, "has expired since, by the time to live that the restore gave it".to_owned())
        }
        (action, WhyGone::Expired { would_be_there: None }) => {
            (action, "has expired since: a conflict, which stays gone unless --force".to_owned())
        }
        (action, WhyGone::Ended(end)) => (
            action,
            format!(
                "is gone since: its time to live ended at {end}, unless somebody deleted it before; a conflict, which stays gone unless --force"
            ),
        ),
        (action, WhyGone::Otherwise) => {
            (action, "was changed since: a conflict, which stays unless --force".to_owned())
        }
    };
    back.notes.push(note);
    if action != back.action {
        // Nothing is there, and that is no surprise.
        (back.action, back.live, back.saved) = (action, None, false);
    }
    Ok(())
}

async fn why_gone(applier: &Applier<'_>, back: &Step, item: &ItemKey, times: UndoTimes) -> Result<WhyGone, Failure> {
    let containers = applier.containers;
    // Of the documents of another container, the history knows nothing.
    let Some(written) = back.live.as_deref().filter(|_| !containers.is_elsewhere()) else {
        return Ok(WhyGone::Otherwise);
    };
    let key = Some(&item.partition_key);
    let read = histories(&*containers.changes, &applier.pace, &item.id, key, TextDetail::None).await?;
    let Some(known) = read.items.into_iter().find(|known| known.key == *item) else { return Ok(WhyGone::Otherwise) };
    let own = place_of_live(&item.id, &known.versions, written).and_then(|place| known.versions.get(place));
    let since = own.map_or(times.restored, |own| own.ts);
    let order: Vec<&Version> = Timeline::of(&known.versions).versions().collect();
    let is_own = |version: &Version| own.is_some_and(|own| own.record_id == version.record_id);
    match order.as_slice() {
        [rest @ .., last] if last.op == Some(Op::Expire) && last.ts >= since => {
            // Whoever wrote it in between may have wanted it to expire.
            let untouched = rest.last().is_some_and(|before| is_own(before));
            let would_be_there =
                if untouched { would_be_there(applier, back, item, times.undone).await? } else { None };
            Ok(WhyGone::Expired { would_be_there })
        }
        [.., last] if is_own(last) && !known.unkeyed.iter().any(|delete| delete.ts >= since) => {
            let end = match whole(applier, item, &last.record_id).await? {
                Some(own) => own.expires(containers.target.default_ttl().await?),
                None => None,
            };
            Ok(end
                .filter(|end| *end <= times.undone)
                .map_or(WhyGone::Otherwise, |end| WhyGone::Ended(PointInTime::from_epoch(end))))
        }
        _ => Ok(WhyGone::Otherwise),
    }
}

/// Whether the document that the restore replaced would not have expired by now.
async fn would_be_there(applier: &Applier<'_>, back: &Step, item: &ItemKey, now: i64) -> Result<Option<bool>, Failure> {
    let Some(before) = &back.version else { return Ok(None) };
    let Some(before) = whole(applier, item, &before.record_id).await? else { return Ok(None) };
    let end = before.expires(applier.containers.target.default_ttl().await?);
    Ok(Some(end.is_none_or(|end| end > now)))
}

/// A version with its document; `None` when the history does not have it, or it cannot be read.
async fn whole(applier: &Applier<'_>, item: &ItemKey, record_id: &str) -> Result<Option<Version>, Failure> {
    applier.pace.wait().await;
    match applier.containers.record(item, record_id).await {
        Err(failure) if failure.disposition != Disposition::Poison => Err(failure),
        read => Ok(read.ok().flatten().filter(|version| version.document.is_some() && !version.is_partial())),
    }
}
