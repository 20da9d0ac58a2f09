//! The peculiarities of Azure Cosmos DB for MongoDB with request units: its pipeline and its tokens.

use bson::{Bson, Document, RawDocument, Timestamp, doc, rawdoc};
use serde::Deserialize;

use crate::{
    cosmos::{Failure, FeedRange},
    mongo::{Mongo, failure::is_unknown_command},
};

/// The stages that it requires after `$changeStream`; any other pipeline is refused.
pub(super) fn pipeline() -> [Document; 2] {
    [
        doc! { "$match": { "operationType": { "$in": ["insert", "update", "replace"] } } },
        doc! { "$project": { "_id": 1, "fullDocument": 1, "ns": 1, "documentKey": 1 } },
    ]
}

/// The content of a token: the text in its `_data`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Token {
    continuation: Vec<Continuation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Continuation {
    feed_range: Option<Bounds>,
    state: Option<String>,
}

#[derive(Deserialize)]
struct Bounds {
    min: String,
    max: String,
}

fn read(token: &RawDocument) -> Option<Token> {
    serde_json::from_slice(token.get_binary("_data").ok()?.bytes).ok()
}

/// How far the first partition of a token was read: its log sequence number.
fn state_of(token: &RawDocument) -> Option<String> {
    states_of(token)?.into_iter().next()?.1
}

/// How far each partition was read, in the order of their keys. A page may be of any of them, so only all of them
/// together tell it from others.
pub(super) fn place_of(token: &RawDocument) -> Option<String> {
    let mut states = states_of(token)?;
    states.sort();
    let states: Option<Vec<String>> = states.into_iter().map(|(_, state)| state).collect();
    states.filter(|states| !states.is_empty()).map(|states| states.join("."))
}

/// Where the keys of each partition begin, and its log sequence number.
fn states_of(token: &RawDocument) -> Option<Vec<(String, Option<String>)>> {
    let of_one = |one: Continuation| {
        let digits = one.state.map(|state| state.chars().filter(char::is_ascii_digit).collect::<String>());
        (one.feed_range.map(|bounds| bounds.min).unwrap_or_default(), digits.filter(|digits| !digits.is_empty()))
    };
    Some(read(token)?.continuation.into_iter().map(of_one).collect())
}

/// The part of the keys that a token belongs to.
fn range_of(token: &RawDocument) -> Option<FeedRange> {
    let bounds = read(token)?.continuation.into_iter().next()?.feed_range?;
    FeedRange::parse(&bounds.min, &bounds.max).ok()
}

/// Whether a token is no older than its partition's current one; `None` when the server does not say.
pub(super) fn is_up_to(token: &Document, now: &[(FeedRange, Document)]) -> Option<bool> {
    let state = |token: &Document| state_of(&raw(token))?.parse::<u64>().ok();
    let range = range_of(&raw(token));
    let current = now.iter().find(|(own, _)| Some(own) == range.as_ref());
    Some(state(token)? >= state(&current?.1)?)
}

/// The streams of a collection that can be read in parallel, one for each partition, with the tokens at which they
/// begin, or the current ones without a time. Empty when the server does not hand out any.
pub(super) async fn streams(
    mongo: &Mongo,
    database: &str,
    collection: &str,
    start: Option<(u32, u32)>,
) -> Result<Vec<(FeedRange, Document)>, Failure> {
    let mut command = doc! { "customAction": "GetChangeStreamTokens", "collection": collection };
    if let Some((time, increment)) = start {
        command.insert("startAtOperationTime", Timestamp { time, increment });
    }
    let answer = match mongo.database(database).run_command(command).await {
        Ok(answer) => answer,
        Err(e) if is_unknown_command(&e) => return Ok(Vec::new()),
        Err(e) => return Err(mongo.fail("ask for change stream tokens", &e)),
    };
    let tokens = answer.get_array("resumeAfterTokens").cloned().unwrap_or_default();
    let mut streams = Vec::with_capacity(tokens.len());
    for token in tokens {
        let Bson::Document(token) = token else { return Ok(Vec::new()) };
        let raw = bson::RawDocumentBuf::try_from(&token);
        let Some(range) = raw.ok().and_then(|raw| range_of(&raw)) else { return Ok(Vec::new()) };
        streams.push((range, token));
    }
    streams.sort_by_key(|(range, _)| range.min());
    Ok(streams)
}

/// A token in the form in which it is kept.
pub(super) fn raw(token: &Document) -> bson::RawDocumentBuf {
    bson::RawDocumentBuf::try_from(token).unwrap_or_else(|_| rawdoc! {})
}

#[cfg(test)]
mod tests {
    use bson::{Binary, spec::BinarySubtype};

    use super::*;

    #[test]
    fn a_token_says_how_far_which_partition_was_read() {
        let text = r#"{"V":2,"Rid":"x","Continuation":[{"FeedRange":{"type":"Effective Partition Key Range","value":0,"min":"","max":"1F"},"State":"\"291514\""}]}"#;
        let data = Binary { subtype: BinarySubtype::Generic, bytes: text.as_bytes().to_vec() };
        let token = raw(&doc! { "_data": data, "_kind": 1 });
        assert_eq!(state_of(&token).as_deref(), Some("291514"));
        assert_eq!(range_of(&token).unwrap().to_string(), "00-1F");
        assert_eq!((state_of(&rawdoc! { "_data": "82" }), place_of(&rawdoc! { "_data": "82" })), (None, None));
    }
    #[test]
    fn the_place_of_a_page_is_that_of_every_partition() {
        let of = |ranges: &[(&str, &str, &str)]| {
            let one = |(min, max, state): &(&str, &str, &str)| {
                format!(r#"{{"FeedRange":{{"min":"{min}","max":"{max}"}},"State":"\"{state}\""}}"#)
            };
            let all: Vec<String> = ranges.iter().map(one).collect();
            let text = format!(r#"{{"Rid":"x","Continuation":[{}]}}"#, all.join(","));
            let data = Binary { subtype: BinarySubtype::Generic, bytes: text.into_bytes() };
            place_of(&raw(&doc! { "_data": data, "_kind": 1 }))
        };
        assert_eq!(of(&[("", "FF", "7")]).as_deref(), Some("7"));
        let both = of(&[("", "7F", "7"), ("7F", "FF", "12")]);
        assert_eq!(both.as_deref(), Some("7.12"));
        // The partition to be read next may come first.
        assert_eq!(of(&[("7F", "FF", "12"), ("", "7F", "7")]), both);
        assert_eq!(of(&[]), None);
    }
}
