//! Random histories in memory, compared with a plain list of each document's states.

use std::ops::ControlFlow;

use cosmos_rewind::{
    change::{
        key::{KeyPaths, PartitionKey},
        time::PointInTime,
    },
    config::{Names, Settings},
    context::Context,
    cosmos::Items as _,
    find::{Condition, FoundWrite, Report, Request, SearchMode, SearchedDocuments, find},
    history::{Account as _, AnyContext, memory::MemoryAccount},
};
use proptest::prelude::*;
use serde_json::json;

const START: i64 = 1_700_000_000;
const LAYOUTS: [&[&str]; 3] = [&["/pk", "/_originalId"], &["/_originalId"], &["/id"]];

/// A document's state from a second on: its price, or `None` when it does not exist.
#[derive(Debug, Clone)]
struct State {
    ts: i64,
    price: Option<i64>,
    record: String,
}

/// A document: its states, oldest first, and its live state if that is not the last one.
#[derive(Debug, Clone)]
struct Life {
    id: String,
    states: Vec<State>,
    live: Option<i64>,
}

impl Life {
    /// Builds a history from its events: a written price or a delete, and the seconds before it.
    fn of(number: usize, happened: &[(Option<i64>, i64)], uncaptured: Option<i64>) -> Self {
        let id = format!("doc-{number}");
        let (mut ts, mut states) = (START, Vec::<State>::new());
        for (place, (price, pause)) in happened.iter().enumerate() {
            ts += pause;
            let was = states.last().and_then(|state| state.price);
            if price.is_some() || was.is_some() {
                states.push(State { ts, price: *price, record: format!("{id}~{place}") });
            }
        }
        let live = uncaptured.or_else(|| states.last().and_then(|state| state.price));
        Self { id, states, live }
    }

    /// The first state in the window with a negative price after one that was not negative.
    fn broken(&self, from: i64, to: i64) -> Option<usize> {
        let is = |place: usize| self.states[place].price.is_some_and(|price| price < 0);
        (0..self.states.len()).find(|place| {
            (from..=to).contains(&self.states[*place].ts) && is(*place) && (*place == 0 || !is(place - 1))
        })
    }

    fn still(&self) -> &'static str {
        match self.live {
            None => "gone",
            Some(price) if price < 0 => "yes",
            Some(_) => "no",
        }
    }

    async fn store(&self, account: &MemoryAccount, layout: &[&str]) {
        for (place, state) in self.states.iter().enumerate() {
            let op = match (state.price, place.checked_sub(1).and_then(|before| self.states[before].price)) {
                (None, _) => "delete",
                (Some(_), None) => "create",
                (Some(_), Some(_)) => "replace",
            };
            let lsn = place as i64 + 1;
            let change = json!({"v": 1, "op": op, "ts": state.ts, "lsn": lsn, "key": [self.id],
                                "etag": format!("\"{}\"", state.record), "fidelity": "exact", "via": "trigger"});
            let mut record = json!({"id": state.record, "pk": self.id, "_originalId": self.id, "_change": change});
            if let Some(price) = state.price {
                record["price"] = price.into();
                record["pad"] = "x".repeat((price.unsigned_abs() % 7) as usize * 10).into();
            }
            let parts: Vec<_> = layout.iter().map(|path| record[path.trim_start_matches('/')].clone()).collect();
            let key = PartitionKey::parse(&serde_json::Value::from(parts).to_string()).unwrap();
            account.changes.create(&key, &state.record, record.to_string().into_bytes()).await.unwrap();
        }
        if let Some(price) = self.live {
            let document = json!({"id": self.id, "pk": self.id, "price": price}).to_string();
            let key = PartitionKey::parse(&self.id).unwrap();
            account.source.create(&key, &self.id, document.into_bytes()).await.unwrap();
        }
    }
}

fn names() -> Names {
    Names::from_settings(&Settings::from_pairs([("COSMOS_DATABASE", "dev")]), None).unwrap()
}

async fn account(lives: &[Life], layout: &[&str]) -> MemoryAccount {
    let paths = |texts: &[&str]| KeyPaths::parse(texts).unwrap();
    let account = MemoryAccount::new(&names(), paths(&["/pk"]), paths(layout));
    account.set_time(START + 1000);
    for life in lives {
        life.store(&account, layout).await;
    }
    account
}

/// The writes found, in document order.
async fn found(cx: &AnyContext<'_>, request: Request) -> (Vec<FoundWrite>, Report) {
    let mut writes = Vec::new();
    let report = find(request, cx, |write| {
        writes.push(write);
        ControlFlow::Continue(())
    });
    let report = report.await.unwrap();
    writes.sort_by(|a, b| a.item.id.cmp(&b.item.id));
    (writes, report)
}

fn request(from: Option<i64>, to: Option<i64>, is_sql: bool) -> Request {
    let condition =
        if is_sql { Condition::sql("c.price < 0", &[]) } else { Condition::expression("doc != null && doc.price < 0") };
    Request {
        from: from.map(PointInTime::from_epoch),
        to: to.map(PointInTime::from_epoch),
        ..Request::all(condition.unwrap())
    }
}

/// Compares the writes found with the histories.
fn compare(lives: &[Life], window: (Option<i64>, Option<i64>), writes: &[FoundWrite], report: &Report) {
    let (from, to) = (window.0.unwrap_or(i64::MIN), window.1.unwrap_or(i64::MAX));
    let mut expected: Vec<_> = lives
        .iter()
        .filter_map(|life| {
            let place = life.broken(from, to)?;
            let before = place.checked_sub(1).map(|before| life.states[before].record.clone());
            Some((life.id.clone(), life.states[place].record.clone(), before, life.still()))
        })
        .collect();
    expected.sort();
    let told: Vec<_> = writes
        .iter()
        .map(|write| {
            let before = write.before.as_ref().map(|before| before.record_id.clone());
            (write.item.id.clone(), write.version.record_id.clone(), before, write.still.name())
        })
        .collect();
    assert_eq!(told, expected);
    assert_eq!(report.found, expected.len() as u64);
    assert_eq!(report.histogram.bars(60).iter().map(|bar| bar.1).sum::<u64>(), report.found);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn the_first_bad_write_its_predecessor_and_the_live_document_match_the_model(
        happened in proptest::collection::vec(
            (
                proptest::collection::vec((prop_oneof![3 => (-3..4i64).prop_map(Some), 1 => Just(None)], 0..4i64), 1..10),
                prop_oneof![4 => Just(None), 1 => (-3..4i64).prop_map(Some)],
            ),
            1..20,
        ),
        from in proptest::option::of(-2..25i64),
        to in proptest::option::of(-2..25i64),
        layout in 0..LAYOUTS.len(),
        is_sql in any::<bool>(),
    ) {
        let lives: Vec<Life> = happened.iter().enumerate().map(|(n, (life, live))| Life::of(n, life, *live)).collect();
        let window = (from.map(|n| START + n), to.map(|n| START + n));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (account, names) = (account(&lives, LAYOUTS[layout]).await, names());
            let cx = Context { account: &account, names: &names, ..Context::new(&account, &names) }.any();
            let (writes, report) = found(&cx, request(window.0, window.1, is_sql)).await;
            compare(&lives, window, &writes, &report);
            assert!(report.is_complete());

            // The earliest of these is the first write overall.
            let first = Request { manner: SearchMode::First, ..request(window.0, window.1, is_sql) };
            let (earliest, _) = found(&cx, first).await;
            let times = |writes: &[FoundWrite]| writes.iter().map(|write| write.version.ts).min();
            assert_eq!((earliest.len(), times(&earliest)), (writes.len().min(1), times(&writes)));

            // A single document.
            let one = &lives[0];
            let which = SearchedDocuments::One { id: one.id.clone(), key: None };
            if !one.states.is_empty() {
                let (writes, report) = found(&cx, Request { which, ..request(window.0, window.1, is_sql) }).await;
                compare(&lives[..1], window, &writes, &report);
            }
            // Documents that ever had a price of 3.
            let which = SearchedDocuments::Where { predicate: "c.price = 3".into(), params: Vec::new() };
            let ever: Vec<Life> =
                lives.iter().filter(|life| life.states.iter().any(|state| state.price == Some(3))).cloned().collect();
            let (writes, report) = found(&cx, Request { which, ..request(window.0, window.1, is_sql) }).await;
            compare(&ever, window, &writes, &report);
        });
    }
}

/// In a hundred thousand versions, only a few texts are read.
#[tokio::test]
async fn a_long_history_is_bisected() {
    const MANY: usize = 100_000;
    let broken = 61_803;
    let happened: Vec<(Option<i64>, i64)> =
        (0..MANY).map(|n| (Some(if n < broken { 5 } else { -5 }), i64::from(n > 0))).collect();
    let life = Life::of(0, &happened, None);
    let account = account(std::slice::from_ref(&life), LAYOUTS[0]).await;
    let names = names();
    let cx = Context::new(&account, &names).any();
    let spent = account.meter().total();
    let which = SearchedDocuments::One { id: life.id.clone(), key: None };
    let request = Request { which, manner: SearchMode::FlipsOnce, ..request(None, None, false) };
    let (writes, report) = found(&cx, request).await;
    compare(&[life], (None, None), &writes, &report);
    // In memory every read costs one unit. Apart from the facts and the live document, all reads are texts.
    let texts = account.meter().total() - spent - 2.0;
    assert!(texts <= 20.0, "{texts} texts were read");
    assert!(report.tally.asked <= 20, "{}", report.tally.asked);
}
