//! Makes records of changes.

use std::borrow::Cow;

use super::{
    MAX_ITEM_BYTES, Record, RecordContext, RecordFidelity, Reread, Unrecordable,
    compress::pack,
    ids::{key_of, record_id},
    members::{own_members, render},
    text::{bare, change_object, push_member, push_tail},
};
use crate::change::{
    Change, Op, TextOrigin, Via,
    edit::push_quoted,
    raw::{self, RawDocument, Reserved},
};

/// Makes the record of a change. `reread` is the document as the source has it, used in place of the payload's text;
/// `altered` says that the text may differ from the source's.
///
/// `reread` is the document as the source has it, used instead of the payload's text; `altered` says that the text
/// used may not be what the source has.
///
/// # Errors
/// When a tombstone does not say whose partition it belongs to.
pub fn build(
    change: &Change<'_>,
    reread: Option<Reread<'_>>,
    altered: bool,
    context: RecordContext<'_>,
) -> Result<Record, Unrecordable> {
    let exact;
    let (document, text_origin) = match &reread {
        Some(Reread(text)) => {
            exact = RawDocument::parse(text)
                .map_err(|e| Unrecordable { reason: format!("the document read again is not valid JSON: {e}") })?;
            (&exact, TextOrigin::Stored)
        }
        None => (&change.document, change.text_origin),
    };
    let looked_up = change.native.as_ref().is_some_and(|native| native.looked_up);
    let is_absent = change.lacks_text() && reread.is_none();
    let fidelity = match (altered, looked_up) {
        _ if is_absent => RecordFidelity::Absent,
        (true, _) => RecordFidelity::Normalized,
        (false, true) => RecordFidelity::Lookup,
        (false, false) => RecordFidelity::Exact,
    };
    let members = if change.op.is_tombstone() { Vec::new() } else { own_members(document, text_origin) };
    // The document that was read again says who it is; the payload's id may have been altered like any text in it.
    let own_id = document.get("id").filter(|id| id.get().starts_with('"'));
    let source_id = match own_id {
        Some(id) if reread.is_some() => raw::unescape(id.get()),
        _ => Cow::Borrowed(change.id.as_ref()),
    };
    let id = record_id(change, &source_id, &members);
    let key = key_of(change, document, &source_id, &id, context.paths)?;
    // For the source's path `/id`, the id is the document's, not the record's.
    let own_key = context.source.and_then(|paths| key_of(change, document, &source_id, &source_id, paths).ok());
    let metadata = change_object(change, fidelity, context, own_key.as_ref(), &members, None);
    // The id's own text where there is one, so that the inverse is exact.
    let original_id: Cow<'_, str> = match own_id {
        Some(text) if !change.op.is_tombstone() && raw::unescape(text.get()) == source_id => text.get().into(),
        _ => serde_json::Value::from(source_id.as_ref()).to_string().into(),
    };

    // A document with its key members; a tombstone has only those.
    let mut body = String::with_capacity(change.text.len() + metadata.len() + id.len() + 64);
    let mut record = Record {
        source_id: source_id.to_string(),
        key,
        body: String::new(),
        // A record that knows everything need not look.
        create_only: change.healed
            || altered
            || is_absent
            || context.via == Via::Filter
            || !knows_what_happened(change),
        completes: !change.healed,
        compressed: false,
        id,
    };
    if change.op.is_tombstone() || is_absent {
        record.body = bare(&record, &original_id, context.paths, &metadata);
        return Ok(record);
    }
    body.push('{');
    let mut has_id = false;
    for member in &members {
        if member.reserved().is_some_and(Reserved::is_moved) {
            continue;
        }
        if body.len() > 1 {
            body.push(',');
        }
        if member.reserved() == Some(Reserved::Id) {
            has_id = true;
            body.push_str("\"id\":");
            push_quoted(&mut body, &record.id);
        } else {
            push_member(&mut body, member.key.get(), member.value.get());
        }
    }
    if !has_id {
        if body.len() > 1 {
            body.push(',');
        }
        body.push_str("\"id\":");
        push_quoted(&mut body, &record.id);
    }
    push_tail(&mut body, &original_id, &metadata);
    if body.len() > MAX_ITEM_BYTES {
        let packed = pack(&render(&members));
        let metadata = change_object(change, fidelity, context, own_key.as_ref(), &[], Some(&packed));
        body = bare(&record, &original_id, context.paths, &metadata);
        record.compressed = true;
    }
    record.body = body;
    Ok(record)
}

/// Whether a change says everything that can be known of it beside its document.
fn knows_what_happened(change: &Change<'_>) -> bool {
    let is_sure = change.op != Op::Upsert && change.op != Op::Baseline;
    let said = match &change.native {
        // MongoDB names no previous version. The text that was looked up first is the nearest to the change.
        Some(native) => is_sure && !native.looked_up,
        None => change.op == Op::Create || (is_sure && change.prev_lsn.is_some()),
    };
    said && change.ts.is_some() && change.lsn.is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::super::{SYSTEM, identity::may_be_altered};
    use super::*;
    use crate::change::{decode::decode, fidelity::Delivery, key::KeyPaths, version::Version};

    const AT: &str = "2026-11-20T15:00:00.123Z";

    fn paths(paths: &[&str]) -> KeyPaths {
        KeyPaths::parse(paths).unwrap()
    }

    fn records(item: &str, key_paths: &[&str]) -> Vec<Record> {
        let raw: &RawValue = serde_json::from_str(item).unwrap();
        let mut changes = Vec::new();
        decode(raw, &mut changes).unwrap();
        let paths = paths(key_paths);
        let context =
            RecordContext { via: Via::Trigger, at: AT, at_seconds: 1_790_000_000, paths: &paths, source: None };
        changes.iter().map(|c| build(c, None, false, context).unwrap()).collect()
    }

    #[test]
    fn a_record_reads_as_the_format_document_says() {
        let item = r#"{"id":"28035","pk":"28035","city_name":"Davidson","n":1.10,"_rid":"47UeAPmUTk0GEQAAAAAAAA==","_self":"dbs/x/","_etag":"\"000011bc-0000-0100-0000-5ef2227c0000\"","_attachments":"attachments/","_ts":1592926844,"_lsn":20591}"#;
        let [record] = records(item, &["/pk", "/_originalId"]).try_into().unwrap();
        assert_eq!(
            record.body,
            r#"{"id":"28035~000011bc-0000-0100-0000-5ef2227c0000","pk":"28035","city_name":"Davidson","n":1.10,"_originalId":"28035","_change":{"v":1,"op":"upsert","ts":1592926844,"lsn":20591,"etag":"\"000011bc-0000-0100-0000-5ef2227c0000\"","rid":"47UeAPmUTk0GEQAAAAAAAA==","via":"trigger","fidelity":"exact","at":"2026-11-20T15:00:00.123Z"}}"#
        );
        assert_eq!(record.key.to_json(), serde_json::json!(["28035", "28035"]));
        assert!(record.create_only && record.completes, "the latest-version feed does not say what happened");
    }

    #[test]
    fn a_tombstone_lands_in_its_documents_partition() {
        for metadata_key in
            [r#"{"tenant":"t1","zip":28035}"#, r#"{"tenant":"t1","address/zip":28035}"#, r#"["t1",28035]"#]
        {
            let item = format!(
                r#"{{"metadata":{{"operationType":"delete","lsn":9,"crts":30,"previousImageLSN":8,"id":"x","partitionKey":{metadata_key}}}}}"#
            );
            let [record] = records(&item, &["/tenant", "/address/zip", "/_originalId"]).try_into().unwrap();
            assert_eq!(record.key.to_json(), serde_json::json!(["t1", 28035, "x"]), "{metadata_key}");
            assert_eq!(
                record.body,
                format!(
                    r#"{{"id":"x~del-9-30","tenant":"t1","address":{{"zip":28035}},"_originalId":"x","_change":{{"v":1,"op":"delete","ts":30,"lsn":9,"prevLsn":8,"via":"trigger","fidelity":"exact","at":"{AT}"}}}}"#
                )
            );
            let version = Version::parse(&record.body).unwrap();
            assert_eq!((version.op, version.document), (Some(Op::Delete), None));
        }
    }

    #[test]
    fn a_member_lsn_of_the_users_own_is_kept_or_read_again() {
        let paths = paths(&["/pk"]);
        let context = RecordContext { via: Via::Trigger, at: AT, at_seconds: 0, paths: &paths, source: None };
        let read = |text: &str| {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            let mut changes = Vec::new();
            decode(raw, &mut changes).unwrap();
            let altered = may_be_altered(&changes[0], Delivery::DatesKept);
            let record = build(&changes[0], None, altered, context).unwrap();
            (altered, Version::parse(&record.body).unwrap().document.unwrap())
        };
        let system = r#""_rid":"x","_etag":"\"e\"","_ts":5"#;
        // The feed's own, at the end.
        let (altered, document) = read(&format!(r#"{{"id":"a","pk":"p",{system},"_lsn":9}}"#));
        assert_eq!((altered, document.as_str()), (false, r#"{"id":"a","pk":"p"}"#));
        // Both are there ...
        let (altered, document) = read(&format!(r#"{{"id":"a","pk":"p","_lsn":"mine",{system},"_lsn":9}}"#));
        assert_eq!((altered, document.as_str()), (false, r#"{"id":"a","pk":"p","_lsn":"mine"}"#));
        // ... or the host made one of them, with the feed's value.
        assert!(read(&format!(r#"{{"id":"a","_lsn":9,"pk":"p",{system}}}"#)).0);
    }

    #[test]
    fn a_delete_without_any_partition_key_is_poison() {
        let raw: &RawValue =
            serde_json::from_str(r#"{"metadata":{"operationType":"delete","lsn":9,"id":"x"}}"#).unwrap();
        let mut changes = Vec::new();
        decode(raw, &mut changes).unwrap();
        let paths = paths(&["/pk"]);
        let context = RecordContext { via: Via::Trigger, at: AT, at_seconds: 0, paths: &paths, source: None };
        assert!(build(&changes[0], None, false, context).unwrap_err().reason.contains("partition key"));
    }

    #[test]
    fn a_version_before_and_a_payload_without_a_time_never_replace_a_record_that_knows_more() {
        let item = r#"{"current":{"id":"x","_etag":"\"2\"","_ts":2},"previous":{"id":"x","_etag":"\"1\"","_ts":1},"metadata":{"operationType":"replace","lsn":7}}"#;
        let whole = item.replace("\"lsn\":7", "\"lsn\":7,\"previousImageLSN\":3");
        assert!(!records(&whole, &["/id"])[1].create_only);
        let [healed, current] = records(item, &["/id"]).try_into().unwrap();
        assert_eq!((healed.id.as_str(), healed.create_only, healed.completes), ("x~1", true, false));
        assert_eq!((current.id.as_str(), current.create_only, current.completes), ("x~2", true, true));
        let [timeless] = records(r#"{"id":"x","a":1}"#, &["/id"]).try_into().unwrap();
        assert!(
            timeless.create_only && timeless.body.contains(r#""ts":1790000000,"tsFrom":"capture""#),
            "{}",
            timeless.body
        );
        assert_eq!(timeless.id, records(r#"{"id":"x","a":1}"#, &["/id"])[0].id);
        assert_ne!(timeless.id, records(r#"{"id":"x","a":2}"#, &["/id"])[0].id);
    }

    #[test]
    fn an_id_that_would_be_too_long_becomes_its_digest() {
        let id = "é".repeat(500);
        let [record] = records(&format!(r#"{{"id":"{id}","_etag":"\"{}\"","_ts":1}}"#, "e".repeat(36)), &["/id"])
            .try_into()
            .unwrap();
        assert_eq!(record.id.len(), 64);
        assert_eq!(Version::parse(&record.body).unwrap().id, id);
    }

    #[test]
    fn a_record_that_would_be_too_large_is_compressed_and_comes_back_exactly() {
        let text = format!(
            r#"{{"id":"x","pk":"p","big":"{}","n":1.10,"ttl":5,"_etag":"\"e\"","_ts":1}}"#,
            "lorem ipsum ".repeat(180_000)
        );
        let [record] = records(&text, &["/pk", "/_originalId"]).try_into().unwrap();
        assert!(record.compressed && record.body.len() < 100_000, "{}", record.body.len());
        assert_eq!(record.key.to_json(), serde_json::json!(["p", "x"]));
        let version = Version::parse(&record.body).unwrap();
        assert_eq!(version.document.unwrap(), text.replace(r#","_etag":"\"e\"","_ts":1"#, ""));
        let damaged = record.body.replace("\"size\":", "\"size\":1");
        assert!(Version::parse(&damaged).unwrap_err().problem.to_string().contains("checksum"));
    }

    #[test]
    fn a_copy_of_the_original_demo_is_read_as_what_it_is() {
        let legacy = r#"{"id":"1b2c","pk":"28035","seq":1777,"_lsn":20591,"_originalId":"28035","_rid":"r","_etag":"\"e\"","_ts":1592926405}"#;
        let version = Version::parse(legacy).unwrap();
        assert_eq!(
            (version.op, version.ts, version.lsn, version.id.as_str()),
            (None, 1_592_926_405, Some(20591), "28035")
        );
        assert_eq!(version.document.unwrap(), r#"{"id":"28035","pk":"28035","seq":1777}"#);
        assert!(Version::parse(r#"{"id":"x"}"#).is_err());
        assert!(
            Version::parse(r#"{"id":"x","_originalId":"x","_change":{"v":2,"op":"upsert","ts":1}}"#)
                .unwrap_err()
                .problem
                .to_string()
                .contains("format 2")
        );
    }

    /// JSON text of any value, in spellings that a parser would not reproduce.
    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?",
            any::<String>().prop_map(|s| serde_json::Value::from(s).to_string()),
            Just(r#""\u00e9\/\ud83d\ude00""#.to_owned()),
            Just(r#""2020-01-01T00:00:00.000Z""#.to_owned()),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|v| format!("[{}]", v.join(", "))),
                proptest::collection::vec((key(), inner), 0..4).prop_map(|m| format!(
                    "{{{}}}",
                    m.iter().map(|(k, v)| format!("{k} : {v}")).collect::<Vec<_>>().join(",")
                )),
            ]
        })
    }

    fn key() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => "\"[a-c]\"",
            1 => Just("\"\\u0061\"".to_owned()),
            1 => any::<String>().prop_map(|s| serde_json::Value::from(s).to_string()),
        ]
    }

    fn reserved_key() -> impl Strategy<Value = String> {
        prop_oneof![Just("\"ttl\"".to_owned()), Just("\"_change\"".to_owned()), Just("\"_originalId\"".to_owned())]
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_went_in(
            mut members in proptest::collection::vec((key(), value()), 0..6),
            reserved in proptest::collection::btree_map(0..4usize, (reserved_key(), value(), 0..8usize), 0..4),
            id in "[^\\x00]{1,20}",
            id_at in 0..6usize,
            system_at in 0..8usize,
        ) {
            // At most one of each reserved name: that the last of duplicates wins is tested separately.
            let mut seen = std::collections::HashSet::new();
            for (key, value, at) in reserved.into_values() {
                if seen.insert(serde_json::from_str::<String>(&key).unwrap()) {
                    members.insert(at.min(members.len()), (key, value));
                }
            }
            let id_text = serde_json::Value::from(id.as_str()).to_string();
            members.retain(|(k, _)| serde_json::from_str::<String>(k).is_ok_and(|k| k != "id" && !SYSTEM.contains(&k.as_str()) && k != "_lsn"));
            members.insert(id_at.min(members.len()), ("\"id\"".into(), id_text));
            let text = |m: &[(String, String)]| format!("{{{}}}", m.iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>().join(","));
            let expected = text(&members);
            let mut delivered = members.clone();
            for (i, (k, v)) in [("_rid", "\"r\""), ("_etag", "\"\\\"e\\\"\""), ("_ts", "12"), ("_lsn", "3")].into_iter().enumerate() {
                delivered.insert((system_at + i).min(delivered.len()), (format!("\"{k}\""), v.to_owned()));
            }
            let item = text(&delivered);
            let record = records(&item, &["/a", "/_originalId"]).pop().unwrap();
            let version = Version::parse(&record.body).unwrap();
            prop_assert_eq!(version.document.as_deref(), Some(expected.as_str()));
            prop_assert_eq!((version.id.as_str(), version.ts, version.lsn), (id.as_str(), 12, Some(3)));
            // The record as Cosmos returns it, with system properties of its own.
            let stored = format!("{},\"_rid\":\"x\",\"_self\":\"y\",\"_etag\":\"\\\"z\\\"\",\"_attachments\":\"a\",\"_ts\":99}}", &record.body[..record.body.len() - 1]);
            prop_assert_eq!(Version::parse(&stored).unwrap(), version);
        }

        #[test]
        fn the_same_version_has_the_same_record_however_often_it_is_delivered(value in value()) {
            let item = format!(r#"{{"id":"x","v":{value},"_etag":"\"e\"","_ts":1,"_lsn":2}}"#);
            prop_assert_eq!(records(&item, &["/id"]), records(&item, &["/id"]));
        }
    }

    #[test]
    fn a_reserved_name_is_recognised_behind_its_escapes() {
        let record =
            records(r#"{"id":"x","\u0074tl":null,"\u005fts":9,"_etag":"\"e\"","_ts":1}"#, &["/pk"]).pop().unwrap();
        assert!(record.body.contains(r#","ttl":null,"via""#), "{}", record.body);
        assert_eq!(Version::parse(&record.body).unwrap().document.unwrap(), r#"{"id":"x","ttl":null}"#);
    }

    #[test]
    fn a_version_is_not_lost_for_a_system_property_that_is_none() {
        let item = r#"{"id":"x","a":1,"_rid":5,"_etag":"\"\ud800\"","_ts":1}"#;
        let record = records(item, &["/pk"]).pop().unwrap();
        let version = Version::parse(&record.body).unwrap();
        assert_eq!((version.rid, version.etag.as_deref()), (None, Some("\"\u{FFFD}\"")));
        assert_eq!(version.document.unwrap(), r#"{"id":"x","a":1}"#);
        // As it was written before.
        let stored = record.body.replace(r#""via":"#, r#""rid":5,"via":"#);
        assert_eq!(Version::parse(&stored).unwrap().rid, None);
    }

    #[test]
    fn of_duplicated_reserved_names_the_last_wins_and_others_are_kept() {
        let item = r#"{"id":"old","a":1,"a":2,"ttl":1,"id":"x","ttl":2,"_etag":"\"e\"","_ts":1}"#;
        let record = records(item, &["/pk"]).pop().unwrap();
        assert_eq!(Version::parse(&record.body).unwrap().document.unwrap(), r#"{"a":1,"a":2,"id":"x","ttl":2}"#);
    }
}
