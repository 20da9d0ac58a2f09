//! Describes the container of the past, as similar to the live one as possible.

use serde_json::{Value, json};

use crate::{
    causes::chain,
    change::{
        key::{KeyPaths, parse_path, render_path},
        shape::Redact,
    },
    config::Names,
    cosmos::{Cosmos, provision::read_definition},
    local::{LocalCosmos, LocalError},
    progress::Progress,
};

/// The fields that are adopted: policies, and the parts to which an indexing policy may refer.
const TAKEN: [&str; 6] = [
    "uniqueKeyPolicy",
    "indexingPolicy",
    "defaultTtl",
    "vectorEmbeddingPolicy",
    "fullTextPolicy",
    "computedProperties",
];

/// Creates the container with the live one's key and policies. When these are not available, uses only its key and
/// warns.
pub(super) async fn create(
    local: &LocalCosmos,
    cosmos: &Cosmos,
    (names, keys): (&Names, &KeyPaths),
    mask: &[Redact],
    progress: &dyn Progress,
) -> Result<(), LocalError> {
    let note = |problem: String| {
        progress
            .note(&format!("warning: {}: its indexing policy and unique keys are not shown: {problem}", names.source));
    };
    let paths: Vec<String> = keys.segments().iter().map(|path| render_path(path)).collect();
    let kind = if paths.len() > 1 { "MultiHash" } else { "Hash" };
    let bare = json!({"id": names.source, "partitionKey": {"paths": paths, "kind": kind, "version": 2}});
    let live = match read_definition(cosmos, &names.database, &names.source).await {
        Ok(live) => live.unwrap_or_default(),
        Err(failure) => {
            note(chain(&failure));
            Value::Null
        }
    };
    let mut whole = bare.clone();
    for name in TAKEN {
        if let Some(policy) = live.get(name).filter(|policy| !policy.is_null()) {
            whole[name] = policy.clone();
        }
    }
    for keys in without_masked(&mut whole, mask) {
        progress.note(&format!("warning: {}: the unique key {keys} is masked, and not enforced", names.source));
    }
    match local.create_container(&names.database, whole).await {
        Err(refused @ LocalError::Refused { .. }) => {
            note(chain(&refused));
            local.create_container(&names.database, bare).await.map(drop)
        }
        created => created.map(drop),
    }
}

/// Removes unique keys with masked values, because masking may have made them equal. Returns their paths.
fn without_masked(description: &mut Value, mask: &[Redact]) -> Vec<String> {
    let is_masked = |path: &Value| {
        let path = path.as_str().and_then(|path| parse_path(path).ok());
        path.is_none_or(|path| mask.iter().any(|redact| redact.touches(&path)))
    };
    let keys = description.get_mut("uniqueKeyPolicy").and_then(|policy| policy.get_mut("uniqueKeys"));
    let Some(keys) = keys.and_then(Value::as_array_mut).filter(|_| !mask.is_empty()) else { return Vec::new() };
    let (masked, rest) = std::mem::take(keys)
        .into_iter()
        .partition(|key| key["paths"].as_array().is_some_and(|paths| paths.iter().any(is_masked)));
    *keys = rest;
    if keys.is_empty()
        && let Some(description) = description.as_object_mut()
    {
        description.remove("uniqueKeyPolicy");
    }
    let paths = |key: Value| {
        let paths = key["paths"].as_array().cloned().unwrap_or_default();
        paths.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
    };
    Vec::into_iter(masked).map(paths).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unique_key_whose_values_are_masked_is_left_out() {
        let left = |mask: &[&str]| {
            let key = |paths: &[&str]| json!({"paths": paths});
            let keys = json!([key(&["/mail"]), key(&["/address/zip", "/n"])]);
            let mut description = json!({"id": "x", "uniqueKeyPolicy": {"uniqueKeys": keys}});
            let mask: Vec<Redact> = mask.iter().map(|text| text.parse().unwrap()).collect();
            (without_masked(&mut description, &mask), description["uniqueKeyPolicy"]["uniqueKeys"].clone())
        };
        assert_eq!(left(&[]).0, [""; 0]);
        assert_eq!(left(&["/other"]).1.as_array().unwrap().len(), 2);
        assert_eq!(left(&["/address=hash"]), (vec!["/address/zip,/n".into()], json!([{"paths": ["/mail"]}])));
        assert_eq!(left(&["/mail/host", "/n"]), (vec!["/mail".into(), "/address/zip,/n".into()], Value::Null));
    }
}
