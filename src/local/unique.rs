//! Unique keys. Tracks the values in use, so that a write does not search the whole partition, as in the emulator.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{
    keys::{DocumentKey, Epk, value_at},
    message::{GatewayAnswer, json_of},
};

/// The unique keys of one container, and which document has which values.
#[derive(Debug)]
pub(super) struct UniqueKeys {
    /// The paths of each key.
    keys: Vec<Vec<String>>,
    /// The id of the document with the values of a key. Values are unique within a partition key.
    taken: HashMap<Place, String>,
}

/// A partition key, the index of a unique key, and its values.
type Place = (Epk, usize, String);

impl UniqueKeys {
    /// Reads the unique keys of a container's policy; `None` when there are none.
    pub fn of(policy: &Value) -> Option<Self> {
        let keys = policy["uniqueKeys"].as_array()?;
        let paths = |key: &Value| {
            let paths = key["paths"].as_array().into_iter().flatten();
            paths.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        let keys: Vec<Vec<String>> = keys.iter().map(paths).filter(|paths| !paths.is_empty()).collect();
        (!keys.is_empty()).then(|| Self { keys, taken: HashMap::new() })
    }

    /// Whether a document other than these has the unique values of `document`.
    pub fn conflicts(&self, epk: &Epk, document: &Value, own: &[&str]) -> bool {
        self.places(epk, document).any(|place| self.taken.get(&place).is_some_and(|id| !own.contains(&id.as_str())))
    }

    /// Records the values of a written document.
    pub fn put(&mut self, key: &DocumentKey, text: &[u8]) {
        let Ok(document) = json_of(text) else { return };
        let places: Vec<Place> = self.places(&key.epk, &document).collect();
        self.taken.extend(places.into_iter().map(|place| (place, key.id.clone())));
    }

    /// Releases the values of a deleted document.
    pub fn remove(&mut self, key: &DocumentKey, text: &[u8]) {
        let Ok(document) = json_of(text) else { return };
        let places: Vec<Place> = self.places(&key.epk, &document).collect();
        for place in places {
            if self.taken.get(&place) == Some(&key.id) {
                self.taken.remove(&place);
            }
        }
    }

    /// A missing value counts as null; numbers are compared as doubles.
    fn places<'a>(&'a self, epk: &'a Epk, document: &'a Value) -> impl Iterator<Item = Place> + 'a {
        self.keys.iter().enumerate().map(move |(number, paths)| {
            let value = |path: &String| match value_at(document, path) {
                Some(Value::Number(number)) => number.as_f64().unwrap_or_default().to_string(),
                Some(value) => value.to_string(),
                None => "null".to_owned(),
            };
            (epk.clone(), number, paths.iter().map(value).collect::<Vec<_>>().join(","))
        })
    }
}

/// The writes of a batch, simulated one after another before any of them is applied.
pub(super) struct Trial<'a> {
    keys: &'a UniqueKeys,
    epk: &'a Epk,
    /// Values that the batch has assigned so far.
    taken: HashMap<Place, String>,
    /// Documents whose earlier values are not in use any more.
    written: HashSet<String>,
}

impl<'a> Trial<'a> {
    pub fn of(keys: &'a UniqueKeys, epk: &'a Epk) -> Self {
        Self { keys, epk, taken: HashMap::new(), written: HashSet::new() }
    }

    /// Removes a document that is deleted or about to be replaced.
    pub fn remove(&mut self, id: &str) {
        self.written.insert(id.to_owned());
        self.taken.retain(|_, owner| owner != id);
    }

    /// Writes a document in the simulation, if its values are free.
    pub fn put(&mut self, id: &str, document: &Value) -> bool {
        self.remove(id);
        let places: Vec<Place> = self.keys.places(self.epk, document).collect();
        let is_taken = |place: &Place| {
            self.taken.contains_key(place)
                || self.keys.taken.get(place).is_some_and(|owner| !self.written.contains(owner))
        };
        if places.iter().any(is_taken) {
            return false;
        }
        self.taken.extend(places.into_iter().map(|place| (place, id.to_owned())));
        true
    }
}

/// The service's message for values that another document has.
pub(super) const TAKEN: &str = "Resource with specified ID, name, or unique index already exists";

/// The response to a write with values that another document has.
pub(super) fn taken() -> GatewayAnswer {
    GatewayAnswer::error(409, None, "Conflict", TAKEN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(id: &str) -> DocumentKey {
        DocumentKey { epk: Epk::min(), id: id.into() }
    }

    fn keys() -> UniqueKeys {
        let policy = json!({"uniqueKeys": [{"paths": ["/mail"]}, {"paths": ["/a/b", "/n"]}]});
        UniqueKeys::of(&policy).unwrap()
    }

    #[test]
    fn values_are_in_use_within_a_partition_key_until_their_document_is_gone() {
        let mut keys = keys();
        let epk = Epk::min();
        let one = json!({"mail": "m", "a": {"b": 1}, "n": 1});
        keys.put(&key("one"), one.to_string().as_bytes());
        let conflicts = |keys: &UniqueKeys, document: Value| keys.conflicts(&epk, &document, &["two"]);
        assert!(conflicts(&keys, json!({"mail": "m"})));
        assert!(conflicts(&keys, json!({"mail": "x", "a": {"b": 1.0}, "n": 1})), "numbers are doubles");
        assert!(!conflicts(&keys, json!({"mail": "x", "a": {"b": "1"}, "n": 1})), "text is not a number");
        assert!(!conflicts(&keys, json!({"mail": "M", "a": {"b": 1}})));
        assert!(!keys.conflicts(&epk, &one, &["one"]));
        assert!(!keys.conflicts(&Epk::parse("11").unwrap(), &one, &["two"]));
        keys.put(&key("none"), b"{}");
        assert!(conflicts(&keys, json!({"mail": null, "n": 5})), "a missing value is null");
        keys.remove(&key("one"), one.to_string().as_bytes());
        assert!(!conflicts(&keys, json!({"mail": "m", "n": 5})));
        assert!(UniqueKeys::of(&json!({"uniqueKeys": []})).is_none());
    }

    #[test]
    fn a_batch_is_simulated_one_write_after_the_other() {
        let mut keys = keys();
        keys.put(&key("a"), br#"{"mail":"1","n":1}"#);
        keys.put(&key("b"), br#"{"mail":"2","n":2}"#);
        let epk = Epk::min();
        let mut trial = Trial::of(&keys, &epk);
        assert!(!trial.put("a", &json!({"mail": "2", "n": 9})), "b still has it");
        let mut trial = Trial::of(&keys, &epk);
        trial.remove("b");
        assert!(trial.put("a", &json!({"mail": "2", "n": 9})));
        assert!(trial.put("c", &json!({"mail": "1", "n": 1})));
        assert!(!trial.put("d", &json!({"mail": "2", "n": 8})));
    }
}
