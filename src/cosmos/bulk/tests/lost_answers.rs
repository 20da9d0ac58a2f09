//! Tests the outcomes of operations whose first answer was lost, and that were then sent again in another form.
#![cfg(test)]

use std::sync::atomic::Ordering::Relaxed;

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use serde_json::Value;

use super::{Account, Documents, two};
use crate::{
    change::key::PartitionKey,
    cosmos::{
        Disposition, Failure,
        bulk::{
            BulkOutcomes, Operation, OperationResult, Switch, Verb,
            carrier::{Carried, Carrier},
            routes::{Place, Route, Routes},
            sending::Sending,
        },
    },
};

/// Documents that the first attempt has stored, and the account that has them.
async fn stored() -> (Account, Documents) {
    let documents = Documents::many(8, 10);
    let account = Account::with(&[("", "0")]);
    assert!(account.run(documents.upserts(), None).await.iter().all(Result::is_ok));
    (account, documents)
}

async fn assert_may_be_ours(account: &Account, documents: &Documents, case: &str) {
    for result in account.run(documents.operations(Verb::Create), None).await {
        let failure = result.unwrap_err();
        assert_eq!((failure.disposition, failure.sent_before), (Disposition::Conflict, true), "{case}: {failure:?}");
    }
    assert!(account.sizes().len() > 2, "{case}: they were sent again");
}

#[tokio::test]
async fn what_a_lost_attempt_may_have_stored_is_known_after_the_request_has_been_sent_in_another_form() {
    let all = [(410, 1002), (413, 0), (400, 0), (404, 1003), (431, 0), (409, 0)];
    // Whether the attempt was the client library's, or one whose answer called it refused.
    for (status, by_the_library) in all.into_iter().flat_map(|status| [(status, true), (status, false)]) {
        let (account, documents) = stored().await;
        account.sent_before.store(by_the_library, Relaxed);
        account.whole.lock().unwrap().push_back(status);
        assert_may_be_ours(&account, &documents, &format!("{status:?} of the request")).await;
    }
}

#[tokio::test]
async fn what_a_lost_attempt_may_have_stored_is_known_after_an_operation_has_been_sent_again() {
    for status in [(410, 1007), (413, 3402)] {
        let (account, documents) = stored().await;
        account.sent_before.store(true, Relaxed);
        for id in ["doc-3", "doc-4"] {
            account.of.lock().unwrap().insert(id.into(), [status].into());
        }
        assert_may_be_ours(&account, &documents, &format!("{status:?} of operations")).await;
        // Those that were not sent again are simply in the way.
        let (account, documents) = stored().await;
        account.of.lock().unwrap().insert("doc-3".into(), [status].into());
        let results = account.run(documents.operations(Verb::Create), None).await;
        let sent_before: Vec<bool> = results.into_iter().map(|result| result.unwrap_err().sent_before).collect();
        assert_eq!(sent_before, (0..8).map(|n| n == 3).collect::<Vec<_>>(), "{status:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_answers_a_request_as_if_it_were_something_else_may_have_carried_it_out() {
    let (account, routes, switch) = (two(), Routes::default(), Switch::new(true));
    account.whole.lock().unwrap().push_back((201, 0));
    let documents = Documents::of((0..3).map(|n| ("A".into(), format!("doc-{n}"))), 10);
    account.of.lock().unwrap().insert("doc-1".into(), [(412, 0)].into());
    let results = account.run_with(&routes, &switch, documents.upserts(), None).await;
    assert!(!switch.is_on() && results[0].is_ok() && results[2].is_ok());
    let failure = results[1].as_ref().unwrap_err();
    assert!(failure.disposition == Disposition::PreconditionFailed && failure.sent_before, "{failure:?}");
}

/// An account that answers in another order than it was asked in, with the documents that it wrote.
struct Unordered(Account);

impl Carrier for Unordered {
    fn carry<'a>(
        &'a self,
        range: &'a str,
        key: &'a PartitionKey,
        body: Vec<u8>,
    ) -> BoxFuture<'a, Result<Carried, Failure>> {
        async move {
            let operations: Vec<Value> = serde_json::from_slice(&body).unwrap();
            let carried = self.0.carry(range, key, body).await?;
            let mut answers: Vec<Value> = serde_json::from_slice(&carried.body).unwrap();
            for (answer, operation) in answers.iter_mut().zip(&operations) {
                if answer["statusCode"].as_u64().is_some_and(|code| code < 300) && answer["resourceBody"].is_null() {
                    answer["resourceBody"] = operation["resourceBody"].clone();
                }
            }
            answers.reverse();
            Ok(Carried { body: Value::Array(answers).to_string().into(), ..carried })
        }
        .boxed()
    }

    fn alone<'a>(&'a self, operation: Operation<'a>) -> BoxFuture<'a, Result<OperationResult, Failure>> {
        self.0.alone(operation)
    }

    fn partitions(&self, refresh: bool) -> BoxFuture<'_, Result<Vec<Route>, Failure>> {
        self.0.partitions(refresh)
    }

    fn place(&self, key: &PartitionKey) -> Result<Place, Failure> {
        self.0.place(key)
    }
}

#[tokio::test]
async fn results_in_another_order_say_of_no_operation_that_it_was_carried_out() {
    let (account, routes, switch) = (Unordered(two()), Routes::default(), Switch::new(true));
    let documents = Documents::of((0..3).map(|n| ("A".into(), format!("doc-{n}"))), 10);
    // This one is not written; another one's result is in its place.
    account.0.of.lock().unwrap().insert("doc-0".into(), [(429, 3200)].into());
    let sending = Sending { carrier: &account, routes: &routes, switch: &switch, gate: None };
    let operations = documents.upserts().into_iter().enumerate().collect();
    let outcomes: BulkOutcomes<OperationResult> =
        sending.run(operations, 0).collect::<Vec<_>>().await.into_iter().flatten().collect();
    assert!(outcomes.len() == 3 && outcomes.iter().all(|(_, outcome)| outcome.is_ok()), "{outcomes:?}");
    assert_eq!((account.0.items.lock().unwrap().len(), switch.is_on()), (3, false));
}
