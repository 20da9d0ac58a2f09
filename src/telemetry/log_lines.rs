//! The lines that the handler logs: docs/reference/log-lines.md is generated from them, and a test compares them with
//! the source.

/// A line of the handler's log, or several with one meaning.
#[derive(Debug, Clone, Copy)]
pub struct LogLine {
    /// The message, or its beginning when it ends in ` ...`.
    pub messages: &'static [&'static str],
    /// Its level, in lower case.
    pub level: &'static str,
    /// Where its text comes from.
    pub words: Words,
    /// Meaning and remedy, in Markdown.
    pub meaning: &'static str,
}

/// Where the text of a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// The call that logs it.
    Own,
    /// An error, or an answer to the host, that is logged as it is.
    PassedOn,
    /// A library that this program uses.
    Library,
}

const fn line(level: &'static str, messages: &'static [&'static str], meaning: &'static str) -> LogLine {
    LogLine { messages, level, words: Words::Own, meaning }
}

impl LogLine {
    const fn of(self, words: Words) -> Self {
        Self { words, ..self }
    }
}

/// All of them, in the order of the page.
pub const LOG_LINES: &[LogLine] = &[
    line(
        "info",
        &["ready"],
        "port, functions, version. The port answers before; now the containers were looked at, unless a line \
         before this one says that the account does not answer yet",
    ),
    line("info", &["traces and metrics are sent"], "to which collector"),
    line("warn", &["traces and metrics cannot be sent"], "why; capture goes on without them"),
    line(
        "warn",
        &["OTLP export ..."],
        "the collector does not answer, or refuses; those figures are lost, capture goes on",
    )
    .of(Words::Library),
    line(
        "warn",
        &["no function.json with a cosmosDBTrigger below the app root"],
        "the shipped function is served; is the working directory the app's folder?",
    ),
    line("info", &["batch stored"], "one for each batch; its fields are in the table below"),
    line(
        "warn",
        &["the history does not take everything yet, trying again"],
        "the reason of the newest retry; every ten seconds while a batch is not stored, up to \
         `REWIND_DEADLINE_SECONDS`",
    ),
    line(
        "error",
        &["batch not stored, to be delivered again"],
        "the reason and a hint; nothing is lost while the host retries; repetition means that capture stands \
         still. `... records are refused alike`: the history container refuses nearly everything of a payload \
         (five records at least, nine in ten), so there are no dead letters. \
         `... write dead letter in ...`: the store is out of reach; without it, poison blocks its lease",
    ),
    line(
        "warn",
        &["the account does not take bulk requests"],
        "the reason; each record is a request of its own from then on, until the process ends; logged once. \
         `REWIND_BULK=off` says it from the start",
    ),
    line(
        "error",
        &["the body is ...", "Data has no binding ..."],
        "not an invocation of a Functions host, or function.json and binding disagree; answered 400, \
         delivered again",
    )
    .of(Words::PassedOn),
    line(
        "warn",
        &["there is no function ..."],
        "the app has no such route; was the function.json added after the start?",
    )
    .of(Words::PassedOn),
    line(
        "warn",
        &["dead letter"],
        "id, status, reason, name of the letter; fix the cause, then `cosmos-rewind replay`",
    ),
    line(
        "warn",
        &["the host rewrites dates"],
        "host.json lacks the [setting for dates](../understand/dates.md), or its bundle ignores it; logged at \
         the start",
    ),
    line(
        "warn",
        &["the host may have altered ids or partition keys"],
        "some records are `unsure`: the setting for dates is missing; logged once",
    ),
    line(
        "warn",
        &["cannot read the source again", "the source refuses to be read again"],
        "the source refused four re-reads (no read permission?); records are stored `normalized`",
    ),
    line(
        "warn",
        &["read again, the source has no version that is surely later"],
        "the document was gone, or a replica was behind for four reads; records are stored `normalized`",
    ),
    line(
        "info",
        &["pruned: ..."],
        "a tick of the timer function: versions removed and looked at, RU, and how much of the history is \
         left for the next tick",
    ),
    line("error", &["not pruned, the next tick goes on"], "the reason; nothing is lost, the history only stays larger"),
    line("warn", &["version not removed"], "id of the record, and why; the next round tries again"),
    line(
        "warn",
        &["record not understood, it stays"],
        "id of the record, and what is odd; `prune` removes nothing that it does not understand",
    ),
    line(
        "warn",
        &["cannot look at the containers yet", "the account does not answer yet"],
        "the account must answer before the history's key, `REWIND_FIELDS` and `REWIND_REDACT` can be \
         checked; batches are answered 500 until then",
    ),
    line(
        "warn",
        &["cannot note when the trigger began"],
        "the reason; logged once. If the leases are lost, and lost again, nobody knows what the trigger passed over the \
         first time",
    ),
    line(
        "warn",
        &["waiting for what is missing"],
        "a container that is not there, or a key that the account does not know; `serve` ends with 2 when it is still so \
         ten seconds after the start",
    ),
    line("info", &["stopping", "stopped"], "SIGTERM or Ctrl-C; it says whether all batches were finished"),
    line("warn", &["drain time is over"], "unfinished batches are delivered again"),
    line(
        "error",
        &["invocation's task failed", "panicked"],
        "a bug in this program, with its place in the source; please report it. The batch is delivered again",
    ),
    line("error", &["server failed"], "the listener broke; the host starts the handler again"),
    line(
        "warn",
        &["the last traces and metrics may not have reached the collector"],
        "the collector did not answer within 3 s at the end",
    ),
];
