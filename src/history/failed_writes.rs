//! Failed writes to the history, as lines for people. Writers are tasks of their own and cannot borrow a `Progress`, so
//! they collect the lines here and the use case passes them on.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    change::key::ItemKey,
    cosmos::{Failure, Observer},
    progress::ProgressStep,
};

/// Collects a line for each record that could not be written or deleted.
#[derive(Debug, Clone)]
pub struct FailedWrites {
    lines: Arc<Mutex<Lines>>,
    most: usize,
}

#[derive(Debug, Default)]
struct Lines {
    count: usize,
    waiting: Vec<String>,
}

impl Default for FailedWrites {
    fn default() -> Self {
        Self::at_most(usize::MAX)
    }
}

impl FailedWrites {
    /// Collects the first `most` failures and drops the others.
    pub fn at_most(most: usize) -> Self {
        Self { lines: Arc::default(), most }
    }

    /// Returns the observer for the writers.
    pub fn observer(&self) -> Observer {
        let Self { lines, most } = self.clone();
        Arc::new(move |record: &ItemKey, failure: Option<&Failure>| {
            let Some(failure) = failure else { return };
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.count = lines.count.saturating_add(1);
            if lines.count <= most {
                lines.waiting.push(format!("record {:?} ({}): {failure}", record.id, record.partition_key));
            }
        })
    }

    /// Passes on the lines collected since the last call.
    pub fn pass_on(&self, step: &dyn ProgressStep) {
        let waiting = std::mem::take(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner).waiting);
        waiting.iter().for_each(|line| step.note(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::key::PartitionKey;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl ProgressStep for Heard {
        fn advance(&self, _: u64) {}

        fn note(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }

    #[test]
    fn failures_are_told_once_and_only_the_first_few() {
        let failed = FailedWrites::at_most(2);
        let observer = failed.observer();
        let record = |id: &str| ItemKey { id: id.into(), partition_key: PartitionKey::parse("p").unwrap() };
        let failure = Failure::invalid("delete item".into(), "no".into());
        let heard = Heard::default();
        observer(&record("a"), None);
        observer(&record("b"), Some(&failure));
        failed.pass_on(&heard);
        failed.pass_on(&heard);
        observer(&record("c"), Some(&failure));
        observer(&record("d"), Some(&failure));
        failed.pass_on(&heard);
        let heard = heard.0.into_inner().unwrap();
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard[0].starts_with("record \"b\" ") && heard[1].starts_with("record \"c\" "), "{heard:?}");
    }
}
