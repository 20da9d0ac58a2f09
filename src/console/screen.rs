//! Shows the progress of a use case: bars and notes on standard error.

use std::{io::Write as _, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::ui::OutputStream;
use crate::{
    format::printable,
    progress::{Progress, ProgressStep},
};

/// Standard error as a person reads it.
#[derive(Debug)]
pub(crate) struct Screen(pub(super) OutputStream);

impl Screen {
    /// Prints a line. A closed standard error is ignored.
    pub(super) fn line(&self, text: &str) {
        let _ = writeln!(self.0.open(), "{text}");
    }

    /// Prints a question and stays on its line.
    pub(super) fn ask(&self, question: &str) {
        let mut out = self.0.open();
        let _ = write!(out, "{question}").and_then(|()| out.flush());
    }

    /// A bar towards `total`, or a counter when the total is not known; nothing when standard error is not a terminal.
    fn bar(&self, what: &'static str, total: Option<u64>) -> Bar<'_> {
        let target = match self.0 {
            OutputStream::Kept(_) => ProgressDrawTarget::hidden(),
            OutputStream::Output | OutputStream::Errors => ProgressDrawTarget::stderr_with_hz(10),
        };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => "{prefix} {bar:30} {human_pos}/{human_len} {rate} {eta}",
            None => "{prefix} {spinner} {human_pos}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:.0}/s", state.per_sec());
            }));
        }
        bar.set_prefix(what);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Bar { bar, screen: self }
    }
}

impl Progress for Screen {
    fn begin(&self, what: &'static str, total: Option<u64>) -> Box<dyn ProgressStep + '_> {
        Box::new(self.bar(what, total))
    }

    fn note(&self, text: &str) {
        self.line(&printable(text));
    }
}

/// A progress bar that disappears when it is dropped.
struct Bar<'a> {
    bar: ProgressBar,
    screen: &'a Screen,
}

impl ProgressStep for Bar<'_> {
    fn advance(&self, done: u64) {
        self.bar.inc(done);
    }

    /// Prints a line above the bar.
    fn note(&self, text: &str) {
        self.bar.suspend(|| self.screen.line(&printable(text)));
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
