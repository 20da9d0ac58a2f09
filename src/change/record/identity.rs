//! Whether the Functions host may have altered what identifies a record's document.

use super::{ORIGINAL_ID, ids::key_of};
use crate::change::{
    Change, TextOrigin,
    fidelity::{self, Delivery},
    key::{KeyPaths, KeyValue},
    raw::{Member, Reserved},
};

/// Whether the text of a change may differ from what the source stored.
pub fn may_be_altered(change: &Change<'_>, delivery: Delivery) -> bool {
    !change.op.is_tombstone() && (fidelity::may_be_altered(change.text, delivery) || lost_its_lsn(change))
}

/// Whether the feed replaced the document's own `_lsn` with its own: it stands before what the service adds, where only
/// a user's member does.
pub(super) fn lost_its_lsn(change: &Change<'_>) -> bool {
    let members = change.document.members();
    let place = |wanted: &dyn Fn(&Member<'_>) -> bool| members.iter().position(wanted);
    change.text_origin == TextOrigin::Feed
        && place(&|m| m.reserved() == Some(Reserved::Lsn))
            .zip(place(&|m| m.reserved() == Some(Reserved::System)))
            .is_some_and(|(own, system)| own < system)
        && members.iter().filter(|m| m.reserved() == Some(Reserved::Lsn)).count() == 1
}

/// Which part of a change's identity may have been altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// None: it is the document that it claims to be.
    Sure,
    /// Its id; its partition key is certain.
    IdUnsure,
    /// Its partition key, and perhaps its id.
    KeyUnsure,
}

/// Whether a change may belong to another document: the host also alters ids and partition keys that look like dates.
/// `paths` are those of the source, or of its history.
pub fn identity(change: &Change<'_>, delivery: Delivery, paths: &KeyPaths) -> Identity {
    if delivery == Delivery::Direct {
        return Identity::Sure;
    }
    let unsure =
        |value: &KeyValue| matches!(value, KeyValue::String(s) if fidelity::string_may_be_altered(s, delivery));
    // The service's own path names the record; the document's id is checked below.
    let is_key = |path: &[String]| !matches!(path, [name] if name == "id" || name == ORIGINAL_ID);
    let key = key_of(change, &change.document, "", "", paths).map_or(Vec::new(), |key| key.0);
    if paths.segments().iter().zip(&key).any(|(path, value)| is_key(path) && unsure(value)) {
        return Identity::KeyUnsure;
    }
    // The id in a delete's metadata is never altered.
    if change.metadata_key.is_none() && fidelity::string_may_be_altered(&change.id, delivery) {
        Identity::IdUnsure
    } else {
        Identity::Sure
    }
}
