//! One operation on one item, as it appears in a request with others.

use std::{borrow::Cow, time::Duration};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{Failure, Status, Written};
use crate::change::{
    edit::quote,
    key::{KeyValue, PartitionKey},
};

/// One operation on one item; it owns or borrows its parts.
#[derive(Debug, Clone)]
pub struct Operation<'a> {
    /// The item's full partition key.
    pub key: Cow<'a, PartitionKey>,
    /// Its id.
    pub id: Cow<'a, str>,
    /// The verb.
    pub verb: Verb<'a>,
}

/// An action on an item. Documents are JSON text.
#[derive(Debug, Clone)]
pub enum Verb<'a> {
    /// Read it.
    Read,
    /// Create or replace it.
    Upsert(Cow<'a, [u8]>),
    /// Create it; a conflict when it exists.
    Create(Cow<'a, [u8]>),
    /// Replace it while it has this etag.
    Replace(Cow<'a, [u8]>, Cow<'a, str>),
    /// Delete it, while it has this etag when one is given.
    Delete(Option<Cow<'a, str>>),
}

/// The result of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationResult {
    /// Its charge, and the written item's properties.
    pub written: Written,
    /// The document that was read, with its system properties; `None` for a write, and when there is none.
    pub text: Option<String>,
    /// Whether it was in a request with others. Then it had no session: what was read may be a moment old.
    pub packed: bool,
}

impl Verb<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Upsert(_) => "Upsert",
            Self::Create(_) => "Create",
            Self::Replace(..) => "Replace",
            Self::Delete(_) => "Delete",
        }
    }

    /// The operation that a failure names.
    pub(super) fn context(&self) -> &'static str {
        match self {
            Self::Read => "read item",
            Self::Upsert(_) => "upsert item",
            Self::Create(_) => "create item",
            Self::Replace(..) => "replace item",
            Self::Delete(_) => "delete item",
        }
    }
}

impl<'a> Operation<'a> {
    /// An operation on an item that the caller holds.
    pub fn on(key: &'a PartitionKey, id: &'a str, verb: Verb<'a>) -> Self {
        Self { key: Cow::Borrowed(key), id: Cow::Borrowed(id), verb }
    }

    /// Roughly how many bytes it takes in a request.
    pub(super) fn size(&self) -> usize {
        const AROUND: usize = 96;
        let body = match &self.verb {
            Verb::Upsert(body) | Verb::Create(body) | Verb::Replace(body, _) => body.len(),
            Verb::Read | Verb::Delete(_) => 0,
        };
        let key: usize =
            self.key.0.iter().map(|part| if let KeyValue::String(text) = part { text.len() } else { 8 }).sum();
        // Keys and ids are quoted, keys twice.
        body + AROUND + self.id.len() * 2 + key * 4
    }

    fn write_to(&self, request: &mut Vec<u8>) {
        request.extend_from_slice(b"{\"operationType\":\"");
        request.extend_from_slice(self.verb.name().as_bytes());
        request.extend_from_slice(b"\",\"partitionKey\":");
        request.extend_from_slice(quote(&self.key.to_json().to_string()).as_bytes());
        let (body, etag, by_id) = match &self.verb {
            Verb::Read => (None, None, true),
            Verb::Upsert(body) | Verb::Create(body) => (Some(body), None, false),
            Verb::Replace(body, etag) => (Some(body), Some(etag), true),
            Verb::Delete(etag) => (None, etag.as_ref(), true),
        };
        if by_id {
            request.extend_from_slice(b",\"id\":");
            request.extend_from_slice(quote(&self.id).as_bytes());
        }
        if let Some(etag) = etag {
            request.extend_from_slice(b",\"ifMatch\":");
            request.extend_from_slice(quote(etag).as_bytes());
        }
        if let Some(body) = body {
            request.extend_from_slice(b",\"resourceBody\":");
            request.extend_from_slice(body);
        }
        request.push(b'}');
    }
}

/// The body of a request.
pub(super) fn request_of<'o, 'a: 'o>(operations: impl Iterator<Item = &'o Operation<'a>> + Clone) -> Vec<u8> {
    let mut request = Vec::with_capacity(operations.clone().map(Operation::size).sum::<usize>() + 2);
    for operation in operations {
        request.push(if request.is_empty() { b'[' } else { b',' });
        operation.write_to(&mut request);
    }
    request.push(b']');
    request
}

/// One result in an answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OperationAnswer<'a> {
    status_code: u16,
    #[serde(default)]
    sub_status_code: Option<u32>,
    #[serde(default)]
    request_charge: Option<f64>,
    #[serde(default)]
    retry_after_milliseconds: Option<u64>,
    #[serde(default, borrow)]
    e_tag: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    message: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    resource_body: Option<&'a RawValue>,
}

impl<'a> OperationAnswer<'a> {
    /// The results of an answer to this many operations; `None` when it cannot be parsed, or has another number of
    /// them. They are in the order of the operations, which only their documents can show.
    pub(super) fn all(body: &'a [u8], operations: usize) -> Option<Vec<Self>> {
        let answers: Vec<Self> = serde_json::from_slice(body).ok()?;
        (answers.len() == operations).then_some(answers)
    }

    /// Whether it belongs to another item than the operation: its document has another id.
    pub(super) fn is_of_another(&self, operation: &Operation<'_>) -> bool {
        #[derive(Deserialize)]
        struct Item<'a> {
            #[serde(borrow)]
            id: Cow<'a, str>,
        }
        let item = self.resource_body.and_then(|body| serde_json::from_str::<Item<'_>>(body.get()).ok());
        item.is_some_and(|item| item.id != operation.id)
    }

    pub(super) fn into_result(self, verb: &Verb<'_>) -> Result<OperationResult, Failure> {
        // Not carried out because another operation failed: treated as if the service had been busy.
        const FAILED_DEPENDENCY: u16 = 424;
        let status =
            Status::new(self.status_code, self.sub_status_code.and_then(|sub| u16::try_from(sub).ok()).unwrap_or(0));
        let charge = self.request_charge.unwrap_or(0.0);
        let written = Written { charge, etag: self.e_tag.map(Cow::into_owned), created: status.code == 201 };
        if (200..300).contains(&status.code) {
            let text = self.resource_body.filter(|_| matches!(verb, Verb::Read)).map(|body| body.get().to_owned());
            return match (verb, &text) {
                (Verb::Read, None) => Err(Failure::from_status(
                    verb.context().into(),
                    Status::new(500, 0),
                    "the service has read the item and not sent it",
                    None,
                )),
                _ => Ok(OperationResult { written, text, packed: true }),
            };
        }
        if matches!(verb, Verb::Read) && status == Status::NO_ITEM {
            return Ok(OperationResult { written, text: None, packed: true });
        }
        let status = if status.code == FAILED_DEPENDENCY { Status::new(503, 0) } else { status };
        let retry_after = self.retry_after_milliseconds.map(Duration::from_millis);
        let message = self.message.as_deref().unwrap_or("refused as one of several operations in a request");
        Err(Failure::from_status(verb.context().into(), status, message, retry_after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosmos::Disposition;

    fn key(text: &str) -> PartitionKey {
        PartitionKey::parse(text).unwrap()
    }

    #[test]
    fn a_request_is_what_microsofts_clients_send() {
        let (plain, odd) = (key("a"), key(r#"["\"q\"\n",1,null]"#));
        let operations = [
            Operation::on(&plain, "1", Verb::Upsert(br#"{"id":"1"}"#.into())),
            Operation::on(&odd, "a\t/b", Verb::Replace(br#"{"id":"2"}"#.into(), "\"e\"".into())),
            Operation::on(&plain, "3", Verb::Delete(None)),
            Operation::on(&plain, "4", Verb::Read),
        ];
        let body = request_of(operations.iter());
        let sent: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!([
            {"operationType": "Upsert", "partitionKey": "[\"a\"]", "resourceBody": {"id": "1"}},
            {"operationType": "Replace", "partitionKey": "[\"\\\"q\\\"\\n\",1,null]", "id": "a\t/b",
             "ifMatch": "\"e\"", "resourceBody": {"id": "2"}},
            {"operationType": "Delete", "partitionKey": "[\"a\"]", "id": "3"},
            {"operationType": "Read", "partitionKey": "[\"a\"]", "id": "4"},
        ]);
        assert_eq!(sent, expected);
        assert!(body.len() <= operations.iter().map(Operation::size).sum::<usize>() + 2);
    }

    #[test]
    fn every_operation_has_an_answer_of_its_own() {
        let body = br#"[{"statusCode":201,"requestCharge":5.5,"eTag":"\"x\"","resourceBody":{"id":"1"}},
            {"statusCode":429,"subStatusCode":3200,"retryAfterMilliseconds":7},
            {"statusCode":412,"message":"moved"},{"statusCode":404},{"statusCode":424},{"statusCode":200},
            {"statusCode":204,"subStatusCode":null,"requestCharge":null,"retryAfterMilliseconds":null,"eTag":null,
             "message":null,"resourceBody":null}]"#;
        assert!(OperationAnswer::all(body, 5).is_none() && OperationAnswer::all(b"nonsense", 1).is_none());
        let mut answers = OperationAnswer::all(body, 7).unwrap().into_iter();
        let mut next = |verb| answers.next().unwrap().into_result(&verb);
        let done = next(Verb::Upsert(b"".into())).unwrap();
        assert_eq!(done.written, Written { charge: 5.5, etag: Some("\"x\"".into()), created: true });
        assert_eq!(done.text, None);
        let busy = next(Verb::Upsert(b"".into())).unwrap_err();
        assert_eq!((busy.disposition, busy.retry_after), (Disposition::Transient, Some(Duration::from_millis(7))));
        assert_eq!(next(Verb::Delete(None)).unwrap_err().to_string(), "delete item: 412: moved");
        assert_eq!(next(Verb::Read).unwrap().text, None);
        assert_eq!(next(Verb::Create(b"".into())).unwrap_err().disposition, Disposition::Transient);
        assert!(next(Verb::Read).is_err(), "an item that was read is sent");
        assert!(next(Verb::Delete(None)).is_ok(), "null is nothing");
    }
}
