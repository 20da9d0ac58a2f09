//! Postal codes of North Carolina: the documents of the demo, generated from a table of facts.
//!
//! The shape of a document, and picking at random so that inserts are followed by updates, come from the demo that
//! this project descends from; `id` and `pk` are the zip code.

use std::{fmt::Write, sync::LazyLock};

use chrono::{DateTime, Utc};
use rand::{Rng, RngExt};

/// One postal code. Coordinates are kept as text: that is how they are written into documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zipcode {
    /// Five digits.
    pub zip: &'static str,
    /// Its town.
    pub city: &'static str,
    /// Degrees north.
    pub latitude: &'static str,
    /// Degrees east, so negative here.
    pub longitude: &'static str,
}

static ALL: LazyLock<Vec<Zipcode>> = LazyLock::new(|| include_str!("zipcodes.tsv").lines().filter_map(parse).collect());

fn parse(line: &'static str) -> Option<Zipcode> {
    let mut fields = line.split('\t');
    Some(Zipcode { zip: fields.next()?, city: fields.next()?, latitude: fields.next()?, longitude: fields.next()? })
}

/// All of them, by zip code.
pub fn all() -> &'static [Zipcode] {
    &ALL
}

/// A random one.
pub fn pick(rng: &mut impl Rng) -> &'static Zipcode {
    let all = all();
    &all[rng.random_range(0..all.len())]
}

impl Zipcode {
    /// The document's JSON text: `seq` distinguishes the writes of one run, `now` becomes `timestamp` (UTC) and
    /// `epoch`.
    pub fn document(&self, seq: u64, now: DateTime<Utc>) -> String {
        let Self { zip, city, latitude, longitude } = self;
        let mut text = String::with_capacity(360);
        // No town of the table needs JSON escapes (tested), and writing to a string cannot fail.
        let _ = write!(
            text,
            r#"{{"location":{{"type":"Point","coordinates":[{longitude},{latitude}]}},"postal_cd":"{zip}","country_cd":"US","city_name":"{city}","state_abbrv":"NC","latitude":{latitude},"longitude":{longitude},"id":"{zip}","pk":"{zip}","seq":{seq},"doctype":"zipcode","timestamp":"{}","epoch":{}}}"#,
            timestamp(now),
            now.timestamp(),
        );
        text
    }
}

/// A time as the demo's documents write it: `YYYY-MM-DD HH:MM:SS` in UTC.
pub fn timestamp(now: DateTime<Utc>) -> impl std::fmt::Display {
    now.format("%Y-%m-%d %H:%M:%S")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_table_is_whole_and_needs_no_escapes() {
        assert_eq!(all().len(), 1075);
        assert!(all().is_sorted_by(|a, b| a.zip < b.zip));
        for z in all() {
            assert!(z.zip.len() == 5 && z.zip.bytes().all(|b| b.is_ascii_digit()), "{z:?}");
            assert!(
                !z.city.is_empty() && !z.city.contains(['"', '\\']) && !z.city.chars().any(char::is_control),
                "{z:?}"
            );
            let number = |t: &str| t.parse::<f64>().unwrap();
            assert!(
                (33.0..37.0).contains(&number(z.latitude)) && (-85.0..-75.0).contains(&number(z.longitude)),
                "{z:?}"
            );
        }
        for zip in ["28035", "28036"] {
            assert!(all().iter().any(|z| z.zip == zip && z.city == "Davidson"));
        }
    }

    #[test]
    fn a_document_has_the_demos_shape() {
        let davidson = all().iter().find(|z| z.zip == "28036").unwrap();
        let now = DateTime::from_timestamp(1_592_927_008, 0).unwrap();
        insta::assert_snapshot!(davidson.document(3644, now), @r#"{"location":{"type":"Point","coordinates":[-80.7979,35.4833]},"postal_cd":"28036","country_cd":"US","city_name":"Davidson","state_abbrv":"NC","latitude":35.4833,"longitude":-80.7979,"id":"28036","pk":"28036","seq":3644,"doctype":"zipcode","timestamp":"2020-06-23 15:43:28","epoch":1592927008}"#);
        for zip in all() {
            assert!(serde_json::from_str::<serde_json::Value>(&zip.document(1, now)).is_ok(), "{zip:?}");
        }
    }

    #[test]
    fn a_seed_repeats_the_picks() {
        let picks = |seed| {
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            (0..20).map(|_| pick(&mut rng).zip).collect::<Vec<_>>()
        };
        assert_eq!(picks(7), picks(7));
        assert_ne!(picks(7), picks(8));
    }
}
