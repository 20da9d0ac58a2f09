//! The whole life of documents: their versions, or the changes of one field.

use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};

use super::{
    AnyContext, LiveText, LookError, Past,
    documents::{DocumentStream, Matching, Selection},
};
use crate::{
    change::{
        Op,
        diff::{same_value, value_at},
        time::PointInTime,
        version::Version,
    },
    history::{
        as_of::{Caveat, unseen},
        histories::{Item, TextDetail},
    },
};

/// How many texts are read ahead.
const AHEAD: usize = 8;

/// Which documents, and optionally which field.
#[derive(Debug, Clone)]
pub struct VersionsRequest {
    /// Which documents; for a predicate, those with any version that matches.
    pub which: Selection,
    /// The path of a field: then only versions count in which it changed, appeared or disappeared.
    pub field: Option<Vec<String>>,
}

/// A version of a document, together with the one before.
#[derive(Debug)]
pub struct ListedVersion<'i> {
    /// The version.
    pub version: &'i Version,
    /// Its text; `None` for a delete.
    pub text: Option<Arc<str>>,
    /// The text of the version before; `None` for a delete, and before the first version.
    pub before: Option<Arc<str>>,
    /// The change of the requested field; `None` when it did not change, or none was requested.
    pub change: Option<FieldChange>,
    /// Why its text cannot be read, which is no reason to leave out the other versions.
    pub problem: Option<LookError>,
}

/// A field's value before and after a version. It has none in a version without a document, nor before the first
/// version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// The value before, as JSON text.
    pub before: Option<String>,
    /// The value after.
    pub after: Option<String>,
}

/// A remark about a document's versions.
#[derive(Debug, Clone, PartialEq)]
pub enum Remark {
    /// A version is missing after the one of this second, epoch seconds.
    Gap(i64, Caveat),
    /// A document with the id was deleted in this second; the history does not say under which partition key.
    UnkeyedDelete(i64),
    /// The live document, written at this second, is not in the history.
    Uncaptured(i64),
    /// Whether the requested field changed in the version of this second, epoch seconds, is not known: it was too large
    /// for the history, and the next version that tells of the field may show a change that was made in it.
    FieldUnknown(i64),
    /// Why the newest version may be a different one.
    Doubt(String),
}

/// Documents with their versions, one after another.
pub struct VersionLists<'a> {
    looks: DocumentStream<'a, Item>,
    past: Arc<Past<'a>>,
    field: Option<Vec<String>>,
    is_one: bool,
}

/// Reads all versions of documents.
///
/// # Errors
/// When the account cannot be used, or no document is found.
pub async fn versions<'a>(request: VersionsRequest, cx: &AnyContext<'a>) -> Result<VersionLists<'a>, LookError> {
    let past = Arc::new(Past::open(cx).await?);
    let is_one = matches!(request.which, Selection::One { .. });
    let texts = if is_one { TextDetail::OF_ONE } else { TextDetail::OF_MANY };
    let documents = past.documents(&request.which, Matching::Ever, texts, cx.progress).await?;
    let looks = documents.each(past.clone(), texts, cx.progress, |_, item| std::future::ready(Ok(item)));
    Ok(VersionLists { looks, past, field: request.field, is_one })
}

impl VersionLists<'_> {
    /// The next document with its versions, oldest first. A requested document without versions is reported.
    ///
    /// # Errors
    /// When the account cannot be used, or none of the documents has a version.
    pub async fn next(&mut self) -> Result<Option<Item>, LookError> {
        self.looks.next().await
    }

    /// How many documents were requested.
    pub fn asked(&self) -> u64 {
        self.looks.asked
    }

    /// Whether something was reported that is not in the results.
    pub fn is_incomplete(&self) -> bool {
        self.looks.incomplete
    }

    /// A document's versions with their texts, of which only a few are in memory at a time. A text that cannot be read
    /// is missing, with the reason.
    pub fn told<'s>(&'s self, item: &'s Item) -> impl Stream<Item = Result<ListedVersion<'s>, LookError>> + 's {
        let texts = stream::iter(&item.versions)
            .map(move |version| async move { (version, self.past.text_of(&item.key, version).await) })
            .buffered(AHEAD);
        let mut before: Option<Arc<str>> = None;
        let mut walk = FieldWalk::default();
        texts.map(move |(version, text)| {
            let (text, problem) = match text {
                Err(problem) if problem.is_of_one_document() => (None, Some(problem)),
                text => (text?.map(Arc::<str>::from), None),
            };
            // A document that was too large, or cannot be read, says nothing about the field.
            let is_unknown = version.is_absent() || problem.is_some();
            let field = self.field.as_ref().filter(|_| !is_unknown);
            let change = field.and_then(|field| walk.step(text.as_deref(), field));
            let before = std::mem::replace(&mut before, text.clone());
            Ok(ListedVersion { version, text, before, change, problem })
        })
    }

    /// Remarks about a document's versions; for a document that was named, about its live state, too.
    ///
    /// # Errors
    /// When the account cannot be used.
    pub async fn remarks(&self, item: &Item) -> Result<Vec<Remark>, LookError> {
        let gaps = item.versions.windows(2).filter_map(|pair| match pair {
            [one, next] => match unseen(&item.versions, one, Some(next)) {
                Some(gap @ Caveat::Gap { .. }) => Some(Remark::Gap(one.ts, gap)),
                _ => None,
            },
            _ => None,
        });
        let unkeyed = item.unkeyed.iter().map(|delete| Remark::UnkeyedDelete(delete.ts));
        let absent = item.versions.iter().filter(|version| self.field.is_some() && version.is_absent());
        let absent = absent.map(|version| Remark::FieldUnknown(version.ts));
        let mut remarks: Vec<Remark> = gaps.chain(unkeyed).chain(absent).collect();
        if self.is_one {
            let known = self.past.known_at(item, &LiveText::new(), PointInTime::END).await?;
            let live = known.versions.iter().find(|version| version.is_live());
            remarks.extend(live.map(|live| Remark::Uncaptured(live.ts)));
            remarks.extend(known.doubt.map(Remark::Doubt));
        }
        Ok(remarks)
    }
}

/// Whether the field's value before this version, the first one that has it, is unknown.
pub fn is_first_unknown(item: &Item, change: &Version) -> bool {
    item.versions.first().is_some_and(|first| first.record_id == change.record_id && first.op != Some(Op::Create))
}

/// Follows a field through versions.
#[derive(Debug, Default)]
struct FieldWalk {
    before: Option<String>,
}

impl FieldWalk {
    /// The field's value before and in the next version, when it changed, appeared or disappeared.
    fn step(&mut self, text: Option<&str>, field: &[String]) -> Option<FieldChange> {
        let after = text.and_then(|text| value_at(text, field));
        let differs = !same_value(self.before.as_deref(), after);
        let before = std::mem::replace(&mut self.before, after.map(str::to_owned));
        differs.then(|| FieldChange { before, after: self.before.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fields_changes_are_those_of_its_meaning() {
        let version = |lsn: i64, op: &str, members: &str| {
            Version::parse(&format!(
                r#"{{"id":"a~{lsn}"{members},"_originalId":"a","_change":{{"v":1,"op":"{op}","ts":5,"lsn":{lsn}}}}}"#
            ))
            .unwrap()
        };
        let versions = [
            version(1, "create", r#","n":1.10"#),
            version(2, "replace", r#","n":1.1,"m":2"#),
            version(3, "replace", r#","n":12345678901234567890"#),
            version(4, "replace", r#","n":12345678901234567891"#),
            version(5, "delete", ""),
            version(6, "create", r#","n":null"#),
            version(7, "replace", ""),
        ];
        let changes_of = |field: &str| {
            let (mut walk, field) = (FieldWalk::default(), [field.to_owned()]);
            let step = |v: &Version| Some((v.lsn.unwrap(), walk.step(v.document.as_deref(), &field)?));
            versions.iter().filter_map(step).collect::<Vec<_>>()
        };
        let changes = changes_of("n");
        let shown: Vec<_> = changes.iter().map(|(lsn, c)| (*lsn, c.before.as_deref(), c.after.as_deref())).collect();
        assert_eq!(
            shown,
            [
                (1, None, Some("1.10")),
                (3, Some("1.1"), Some("12345678901234567890")),
                (4, Some("12345678901234567890"), Some("12345678901234567891")),
                (5, Some("12345678901234567891"), None),
                (6, None, Some("null")),
                (7, Some("null"), None),
            ]
        );
        assert_eq!(changes_of("none"), []);
    }
}
