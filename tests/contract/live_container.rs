//! The contract for live documents.

use cosmos_rewind::cosmos::{HashRange, Param};

use super::{DOCUMENTS, LAYOUTS, all, all_of, filled, item, key};

fn numbers(ids: impl IntoIterator<Item = String>) -> Vec<i64> {
    let mut numbers: Vec<i64> = ids.into_iter().map(|id| id.trim_start_matches("doc-").parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn every_live_document_is_in_one_range_once_with_its_etag_and_time() {
    for side in filled(LAYOUTS[0]).await {
        let (name, source) = (&side.name, &side.containers.source);
        for parts in [1, 3, 8] {
            for with_text in [false, true] {
                let ranges = HashRange::WHOLE.cut(parts);
                let found = all_of(ranges.into_iter().map(|range| source.documents_in(range, with_text, None))).await;
                let ids = numbers(found.iter().map(|(item, _)| item.id.clone()));
                assert_eq!(ids, (0..DOCUMENTS).collect::<Vec<_>>(), "{name}, {parts} parts");
                for (found, live) in found {
                    let number = numbers([found.id.clone()])[0];
                    assert_eq!(found, item(number), "{name}");
                    assert!(!live.etag.is_empty() && live.ts.is_some(), "{name}");
                    let own = format!(r#""n":{number}"#);
                    assert_eq!(live.text.is_some_and(|text| text.contains(&own)), with_text, "{name}");
                }
            }
        }
    }
}

/// A predicate, its parameters, and the documents it should find.
type Case<'a> = (&'a str, &'a [Param], fn(i64) -> bool);

#[tokio::test]
async fn a_predicate_finds_the_documents_that_match_and_no_others() {
    for side in filled(LAYOUTS[0]).await {
        let (name, source) = (&side.name, &side.containers.source);
        let least = [Param::new("least", 20)];
        let predicates: [Case<'_>; 5] = [
            ("c.n >= @least -- and no more", &least, |n| n >= 20),
            ("c.id = 'doc-3' OR c.pk = 'key-2'", &[], |n| n == 3 || n / 2 == 2),
            ("NOT IS_DEFINED(c.none) AND c.n < 2", &[], |n| n < 2),
            ("c.n IN (1, 5, 99)", &[], |n| n == 1 || n == 5),
            ("c.n > 1000", &[], |_| false),
        ];
        for (predicate, params, matches) in predicates {
            let found = all(source.documents_in(HashRange::WHOLE, false, Some((predicate, params)))).await;
            let expected: Vec<i64> = (0..DOCUMENTS).filter(|n| matches(*n)).collect();
            assert_eq!(numbers(found.into_iter().map(|(item, _)| item.id)), expected, "{name}: {predicate}");
        }
    }
}

#[tokio::test]
async fn text_that_is_not_a_predicate_is_refused_as_a_bad_request() {
    for side in filled(LAYOUTS[0]).await {
        let mut found = side.containers.source.documents_in(HashRange::WHOLE, false, Some(("c.n = = 1", &[])));
        let refused = futures::StreamExt::next(&mut found).await.unwrap().unwrap_err();
        assert!(refused.status.is_bad_request(), "{}: {refused}", side.name);
    }
}

#[tokio::test]
async fn the_newest_document_is_the_one_that_was_written_last() {
    for side in filled(LAYOUTS[0]).await {
        let (name, source) = (&side.name, &side.containers.source);
        let newest = source.newest().await.unwrap().unwrap();
        let found = all(source.documents_in(HashRange::WHOLE, false, None)).await;
        assert_eq!(Some(newest.ts), found.iter().filter_map(|(_, live)| live.ts).max(), "{name}");
        assert!(newest.rid.is_some(), "{name}");
    }
}

#[tokio::test]
async fn keys_in_one_range_of_a_container_stay_in_that_range() {
    let [memory, cosmos] = filled(LAYOUTS[0]).await;
    for number in 0..DOCUMENTS {
        let key = key(&format!("key-{number}"));
        let place = |side: &super::Side| side.containers.source.range_of(&key).unwrap();
        assert_eq!(place(&memory), place(&cosmos), "{key}");
    }
}
