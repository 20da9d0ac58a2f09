//! Decides which dead letters concern an item. Pure.

use crate::{
    change::{
        Change,
        decode::decode,
        key::{ItemKey, KeyPaths},
    },
    dead_letters::DeadLetter,
};

/// Whether the leftover of a letter may hold the item. It may be complete, or cut off so that nobody can parse it.
pub fn may_be_about(left: &[u8], item: &ItemKey, source: &KeyPaths, container: &str) -> bool {
    match serde_json::from_slice::<DeadLetter>(left) {
        Ok(letter) => is_about(&letter, item, source, container),
        Err(_) => item.is_named_in(left),
    }
}

/// Whether a letter holds the item of a container, or an image of it. A letter whose key cannot be determined counts
/// when it has the id: better forgotten than kept. One that names another container never does.
pub fn is_about(letter: &DeadLetter, item: &ItemKey, source: &KeyPaths, container: &str) -> bool {
    if letter.source.as_ref().is_some_and(|of| of != container) {
        return false;
    }
    let mut changes: Vec<Change<'_>> = Vec::new();
    if decode(&letter.item, &mut changes).is_err() {
        return letter.id.as_ref() == Some(&item.id);
    }
    changes.iter().any(|change| {
        let knows_key = !change.document.members().is_empty();
        change.id == item.id && (!knows_key || source.extract(&change.document) == item.partition_key)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::RawValue};

    use super::*;
    use crate::change::key::PartitionKey;

    #[test]
    fn a_letter_is_about_what_it_holds() {
        let source = KeyPaths::parse(&["/pk"]).unwrap();
        let item = ItemKey { id: "a".into(), partition_key: PartitionKey::parse("p").unwrap() };
        let about_of = |of: Option<&str>, held: serde_json::Value| {
            let letter = DeadLetter {
                v: 1,
                at: String::new(),
                function: "f".into(),
                invocation: String::new(),
                partial: None,
                delivery: None,
                source: of.map(String::from),
                via: None,
                id: held["id"].as_str().map(String::from),
                status: "400".into(),
                reason: String::new(),
                item: RawValue::from_string(held.to_string()).unwrap(),
            };
            is_about(&letter, &item, &source, "dev/events")
        };
        let about = |held| about_of(None, held);
        assert!(about(json!({"id": "a", "pk": "p", "_ts": 1})));
        assert!(!about(json!({"id": "a", "pk": "q", "_ts": 1})));
        assert!(!about(json!({"id": "b", "pk": "p", "_ts": 1})));
        assert!(!about(json!(7)));
        let held = || json!({"id": "a", "pk": "p", "_ts": 1});
        assert!(about_of(Some("dev/events"), held()) && !about_of(Some("dev/orders"), held()));
        let envelope = |current: serde_json::Value, op: &str| json!({"current": current, "metadata": {"operationType": op, "lsn": 1, "crts": 1, "id": "a", "partitionKey": {"pk": "p"}}});
        assert!(about(envelope(json!({"id": "a", "pk": "p"}), "create")));
        assert!(!about(envelope(json!({"id": "a", "pk": "q"}), "create")));
        assert!(about(envelope(json!({}), "delete")), "its key is not looked at: it has the id");
    }
}
