//! Compresses documents that are too large for one item.

use base64::Engine as _;
use sha2::{Digest as _, Sha256};

use super::{
    CHANGE, ORIGINAL_ID, Record,
    members::render,
    text::{bare, push_packed},
};
use crate::change::{
    key::KeyPaths,
    raw::{Member, RawDocument},
    version::Version,
};

pub(super) struct Packed {
    pub(super) size: usize,
    pub(super) sha256: String,
    pub(super) data: String,
}

/// Compresses a document with gzip, so that any tool can read it, and adds a checksum of the text.
pub(super) fn pack(text: &str) -> Packed {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(text.len() / 4), flate2::Compression::default());
    // Writing to memory cannot fail; an empty result would fail its checksum when read.
    let bytes = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).unwrap_or_default();
    Packed {
        size: text.len(),
        sha256: hex(&Sha256::digest(text.as_bytes())),
        data: base64::engine::general_purpose::STANDARD.encode(bytes),
    }
}

/// Bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        for nibble in [b >> 4, b & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        out
    })
}

/// The record with its document compressed into `_change`: for a service that finds an item too large when we did not.
/// `None` when there is nothing to compress.
pub fn compress(record: &Record, paths: &KeyPaths) -> Option<Record> {
    if record.compressed {
        return None;
    }
    let document = Version::parse(&record.body).ok()?.document?;
    let stored = RawDocument::parse(&record.body).ok()?;
    let change = RawDocument::parse(stored.get(CHANGE)?.get()).ok()?;
    let kept: Vec<Member<'_>> = change
        .members()
        .iter()
        .filter(|m| !["ttl", "shadowed", "places"].iter().any(|name| m.is(name)))
        .copied()
        .collect();
    let mut metadata = render(&kept);
    metadata.pop();
    push_packed(&mut metadata, &pack(&document));
    metadata.push('}');
    let body = bare(record, stored.get(ORIGINAL_ID)?.get(), paths, &metadata);
    Some(Record { body, compressed: true, ..record.clone() })
}
