//! Makes the texts of generated and of updated documents.

use chrono::{DateTime, Utc};

use super::InputError;
use crate::{
    change::{
        edit,
        key::{ItemKey, KeyPaths, KeyValue},
        raw::RawDocument,
    },
    zipcodes,
};

/// A generated document for a container with these key paths: missing ones are filled with the zip code.
pub(super) fn zip_document(
    zip: &zipcodes::Zipcode,
    key_paths: &KeyPaths,
    seq: u64,
    now: DateTime<Utc>,
) -> Result<(ItemKey, String), InputError> {
    let mut text = zip.document(seq, now);
    let mut partition_key = key_paths.extract(&RawDocument::parse(&text)?);
    for (path, part) in key_paths.segments().iter().zip(&mut partition_key.0) {
        if *part == KeyValue::Undefined {
            text = edit::set(&text, path, &edit::quote(zip.zip)).map_err(InputError::Set)?;
            *part = KeyValue::String(zip.zip.to_owned());
        }
    }
    Ok((ItemKey { id: zip.zip.to_owned(), partition_key }, text))
}

/// The document with fresh `seq`, `timestamp` and `epoch`.
pub(super) fn refreshed(text: &str, seq: u64, now: DateTime<Utc>) -> Result<String, InputError> {
    let set = |text: &str, name: &str, value: &str| edit::set(text, &[name.to_owned()], value);
    set(text, "seq", &seq.to_string())
        .and_then(|text| set(&text, "timestamp", &edit::quote(&zipcodes::timestamp(now).to_string())))
        .and_then(|text| set(&text, "epoch", &now.timestamp().to_string()))
        .map_err(InputError::Set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_changes_three_members_and_nothing_else() {
        let now = DateTime::from_timestamp(1_592_927_008, 0).unwrap();
        assert_eq!(
            refreshed(r#"{"id": "a", "seq": 1, "n": 1.10}"#, 7, now).unwrap(),
            r#"{"id": "a", "seq": 7, "n": 1.10,"timestamp":"2020-06-23 15:43:28","epoch":1592927008}"#
        );
    }

    #[test]
    fn generated_documents_fit_any_key() {
        let now = DateTime::from_timestamp(0, 0).unwrap();
        let zip = &zipcodes::all()[0];
        for paths in [&["/pk"][..], &["/id"], &["/tenant", "/city_name"], &["/a/b"]] {
            let paths = KeyPaths::parse(paths).unwrap();
            let (item, text) = zip_document(zip, &paths, 1, now).unwrap();
            assert_eq!(paths.extract(&RawDocument::parse(&text).unwrap()), item.partition_key);
            assert!(!item.partition_key.0.contains(&KeyValue::Undefined));
        }
    }
}
