//! Shows a person how far a use case is: bars and notes on standard error.

use tokio_util::sync::CancellationToken;

use super::output;
use crate::{
    config::Names,
    context::Context,
    cosmos::Cosmos,
    progress::{Progress, ProgressStep},
};

/// Standard error as a person reads it.
pub(super) struct Screen;

impl Progress for Screen {
    fn begin(&self, what: &'static str, total: Option<u64>) -> Box<dyn ProgressStep + '_> {
        Box::new(output::Progress::new(what, total))
    }

    fn note(&self, text: &str) {
        output::note(&output::printable(text));
    }
}

impl ProgressStep for output::Progress {
    fn advance(&self, done: u64) {
        self.inc(done);
    }

    fn note(&self, text: &str) {
        Self::note(self, &output::printable(text));
    }
}

/// The context of a command that Ctrl-C ends at once.
pub(super) fn context<'a>(cosmos: &'a Cosmos, names: &'a Names) -> Context<'a> {
    Context {
        account: cosmos,
        names,
        clock: crate::surroundings::clock(),
        progress: &Screen,
        stop: CancellationToken::new(),
    }
}

/// The context of a command that finishes what it has begun when Ctrl-C comes.
pub(super) fn careful_context<'a>(cosmos: &'a Cosmos, names: &'a Names) -> Context<'a> {
    Context { stop: interruption(), ..context(cosmos, names) }
}

/// Is cancelled by Ctrl-C.
fn interruption() -> CancellationToken {
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            if crate::surroundings::interrupted().await {
                stop.cancel();
            }
        }
    });
    stop
}
