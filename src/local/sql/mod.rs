//! Queries: the service's SQL over the documents of one container.
//!
//! Text -> `parse` -> [`ast::Query`] -> `run` over documents, or `plan` for clients that fan a query out themselves.
//! What is not known here is refused with its name, never answered wrongly.

mod aggregate;
mod ast;
mod eval;
mod functions;
mod parse;
mod plan;
mod run;

use serde_json::Value;

pub(super) use plan::plan;
pub(super) use run::run;

use super::message::Answer;

/// A query as the SDKs send it.
#[derive(Debug)]
pub(super) struct Statement {
    query: ast::Query,
    parameters: Vec<(String, Value)>,
}

/// Why a query cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SqlError {
    /// It is wrong, for the service, too.
    Invalid(String),
    /// The service may know it, the local account does not.
    Unsupported(String),
}

impl SqlError {
    pub fn into_answer(self) -> Answer {
        match self {
            Self::Invalid(message) => Answer::bad_request(format!("Syntax error or invalid query: {message}")),
            Self::Unsupported(what) => {
                Answer::bad_request(format!("The local account does not evaluate this query: {what}"))
            }
        }
    }
}

impl Statement {
    /// Reads the body of a query request: `{"query": .., "parameters": [..]}`, or the query's text alone.
    pub fn read(body: &[u8]) -> Result<Self, SqlError> {
        let invalid = |error: &dyn std::fmt::Display| SqlError::Invalid(error.to_string());
        let sent: Value = match serde_json::from_slice(body) {
            Ok(sent @ (Value::Object(_) | Value::String(_))) => sent,
            _ => Value::from(std::str::from_utf8(body).map_err(|error| invalid(&error))?),
        };
        let text = sent.as_str().or_else(|| sent["query"].as_str());
        let text = text.ok_or_else(|| SqlError::Invalid("the request's body has no query".into()))?;
        let mut parameters = Vec::new();
        for parameter in sent["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            parameters.push((name, parameter["value"].clone()));
        }
        Ok(Self { query: parse::parse(text)?, parameters })
    }
}

#[cfg(test)]
mod tests;
