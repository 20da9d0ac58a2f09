//! Passes the outcomes of many writes on to a step of the work: writers are tasks of their own, and a step is borrowed.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    change::key::ItemKey,
    cosmos::{Failure, Observer},
    progress::ProgressStep,
};

/// The outcome of each write of a [`Writers`](crate::cosmos::Writers).
pub struct Outcomes(mpsc::UnboundedReceiver<Option<String>>);

impl Outcomes {
    /// An observer for the writers, and the outcomes that it receives.
    pub fn observed() -> (Observer, Self) {
        let (told, outcomes) = mpsc::unbounded_channel();
        let observer: Observer = Arc::new(move |item: &ItemKey, failure: Option<&Failure>| {
            let problem = failure.map(|f| format!("document {:?} ({}): {f}", item.id, item.partition_key));
            // Nobody receives them once the work was given up.
            let _ = told.send(problem);
        });
        (observer, Self(outcomes))
    }

    /// Advances the step by each write, and passes the failed ones on; ends when all writers have ended.
    pub async fn tell(mut self, step: &dyn ProgressStep, mut problem: impl FnMut(&str)) {
        while let Some(outcome) = self.0.recv().await {
            step.advance(1);
            if let Some(text) = outcome {
                problem(&text);
            }
        }
    }
}
