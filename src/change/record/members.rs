//! The members of a document that belong to its owner, and their text.

use super::text::push_member;
use crate::change::{
    Change, TextOrigin,
    raw::{Member, RawDocument, Reserved},
};

/// The user's members: without system properties, and with the last of duplicate reserved names.
pub(super) fn own_members<'a>(document: &RawDocument<'a>, text_origin: TextOrigin) -> Vec<Member<'a>> {
    let members = document.members();
    let mut own = Vec::with_capacity(members.len());
    for (i, member) in members.iter().enumerate() {
        let kept = match member.reserved() {
            None => true,
            Some(Reserved::System) => false,
            // The feed appends its own after everything else; a user's stands before that.
            Some(Reserved::Lsn) => {
                text_origin != TextOrigin::Feed
                    || members[i + 1..].iter().any(|later| later.reserved() == Some(Reserved::Lsn))
            }
            Some(name) => !members[i + 1..].iter().any(|later| later.reserved() == Some(name)),
        };
        if kept {
            own.push(*member);
        }
    }
    own
}

/// The document of a change as its owner wrote it, without what the service and the feed add. `None` for a tombstone,
/// and for a text that nobody knows.
pub fn document_text(change: &Change<'_>) -> Option<String> {
    (!change.op.is_tombstone() && !change.lacks_text())
        .then(|| render(&own_members(&change.document, change.text_origin)))
}

/// The owner's text of a live document, without what the service adds to every item. Everything else stays as it is.
///
/// # Errors
/// When the text is not a JSON object.
pub fn own_text(stored: &str) -> Result<String, serde_json::Error> {
    Ok(render(&own_members(&RawDocument::parse(stored)?, TextOrigin::Stored)))
}

/// Members as the text of an object.
pub(in crate::change) fn render(members: &[Member<'_>]) -> String {
    let mut out =
        String::with_capacity(members.iter().map(|m| m.key.get().len() + m.value.get().len() + 2).sum::<usize>() + 2);
    out.push('{');
    for (i, member) in members.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_member(&mut out, member.key.get(), member.value.get());
    }
    out.push('}');
    out
}
