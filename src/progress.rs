//! How far the work is: a value that a use case is given, so that it never prints.

/// Is told how far the work is, and what a person should know at once.
pub trait Progress: Send + Sync {
    /// Begins a step of the work, with the number of things to be done when that is known.
    fn begin(&self, what: &'static str, total: Option<u64>) -> Box<dyn ProgressStep + '_>;
    /// Says one line now, such as a warning about one document among many. What belongs to the result is in the report.
    fn note(&self, text: &str);
}

/// A step of the work; it ends when it is dropped.
pub trait ProgressStep: Send + Sync {
    /// So many more are done.
    fn advance(&self, done: u64);
    /// Says one line now, without disturbing what is shown of the step.
    fn note(&self, text: &str);
}

/// Nobody is told.
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
