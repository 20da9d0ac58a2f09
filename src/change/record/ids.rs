//! Ids and keys of records: a version has one record, however often and by whomever it is captured.

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{
    MAX_ID_BYTES, ORIGINAL_ID, Unrecordable,
    compress::hex,
    members::{own_members, render},
};
use crate::change::{
    Change,
    key::{KeyPaths, KeyValue, PartitionKey},
    raw::{Member, RawDocument},
};

/// The deterministic id: redelivered, reordered or captured by two paths, a version has one record.
pub(super) fn record_id(change: &Change<'_>, source_id: &str, members: &[Member<'_>]) -> String {
    if let Some(own) = own_version(change, source_id) {
        return own;
    }
    let version = if change.op.is_tombstone() {
        match (change.lsn, change.ts) {
            // Includes the time: a recreated container counts its LSNs from the beginning.
            (Some(lsn), Some(ts)) => format!("del-{lsn}-{ts}"),
            (Some(lsn), None) => format!("del-{lsn}"),
            (None, Some(ts)) => format!("del-t{ts}"),
            (None, None) => "del".to_owned(),
        }
    } else {
        match (change.etag(), change.ts, change.lsn) {
            (Some(etag), _, _) => etag.trim_matches('"').to_owned(),
            (None, Some(ts), Some(lsn)) => format!("{ts}-{lsn}"),
            _ => {
                let digest = Sha256::digest(render(members).as_bytes());
                format!("h-{}", hex(&digest[..16]))
            }
        }
    };
    joined(source_id, &version)
}

/// The id of a MongoDB version, made from its place in the stream.
fn own_version(change: &Change<'_>, source_id: &str) -> Option<String> {
    let native = change.native.as_ref().filter(|native| !native.version.is_empty())?;
    Some(id_of_place(source_id, &native.version))
}

/// The id of the record of a version that is known by its place in a stream. It orders those that nothing else orders,
/// also where the document's id is too long.
pub fn id_of_place(id: &str, place: &str) -> String {
    let whole = format!("{id}~{place}");
    if whole.len() <= MAX_ID_BYTES { whole } else { format!("{}~{place}", hex(&Sha256::digest(id.as_bytes()))) }
}

/// The id of a change's record: the same for every delivery of the same version.
pub fn version_id(change: &Change<'_>) -> String {
    if let Some(own) = own_version(change, &change.id) {
        return own;
    }
    record_id(change, &change.id, &own_members(&change.document, change.text_origin))
}

/// The change's partition key in the source container.
///
/// # Errors
/// When a tombstone does not say whose partition it belongs to.
pub fn source_key(change: &Change<'_>, paths: &KeyPaths) -> Result<PartitionKey, Unrecordable> {
    key_of(change, &change.document, &change.id, &change.id, paths)
}

/// The id of the record for a document with this etag: where a live version is, or would be, in the history.
pub fn id_of_version(id: &str, etag: &str) -> String {
    joined(id, etag.trim_matches('"'))
}

pub(super) fn joined(id: &str, version: &str) -> String {
    let id = format!("{id}~{version}");
    if id.len() <= MAX_ID_BYTES { id } else { hex(&Sha256::digest(id.as_bytes())) }
}

/// The change's key by these paths; `source_id` is the document's id, `id` is used for the path `/id`.
pub(super) fn key_of(
    change: &Change<'_>,
    document: &RawDocument<'_>,
    source_id: &str,
    id: &str,
    paths: &KeyPaths,
) -> Result<PartitionKey, Unrecordable> {
    let from_metadata = change.op.is_tombstone() && change.document.members().is_empty();
    let parts = paths
        .segments()
        .iter()
        .enumerate()
        .map(|(index, path)| match path.as_slice() {
            [name] if name == ORIGINAL_ID => Ok(KeyValue::String(source_id.to_owned())),
            [name] if name == "id" => Ok(KeyValue::String(id.to_owned())),
            path if from_metadata => metadata_key(change.metadata_key, path, index),
            path => Ok(KeyPaths::extract_one(path, document)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(PartitionKey(parts))
}

/// A key component from an envelope's `metadata.partitionKey`: an object by path or by the path's last name, or an
/// array in the order of the paths.
pub(super) fn metadata_key(raw: Option<&RawValue>, path: &[String], index: usize) -> Result<KeyValue, Unrecordable> {
    let Some(raw) = raw else {
        return Err(Unrecordable {
            reason: "the delete names no partition key and carries no image of the document".into(),
        });
    };
    let scalar = |raw: &RawValue| match RawDocument::parse(&format!("{{\"v\":{raw}}}")) {
        Ok(document) => KeyPaths::extract_one(&["v".to_owned()], &document),
        Err(_) => KeyValue::Undefined,
    };
    match raw.get().as_bytes().first() {
        Some(b'{') => {
            let object = RawDocument::parse(raw.get()).unwrap_or_default();
            let joined = path.join("/");
            Ok(match object.get(&joined).or_else(|| object.get(&format!("/{joined}"))) {
                Some(value) => scalar(value),
                None => match KeyPaths::extract_one(path, &object) {
                    KeyValue::Undefined => {
                        path.last().and_then(|last| object.get(last)).map_or(KeyValue::Undefined, scalar)
                    }
                    value => value,
                },
            })
        }
        Some(b'[') => {
            let parts: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
            Ok(parts.get(index).map_or(KeyValue::Undefined, |part| scalar(part)))
        }
        _ => Ok(scalar(raw)),
    }
}
