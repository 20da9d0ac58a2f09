//! Finds live documents that the history lacks, and makes the records that close the gap.

mod extent;
mod saver;

use chrono::{DateTime, Utc};

pub use self::{
    extent::{Extent, ExtentError},
    saver::Saver,
};
use crate::{
    change::{
        Change, Native, Op, TextOrigin, VersionVia, Via,
        key::ItemKey,
        raw::RawDocument,
        record::{self, Record, RecordContext},
        version::Version,
    },
    clock::Clock,
    cosmos::Failure,
    history::{known::place_of_live, layout::Layout, reading::LiveContainer, scan::ScannedItem},
};

/// The version in the history that corresponds to the live document; `None` without a live document, or when that
/// version is missing.
pub fn version_of_live(found: &ScannedItem) -> Option<&Version> {
    let place = place_of_live(&found.item.id, &found.versions, &found.live.as_ref()?.etag)?;
    found.versions.get(place)
}

/// Whether there is a live document whose version the history lacks, or has without its text.
pub fn is_missing(found: &ScannedItem) -> bool {
    found.live.is_some() && version_of_live(found).is_none_or(Version::is_absent)
}

/// The operation in the record of a live document: without any version, that it existed before capture; otherwise, that
/// it was written.
pub fn op_of(found: &ScannedItem) -> Op {
    if found.versions.is_empty() { Op::Baseline } else { Op::Upsert }
}

/// Why a live document is saved.
#[derive(Debug, Clone, Copy)]
pub enum Saving<'a> {
    /// The history lacks it. The record is only created, because capture knows more about a version.
    Missing(Op),
    /// It is about to be overwritten. The record keeps the facts that are already known about that version.
    Before(Option<&'a Version>),
}

/// The time for the record of a document that has none, by the clock that dates its other versions. Read after the
/// document.
///
/// # Errors
/// When the source does not answer.
pub async fn now_at(source: &dyn LiveContainer, clock: &dyn Clock) -> Result<DateTime<Utc>, Failure> {
    Ok(source.now().await?.unwrap_or_else(|| clock.now()))
}

/// The record of a live document, as it was read with its system properties. Its time is the document's own `_ts`, its
/// id the one that capture gives the same version. `ns` is the collection of a MongoDB document, which has no such
/// time: it gets that of `now`, see [`now_at`].
///
/// # Errors
/// When the text is not a document.
pub fn record_of_live(
    item: &ItemKey,
    text: &str,
    why: Saving<'_>,
    (ns, layout): (Option<&str>, &Layout),
    (clock, now): (&dyn Clock, DateTime<Utc>),
) -> Result<Record, Failure> {
    let wrong = |e: String| Failure::invalid("save live version".into(), e);
    let document = RawDocument::parse(text).map_err(|e| wrong(e.to_string()))?;
    let (op, known) = match why {
        Saving::Missing(op) => (op, None),
        Saving::Before(known) => (known.and_then(|known| known.op).unwrap_or(Op::Upsert), known),
    };
    // A version that capture delivered stays one, because it shows how far the history is complete.
    let via = match why {
        Saving::Missing(_) => Via::Backfill,
        Saving::Before(_) => match known.and_then(|known| known.via.as_ref()) {
            Some(VersionVia::Known(via)) => *via,
            _ => Via::Restore,
        },
    };
    let change = Change {
        op,
        id: item.id.as_str().into(),
        ts: known.filter(|known| !known.ts_from_capture).map(|known| known.ts).or(document.get_i64("_ts")),
        document,
        text,
        text_origin: TextOrigin::Stored,
        lsn: known.and_then(|known| known.lsn),
        prev_lsn: known.and_then(|known| known.prev_lsn),
        metadata_key: None,
        healed: matches!(why, Saving::Missing(_)),
        // It says neither when it was written nor where in a stream.
        native: ns.map(|ns| Native { ns: ns.into(), ..Native::default() }),
        partial: None,
    };
    let at = clock.stamp();
    let (paths, source) = (layout.changes(), Some(layout.source()));
    let context = RecordContext { via, at: &at, at_seconds: now.timestamp(), paths, source };
    record::build(&change, None, false, context).map_err(|e| wrong(e.reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::{
        change::key::{KeyPaths, PartitionKey},
        history::live::Live,
    };

    fn item() -> ItemKey {
        ItemKey { id: "a".into(), partition_key: PartitionKey::parse("p").unwrap() }
    }

    const LIVE: &str = r#"{"id":"a","pk":"p","n":1.10,"ttl":9,"_rid":"r==","_etag":"\"e1\"","_ts":1700000000}"#;

    #[test]
    fn the_record_of_a_live_document_is_found_again_as_its_version() {
        let paths = || KeyPaths::parse(&["/pk", "/_originalId"]).unwrap();
        let layout = Layout::new(paths(), paths());
        let baseline = Saving::Missing(Op::Baseline);
        let record =
            record_of_live(&item(), LIVE, baseline, (None, &layout), (&SystemClock, SystemClock.now())).unwrap();
        assert_eq!((record.id.as_str(), record.create_only), ("a~e1", true));
        let version = Version::parse(&record.body).unwrap();
        assert_eq!(
            (version.op, version.ts, version.via.as_ref()),
            (Some(Op::Baseline), 1_700_000_000, Some(&VersionVia::Known(Via::Backfill)))
        );
        assert_eq!(version.document.as_deref(), Some(r#"{"id":"a","pk":"p","n":1.10,"ttl":9}"#));
        let live = |etag: &str| Some(Live { etag: etag.into(), ts: None, text: None });
        let mut found = ScannedItem { versions: vec![version], live: live("\"e1\""), ..ScannedItem::new(item()) };
        assert!(!is_missing(&found) && version_of_live(&found).is_some());
        found.live = live("\"e2\"");
        assert!(is_missing(&found));
        assert_eq!(op_of(&found), Op::Upsert);
        found.versions.clear();
        assert_eq!(op_of(&found), Op::Baseline);
        found.live = None;
        assert!(!is_missing(&found));
        assert!(record_of_live(&item(), "[]", baseline, (None, &layout), (&SystemClock, SystemClock.now())).is_err());
    }
}
