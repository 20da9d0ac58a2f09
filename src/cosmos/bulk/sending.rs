//! Sends operations: grouped by physical partition, no item twice in a request, each with its own outcome.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{
    FutureExt as _, StreamExt as _,
    stream::{self, BoxStream},
};

use super::{
    BulkOutcomes, Operation, OperationResult, Switch, Verb,
    carrier::Carrier,
    operation::{OperationAnswer, request_of},
    routes::{Route, Routes, route},
};
use crate::{
    change::key::PartitionKey,
    cosmos::{Disposition, Failure, Gate, Status},
};

/// The service's limit of operations in a request.
const MOST: usize = 100;
/// The size limit of a request, as in Microsoft's JavaScript client. The service takes more, and answers with up to 4
/// MB.
const BYTES: usize = 220_000;
/// Operations that go alone at the same time, without a gate.
const ALONE: usize = 64;
/// How often operations are immediately sent to another partition. After that the caller pauses before it tries again.
const REROUTES: u32 = 3;

type Numbered<'a> = (usize, Operation<'a>);
/// Identifies an item by its id and its key.
type Item<'a> = (Cow<'a, str>, Cow<'a, PartitionKey>);

/// The sender of operations.
#[derive(Clone, Copy)]
pub(super) struct Sending<'a> {
    pub(super) carrier: &'a dyn Carrier,
    pub(super) routes: &'a Routes,
    pub(super) switch: &'a Switch,
    pub(super) gate: Option<&'a Gate>,
}

/// Operations of one physical partition.
struct Chunk<'a> {
    route: usize,
    operations: Vec<Numbered<'a>>,
    bytes: usize,
}

/// The operations that remain after a request.
struct Rest<'a> {
    operations: Vec<Numbered<'a>>,
    how: Again,
    /// They were in a request before, and may have been carried out, whatever its answer said.
    sent_before: bool,
}

/// How operations are sent again.
enum Again {
    /// In smaller requests: they are too many for one.
    Halve,
    /// To another partition.
    Reroute,
    /// Alone: they cannot be packed.
    Alone,
}

impl<'a> Sending<'a> {
    /// Runs them; `reroutes` is how often they were sent to another partition before.
    pub(super) fn run(
        self,
        operations: Vec<Numbered<'a>>,
        reroutes: u32,
    ) -> BoxStream<'a, BulkOutcomes<OperationResult>> {
        let (first, later) = once_each(operations);
        // Only needed when an item occurs twice.
        let items =
            if later.is_empty() { HashMap::new() } else { first.iter().map(|one| (one.0, item_of(one))).collect() };
        let sent = if first.len() <= 1 || !self.switch.is_on() {
            self.alone(first)
        } else {
            let groups = async move {
                let routes = match self.routes.get(self.carrier).await {
                    Ok(routes) => routes,
                    // Each finds its way alone, or says why it cannot.
                    Err(_) => return self.alone(first),
                };
                let (chunks, lost) = self.chunks(&routes, first);
                let sent = chunks.into_iter().map(|chunk| self.send(routes.clone(), chunk, reroutes));
                stream::iter([lost]).chain(stream::select_all(sent)).boxed()
            };
            groups.flatten_stream().boxed()
        };
        let sent = if later.is_empty() { sent } else { self.deferred(sent, items, later, reroutes) };
        sent.filter(|outcomes| std::future::ready(!outcomes.is_empty())).boxed()
    }

    /// Runs further operations on items once the earlier ones on them are known. When an earlier one failed temporarily
    /// it will be tried again, so the later ones fail, too: otherwise the older one would be carried out last.
    fn deferred(
        self,
        before: BoxStream<'a, BulkOutcomes<OperationResult>>,
        items: HashMap<usize, Item<'a>>,
        later: Vec<Numbered<'a>>,
        reroutes: u32,
    ) -> BoxStream<'a, BulkOutcomes<OperationResult>> {
        async move {
            let outcomes: BulkOutcomes<OperationResult> =
                before.collect::<Vec<_>>().await.into_iter().flatten().collect();
            let mut failed = HashMap::new();
            for (place, outcome) in &outcomes {
                if let Err(failure) = outcome
                    && failure.disposition == Disposition::Transient
                    && let Some(item) = items.get(place)
                {
                    failed.insert(item, failure.clone());
                }
            }
            let (mut due, mut blocked): (Vec<_>, BulkOutcomes<OperationResult>) =
                (Vec::with_capacity(later.len()), Vec::new());
            for one in later {
                match failed.get(&item_of(&one)) {
                    Some(failure) => blocked.push((one.0, Err(failure.clone()))),
                    None => due.push(one),
                }
            }
            // Known together, so that whoever tries them again sends them together.
            stream::iter([outcomes.into_iter().chain(blocked).collect()]).chain(self.run(due, reroutes))
        }
        .flatten_stream()
        .boxed()
    }

    fn alone(self, operations: Vec<Numbered<'a>>) -> BoxStream<'a, BulkOutcomes<OperationResult>> {
        let one = move |(place, operation): Numbered<'a>| async move {
            let outcome = async {
                let _permission = self.enter(1, operation.size()).await?;
                self.carrier.alone(operation).await
            };
            vec![(place, outcome.await)]
        };
        let most = self.gate.map_or(ALONE, Gate::most);
        stream::iter(operations).map(one).buffer_unordered(most).boxed()
    }

    async fn enter(&self, operations: usize, bytes: usize) -> Result<Option<impl Sized + use<'a>>, Failure> {
        match self.gate {
            Some(gate) => gate.enter(operations, bytes).await.map(Some),
            None => Ok(None),
        }
    }

    /// Groups them by partition. Those with an invalid key have failed.
    fn chunks(
        self,
        routes: &[Route],
        operations: Vec<Numbered<'a>>,
    ) -> (Vec<Chunk<'a>>, BulkOutcomes<OperationResult>) {
        let most = self.gate.map_or(MOST, |gate| gate.most().min(MOST));
        let fits = |chunk: &Chunk<'_>, size: usize| chunk.operations.len() < most && chunk.bytes + size <= BYTES;
        let (mut chunks, mut lost) = (Vec::new(), Vec::new());
        let mut open: Vec<Option<usize>> = vec![None; routes.len()];
        for (place, operation) in operations {
            let route = match route(self.carrier, routes, &operation.key) {
                Ok(route) => route,
                Err(failure) => {
                    lost.push((place, Err(failure)));
                    continue;
                }
            };
            let size = operation.size();
            let index = match open[route] {
                Some(index) if fits(&chunks[index], size) => index,
                _ => {
                    chunks.push(Chunk { route, operations: Vec::new(), bytes: 0 });
                    *open[route].insert(chunks.len() - 1)
                }
            };
            let chunk = &mut chunks[index];
            chunk.bytes += size;
            chunk.operations.push((place, operation));
        }
        (chunks, lost)
    }

    fn send(
        self,
        routes: Arc<[Route]>,
        chunk: Chunk<'a>,
        reroutes: u32,
    ) -> BoxStream<'a, BulkOutcomes<OperationResult>> {
        async move {
            let route = chunk.route;
            let (outcomes, rest) = self.send_once(&routes, chunk, reroutes).await;
            let Some(Rest { mut operations, how, sent_before }) = rest else {
                return stream::iter([outcomes]).boxed();
            };
            let rest = match how {
                Again::Alone => self.alone(operations),
                Again::Reroute => self.run(operations, reroutes + 1),
                Again::Halve => {
                    let second = operations.split_off(operations.len() / 2);
                    let halves = [operations, second].map(|operations| {
                        let bytes = operations.iter().map(|(_, operation)| operation.size()).sum();
                        self.send(routes.clone(), Chunk { route, operations, bytes }, reroutes)
                    });
                    stream::select_all(halves).boxed()
                }
            };
            let rest = if sent_before { rest.map(as_sent_before).boxed() } else { rest };
            stream::iter([outcomes]).chain(rest).boxed()
        }
        .flatten_stream()
        .boxed()
    }

    async fn send_once(
        self,
        routes: &Arc<[Route]>,
        chunk: Chunk<'a>,
        reroutes: u32,
    ) -> (BulkOutcomes<OperationResult>, Option<Rest<'a>>) {
        let operations = chunk.operations;
        if operations.len() <= 1 {
            return (Vec::new(), Some(Rest { operations, how: Again::Alone, sent_before: false }));
        }
        let permission = match self.enter(operations.len(), chunk.bytes).await {
            Ok(permission) => permission,
            Err(failure) => return (all_failed(operations, &failure), None),
        };
        let body = request_of(operations.iter().map(|(_, operation)| operation));
        let carried = self.carrier.carry(&routes[chunk.route].range, &operations[0].1.key, body).await;
        drop(permission);
        let carried = match carried {
            Ok(carried) => carried,
            Err(failure) => {
                let how = match failure.status {
                    status if status.is_too_large() => Again::Halve,
                    status if status.is_gone() => {
                        self.routes.forget(routes);
                        if reroutes >= REROUTES {
                            return (all_failed(operations, &failure), None);
                        }
                        Again::Reroute
                    }
                    _ if concerns_all(&failure) => return (all_failed(operations, &failure), None),
                    // It says nothing about any single operation.
                    status => {
                        if status.is_of_the_request() {
                            self.switch.turn_off(&failure);
                        }
                        Again::Alone
                    }
                };
                return (Vec::new(), Some(Rest { operations, how, sent_before: true }));
            }
        };
        let is_in_order = |answers: &Vec<OperationAnswer<'_>>| {
            !answers.iter().zip(&operations).any(|(answer, (_, operation))| answer.is_of_another(operation))
        };
        let Some(answers) = OperationAnswer::all(&carried.body, operations.len()).filter(is_in_order) else {
            // Whatever answered took the request for something else, or does not say what became of some operation.
            let problem = "the answer does not have one result for each operation, in their order".to_owned();
            self.switch.turn_off(&Failure::invalid("bulk request".into(), problem));
            return (Vec::new(), Some(Rest { operations, how: Again::Alone, sent_before: true }));
        };
        let mut outcomes = Vec::with_capacity(operations.len());
        let (mut moved, mut large) = (Vec::new(), Vec::new());
        for ((place, operation), answer) in operations.into_iter().zip(answers) {
            match answer.into_result(&operation.verb) {
                Err(failure) if failure.status == Status::ANSWER_TOO_LARGE => large.push((place, operation)),
                Err(failure) if failure.status.is_gone() => {
                    self.routes.forget(routes);
                    if reroutes < REROUTES {
                        moved.push((place, operation));
                    } else {
                        outcomes.push((place, Err(failure)));
                    }
                }
                Err(failure) => {
                    outcomes.push((place, Err(Failure { sent_before: carried.sent_before, ..failure })));
                }
                done => outcomes.push((place, done)),
            }
        }
        // Never both: a partition that has moved carries nothing out.
        let how = if moved.is_empty() { Again::Halve } else { Again::Reroute };
        moved.append(&mut large);
        let rest = Rest { operations: moved, how, sent_before: true };
        (outcomes, Some(rest).filter(|rest| !rest.operations.is_empty()))
    }
}

fn all_failed(operations: Vec<Numbered<'_>>, failure: &Failure) -> BulkOutcomes<OperationResult> {
    let of = |verb: &Verb<'_>| Failure { context: verb.context().into(), ..failure.clone() };
    operations.into_iter().map(|(place, operation)| (place, Err(of(&operation.verb)))).collect()
}

/// Whether a failure of a request holds for each of its operations: the service was busy, or refuses the caller. Any
/// other refusal says nothing about a single one.
fn concerns_all(failure: &Failure) -> bool {
    matches!(failure.disposition, Disposition::Transient | Disposition::Denied)
}

/// Notes that failed operations may have been carried out before.
fn as_sent_before(outcomes: BulkOutcomes<OperationResult>) -> BulkOutcomes<OperationResult> {
    let told = |failure| Failure { sent_before: true, ..failure };
    outcomes.into_iter().map(|(place, outcome)| (place, outcome.map_err(told))).collect()
}

/// Takes out further operations on the same item: within one request the order is undefined, and in the change feed its
/// writes would share a time.
fn once_each<'a>(operations: Vec<Numbered<'a>>) -> (Vec<Numbered<'a>>, Vec<Numbered<'a>>) {
    let mut seen = HashSet::with_capacity(operations.len());
    let is_new: Vec<bool> = operations.iter().map(|(_, one)| seen.insert((&*one.id, &*one.key))).collect();
    let (mut once, mut again) = (Vec::with_capacity(operations.len()), Vec::new());
    for (one, is_new) in operations.into_iter().zip(is_new) {
        let of = if is_new { &mut once } else { &mut again };
        of.push(one);
    }
    (once, again)
}

fn item_of<'a>((_, operation): &Numbered<'a>) -> Item<'a> {
    (operation.id.clone(), operation.key.clone())
}
