//! The contract for single items.

use std::sync::Arc;

use cosmos_rewind::{
    change::key::ItemKey,
    cosmos::{
        Concurrency, Disposition, Failure, RuLimiter, RuMeter, Status, WriteAction, WriteJob, WriteTally, Writers,
    },
    history::memory::Fault,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{LAYOUTS, empty, key, memory};

#[tokio::test]
async fn a_write_is_visible_to_every_later_read_and_gets_a_new_etag() {
    for side in empty(LAYOUTS[0]).await {
        let (name, source) = (&side.name, &side.containers.source);
        let body = |n: i64| json!({"id": "a", "pk": "p", "n": n}).to_string().into_bytes();
        let created = source.create(&key("p"), "a", body(1)).await.unwrap();
        let replaced = source.upsert(&key("p"), "a", body(2)).await.unwrap();
        assert!(created.created && !replaced.created && created.etag != replaced.etag, "{name}");
        let text = source.read(&key("p"), "a").await.unwrap().unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((read["n"].as_i64(), read["_etag"].as_str()), (Some(2), replaced.etag.as_deref()), "{name}");
        assert!(read["_ts"].is_i64() && read["_rid"].is_string() && text.starts_with(r#"{"id":"a""#), "{name}: {text}");
        source.delete(&key("p"), "a", None).await.unwrap();
        assert_eq!(source.read(&key("p"), "a").await.unwrap(), None, "{name}");
        let again = source.create(&key("p"), "a", body(3)).await.unwrap();
        assert!(again.created, "{name}");
    }
}

#[tokio::test]
async fn a_condition_that_does_not_hold_changes_nothing_and_says_why() {
    for side in empty(LAYOUTS[0]).await {
        let (name, source) = (&side.name, &side.containers.source);
        let body = |n: i64| json!({"id": "a", "pk": "p", "n": n}).to_string().into_bytes();
        let first = source.create(&key("p"), "a", body(1)).await.unwrap().etag.unwrap();
        let conflict = source.create(&key("p"), "a", body(2)).await.unwrap_err();
        assert_eq!(conflict.disposition, Disposition::Conflict, "{name}");
        let second = source.replace(&key("p"), "a", body(3), &first).await.unwrap().etag.unwrap();
        for failed in [
            source.replace(&key("p"), "a", body(4), &first).await.unwrap_err(),
            source.delete(&key("p"), "a", Some(&first)).await.unwrap_err(),
        ] {
            assert_eq!(failed.disposition, Disposition::PreconditionFailed, "{name}: {failed}");
        }
        for gone in [
            source.replace(&key("p"), "b", json!({"id": "b", "pk": "p"}).to_string().into(), &first).await.unwrap_err(),
            source.delete(&key("p"), "b", None).await.unwrap_err(),
            source.delete(&key("other"), "a", None).await.unwrap_err(),
        ] {
            assert_eq!(gone.status, Status::NO_ITEM, "{name}: {gone}");
        }
        let text = source.read(&key("p"), "a").await.unwrap().unwrap();
        assert!(text.contains(r#""n":3"#), "{name}: {text}");
        source.delete(&key("p"), "a", Some(&second)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_assumed_of_an_item_does_not_alter_what_is_read() {
    for side in empty(LAYOUTS[0]).await {
        let (name, source) = (&side.name, &side.containers.source);
        let ids: Vec<String> = (0..60).map(|n| format!("a/b \u{fc}\"{n}")).collect();
        let body = |id: &str, n: i64| json!({"id": id, "pk": id, "n": n}).to_string().into_bytes();
        let mut etags = Vec::new();
        for id in &ids {
            etags.push(source.create(&key(id), id, body(id, 1)).await.unwrap().etag.unwrap());
        }
        // Every third has moved since, and every fifth is gone.
        for (n, id) in ids.iter().enumerate() {
            match n {
                n if n % 3 == 0 => drop(source.replace(&key(id), id, body(id, 2), &etags[n]).await.unwrap()),
                n if n % 5 == 0 => drop(source.delete(&key(id), id, None).await.unwrap()),
                _ => {}
            }
        }
        let keys: Vec<_> = ids.iter().map(|id| key(id)).collect();
        let read = (0..ids.len()).map(|n| source.read_assumed(&keys[n], &ids[n], &etags[n]));
        let read = futures::future::try_join_all(read).await.unwrap();
        for (n, text) in read.into_iter().enumerate() {
            let found = text.map(|text| serde_json::from_str::<Value>(&text).unwrap());
            let found = found.map(|item| (item["id"].as_str().unwrap().to_owned(), item["n"].as_i64().unwrap()));
            let expected = match n {
                n if n % 3 == 0 => Some(2),
                n if n % 5 == 0 => None,
                _ => Some(1),
            };
            assert_eq!(found, expected.map(|version| (ids[n].clone(), version)), "{name}");
        }
    }
}

#[tokio::test]
async fn an_id_can_be_any_text_and_names_only_its_own_item() {
    for side in empty(LAYOUTS[0]).await {
        let (name, source) = (&side.name, &side.containers.source);
        // The embedded account does not delete `.` and `..`; only the real service can be tested with these.
        let ids = ["a/b", "a\\b", "a?b#c", "tab\there", "line\nend", "ü", " a ", "a%2Fb", "-1"];
        for (n, id) in ids.iter().enumerate() {
            let body = json!({"id": id, "pk": "p", "n": n}).to_string().into_bytes();
            source.create(&key("p"), id, body).await.unwrap_or_else(|e| panic!("{name}: {id:?}: {e}"));
        }
        for (n, id) in ids.iter().enumerate() {
            let text = source.read(&key("p"), id).await.unwrap().unwrap_or_else(|| panic!("{name}: {id:?}"));
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((read["id"].as_str(), read["n"].as_u64()), (Some(*id), Some(n as u64)), "{name}");
        }
        for (n, id) in ids.iter().enumerate() {
            source.delete(&key("p"), id, None).await.unwrap_or_else(|e| panic!("{name}: {id:?}: {e}"));
            let left = super::all(source.documents_in(cosmos_rewind::cosmos::HashRange::WHOLE, false, None)).await;
            assert_eq!(left.len(), ids.len() - n - 1, "{name}: {id:?}");
        }
    }
}

#[tokio::test]
async fn a_write_in_memory_may_be_applied_although_its_answer_is_a_failure() {
    let (account, _) = memory(LAYOUTS[0]);
    let source: &dyn cosmos_rewind::cosmos::Items = &*account.source;
    let body = || json!({"id": "a", "pk": "p"}).to_string().into_bytes();
    account.source.fail_next([Fault::Refused(Status::new(503, 0)), Fault::Unanswered(Status::new(408, 0))]);
    assert_eq!(source.create(&key("p"), "a", body()).await.unwrap_err().status.code, 503);
    assert_eq!(source.create(&key("p"), "a", body()).await.unwrap_err().status.code, 408);
    assert_eq!(source.create(&key("p"), "a", body()).await.unwrap_err().disposition, Disposition::Conflict);
    assert_eq!(account.source.written().len(), 1);
}

#[tokio::test]
async fn a_write_with_a_lost_answer_is_counted_by_its_outcome() {
    let (account, _) = memory(LAYOUTS[0]);
    let body = |n: i64| json!({"id": "a", "pk": "p", "n": n}).to_string().into_bytes();
    let written = async |action: WriteAction| {
        let pace = RuLimiter::new(&RuMeter::default(), None);
        let observer = Arc::new(|_: &ItemKey, failure: Option<&Failure>| assert!(failure.is_none()));
        let writers =
            Writers::start(account.source.clone(), Concurrency::AtMost(1), pace, observer, &CancellationToken::new());
        assert!(writers.send(WriteJob { item: ItemKey { id: "a".into(), partition_key: key("p") }, action }).await);
        writers.finish().await.0
    };
    let (created, skipped) =
        (WriteTally { created: 1, ..WriteTally::default() }, WriteTally { skipped: 1, ..WriteTally::default() });
    // A replacement reads the item before it writes, so the fault has to skip that first request.
    let create: (&dyn Fn(i64) -> WriteAction, &[Fault]) = (&|n| WriteAction::Create(body(n), None), &[]);
    let replace: (&dyn Fn(i64) -> WriteAction, &[Fault]) =
        (&|n| WriteAction::ReplaceOlder(body(n), i64::MIN), &[Fault::No]);
    for (action, before) in [create, replace] {
        let fails = |fault: Fault| account.source.fail_next(before.iter().copied().chain([fault]));
        fails(Fault::Unanswered(Status::new(503, 0)));
        assert_eq!(written(action(1)).await, created);
        assert_eq!(written(action(1)).await, skipped, "it existed before");
        // A failed write that was not stored must not be mistaken for the existing write of another process.
        account.source.fail_next([Fault::Refused(Status::new(503, 0))]);
        assert_eq!(written(action(2)).await, skipped);
        written(WriteAction::Delete).await;
    }
}
