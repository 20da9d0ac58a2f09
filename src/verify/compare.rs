//! Compares the history with what exists: texts, and records turned back into documents.

use std::sync::Arc;

use crate::{
    causes::chain,
    change::{
        diff,
        key::ItemKey,
        raw::RawDocument,
        record,
        version::{RecordProblem, Version},
    },
    cosmos::{Disposition, Failure, RuLimiter},
    history::{
        Containers,
        layout::Layout,
        live::{etag_of, read_live},
        scan::ScannedItem,
    },
};

/// How many differing fields are named.
const NAMED: usize = 3;

/// A live text that is not a document.
#[derive(Debug, thiserror::Error)]
#[error("the live document is not understood")]
pub struct UnreadableText(#[from] serde_json::Error);

/// Compares a version's document with the stored live one; describes the differing fields for people.
///
/// # Errors
/// When the live text is not a document.
pub fn difference(version: &str, live: &str) -> Result<Option<String>, UnreadableText> {
    let own = record::own_text(live)?;
    if diff::same(version, &own) {
        return Ok(None);
    }
    let found = diff::between(version, &own);
    let mut text: Vec<String> = found.iter().take(NAMED).map(diff::Difference::path_text).collect();
    if let Some(more) = found.len().checked_sub(NAMED).filter(|n| *n > 0) {
        text.push(format!("{more} more"));
    }
    Ok(Some(text.join(", ")))
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// It is as it should be.
    Same,
    /// It is wrong, and how.
    Wrong(String),
    /// It is a part of a document, on purpose, and nothing is wrong with that part.
    Part,
    /// It changed while it was being examined.
    Moved,
}

/// Whether the live document's version has its content; uses texts that were read along.
///
/// # Errors
/// When either cannot be read for a reason that others would meet, too.
pub async fn content(
    containers: &Containers,
    pace: &RuLimiter,
    found: &ScannedItem,
    version: &Version,
) -> Result<Compared, Failure> {
    let Some(live) = &found.live else { return Ok(Compared::Moved) };
    let known = match &version.document {
        Some(text) => text.clone(),
        None => match read_record(containers, pace, &found.item, &version.record_id).await? {
            None => return Ok(Compared::Moved),
            Some(text) => match Version::parse(&text).map(|v| v.document) {
                Ok(Some(text)) => text,
                Ok(None) => return Ok(Compared::Wrong("its record is a tombstone".into())),
                Err(e) => return Ok(Compared::Wrong(chain(&e.problem))),
            },
        },
    };
    against_live(containers, pace, &found.item, &known, &live.etag, live.text.as_deref()).await
}

async fn against_live(
    containers: &Containers,
    pace: &RuLimiter,
    item: &ItemKey,
    known: &str,
    etag: &str,
    in_hand: Option<&str>,
) -> Result<Compared, Failure> {
    let read;
    let live = match in_hand {
        Some(text) => text,
        None => match read_live(&*containers.source, pace, item, Some(etag)).await {
            Ok(Some(text)) => {
                read = text;
                &read
            }
            Ok(None) => return Ok(Compared::Moved),
            Err(f) if f.disposition == Disposition::Poison => return Ok(Compared::Wrong(f.message)),
            Err(f) => return Err(f),
        },
    };
    if etag_of(live).as_deref() != Some(etag) {
        return Ok(Compared::Moved);
    }
    Ok(match difference(known, live) {
        Ok(None) => Compared::Same,
        Ok(Some(fields)) => Compared::Wrong(format!("it differs in {fields}")),
        Err(e) => Compared::Wrong(chain(&e)),
    })
}

/// Turns a record back into a document, and checks that it is the one it claims to be; compares it with the live
/// document when it is that version.
///
/// # Errors
/// As [`content`].
pub async fn rebuild(
    containers: &Containers,
    pace: &RuLimiter,
    item: &ItemKey,
    record_id: &str,
    live: Option<&str>,
) -> Result<Compared, Failure> {
    let Some(text) = read_record(containers, pace, item, record_id).await? else { return Ok(Compared::Moved) };
    let version = match whole(&text, item, containers.changes.layout()) {
        Ok(version) => version,
        Err(e) => return Ok(Compared::Wrong(chain(&e))),
    };
    match (&version.document, live) {
        (None, _) => Ok(Compared::Moved),
        _ if version.is_partial() => Ok(Compared::Part),
        (Some(document), Some(etag)) if version.etag.as_deref() == Some(etag) && !version.is_normalized() => {
            against_live(containers, pace, item, document, etag, None).await
        }
        _ => Ok(Compared::Same),
    }
}

/// Reads a record's text; `None` when there is none.
async fn read_record(
    containers: &Containers,
    pace: &RuLimiter,
    item: &ItemKey,
    record_id: &str,
) -> Result<Option<String>, Failure> {
    pace.wait().await;
    containers.record_text(item, record_id).await
}

/// The fault of a record.
#[derive(Debug, thiserror::Error)]
pub enum NotWhole {
    /// It is not a record.
    #[error(transparent)]
    Record(Arc<RecordProblem>),
    /// It is stored under another document.
    #[error("its _originalId is another document's")]
    OriginalId,
    /// It holds no valid document.
    #[error("its document is not a JSON object")]
    Document(#[source] serde_json::Error),
    /// It holds another document.
    #[error("its document has another id")]
    Id,
    /// Its document belongs elsewhere.
    #[error("its document has another partition key")]
    Key,
    /// It is another version.
    #[error("its etag is not the one that its id was made of")]
    Etag,
}

/// The version of a valid record.
///
/// # Errors
/// With the problem.
pub fn whole(record: &str, item: &ItemKey, layout: &Layout) -> Result<Version, NotWhole> {
    let version = Version::parse(record).map_err(|e| NotWhole::Record(e.problem))?;
    if version.id != item.id {
        return Err(NotWhole::OriginalId);
    }
    let Some(text) = &version.document else { return Ok(version) };
    let document = RawDocument::parse(text).map_err(NotWhole::Document)?;
    if document.get_str("id").as_deref() != Some(item.id.as_str()) {
        return Err(NotWhole::Id);
    }
    if layout.source_key(&document, &version.id) != item.partition_key {
        return Err(NotWhole::Key);
    }
    let own_id = version.etag.as_deref().map(|etag| record::id_of_version(&version.id, etag));
    match own_id {
        Some(own_id) if version.op.is_some() && !version.is_native && own_id != version.record_id => {
            Err(NotWhole::Etag)
        }
        _ => Ok(version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::key::{KeyPaths, PartitionKey};

    #[test]
    fn a_record_is_whole_when_it_is_what_it_says() {
        let paths = || KeyPaths::parse(&["/pk"]).unwrap();
        let layout = Layout::new(paths(), paths());
        let item = ItemKey { id: "a".into(), partition_key: PartitionKey::parse("p").unwrap() };
        let good =
            r#"{"id":"a~e","pk":"p","n":1,"_originalId":"a","_change":{"v":1,"op":"upsert","ts":1,"etag":"\"e\""}}"#;
        assert!(whole(good, &item, &layout).is_ok());
        for (from, to, problem) in [
            ("\"_originalId\":\"a\"", "\"_originalId\":\"b\"", "_originalId"),
            ("\"pk\":\"p\"", "\"pk\":\"q\"", "partition key"),
            ("a~e", "a~f", "etag"),
            ("\"v\":1", "\"v\":9", "format 9"),
            (
                "\"ts\":1",
                "\"ts\":1,\"body\":{\"encoding\":\"gzip\",\"size\":1,\"sha256\":\"x\",\"data\":\"!\"}",
                "base64",
            ),
        ] {
            let bad = whole(&good.replace(from, to), &item, &layout).unwrap_err().to_string();
            assert!(bad.contains(problem), "{to}: {bad}");
        }
        let tombstone = r#"{"id":"a~del-1","pk":"p","_originalId":"a","_change":{"v":1,"op":"delete","ts":1}}"#;
        assert!(whole(tombstone, &item, &layout).unwrap().document.is_none());
    }

    #[test]
    fn differences_name_fields_and_no_content() {
        let live = |more: &str| format!(r#"{{"id":"a","n":1.0{more},"_ts":5,"_etag":"\"e\""}}"#);
        assert_eq!(difference(r#"{"n":1,"id":"a"}"#, &live("")).unwrap(), None);
        let found = difference(r#"{"n":2,"id":"a"}"#, &live(r#","secret":"x","b":1,"c":2"#)).unwrap().unwrap();
        assert!(found.contains("/n") && found.ends_with("1 more") && !found.contains('x'), "{found}");
        assert!(difference("{}", "nonsense").is_err());
    }
}
