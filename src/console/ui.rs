//! Where a command prints, whom it asks, and how it learns of Ctrl-C. Made once in `main` and passed to everything that
//! prints. Data goes to standard output, everything else to standard error. Nothing else prints.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    sync::{Arc, Mutex, Once, PoisonError},
    time::Instant,
};

use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{CliError, ErrorKind, error::room, screen::Screen, signals::watch_signals};
use crate::{
    change::diff::Difference,
    clock::{Clock, SystemClock},
    config::Names,
    context::Context,
    cosmos::Cosmos,
    format::{self, Cell, DocumentPrinter, Format, Look, NotWritten, Rows, printable},
};

/// The output of a command, and how it is interrupted.
#[derive(Debug)]
pub struct Ui {
    output: OutputStream,
    screen: Screen,
    look: Look,
    is_coloured: bool,
    /// Whether there is a person to ask.
    can_ask: bool,
    /// Whether signals are being waited for.
    is_interruptible: bool,
    /// Once it is told to stop, a command begins nothing new, whichever of its parts is running.
    stop: CancellationToken,
    heeded: Once,
    clock: Arc<dyn Clock>,
}

/// Where text goes.
#[derive(Debug, Clone)]
pub(super) enum OutputStream {
    /// Standard output of this process.
    Output,
    /// Its standard error.
    Errors,
    /// Nowhere: it is kept in memory.
    Kept(Arc<Mutex<Vec<u8>>>),
}

impl OutputStream {
    pub(crate) fn open(&self) -> Box<dyn Write + Send> {
        match self {
            Self::Output => Box::new(io::stdout()),
            Self::Errors => Box::new(io::stderr()),
            Self::Kept(text) => Box::new(Kept(text.clone())),
        }
    }

    fn taken(&self) -> String {
        match self {
            Self::Output | Self::Errors => String::new(),
            Self::Kept(text) => {
                let bytes = std::mem::take(&mut *text.lock().unwrap_or_else(PoisonError::into_inner));
                String::from_utf8_lossy(&bytes).into_owned()
            }
        }
    }
}

struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Ui {
    /// The standard streams of this process, its terminal, its Ctrl-C and the clock of this machine.
    pub fn standard() -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            output: OutputStream::Output,
            screen: Screen(OutputStream::Errors),
            look: if is_terminal { Look::Terminal } else { Look::Plain },
            is_coloured: is_terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
            can_ask: io::stdin().is_terminal(),
            is_interruptible: true,
            stop: CancellationToken::new(),
            heeded: Once::new(),
            clock: SystemClock::shared(),
        }
    }

    /// Keeps the output, as it would go into a pipe; nobody is asked, and nobody interrupts.
    pub fn kept(clock: Arc<dyn Clock>) -> Self {
        let kept = || OutputStream::Kept(Arc::default());
        Self {
            output: kept(),
            screen: Screen(kept()),
            look: Look::Plain,
            is_coloured: false,
            can_ask: false,
            is_interruptible: false,
            stop: CancellationToken::new(),
            heeded: Once::new(),
            clock,
        }
    }

    /// Returns the texts printed to standard output and standard error since the last call.
    pub fn said(&self) -> (String, String) {
        (self.output.taken(), self.screen.0.taken())
    }

    /// The time of this machine.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Standard error as a person reads it.
    pub(crate) fn screen(&self) -> &Screen {
        &self.screen
    }

    /// Prints an error, its causes and its hints on standard error.
    pub(crate) fn error(&self, error: &CliError) {
        if !error.kind.is_told() {
            return;
        }
        self.note(&format!("error: {}", error.report()));
        for one in &error.hints {
            self.hint(&one.to_string());
        }
    }

    /// Prints a line on standard error.
    pub(crate) fn note(&self, text: &str) {
        self.screen.line(text);
    }

    /// Prints a suggestion on standard error.
    pub(crate) fn hint(&self, text: &str) {
        self.note(&format!("hint: {text}"));
    }

    /// Prints the line that ends every command: what was done, the request units and the time it took.
    pub(crate) fn spent(&self, what: &str, cosmos: &Cosmos, started: Instant) {
        self.note(&format!("{what}, {:.1} RU, {:.1} s", cosmos.meter().total(), started.elapsed().as_secs_f64()));
    }

    /// Standard output for a command that writes lines as they come, from more than one task.
    pub(crate) fn stream(&self) -> Box<dyn Write + Send> {
        Box::new(BufWriter::new(self.output.open()))
    }

    /// Whether standard output is a terminal that wants colours.
    pub(crate) fn is_coloured(&self) -> bool {
        self.is_coloured
    }

    /// Rows on standard output.
    pub(crate) fn rows(&self, format: Format, columns: &[impl AsRef<str>]) -> Rows {
        Rows::new(self.stream(), format, self.look, columns)
    }

    /// Documents on standard output.
    pub(crate) fn documents(&self, format: Format) -> DocumentPrinter {
        DocumentPrinter::new(self.stream(), format, self.look)
    }

    /// Prints what a command did, as named figures.
    pub(crate) fn summary(&self, format: Format, figures: &[(&str, Value)]) -> Result<(), CliError> {
        self.write(|out| format::summary(out, format, figures))
    }

    /// Prints text that was made elsewhere, unchanged.
    pub(crate) fn text(&self, bytes: &[u8]) -> Result<(), CliError> {
        self.write(|out| out.write_all(bytes))
    }

    /// Prints one JSON value on a line while it is serialized, without holding it in memory.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), CliError> {
        self.write(|out| {
            serde_json::to_writer(&mut *out, value)?;
            writeln!(out)
        })
    }

    /// Prints one object with these members.
    pub(crate) fn object(&self, members: &[(&str, Cell<'_>)]) -> Result<(), CliError> {
        self.line(&format::object(members))
    }

    /// Prints a document's text, exactly, or indented without touching its values.
    pub(crate) fn document(&self, text: &str, indented: bool) -> Result<(), CliError> {
        self.line(&format::document(text, indented, self.look))
    }

    /// Prints a heading for the next lines.
    pub(crate) fn heading(&self, text: &str) -> Result<(), CliError> {
        self.line(&printable(text))
    }

    /// Prints the fields that differ, one per line.
    pub(crate) fn differences(&self, differences: &[Difference<'_>]) -> Result<(), CliError> {
        if differences.is_empty() {
            return Ok(());
        }
        self.line(format::differences(differences, self.look, self.is_coloured).trim_end())
    }

    fn line(&self, text: &str) -> Result<(), CliError> {
        self.write(|out| writeln!(out, "{text}"))
    }

    fn write(
        &self,
        write: impl FnOnce(&mut BufWriter<Box<dyn Write + Send>>) -> io::Result<()>,
    ) -> Result<(), CliError> {
        let mut out = BufWriter::new(self.output.open());
        write(&mut out).and_then(|()| out.flush()).map_err(|e| NotWritten(e).into())
    }

    /// Asks before something that cannot be undone. `answer` is what must be typed; `yes` is the flag that answers.
    ///
    /// # Errors
    /// When there is no terminal to ask on, or the answer was another one.
    pub(crate) fn confirm(&self, question: &str, answer: &str, yes: bool) -> Result<(), CliError> {
        if yes {
            return Ok(());
        }
        if !self.can_ask {
            let problem = format!("{question} There is no terminal to ask on");
            return Err(CliError::usage(problem, "pass --yes when you are sure"));
        }
        self.screen.ask(&format!("{question} Type {answer} to go on: "));
        let mut line = String::new();
        io::stdin().read_line(&mut line).map_err(|e| CliError::failed("cannot read the answer").because(e))?;
        if line.trim() == answer { Ok(()) } else { Err(ErrorKind::NotConfirmed.into()) }
    }

    /// The context of a command that Ctrl-C ends at once, until [`Ui::heed`] is called.
    pub(crate) fn context<'a>(&'a self, cosmos: &'a Cosmos, names: &'a Names) -> Context<'a> {
        let stop = self.stop.child_token();
        Context { clock: self.clock.clone(), progress: &self.screen, stop, ..Context::new(cosmos, names) }
    }

    /// The context of a command that finishes what it has begun on Ctrl-C or SIGTERM.
    pub(crate) fn careful_context<'a>(&'a self, cosmos: &'a Cosmos, names: &'a Names) -> Context<'a> {
        self.heed();
        self.context(cosmos, names)
    }

    /// From now on Ctrl-C and SIGTERM tell the work to stop, in every context; a second signal ends the process at
    /// once.
    pub(crate) fn heed(&self) {
        if self.is_interruptible {
            self.heeded.call_once(|| drop(tokio::spawn(watch_signals(self.stop.clone()))));
        }
    }

    /// Is cancelled once the work was told to stop.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}

impl From<NotWritten> for CliError {
    /// Ignores that the reader has gone (`| head`); anything else is a failure.
    fn from(NotWritten(error): NotWritten) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return ErrorKind::Unread.into();
        }
        let hint = room(&error);
        Self::failed("cannot write to standard output").because(error).hint_of(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Exit;

    #[test]
    fn a_reader_that_leaves_is_no_error() {
        let kind = |kind| CliError::from(NotWritten(kind)).kind;
        let left = kind(io::ErrorKind::BrokenPipe.into());
        assert_eq!((left.is_told(), left.exit()), (false, Exit::Done));
        assert_eq!(kind(io::ErrorKind::StorageFull.into()).exit(), Exit::Failed);
    }

    #[test]
    fn what_is_kept_is_told_once() {
        let ui = Ui::kept(SystemClock::shared());
        ui.document("{\"id\":\"\u{7f}\"}", false).unwrap();
        ui.hint("look again");
        assert!(ui.confirm("Delete it?", "it", false).is_err(), "there is nobody to ask");
        assert_eq!(ui.said(), ("{\"id\":\"\u{7f}\"}\n".into(), "hint: look again\n".into()));
        assert_eq!(ui.said(), (String::new(), String::new()));
    }
}
