//! Decodes payload items into changes: plain documents of the latest-version feed, and the envelopes of the
//! all-versions-and-deletes feed.

use serde_json::value::RawValue;

use super::{Change, Native, Op, TextOrigin, raw::RawDocument, shape};

/// A payload item that is not a change: poison, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotAChange {
    /// Why, and what was expected.
    pub reason: String,
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, NotAChange> {
    Err(NotAChange { reason: reason.into() })
}

/// Splits the text of a payload (a JSON array) into its items.
///
/// # Errors
/// When the text is not a JSON array.
pub fn items(text: &str) -> Result<Vec<&RawValue>, serde_json::Error> {
    serde_json::from_str(text)
}

/// Decodes one item: the change itself, and the version before it when the envelope carries that image.
///
/// # Errors
/// When the item is neither a document nor an envelope.
pub fn decode<'a>(item: &'a RawValue, into: &mut Vec<Change<'a>>) -> Result<(), NotAChange> {
    let text = item.get();
    if !text.starts_with('{') {
        return refuse(format!("the item is {}, not a document", kind(text)));
    }
    let document = RawDocument::parse(text).or_else(|e| refuse(format!("the item is not valid JSON: {e}")))?;
    // A document always has an id; an envelope never has one at its top.
    if document.get("id").is_none()
        && (document.get("current").is_some() || document.get("metadata").is_some_and(|m| m.get().starts_with('{')))
    {
        return envelope(&document, into);
    }
    let id = id_of(&document)?;
    into.push(Change {
        op: Op::Upsert,
        id,
        ts: document.get_i64("_ts"),
        lsn: document.get_i64("_lsn"),
        document,
        text,
        text_origin: TextOrigin::Feed,
        prev_lsn: None,
        metadata_key: None,
        healed: false,
        native: None,
        partial: None,
    });
    Ok(())
}

fn envelope<'a>(envelope: &RawDocument<'a>, into: &mut Vec<Change<'a>>) -> Result<(), NotAChange> {
    let metadata = match envelope.get("metadata") {
        Some(raw) => RawDocument::parse(raw.get()).or_else(|_| refuse("the envelope's metadata is not an object"))?,
        None => RawDocument::default(),
    };
    let current = image(envelope, "current")?;
    let previous = image(envelope, "previous")?;
    let op = match metadata.get_str("operationType").as_deref() {
        Some("create") => Op::Create,
        Some("replace") => Op::Replace,
        Some("update") => Op::Update,
        Some("upsert") => Op::Upsert,
        Some("baseline") => Op::Baseline,
        Some("delete") if metadata.get("timeToLiveExpired").is_some_and(|v| v.get() == "true") => Op::Expire,
        Some("delete") => Op::Delete,
        // The latest-version feed in the envelope's wire format does not name the operation.
        None => Op::Upsert,
        Some(other) => {
            return refuse(format!("the envelope's operationType is {other:?}, not create, replace or delete"));
        }
    };
    let crts = seconds(&metadata, "crts");
    let lsn = metadata.get_i64("lsn");
    // The trigger writes 0 when there is no earlier version.
    let prev_lsn = metadata.get_i64("previousImageLSN").filter(|lsn| *lsn > 0);
    let native = native_of(&metadata);
    let partial = |name: &str| metadata.get(name).map(RawValue::get).filter(|note| note.starts_with('{'));
    // MongoDB tells that a document was changed, and may not have its text any more.
    let lacks_text = current.is_none() && native.is_some();
    // The only text of a delete that the host never searches for dates.
    let named = metadata.get_str("id").filter(|id| (op.is_tombstone() || lacks_text) && !id.is_empty());
    let metadata_key = metadata.get("partitionKey").filter(|_| named.is_some());

    if let Some((text, document)) = &previous
        && document.get_str("_etag").is_some()
        && let Ok(id) = id_of(document)
    {
        into.push(Change {
            op: Op::Upsert,
            id: named.clone().unwrap_or(id),
            document: document.clone(),
            text,
            text_origin: TextOrigin::Stored,
            ts: document.get_i64("_ts"),
            lsn: prev_lsn,
            prev_lsn: None,
            metadata_key,
            healed: true,
            native: native.clone(),
            partial: partial(shape::PARTIAL_BEFORE),
        });
    }

    let (text, document) = match (&current, op.is_tombstone()) {
        (Some(image), _) => image.clone(),
        // A delete may carry an empty or missing current image: the previous image tells whose it was.
        (None, true) => previous.clone().map_or_else(|| ("", RawDocument::default()), |(_, d)| ("", d)),
        (None, false) if lacks_text && named.is_some() => ("", RawDocument::default()),
        (None, false) => return refuse(format!("the envelope has operationType {op} but no current image")),
    };
    let id = match named {
        Some(id) => id,
        None => id_of(&document)?,
    };
    let ts =
        if op.is_tombstone() { crts.or_else(|| document.get_i64("_ts")) } else { document.get_i64("_ts").or(crts) };
    // The latest-version feed adds `_lsn` in this wire format, too; a user's own `_lsn` differs from the metadata's.
    let added = document.get_i64("_lsn");
    let text_origin =
        if op == Op::Upsert && added.is_some() && added == lsn { TextOrigin::Feed } else { TextOrigin::Stored };
    let lsn = lsn.or(added);
    into.push(Change {
        op,
        id,
        document,
        text,
        text_origin,
        ts,
        lsn,
        prev_lsn,
        metadata_key,
        healed: false,
        native,
        partial: partial(shape::PARTIAL),
    });
    Ok(())
}

/// Reads the members that only the metadata of a MongoDB change have; the version distinguishes such a change.
fn native_of<'a>(metadata: &RawDocument<'a>) -> Option<Native<'a>> {
    let version = metadata.get_str("version")?;
    let plain = |name: &str| metadata.get_str(name);
    Some(Native {
        version,
        ns: plain("ns").unwrap_or_default(),
        to: None,
        bson: plain("bson"),
        looked_up: metadata.get("lookedUp").is_some_and(|told| told.get() == "true"),
        changed: metadata.get("changed").map(RawValue::get),
    })
}

/// A time in epoch seconds. The trigger writes it as a float; the fraction is dropped.
fn seconds(document: &RawDocument<'_>, name: &str) -> Option<i64> {
    const LARGEST: f64 = 9e15;
    document.get_i64(name).or_else(|| {
        let time: f64 = document.get(name)?.get().parse().ok()?;
        (time.abs() < LARGEST).then(|| time.floor() as i64)
    })
}

/// An image of the envelope; `null`, `{}` and a missing member all mean that there is none.
fn image<'a>(envelope: &RawDocument<'a>, name: &str) -> Result<Option<(&'a str, RawDocument<'a>)>, NotAChange> {
    match envelope.get(name).map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(text) if text.starts_with('{') => match RawDocument::parse(text) {
            Ok(document) => Ok((!document.members().is_empty()).then_some((text, document))),
            Err(e) => refuse(format!("the envelope's {name} image is not valid JSON: {e}")),
        },
        Some(text) => refuse(format!("the envelope's {name} image is {}, not a document", kind(text))),
    }
}

fn id_of<'a>(document: &RawDocument<'a>) -> Result<std::borrow::Cow<'a, str>, NotAChange> {
    match document.get("id").map(RawValue::get) {
        Some(text) if text.starts_with('"') && text.len() > 2 => Ok(super::raw::unescape(text)),
        Some(text) => {
            refuse(format!("the document's id is {}, not a string", if text == "\"\"" { "empty" } else { kind(text) }))
        }
        None => refuse("the document has no id"),
    }
}

fn kind(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_one(text: &str) -> Result<Vec<Change<'_>>, NotAChange> {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        let mut changes = Vec::new();
        decode(raw, &mut changes)?;
        Ok(changes)
    }

    #[test]
    fn a_plain_document_is_an_upsert() {
        let changes =
            decode_one(r#"{"id":"28035","pk":"28035","_etag":"\"e1\"","_ts":1592926844,"_lsn":20591}"#).unwrap();
        let [change] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!(
            (change.op, change.id.as_ref(), change.ts, change.lsn),
            (Op::Upsert, "28035", Some(1_592_926_844), Some(20591))
        );
        assert_eq!(change.etag().unwrap(), "\"e1\"");
    }

    #[test]
    fn a_document_that_happens_to_have_current_and_metadata_is_still_a_document() {
        let changes = decode_one(r#"{"id":"x","current":{"id":"y"},"metadata":{"operationType":"delete"}}"#).unwrap();
        assert_eq!((changes.len(), changes[0].op, changes[0].id.as_ref()), (1, Op::Upsert, "x"));
    }

    #[test]
    fn the_lsn_that_the_latest_version_feed_adds_is_told_apart_from_the_user_s_own() {
        let origin = |lsn: i64| {
            let text =
                format!(r#"{{"current":{{"id":"x","_etag":"\"1\"","_ts":1,"_lsn":7}},"metadata":{{"lsn":{lsn}}}}}"#);
            let changes = decode_one(&text).unwrap();
            (changes[0].text_origin, changes[0].lsn)
        };
        assert_eq!(origin(7), (TextOrigin::Feed, Some(7)));
        assert_eq!(origin(8), (TextOrigin::Stored, Some(8)));
    }

    #[test]
    fn a_replace_carries_the_version_before_it() {
        let changes = decode_one(
            r#"{"current":{"id":"x","_etag":"\"2\"","_ts":20},"previous":{"id":"x","_etag":"\"1\"","_ts":10},
                "metadata":{"operationType":"replace","lsn":7,"crts":20,"previousImageLSN":5}}"#,
        )
        .unwrap();
        assert!(changes[0].healed && !changes[1].healed);
        assert_eq!((changes[0].ts, changes[0].lsn, changes[0].etag().unwrap().as_ref()), (Some(10), Some(5), "\"1\""));
        assert_eq!(
            (changes[1].op, changes[1].ts, changes[1].lsn, changes[1].prev_lsn),
            (Op::Replace, Some(20), Some(7), Some(5))
        );
    }

    #[test]
    fn a_delete_is_told_apart_from_an_expiry_and_needs_no_image() {
        for (extra, op) in [
            ("", Op::Delete),
            (r#","timeToLiveExpired":true"#, Op::Expire),
            (r#","timeToLiveExpired":false"#, Op::Delete),
        ] {
            for current in ["", r#""current":{},"#, r#""current":null,"#] {
                let text = format!(
                    r#"{{{current}"metadata":{{"operationType":"delete","lsn":9,"crts":30,"id":"x","partitionKey":{{"pk":"p"}}{extra}}}}}"#
                );
                let changes = decode_one(&text).unwrap();
                assert_eq!(
                    (changes.len(), changes[0].op, changes[0].id.as_ref(), changes[0].ts),
                    (1, op, "x", Some(30)),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn an_envelope_is_read_as_the_trigger_writes_it() {
        // Member order, floats, and 0 for "none": as recorded in tests/fixtures/host-payloads.
        let created = r#"{"current":{"id":"x","_etag":"\"1\"","_ts":30},"metadata":{"crts":30.0,"lsn":1,"operationType":"create","previousImageLSN":0,"timeToLiveExpired":false}}"#;
        let changes = decode_one(created).unwrap();
        assert_eq!((changes.len(), changes[0].op, changes[0].prev_lsn), (1, Op::Create, None));
        for (crts, ts) in [("30.0", 30), ("30", 30), ("30.75", 30), ("3e1", 30)] {
            let text = format!(
                r#"{{"current":{{}},"metadata":{{"crts":{crts},"lsn":9,"operationType":"delete","previousImageLSN":1,"timeToLiveExpired":true,"id":"x","partitionKey":{{"pk":"p"}}}}}}"#
            );
            let changes = decode_one(&text).unwrap();
            assert_eq!((changes[0].op, changes[0].ts, changes[0].prev_lsn), (Op::Expire, Some(ts), Some(1)), "{text}");
        }
        for crts in ["1e300", "\"30\"", "null", "{}"] {
            let text = format!(r#"{{"metadata":{{"crts":{crts},"lsn":9,"operationType":"delete","id":"x"}}}}"#);
            assert_eq!(decode_one(&text).unwrap()[0].ts, None, "{text}");
        }
    }

    #[test]
    fn a_delete_names_its_document_and_the_version_before_it() {
        let text = r#"{"current":{},"metadata":{"crts":30.0,"lsn":9,"operationType":"delete","previousImageLSN":8,"timeToLiveExpired":false,"id":"2020-01-01T00:00:00.000Z","partitionKey":{"pk":"p"}},"previous":{"id":"2020-01-01T00:00:00Z","pk":"p","_etag":"\"1\"","_ts":10}}"#;
        let ids: Vec<_> = decode_one(text).unwrap().iter().map(|change| change.id.to_string()).collect();
        assert_eq!(ids, ["2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00.000Z"]);
    }

    #[test]
    fn a_change_of_mongodb_needs_no_text_when_it_names_its_document() {
        let text = r#"{"metadata":{"operationType":"update","version":"1-1","ns":"a.b","id":"x","crts":30,"lsn":9,"lookedUp":true}}"#;
        let [change] = decode_one(text).unwrap().try_into().unwrap();
        assert_eq!((change.op, change.id.as_ref(), change.ts, change.lacks_text()), (Op::Update, "x", Some(30), true));
        let nameless = text.replace(r#","id":"x""#, "");
        assert!(decode_one(&nameless).unwrap_err().reason.contains("no current image"));
    }

    #[test]
    fn what_is_no_change_is_refused_with_the_reason() {
        for (text, reason) in [
            ("17", "a number"),
            ("null", "null"),
            ("[]", "an array"),
            (r#""x""#, "a string"),
            ("{}", "no id"),
            (r#"{"id":7}"#, "a number, not a string"),
            (r#"{"id":""}"#, "empty"),
            (r#"{"metadata":{"operationType":"create"}}"#, "no current image"),
            (r#"{"current":7,"metadata":{}}"#, "current image is a number"),
            (r#"{"current":{"id":"x"},"metadata":{"operationType":"merge"}}"#, "merge"),
            (r#"{"metadata":{"operationType":"delete","lsn":1}}"#, "no id"),
        ] {
            let error = decode_one(text).unwrap_err();
            assert!(error.reason.contains(reason), "{text}: {error}");
        }
    }
}
