//! Translates an operator's predicate on `c`, which is about documents, into one about records.
//!
//! A record has its document's members at its top level, but for those that it needs itself (docs/history-format.md):
//! the id, the time to live, what the service adds. Records of deletes have no document and match nothing. A document
//! that is kept compressed cannot be seen by the service: it is decided here ([`evaluate`]).

pub mod asked;
pub mod evaluate;
pub mod fields;
mod like;
mod parse;
pub mod partly;
mod tokens;

use self::tokens::{Token, TokenKind, tokens};

/// Where a record keeps what its document has under a reserved name.
const MOVED: [(&str, &str); 7] = [
    ("id", "c._originalId"),
    ("ttl", "c._change.ttl"),
    ("_ts", "c._change.ts"),
    ("_etag", "c._change.etag"),
    ("_rid", "c._change.rid"),
    ("_change", "c._change.shadowed._change"),
    ("_originalId", "c._change.shadowed._originalId"),
];

/// Records whose documents the service cannot see: they are compressed, or not in the history at all.
const PACKED: &str = "(IS_DEFINED(c._change.body) OR c._change.fidelity = 'absent')";
/// Records that are no deletes.
const IS_DOCUMENT: &str = "(NOT IS_DEFINED(c._change.op) OR NOT (c._change.op = 'delete' OR c._change.op = 'expire'))";

/// The predicate for records: the whole condition of a query that finds those whose documents match, and all whose
/// documents it cannot see. The operator's text is on lines of its own, so that a comment in it cannot swallow what
/// follows.
pub fn of_records(predicate: &str) -> String {
    format!("{IS_DOCUMENT} AND (\n({}\n) OR {PACKED})", renamed(predicate))
}

/// Distinguishes records from the other items of the history, which are the journals of restores and what `doctor`
/// writes: those have no `_change`, and ids of their own. A document's own member `_restore` proves nothing.
pub const IS_RECORD: &str = "(IS_DEFINED(c._change) OR NOT IS_DEFINED(c._restore) OR \
                             NOT (STARTSWITH(c._originalId, 'restore~') OR STARTSWITH(c._originalId, 'cosmos-rewind-doctor~')))";
/// The items of journals.
pub const IS_JOURNAL: &str =
    "(NOT IS_DEFINED(c._change) AND IS_DEFINED(c._restore) AND STARTSWITH(c._originalId, 'restore~'))";

/// Whether the service could see a record's document, as a column of a query.
pub const PACKED_COLUMN: &str = "(IS_DEFINED(c._change.body) OR c._change.fidelity = 'absent') AS packed";

/// The predicate with members of documents renamed as records have them.
fn renamed(predicate: &str) -> String {
    let all = tokens(predicate);
    let mut out = String::with_capacity(predicate.len() + 32);
    let mut copied = 0;
    let mut at = 0;
    while let Some(token) = all.get(at) {
        let is_root =
            token.kind == TokenKind::Name && token.text == "c" && all[..at].last().is_none_or(|t| t.text != ".");
        if is_root && let Some((name, used)) = member(&all[at + 1..]) {
            let last = &all[at + used];
            if let Some((_, place)) = MOVED.iter().find(|(own, _)| *own == name) {
                out.push_str(&predicate[copied..token.start]);
                out.push_str(place);
                copied = last.start + last.text.len();
            }
            at += used;
        }
        at += 1;
    }
    out.push_str(&predicate[copied..]);
    out
}

/// The member that the tokens after the root name: `.name`, `['name']` or `["name"]`; and how many tokens these are.
fn member(rest: &[Token<'_>]) -> Option<(String, usize)> {
    match rest {
        [dot, name, ..] if dot.text == "." && name.kind == TokenKind::Name => Some((name.text.to_owned(), 2)),
        [open, name, close, ..] if open.text == "[" && name.kind == TokenKind::Text && close.text == "]" => {
            Some((tokens::unquoted(name.text)?, 3))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_members_are_named_as_records_have_them() {
        for (own, stored) in [
            ("c.id = 'keep'", "c._originalId = 'keep'"),
            ("c['id'] != \"c.id\" -- c.id", "c._originalId != \"c.id\" -- c.id"),
            ("c[\"ttl\"] > 5 AND c._ts<@t", "c._change.ttl > 5 AND c._change.ts<@t"),
            ("c.a.id = 1 AND d.c.id = 2", "c.a.id = 1 AND d.c.id = 2"),
            ("IS_DEFINED(c.ids) AND c.id.x = 'a''b'", "IS_DEFINED(c.ids) AND c._originalId.x = 'a''b'"),
            ("c . id = 'x\\'c.id'", "c._originalId = 'x\\'c.id'"),
            ("c._change.x = 1", "c._change.shadowed._change.x = 1"),
            ("", ""),
        ] {
            assert_eq!(renamed(own), stored);
        }
    }
}
