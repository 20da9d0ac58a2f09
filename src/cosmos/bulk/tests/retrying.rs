//! Tests operations that are tried again.
#![cfg(test)]

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;
use tokio::time::Instant;

use super::{Documents, two};
use crate::{
    change::key::{KeyValue, PartitionKey},
    cosmos::{
        Disposition, Failure, Retry,
        bulk::{Operation, Switch, Verb, routes::Routes, sending::Sending},
    },
};

#[tokio::test(start_paused = true)]
async fn each_operation_is_retried_for_its_own_reason() {
    let account = two();
    let documents = Documents::many(40, 10);
    let faults = [("doc-1", vec![(429, 0); 3]), ("doc-2", vec![(449, 0)]), ("doc-3", vec![(408, 0), (503, 0)])];
    for (id, statuses) in faults {
        account.of.lock().unwrap().insert(id.into(), statuses.into());
    }
    account.of.lock().unwrap().insert("doc-4".into(), [(400, 0)].into());
    account.of.lock().unwrap().insert("doc-5".into(), vec![(429, 0); 10_000].into());
    let (routes, switch, begun, operations) =
        (Routes::default(), Switch::new(true), Instant::now(), documents.upserts());
    let retry = Retry::answering_within(Duration::from_secs(20));
    let send = |places: Vec<usize>| {
        let sending = Sending { carrier: &account, routes: &routes, switch: &switch, gate: None };
        let chosen = places.iter().map(|place| operations[*place].clone()).enumerate().collect();
        sending.run(chosen, 0).map(move |all| all.into_iter().map(|(n, done)| (places[n], done)).collect()).boxed()
    };
    let results = retry.run_many(operations.len(), send).await;
    for (number, result) in results.iter().enumerate() {
        let expected = match number {
            4 => Some(Disposition::Poison),
            5 => Some(Disposition::Transient),
            _ => None,
        };
        assert_eq!(result.as_ref().err().map(|failure| failure.disposition), expected, "{number}: {result:?}");
    }
    assert!(begun.elapsed() <= Duration::from_secs(20), "{:?}", begun.elapsed());
    let requests = account.requests.lock().unwrap();
    assert_eq!(requests.iter().flatten().filter(|one| one.ends_with(" doc-9")).count(), 1, "stored is not sent again");
}

#[tokio::test(start_paused = true)]
async fn writes_of_one_item_that_are_tried_again_keep_their_order() {
    for _ in 0..20 {
        let account = two();
        account.of.lock().unwrap().insert("doc".into(), vec![(429, 0); 3].into());
        let key = PartitionKey(vec![KeyValue::String("A".into())]);
        let bodies: Vec<String> = (0..4).map(|n| json!({"id": "doc", "n": n}).to_string()).collect();
        let (routes, switch) = (Routes::default(), Switch::new(true));
        let send = |places: Vec<usize>| {
            let sending = Sending { carrier: &account, routes: &routes, switch: &switch, gate: None };
            let write = |place: &usize| Operation::on(&key, "doc", Verb::Upsert(bodies[*place].as_bytes().into()));
            let chosen = places.iter().map(write).enumerate().collect();
            sending.run(chosen, 0).map(move |all| all.into_iter().map(|(n, done)| (places[n], done)).collect()).boxed()
        };
        let results = Retry::for_at_most(Duration::from_secs(20)).run_many(bodies.len(), send).await;
        assert!(results.iter().all(Result::is_ok));
        let last = account.items.lock().unwrap().values().next().unwrap()["n"].clone();
        assert_eq!(last, 3, "an older write was carried out last");
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_no_answer_at_the_deadline_is_told_from_what_is_stored() {
    let retry = Retry::answering_within(Duration::from_secs(3));
    let results = retry
        .run_many(3, |places| {
            let hangs = futures::stream::pending();
            let done: Vec<(usize, Result<u8, Failure>)> =
                places.into_iter().filter(|n| *n != 1).map(|n| (n, Ok(7))).collect();
            futures::stream::iter([done]).chain(hangs).boxed()
        })
        .await;
    assert_eq!(results[0].as_ref().ok(), Some(&7));
    assert_eq!(results[1].as_ref().unwrap_err().status.code, 408);
    assert_eq!(results[2].as_ref().ok(), Some(&7));
}
