//! Tests the rules of bulk against an account in memory that is as strict as the service: it takes a request only for
//! the partition that an item lies in, and records what it was sent.
#![cfg(test)]

mod lost_answers;
mod retrying;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use azure_data_cosmos_driver::models::EffectivePartitionKey;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use serde_json::{Value, json};

use super::{
    Operation, OperationResult, Switch, Verb,
    carrier::{Carried, Carrier},
    routes::{Place, Route, Routes},
    sending::Sending,
};
use crate::{
    change::key::{KeyValue, PartitionKey},
    cosmos::{Disposition, Failure, Gate, Status, Written},
};

/// The answers to the next requests or operations.
type Faults = VecDeque<(u16, u16)>;

#[derive(Default)]
struct Account {
    /// Where the partitions begin, by their ids.
    partitions: Mutex<BTreeMap<String, String>>,
    /// Whether each question was for the service.
    asked: Mutex<Vec<bool>>,
    items: Mutex<BTreeMap<(String, String), Value>>,
    /// The operations of each request, as `verb id`; those that went alone begin with `alone`.
    requests: Mutex<Vec<Vec<String>>>,
    /// For whole requests.
    whole: Mutex<Faults>,
    /// For the operations on an id.
    of: Mutex<HashMap<String, Faults>>,
    /// Whether the next answer is to the client library's second attempt: the answer to its first was lost.
    sent_before: AtomicBool,
}

impl Account {
    fn with(partitions: &[(&str, &str)]) -> Self {
        let partitions = partitions.iter().map(|(from, id)| ((*from).to_owned(), (*id).to_owned())).collect();
        Self { partitions: Mutex::new(partitions), ..Self::default() }
    }

    fn partition_of(&self, key: &PartitionKey) -> String {
        let partitions = self.partitions.lock().unwrap();
        let place = place_of(key);
        partitions.range(..=place).next_back().unwrap().1.clone()
    }

    /// The status of an operation, and the text of what it read.
    fn carry_out(&self, verb: &str, key: &str, id: &str, body: Option<&Value>) -> (u16, u16, Option<Value>) {
        if let Some((code, sub)) = self.of.lock().unwrap().get_mut(id).and_then(VecDeque::pop_front) {
            return (code, sub, None);
        }
        let mut items = self.items.lock().unwrap();
        let place = (key.to_owned(), id.to_owned());
        match (verb, items.contains_key(&place)) {
            ("Create", true) => (409, 0, None),
            ("Read", true) => (200, 0, items.get(&place).cloned()),
            ("Read" | "Delete" | "Replace", false) => (404, 0, None),
            ("Delete", true) => {
                items.remove(&place);
                (204, 0, None)
            }
            (_, exists) => {
                items.insert(place, body.unwrap().clone());
                (if exists { 200 } else { 201 }, 0, None)
            }
        }
    }

    fn sizes(&self) -> Vec<usize> {
        self.requests.lock().unwrap().iter().map(Vec::len).collect()
    }

    async fn run(&self, operations: Vec<Operation<'_>>, gate: Option<&Gate>) -> Vec<Result<OperationResult, Failure>> {
        self.run_with(&Routes::default(), &Switch::new(true), operations, gate).await
    }

    async fn run_with(
        &self,
        routes: &Routes,
        switch: &Switch,
        operations: Vec<Operation<'_>>,
        gate: Option<&Gate>,
    ) -> Vec<Result<OperationResult, Failure>> {
        let count = operations.len();
        let sending = Sending { carrier: self, routes, switch, gate };
        let outcomes: Vec<_> = sending.run(operations.into_iter().enumerate().collect(), 0).collect().await;
        let mut by_place: BTreeMap<usize, _> = BTreeMap::new();
        for (place, outcome) in outcomes.into_iter().flatten() {
            assert!(by_place.insert(place, outcome).is_none(), "operation {place} has two outcomes");
        }
        assert_eq!(by_place.len(), count, "each operation has an outcome");
        by_place.into_values().collect()
    }
}

/// Keys lie where their first letter says.
fn place_of(key: &PartitionKey) -> String {
    key.0.iter().map(|part| format!("{:02X}", part.to_json().as_str().unwrap().as_bytes()[0])).collect()
}

impl Carrier for Account {
    fn carry<'a>(
        &'a self,
        range: &'a str,
        key: &'a PartitionKey,
        body: Vec<u8>,
    ) -> BoxFuture<'a, Result<Carried, Failure>> {
        async move {
            tokio::task::yield_now().await;
            let sent_before = self.sent_before.swap(false, Relaxed);
            let operations: Vec<Value> = serde_json::from_slice(&body).unwrap();
            assert!((2..=100).contains(&operations.len()), "{} operations in a request", operations.len());
            assert!(body.len() <= 220_201, "{} bytes in a request", body.len());
            let id_of = |one: &Value| {
                let id = one.get("id").unwrap_or_else(|| &one["resourceBody"]["id"]);
                id.as_str().unwrap().to_owned()
            };
            let names =
                operations.iter().map(|one| format!("{} {}", one["operationType"].as_str().unwrap(), id_of(one)));
            self.requests.lock().unwrap().push(names.collect());
            if let Some((code, sub)) = self.whole.lock().unwrap().pop_front() {
                if code == 201 {
                    return Ok(Carried { body: "{}".into(), sent_before });
                }
                let refused = Failure::from_status("bulk request".into(), Status::new(code, sub), "no", None);
                return Err(Failure { sent_before, ..refused });
            }
            if !self.partitions.lock().unwrap().values().any(|known| known == range) {
                return Err(Failure::from_status("bulk request".into(), Status::new(410, 1002), "gone", None));
            }
            assert_eq!(self.partition_of(key), range, "the carrier's key lies in the partition");
            let mut seen = Vec::new();
            let answers = operations.iter().map(|one| {
                let text = one["partitionKey"].as_str().unwrap();
                let item = (text.to_owned(), id_of(one));
                assert!(!seen.contains(&item), "{item:?} is twice in a request");
                seen.push(item);
                assert_eq!(self.partition_of(&PartitionKey::parse(text).unwrap()), range);
                let verb = one["operationType"].as_str().unwrap();
                let (code, sub, read) = self.carry_out(verb, text, &id_of(one), one.get("resourceBody"));
                json!({"statusCode": code, "subStatusCode": sub, "requestCharge": 2.0, "resourceBody": read})
            });
            let body = Value::Array(answers.collect()).to_string();
            Ok(Carried { body: body.into(), sent_before })
        }
        .boxed()
    }

    fn alone<'a>(&'a self, operation: Operation<'a>) -> BoxFuture<'a, Result<OperationResult, Failure>> {
        async move {
            tokio::task::yield_now().await;
            let (verb, body) = match &operation.verb {
                Verb::Read => ("Read", None),
                Verb::Upsert(body) => ("Upsert", Some(body)),
                Verb::Create(body) => ("Create", Some(body)),
                Verb::Replace(body, _) => ("Replace", Some(body)),
                Verb::Delete(_) => ("Delete", None),
            };
            self.requests.lock().unwrap().push(vec![format!("alone {}", operation.id)]);
            let body: Option<Value> = body.map(|body| serde_json::from_slice(body).unwrap());
            let key = operation.key.to_json().to_string();
            let (code, sub, _) = self.carry_out(verb, &key, &operation.id, body.as_ref());
            if code < 300 {
                return Ok(OperationResult {
                    written: Written { charge: 2.0, ..Written::default() },
                    text: None,
                    packed: false,
                });
            }
            Err(Failure::from_status("alone".into(), Status::new(code, sub), "no", None))
        }
        .boxed()
    }

    fn partitions(&self, refresh: bool) -> BoxFuture<'_, Result<Vec<Route>, Failure>> {
        self.asked.lock().unwrap().push(refresh);
        let known = self.partitions.lock().unwrap().clone();
        let routes = known.into_iter().map(|(from, range)| {
            let from = EffectivePartitionKey::try_from(from.as_str()).unwrap();
            Route { from: Place(from), range }
        });
        std::future::ready(Ok(routes.collect())).boxed()
    }

    fn place(&self, key: &PartitionKey) -> Result<Place, Failure> {
        Ok(Place(EffectivePartitionKey::try_from(place_of(key).as_str()).unwrap()))
    }
}

/// Documents of so many bytes, by key and id.
struct Documents(Vec<(PartitionKey, String, String)>);

impl Documents {
    fn of(items: impl IntoIterator<Item = (String, String)>, bytes: usize) -> Self {
        let one = |(key, id): (String, String)| {
            let body = json!({"id": id, "text": "x".repeat(bytes)}).to_string();
            (PartitionKey(vec![KeyValue::String(key)]), id, body)
        };
        Self(items.into_iter().map(one).collect())
    }

    /// As many as that, under the letters from A to Z.
    fn many(count: usize, bytes: usize) -> Self {
        let letter = |n: usize| char::from(b'A' + u8::try_from(n % 26).unwrap()).to_string();
        Self::of((0..count).map(|n| (letter(n), format!("doc-{n}"))), bytes)
    }

    fn upserts(&self) -> Vec<Operation<'_>> {
        self.operations(Verb::Upsert)
    }

    fn operations<'a>(&'a self, verb: impl Fn(Cow<'a, [u8]>) -> Verb<'a>) -> Vec<Operation<'a>> {
        self.0.iter().map(|(key, id, body)| Operation::on(key, id, verb(body.as_bytes().into()))).collect()
    }
}

/// Two partitions, cut at M.
fn two() -> Account {
    Account::with(&[("", "0"), ("4D", "1")])
}

#[tokio::test]
async fn a_request_goes_to_each_partition() {
    let account = two();
    let documents = Documents::many(90, 10);
    let results = account.run(documents.upserts(), None).await;
    assert!(results.iter().all(|result| result.as_ref().is_ok_and(|done| done.written.created)));
    let mut sizes = account.sizes();
    sizes.sort_unstable();
    assert_eq!((account.items.lock().unwrap().len(), sizes), (90, vec![42, 48]));
}

#[tokio::test]
async fn no_request_is_larger_than_the_service_takes() {
    let account = Account::with(&[("", "0")]);
    let documents = Documents::many(250, 10);
    assert!(account.run(documents.upserts(), None).await.iter().all(Result::is_ok));
    assert_eq!(account.sizes().into_iter().collect::<BTreeSet<_>>(), [50, 100].into());
    assert!(account.run(Documents::many(30, 40_000).upserts(), None).await.iter().all(Result::is_ok));
    assert!(account.run(Documents::many(3, 300_000).upserts(), None).await.iter().all(Result::is_ok));
    let requests = account.requests.lock().unwrap();
    assert_eq!(requests.iter().filter(|request| request[0].starts_with("alone")).count(), 3);
}

#[tokio::test]
async fn a_gate_is_for_operations_and_bounds_a_request() {
    let account = Account::with(&[("", "0")]);
    let (documents, gate) = (Documents::many(20, 10), Gate::new(8, 1 << 20));
    assert!(account.run(documents.upserts(), Some(&gate)).await.iter().all(Result::is_ok));
    assert_eq!(account.sizes(), [8, 8, 4]);
}

#[tokio::test]
async fn writes_of_one_item_are_carried_out_in_their_order_and_never_in_one_request() {
    let account = two();
    let key = PartitionKey(vec![KeyValue::String("A".into())]);
    let texts: Vec<String> = (0..4).map(|n| json!({"id": "x", "n": n}).to_string()).collect();
    let (other, of_x) = (Documents::many(10, 10), |text| Operation::on(&key, "x", Verb::Upsert(text)));
    let operations: Vec<_> = texts.iter().map(|text| of_x(text.as_bytes().into())).chain(other.upserts()).collect();
    assert!(account.run(operations, None).await.iter().all(Result::is_ok));
    let last = || account.items.lock().unwrap()[&("[\"A\"]".to_owned(), "x".to_owned())]["n"].clone();
    assert_eq!(last(), 3);
    // An operation that failed temporarily is tried again; what comes after it waits.
    account.of.lock().unwrap().insert("x".into(), [(200, 0), (429, 0)].into());
    let results =
        account.run(texts.iter().map(|text| of_x(text.as_bytes().into())).chain(other.upserts()).collect(), None).await;
    assert!(results[0].is_ok() && results[1..4].iter().all(Result::is_err) && results[4..].iter().all(Result::is_ok));
}

#[tokio::test]
async fn each_operation_has_its_own_outcome() {
    let account = two();
    let documents = Documents::many(6, 10);
    assert!(account.run(documents.operations(Verb::Create)[..3].to_vec(), None).await.iter().all(Result::is_ok));
    let results = account.run(documents.operations(Verb::Create), None).await;
    let conflicts =
        |result: &Result<_, Failure>| result.as_ref().is_err_and(|f| f.disposition == Disposition::Conflict);
    assert_eq!(results.iter().map(conflicts).collect::<Vec<_>>(), [true, true, true, false, false, false]);
    // Items that exist, and items that do not.
    let mut operations = documents.operations(|_| Verb::Read);
    operations.push(Operation { id: "nothing".into(), ..operations[0].clone() });
    let read = account.run(operations, None).await;
    assert_eq!(read.iter().filter(|result| result.as_ref().is_ok_and(|done| done.text.is_some())).count(), 6);
    assert_eq!(read[6].as_ref().unwrap().text, None);
}

#[tokio::test]
async fn after_a_split_operations_go_to_the_new_partitions() {
    let (account, routes, switch) = (two(), Routes::default(), Switch::new(true));
    let documents = Documents::many(52, 10);
    account.run_with(&routes, &switch, documents.upserts(), None).await;
    *account.partitions.lock().unwrap() =
        [("", "2"), ("45", "3"), ("4D", "1")].map(|(a, b)| (a.into(), b.into())).into();
    let results = account.run_with(&routes, &switch, documents.upserts(), None).await;
    assert!(results.iter().all(|result| result.as_ref().is_ok_and(|done| !done.written.created)), "{results:?}");
    assert_eq!(*account.asked.lock().unwrap(), [false, true]);
    // A partition that is never found again must not cause an endless loop.
    account.of.lock().unwrap().insert("doc-0".into(), std::iter::repeat_n((410, 1007), 1000).collect());
    let results = account.run_with(&routes, &switch, documents.upserts(), None).await;
    assert_eq!(results[0].as_ref().unwrap_err().disposition, Disposition::Transient);
    assert!(results[1..].iter().all(Result::is_ok));
    assert!(account.of.lock().unwrap()["doc-0"].len() > 990);
}

#[tokio::test]
async fn what_is_too_much_for_an_answer_is_asked_for_in_halves() {
    let account = Account::with(&[("", "0")]);
    let documents = Documents::many(8, 10);
    assert!(account.run(documents.upserts(), None).await.iter().all(Result::is_ok));
    for id in ["doc-4", "doc-5", "doc-6", "doc-7"] {
        account.of.lock().unwrap().insert(id.into(), [(413, 3402)].into());
    }
    let read = account.run(documents.operations(|_| Verb::Read), None).await;
    assert!(read.iter().all(|result| result.as_ref().is_ok_and(|done| done.text.is_some())));
    account.whole.lock().unwrap().push_back((413, 0));
    assert!(account.run(documents.upserts(), None).await.iter().all(Result::is_ok));
    assert_eq!(account.sizes(), [8, 8, 2, 2, 8, 4, 4]);
}

#[tokio::test]
async fn an_account_that_takes_no_such_request_is_written_to_one_by_one_from_then_on() {
    for status in [(400, 0), (404, 0), (405, 0), (501, 0), (411, 0), (414, 0), (431, 0), (302, 0)] {
        let (account, routes, switch) = (two(), Routes::default(), Switch::new(true));
        account.whole.lock().unwrap().push_back(status);
        let documents = Documents::of((0..30).map(|n| ("A".into(), format!("doc-{n}"))), 10);
        assert!(account.run_with(&routes, &switch, documents.upserts(), None).await.iter().all(Result::is_ok));
        assert!(!switch.is_on());
        assert!(account.run_with(&routes, &switch, documents.upserts(), None).await.iter().all(Result::is_ok));
        assert_eq!(account.sizes(), [vec![30], vec![1; 60]].concat());
    }
    // Other answers are no reason.
    let all = [(503, 0), (429, 0), (403, 0), (404, 1002), (400, 1001), (404, 1003), (413, 0), (410, 0)];
    for status in all.into_iter().chain([(403, 1014), (409, 0), (412, 0), (400, 20_201)]) {
        let (account, routes, switch) = (two(), Routes::default(), Switch::new(true));
        account.whole.lock().unwrap().push_back(status);
        let results = account.run_with(&routes, &switch, Documents::many(30, 10).upserts(), None).await;
        assert!(switch.is_on(), "{status:?}: {results:?}");
        // A verdict on one item is never passed on to others.
        let given = [Disposition::Transient, Disposition::Denied];
        let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert!(failed.iter().all(|failure| given.contains(&failure.disposition)), "{status:?}: {failed:?}");
    }
}
