//! How far a command is, on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::note;

/// A progress bar on stderr; silent when stderr is no terminal.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar towards `total`, or a counter when the total is not known.
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
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
        Self(bar)
    }

    /// Counts `n` more.
    pub fn inc(&self, n: u64) {
        self.0.inc(n);
    }

    /// Prints a line on stderr above the bar.
    pub fn note(&self, text: &str) {
        self.0.suspend(|| note(text));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
