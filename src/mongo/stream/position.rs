//! The position of a stream, as a checkpoint keeps it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bson::{Document, RawDocument, RawDocumentBuf, Timestamp};
use serde::{Deserialize, Serialize};

use crate::cosmos::Failure;

/// Seconds, and the number of the operation within the second.
pub(super) type Time = (u32, u32);

/// The position of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StreamPosition {
    /// Whether the existing documents come first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub baseline: bool,
    /// The only collection whose existing documents come first: one that was renamed to where it is now. Database and
    /// name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed: Option<(String, String)>,
    /// The stream begins with the operations of this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Time>,
    /// The token of the last delivered event: a BSON document in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether the stream ended with that token, and begins anew after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// The time of the last change. Changes of one transaction share it ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Time>,
    /// ... and are distinguished by their number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub same: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl StreamPosition {
    pub fn at(time: Time) -> Self {
        Self { start: Some(time), ..Self::default() }
    }

    pub fn read(text: &str) -> Result<Self, Failure> {
        let wrong = |e: &str| {
            let problem = format!("a position is not one of a MongoDB stream: {e}");
            Failure::invalid("read the checkpoint".into(), problem)
        };
        let position: Self = serde_json::from_str(text).map_err(|e| wrong(&e.to_string()))?;
        // The server would take that for now.
        if position.start.is_none() && position.after.is_none() {
            return Err(wrong("it names no place in it"));
        }
        Ok(position)
    }

    pub fn text(&self) -> String {
        // Of numbers and texts alone.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The token, for the server.
    pub fn token(&self) -> Result<Option<Document>, Failure> {
        let Some(text) = &self.after else { return Ok(None) };
        let wrong = |e: String| Failure::invalid("read the checkpoint".into(), format!("its token is damaged: {e}"));
        let bytes = STANDARD.decode(text).map_err(|e| wrong(e.to_string()))?;
        let raw = RawDocumentBuf::from_bytes(bytes).map_err(|e| wrong(e.to_string()))?;
        raw.try_into().map(Some).map_err(|e: bson::error::Error| wrong(e.to_string()))
    }

    /// Everything up to a token was delivered.
    pub fn pass(&mut self, token: &RawDocument) {
        let after = self.after.get_or_insert_default();
        after.clear();
        STANDARD.encode_string(token.as_bytes(), after);
        (self.start, self.baseline, self.renamed, self.ended) = (None, false, None, false);
    }

    /// The documents that came to a collection with an event of this time, which was consumed, are to be read before
    /// what follows it.
    pub fn fill(&mut self, time: Time, collection: (String, String)) {
        (self.baseline, self.start, self.renamed) = (true, Some(time), Some(collection));
    }

    /// All existing documents were read.
    pub fn filled(&mut self) {
        (self.baseline, self.renamed) = (false, None);
    }

    /// The number of a change among those with the same time.
    pub fn number(&mut self, time: Time) -> u32 {
        self.same = if self.last == Some(time) { self.same + 1 } else { 0 };
        self.last = Some(time);
        self.same
    }
}

/// How far a server has read when it hands out this token: MongoDB's begin with that time. `None` for another server's.
pub(super) fn time_of(token: &Document) -> Option<Time> {
    let text = token.get_str("_data").ok()?.strip_prefix("82")?;
    let number = |digits: Option<&str>| u32::from_str_radix(digits?, 16).ok();
    Some((number(text.get(..8))?, number(text.get(8..16))?))
}

pub(super) fn time(timestamp: Timestamp) -> Time {
    (timestamp.time, timestamp.increment)
}

#[cfg(test)]
mod tests {
    use bson::{doc, rawdoc};

    use super::*;

    #[test]
    fn a_token_of_mongodb_says_how_far_the_server_has_read() {
        let of = |data: &str| time_of(&doc! { "_data": data });
        assert_eq!(of("8263F2A0B10000000A2B0229296E04"), Some((0x63F2_A0B1, 10)));
        assert_eq!([of("82"), of("8263F2A0B1"), of("3200000001"), of("82\u{e4}\u{e4}\u{e4}\u{e4}")], [None; 4]);
        assert_eq!(time_of(&doc! { "_data": 5 }), None);
    }

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let mut position = StreamPosition { baseline: true, ..StreamPosition::at((7, 1)) };
        assert_eq!(position.text(), r#"{"baseline":true,"start":[7,1]}"#);
        assert_eq!((position.number((9, 1)), position.number((9, 1)), position.number((9, 2))), (0, 1, 0));
        position.pass(&rawdoc! { "_data": "8263F2A0B10000000A2B0229" });
        let again = StreamPosition::read(&position.text()).unwrap();
        assert_eq!(again, position);
        assert_eq!(again.token().unwrap(), Some(doc! { "_data": "8263F2A0B10000000A2B0229" }));
        let orders = ("shop".to_owned(), "orders".to_owned());
        position.fill((9, 3), orders.clone());
        let filling = StreamPosition::read(&position.text()).unwrap();
        assert_eq!((filling.baseline, filling.start, filling.token().unwrap().is_some()), (true, Some((9, 3)), true));
        assert_eq!(filling.renamed, Some(orders));
        position.pass(&rawdoc! { "_data": "83" });
        assert_eq!((position.baseline, position.start, &position.renamed), (false, None, &None));
        assert!(StreamPosition::read("{}").is_err() && StreamPosition::read(r#"{"baseline":true}"#).is_err());
        assert!(
            StreamPosition::read("x").is_err() && StreamPosition::read(r#"{"after":"?"}"#).unwrap().token().is_err()
        );
    }
}
