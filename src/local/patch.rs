//! Partial document updates.
//!
//! A patch is evaluated here and applied as a replacement. A batch must know before its first write whether the patch
//! can succeed, and the emulator does not support conditions.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::{
    message::json_of,
    sql::{self, Computed, SqlError, Statement},
};
use crate::change::record::SYSTEM;

const MAX_OPERATIONS: usize = 10;

#[derive(Deserialize)]
struct Patch {
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Add { path: String, value: Value },
    Set { path: String, value: Value },
    Replace { path: String, value: Value },
    Remove { path: String },
    Incr { path: String, value: serde_json::Number },
    Move { path: String, from: String },
}

impl Operation {
    /// The paths at which it changes something.
    fn paths(&self) -> [Option<&str>; 2] {
        match self {
            Self::Move { path, from } => [Some(path), Some(from)],
            Self::Add { path, .. }
            | Self::Set { path, .. }
            | Self::Replace { path, .. }
            | Self::Remove { path }
            | Self::Incr { path, .. } => [Some(path), None],
        }
    }
}

fn is_the_systems(path: &str) -> bool {
    let first = path.strip_prefix('/').and_then(|path| path.split('/').next());
    first.is_some_and(|name| SYSTEM.contains(&name))
}

/// Wraps a bare list of operations, which some SDKs send, in an object.
pub(super) fn with_envelope(body: Bytes) -> Bytes {
    if !body.trim_ascii_start().starts_with(b"[") {
        return body;
    }
    let mut whole = b"{\"operations\":".to_vec();
    whole.extend_from_slice(&body);
    whole.push(b'}');
    whole.into()
}

/// Whether a document meets the condition of a patch, such as `from c where c.n = 1`. Without a condition, every
/// document does.
pub(super) fn meets_condition(document: &Bytes, instructions: &[u8]) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Conditional {
        #[serde(default)]
        condition: Option<String>,
    }
    let instructions = with_envelope(Bytes::copy_from_slice(instructions));
    let patch: Conditional =
        serde_json::from_slice(&instructions).map_err(|error| format!("the patch is not understood: {error}"))?;
    let Some(condition) = patch.condition.filter(|condition| !condition.trim().is_empty()) else { return Ok(true) };
    let query = serde_json::json!({ "query": format!("SELECT VALUE 1 {condition}") }).to_string();
    let refused = |error: SqlError| format!("the patch's condition: {error:?}");
    let statement = Statement::read(query.as_bytes()).map_err(refused)?;
    let found = sql::run(&statement, &Computed::default(), std::iter::once(document.clone())).map_err(refused)?;
    Ok(!found.is_empty())
}

/// Returns the document after the patch, or why the patch cannot be applied.
pub(super) fn apply(document: &[u8], instructions: &[u8]) -> Result<Bytes, String> {
    let mut document = json_of(document).map_err(|error| error.to_string())?;
    let instructions = with_envelope(Bytes::copy_from_slice(instructions));
    let patch: Patch =
        serde_json::from_slice(&instructions).map_err(|error| format!("the patch is not understood: {error}"))?;
    if patch.operations.is_empty() || patch.operations.len() > MAX_OPERATIONS {
        return Err(format!("a patch has 1 to {MAX_OPERATIONS} operations"));
    }
    for operation in patch.operations {
        if let Some(path) = operation.paths().into_iter().flatten().find(|path| is_the_systems(path)) {
            return Err(format!("{path} is a system property, which a patch cannot change"));
        }
        match operation {
            Operation::Add { path, value } => put(&mut document, &path, value, Place::Insert)?,
            Operation::Set { path, value } => put(&mut document, &path, value, Place::Overwrite)?,
            Operation::Replace { path, value } => put(&mut document, &path, value, Place::Existing)?,
            Operation::Remove { path } => {
                remove(&mut document, &path)?;
            }
            Operation::Incr { path, value } => increment(&mut document, &path, &value)?,
            Operation::Move { path, from } => {
                let value = remove(&mut document, &from)?;
                put(&mut document, &path, value, Place::Insert)?;
            }
        }
    }
    Ok(document.to_string().into())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Array elements are inserted.
    Insert,
    /// Array elements are overwritten.
    Overwrite,
    /// Only existing values are changed.
    Existing,
}

/// Splits a JSON pointer into its parent and the last name, unescaped.
fn parent<'a>(document: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), String> {
    let (above, name) = path.rsplit_once('/').ok_or_else(|| format!("{path} is not a path: it starts with /"))?;
    if name.is_empty() {
        return Err(format!("{path} names nothing"));
    }
    let found = document.pointer_mut(above).ok_or_else(|| format!("there is nothing at {above}"))?;
    Ok((found, crate::change::pointer::unescaped(name)))
}

fn put(document: &mut Value, path: &str, value: Value, place: Place) -> Result<(), String> {
    let missing = || format!("there is nothing at {path}");
    let (above, name) = parent(document, path)?;
    match above {
        Value::Object(map) => {
            if place == Place::Existing && !map.contains_key(&name) {
                return Err(missing());
            }
            map.insert(name, value);
        }
        Value::Array(list) if name == "-" && place != Place::Existing => list.push(value),
        Value::Array(list) => {
            let index: usize = name.parse().map_err(|_| missing())?;
            match (place, index.cmp(&list.len())) {
                (Place::Insert, std::cmp::Ordering::Less | std::cmp::Ordering::Equal) => list.insert(index, value),
                (Place::Overwrite, std::cmp::Ordering::Equal) => list.push(value),
                (_, std::cmp::Ordering::Less) => list[index] = value,
                _ => return Err(missing()),
            }
        }
        _ => return Err(missing()),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, String> {
    let missing = || format!("there is nothing at {path}");
    let (above, name) = parent(document, path)?;
    match above {
        Value::Object(map) => map.shift_remove(&name).ok_or_else(missing),
        Value::Array(list) => {
            let index = name.parse().ok().filter(|index| *index < list.len()).ok_or_else(missing)?;
            Ok(list.remove(index))
        }
        _ => Err(missing()),
    }
}

fn increment(document: &mut Value, path: &str, by: &serde_json::Number) -> Result<(), String> {
    let Some(found) = document.pointer_mut(path) else {
        return put(document, path, Value::Number(by.clone()), Place::Overwrite);
    };
    let Value::Number(number) = &*found else {
        return Err(format!("what is at {path} is not a number"));
    };
    let whole = number.as_i64().zip(by.as_i64()).and_then(|(number, by)| number.checked_add(by));
    *found = match whole {
        Some(sum) => sum.into(),
        None => {
            let sum = number.as_f64().unwrap_or_default() + by.as_f64().unwrap_or_default();
            serde_json::Number::from_f64(sum).map(Value::Number).ok_or_else(|| format!("{path} would be infinite"))?
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(document: Value, operations: Value) -> Result<Value, String> {
        let instructions = json!({ "operations": operations }).to_string();
        let bytes = apply(document.to_string().as_bytes(), instructions.as_bytes())?;
        assert_eq!(apply(document.to_string().as_bytes(), operations.to_string().as_bytes())?, bytes);
        Ok(serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn every_patch_operation_follows_the_services_documentation() {
        let document = json!({"id": "1", "n": 1, "list": [1, 3], "gone": true, "old": "x", "deep": {"a": 1}});
        let operations = json!([
            {"op": "add", "path": "/list/1", "value": 2},
            {"op": "add", "path": "/list/-", "value": 4},
            {"op": "set", "path": "/deep/b", "value": null},
            {"op": "replace", "path": "/deep/a", "value": "z"},
            {"op": "remove", "path": "/gone"},
            {"op": "incr", "path": "/n", "value": 2},
            {"op": "incr", "path": "/fresh", "value": 1.5},
            {"op": "move", "from": "/old", "path": "/new"},
        ]);
        let expected = json!({"id": "1", "n": 3, "list": [1, 2, 3, 4], "deep": {"a": "z", "b": null}, "fresh": 1.5,
            "new": "x"});
        assert_eq!(patched(document, operations).unwrap(), expected);
    }

    #[test]
    fn an_impossible_patch_says_why() {
        let refuse =
            |operation: Value| patched(json!({"id": "1", "s": "x", "l": [1]}), json!([operation])).unwrap_err();
        assert_eq!(refuse(json!({"op": "replace", "path": "/no", "value": 1})), "there is nothing at /no");
        for operation in [
            json!({"op": "set", "path": "/_ts", "value": 1}),
            json!({"op": "remove", "path": "/_etag"}),
            json!({"op": "move", "from": "/_rid", "path": "/rid"}),
        ] {
            assert!(refuse(operation.clone()).contains("is a system property"), "{operation}");
        }
        assert_eq!(refuse(json!({"op": "incr", "path": "/s", "value": 1})), "what is at /s is not a number");
        assert_eq!(refuse(json!({"op": "remove", "path": "/l/9"})), "there is nothing at /l/9");
        assert!(refuse(json!({"op": "explode", "path": "/s"})).contains("not understood"));
        assert!(patched(json!({}), json!([])).is_err());
    }
}
