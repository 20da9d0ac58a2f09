//! Tests what is reported for operations whose first answer was lost, and that were then sent again in another form.
#![cfg(test)]

use std::sync::atomic::Ordering::Relaxed;

use super::{Account, Documents, two};
use crate::cosmos::{
    Disposition,
    bulk::{Switch, Verb, routes::Routes},
};

/// Documents that the first attempt has stored, and the account that has them.
async fn stored() -> (Account, Documents) {
    let documents = Documents::many(8, 10);
    let account = Account::with(&[("", "0")]);
    assert!(account.run(documents.upserts(), None).await.iter().all(Result::is_ok));
    account.sent_before.store(true, Relaxed);
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
    for status in [(410, 1002), (413, 0), (400, 0), (404, 1003)] {
        let (account, documents) = stored().await;
        account.whole.lock().unwrap().push_back(status);
        assert_may_be_ours(&account, &documents, &format!("{status:?} of the request")).await;
    }
}

#[tokio::test]
async fn what_a_lost_attempt_may_have_stored_is_known_after_an_operation_has_been_sent_again() {
    for status in [(410, 1007), (413, 3402)] {
        let (account, documents) = stored().await;
        for id in ["doc-3", "doc-4"] {
            account.of.lock().unwrap().insert(id.into(), [status].into());
        }
        assert_may_be_ours(&account, &documents, &format!("{status:?} of operations")).await;
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
