//! Packs operations of callers that know nothing of each other as they arrive: while requests are in flight, new
//! operations wait for the next one. Nobody waits for more to arrive, so a single operation is as fast as without
//! packing.

use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt as _;
use tokio::sync::oneshot;

use super::{Operation, OperationResult, Verb, carrier::Carrier as _};
use crate::{
    change::key::PartitionKey,
    cosmos::{Container, Failure},
};

/// Rounds of requests in flight. More would make the requests smaller, fewer would leave the account idle.
const ROUNDS: usize = 3;
/// Operations that may go alone at the same time, while no round is in flight and the last one was no larger: so few
/// are not worth a round.
const ALONE: usize = 4;
/// The largest number of operations in a round.
const MOST: usize = 400;
/// The largest number of bytes in a round: the client library holds them several times while it sends them.
const BYTES: usize = 2 << 20;

/// Operations that wait.
#[derive(Debug, Default)]
pub(in crate::cosmos) struct Packer(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Rounds in flight.
    rounds: usize,
    /// Operations in flight that went alone.
    alone: usize,
    /// Number of operations in the last round.
    last: usize,
    /// Whether a round has been started that has not taken anything yet.
    starting: bool,
}

/// One that waits.
#[derive(Debug)]
struct Waiting {
    operation: Operation<'static>,
    answer: oneshot::Sender<Result<OperationResult, Failure>>,
}

/// Counts as in flight until it is dropped.
struct OnItsWay<'a>(&'a Packer, fn(&mut State) -> &mut usize);

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        *(self.1)(&mut self.0.state()) -= 1;
    }
}

/// The way of an operation that arrives.
enum Admission<'a> {
    /// It goes alone: little else is in flight.
    Alone(OnItsWay<'a>, Verb<'static>),
    /// It is sent with those that wait; `true` when a new round has to be started for it.
    Together(oneshot::Receiver<Result<OperationResult, Failure>>, bool),
}

impl Packer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, key: &PartitionKey, id: &str, verb: Verb<'static>) -> Admission<'_> {
        let mut state = self.state();
        if state.rounds == 0 && state.alone < ALONE && state.last <= ALONE && state.waiting.is_empty() {
            state.alone += 1;
            return Admission::Alone(OnItsWay(self, |state| &mut state.alone), verb);
        }
        let (answer, result) = oneshot::channel();
        let operation = Operation { key: Cow::Owned(key.clone()), id: Cow::Owned(id.to_owned()), verb };
        state.waiting.push_back(Waiting { operation, answer });
        let begin = !state.starting && state.rounds < ROUNDS;
        if begin {
            (state.starting, state.rounds) = (true, state.rounds + 1);
        }
        Admission::Together(result, begin)
    }

    /// As many waiting operations as fit into a round; `None` ends the round at that very moment, so that whatever
    /// arrives next starts another.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut state = self.state();
        state.starting = false;
        if state.waiting.is_empty() {
            state.rounds -= 1;
            return None;
        }
        let mut bytes = 0;
        let fits = |one: &&Waiting| {
            bytes += one.operation.size();
            bytes <= BYTES
        };
        let fitting = state.waiting.iter().take(MOST).take_while(fits).count();
        let most = fitting.max(1).min(state.waiting.len());
        let mut taken: Vec<Waiting> = state.waiting.drain(..most).collect();
        state.last = most;
        // Its caller has given up, and may have done something else by now.
        taken.retain(|one| !one.answer.is_closed());
        Some(taken)
    }
}

impl Container {
    /// Runs an operation, together with others if there are any.
    pub(in crate::cosmos) async fn packed(
        &self,
        key: &PartitionKey,
        id: &str,
        verb: Verb<'static>,
    ) -> Result<OperationResult, Failure> {
        if !self.packs() {
            return self.alone(Operation::on(key, id, verb)).await;
        }
        match self.packer().admit(key, id, verb) {
            Admission::Alone(_on_its_way, verb) => self.alone(Operation::on(key, id, verb)).await,
            Admission::Together(result, begin) => {
                if begin {
                    tokio::spawn(self.clone().rounds());
                }
                result.await.unwrap_or_else(|_| Err(Failure::shutting_down()))
            }
        }
    }

    /// Sends what waits until nothing does.
    async fn rounds(self) {
        let on_its_way = OnItsWay(self.packer(), |state| &mut state.rounds);
        // Lets those go first who are about to ask.
        tokio::task::yield_now().await;
        loop {
            let Some(taken) = self.packer().take() else {
                // It was counted out.
                std::mem::forget(on_its_way);
                return;
            };
            let (operations, mut answers): (Vec<_>, Vec<_>) =
                taken.into_iter().map(|one| (one.operation, Some(one.answer))).unzip();
            let mut outcomes = self.run_many(operations, None);
            while let Some(outcomes) = outcomes.next().await {
                for (place, outcome) in outcomes {
                    if let Some(answer) = answers.get_mut(place).and_then(Option::take) {
                        // Nobody waits for it any more: it was carried out all the same.
                        let _ = answer.send(outcome);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_round_that_has_ended() {
        let (packer, key) = (Packer::default(), PartitionKey(Vec::new()));
        let admit = || packer.admit(&key, "x", Verb::Read);
        let alone: Vec<_> = (0..ALONE).map(|_| admit()).collect();
        assert!(alone.iter().all(|turn| matches!(turn, Admission::Alone(..))));
        let Admission::Together(_first, true) = admit() else { panic!("the fifth begins a round") };
        let Admission::Together(_second, false) = admit() else { panic!("the sixth goes with it") };
        assert_eq!(packer.take().map(|taken| taken.len()), Some(2));
        // While it is in flight others begin, up to three rounds; the next one waits for any of them.
        let Admission::Together(_third, true) = admit() else { panic!("a second round") };
        assert_eq!(packer.take().map(|taken| taken.len()), Some(1));
        let Admission::Together(_fourth, true) = admit() else { panic!("a third round") };
        assert_eq!(packer.take().map(|taken| taken.len()), Some(1));
        let Admission::Together(fifth, false) = admit() else { panic!("there are three rounds") };
        drop(fifth);
        assert_eq!(packer.take().map(|taken| taken.len()), Some(0), "who has given up is not sent for");
        for _ in 0..ROUNDS {
            assert!(packer.take().is_none());
        }
        let Admission::Together(_, true) = admit() else { panic!("all rounds have ended: it begins one") };
        drop(alone);
        assert!(packer.take().is_some() && packer.take().is_none());
        assert!(matches!(admit(), Admission::Alone(..)));
    }
}
