//! Progress of the work: a use case reports to such a value and never prints.

/// Is told how far the work is, and what a person should know at once.
pub trait Progress: Send + Sync {
    /// Begins a step of the work, with the number of things to do if that is known.
    fn begin(&self, what: &'static str, total: Option<u64>) -> Box<dyn ProgressStep + '_>;
    /// Reports a line now, such as a warning about one document among many. Results belong in the report.
    fn note(&self, text: &str);
}

/// A step of the work, which ends when it is dropped.
pub trait ProgressStep: Send + Sync {
    /// This many more are done.
    fn advance(&self, done: u64);
    /// Reports a line now, without disturbing the display of the step.
    fn note(&self, text: &str);
}

/// Reports to nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &'static str, _: Option<u64>) -> Box<dyn ProgressStep + '_> {
        Box::new(Self)
    }

    fn note(&self, _: &str) {}
}

impl ProgressStep for Silent {
    fn advance(&self, _: u64) {}

    fn note(&self, _: &str) {}
}
