//! A container's computed properties, which queries see although no document contains them.

use bytes::Bytes;
use serde_json::Value;

use super::{Statement, run};

/// The computed properties of a container.
#[derive(Debug, Default)]
pub(in crate::local) struct Computed(Vec<(String, Statement)>);

/// Checks the computed properties in a container's description: `[{"name": .., "query": "SELECT VALUE .."}]`.
pub(in crate::local) fn check(properties: &Value) -> Result<(), String> {
    let invalid = |problem: &str| format!("One of the specified inputs is invalid: computedProperties {problem}");
    if properties.is_null() {
        return Ok(());
    }
    for property in properties.as_array().ok_or_else(|| invalid("is not an array"))? {
        let name = property["name"].as_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| invalid("has one without a name"))?;
        let query = property["query"].as_str().ok_or_else(|| invalid("has one without a query"))?;
        statement(query).map_err(|error| invalid(&format!("{name}: {error:?}")))?;
    }
    Ok(())
}

fn statement(query: &str) -> Result<Statement, super::SqlError> {
    Statement::read(Value::from(query).to_string().as_bytes())
}

impl Computed {
    /// Reads them from a container's description, which was checked on creation.
    pub fn read(properties: &Value) -> Self {
        let properties = properties.as_array().into_iter().flatten();
        Self(
            properties
                .filter_map(|property| {
                    let query = statement(property["query"].as_str()?).ok()?;
                    Some((property["name"].as_str()?.to_owned(), query))
                })
                .collect(),
        )
    }

    /// Adds the computed properties to a document.
    pub fn add(&self, document: &mut Value, text: &Bytes) {
        for (name, query) in &self.0 {
            let found = run(query, &Self::default(), std::iter::once(text.clone())).unwrap_or_default();
            let value = found.first().and_then(|value| serde_json::from_slice(value).ok());
            if let (Some(members), Some(value)) = (document.as_object_mut(), value) {
                members.entry(name.as_str()).or_insert(value);
            }
        }
    }
}
