//! Whether the Functions host may have altered what tells whose version a record is.

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

/// Whether the feed put its `_lsn` in the place of the document's own: it stands before what the service adds, where
/// only a user's member does.
pub(super) fn lost_its_lsn(change: &Change<'_>) -> bool {
    let members = change.document.members();
    let place = |wanted: &dyn Fn(&Member<'_>) -> bool| members.iter().position(wanted);
    change.text_origin == TextOrigin::Feed
        && place(&|m| m.reserved() == Some(Reserved::Lsn))
            .zip(place(&|m| m.reserved() == Some(Reserved::System)))
            .is_some_and(|(own, system)| own < system)
        && members.iter().filter(|m| m.reserved() == Some(Reserved::Lsn)).count() == 1
}

/// What of a change's identity may have been altered on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Nothing: it is the document that it says.
    Sure,
    /// Its id; its partition key is its own.
    IdUnsure,
    /// Its partition key, and perhaps its id.
    KeyUnsure,
}

/// Whether a change may be another document's: the host alters ids and partition keys that look like dates, too.
/// `paths` are those of the source, or of its history.
pub fn identity(change: &Change<'_>, delivery: Delivery, paths: &KeyPaths) -> Identity {
    if delivery == Delivery::Direct {
        return Identity::Sure;
    }
    let unsure =
        |value: &KeyValue| matches!(value, KeyValue::String(s) if fidelity::string_may_be_altered(s, delivery));
    // The service's own paths name the record; its id is looked at below.
    let is_key = |path: &[String]| !matches!(path, [name] if name == "id" || name == ORIGINAL_ID);
    let key = key_of(change, &change.document, "", "", paths).map_or(Vec::new(), |key| key.0);
    if paths.segments().iter().zip(&key).any(|(path, value)| is_key(path) && unsure(value)) {
        return Identity::KeyUnsure;
    }
    // What a delete's metadata says of the id is never altered.
    if change.metadata_key.is_none() && fidelity::string_may_be_altered(&change.id, delivery) {
        Identity::IdUnsure
    } else {
        Identity::Sure
    }
}
