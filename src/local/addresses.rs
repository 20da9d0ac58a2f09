//! Resolves paths with resource ids, such as `/dbs/AAAAAQ==/colls/AAAAAYAAAAI=/pkranges`. Clients that know a
//! container's resource id use it instead of the name. The path is rewritten to names before other code looks at it.

use axum::http::Method;
use percent_encoding::percent_decode_str;

use super::emulator::Emulator;
use super::list;
use super::message::{Ask, encode_segment};

/// Whether a segment could be a resource id of `bytes` bytes: base64 with `-` instead of `/`.
fn could_be_rid(segment: &str, bytes: usize) -> bool {
    let length = bytes.div_ceil(3) * 4;
    let padding = (3 - bytes % 3) % 3;
    segment.len() == length
        && segment.ends_with(&"="[..padding.min(1)].repeat(padding))
        && segment.trim_end_matches('=').bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-'))
}

/// Returns the path with names. A document's resource id stays: the container resolves it.
pub(super) async fn by_name(emulator: &Emulator, path: &str) -> Option<String> {
    let mut segments: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
    let decoded = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
    if segments.first().is_none_or(|first| first != "dbs") {
        return None;
    }
    let mut parent = String::from("/dbs");
    let mut changed = false;
    for (index, bytes, member) in [(1, 4, "Databases"), (3, 8, "DocumentCollections")] {
        let Some(segment) = segments.get(index).map(|segment| decoded(segment)) else { break };
        if index == 3 && segments.get(2).is_none_or(|keyword| keyword != "colls") {
            break;
        }
        if could_be_rid(&segment, bytes) {
            let all = list::items(&emulator.execute(&Ask::new(Method::GET, parent.as_str())).await.body, member);
            let is_name = all.iter().any(|item| item["id"] == segment.as_str());
            let found = all.iter().find(|item| item["_rid"] == segment.as_str());
            if let Some(name) = found.and_then(|item| item["id"].as_str()).filter(|_| !is_name) {
                segments[index] = encode_segment(name);
                changed = true;
            }
        }
        parent = format!("{parent}/{}/colls", segments[index]);
    }
    changed.then(|| format!("/{}", segments.join("/")))
}

/// Whether a path segment could be a document's resource id.
pub(super) fn could_be_document(segment: &str) -> bool {
    could_be_rid(segment, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_ids_are_distinguished_from_names_by_their_form() {
        assert!(could_be_rid("AAAAAQ==", 4) && could_be_rid("AAAAAYAAAAI=", 8));
        assert!(could_be_document("AAAAAYAAAAIEAAAAAAAAAA=="));
        for name in ["dev", "AAAAAQ=", "AAAAAQ=a", "events", "AAAA/Q=="] {
            assert!(!could_be_rid(name, 4), "{name}");
        }
    }
}
