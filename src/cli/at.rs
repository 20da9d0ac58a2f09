//! `at`: the past as an account of its own, for any SDK or tool.

use std::time::Instant;

use clap::Args;

use super::{ConnectionArgs, connection::ru_limit, lookup, restore::explain};
use crate::{
    change::shape::Redact,
    config::{self, Secret},
    console::{CliError, Exit, Ui, render::at as render, signals::stop_signal},
    cosmos::Param,
    figures::count_of,
    host::functions::all_names,
    local::past::{PastAccount, PastError, PastRequest},
    telemetry,
};

/// Flags of `at`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cosmos-rewind at 2026-11-20T14:05:00Z\n  \
    cosmos-rewind at 15m --writable --mask /ssn,/email=hash\n\
    The first line on stdout is JSON and says where it listens, the second one what was loaded.")]
pub struct AtArgs {
    /// The moment: 2026-11-20T14:05:00Z, epoch seconds, 15m, "yesterday 14:05Z"
    #[arg(value_name = "TIME")]
    time: String,
    /// All containers that functions of the app capture, at the same moment, instead of the one source
    #[arg(long)]
    all_containers: bool,
    /// Only documents that matched this predicate then; your own SQL on `c`
    #[arg(long = "where", value_name = "PREDICATE", conflicts_with = "all_containers")]
    predicate: Option<String>,
    /// Value of a parameter of the predicate; repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "predicate")]
    param: Vec<Param>,
    /// Port on 127.0.0.1; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// A copy that may be changed; nothing is ever written to the captured account
    #[arg(long)]
    writable: bool,
    /// Run queries on what is loaded so far, instead of waiting for all documents; answers say so
    #[arg(long)]
    partial: bool,
    /// Refuse to load more documents than this, in megabytes
    #[arg(long, value_name = "MB", default_value_t = 2048)]
    max_memory: u64,
    /// Values to leave out, or to replace by a hash: /ssn,/email=hash
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    mask: Vec<Redact>,
    /// Wait until capture has passed the moment
    #[arg(long)]
    wait: bool,
    /// Documents read at the same time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// At most this many request units a second, on average
    #[arg(long, value_name = "RU/S", value_parser = ru_limit)]
    ru_limit: Option<f64>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// When the history cannot be read, the port is taken, or the documents need too much memory.
pub async fn run(args: AtArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    let settings = args.connection.settings()?;
    telemetry::start(&settings, telemetry::LogStream::Stderr, "warn")?;
    let (cosmos, names) = args.connection.open()?;
    let at = lookup::point(ui, &cosmos, "TIME", &args.time).await?;
    let stop = stop_signal()?;
    let mut sources = vec![names.clone()];
    if args.all_containers {
        for own in all_names(&config::app_root(), &settings)? {
            if sources.iter().all(|known| (&known.database, &known.source) != (&own.database, &own.source)) {
                sources.push(own);
            }
        }
    }
    let mask_key = settings.get_for(None, "REWIND_REDACT_KEY").map(str::to_owned);
    let request = PastRequest {
        at,
        sources,
        predicate: args.predicate,
        params: args.param,
        port: args.port,
        writable: args.writable,
        partial: args.partial,
        max_memory: args.max_memory.saturating_mul(1 << 20),
        mask: args.mask,
        // Without a key of its own, hashes are only the same within one run.
        mask_key: Secret::new(mask_key.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()))),
        wait: args.wait,
        concurrency: args.concurrency.into(),
        ru_limit: args.ru_limit,
    };
    let cx = ui.careful_context(&cosmos, &names);
    let past = PastAccount::start(&request, &cx).await?;
    render::ready(ui, &past, &request, &names.database)?;
    let step = cx.progress.begin("loading", None);
    let mut stop = std::pin::pin!(stop);
    let loaded = tokio::select! {
        loaded = past.load(&*step) => loaded.map_err(|error| match error {
            PastError::Cosmos(failure) => explain(failure, request.predicate.is_some()),
            other => other.into(),
        })?,
        () = &mut stop => {
            drop(step);
            past.shutdown().await;
            return Ok(Exit::Incomplete);
        }
    };
    drop(step);
    render::loaded(ui, &loaded)?;
    let documents = count_of(loaded.documents, "document");
    ui.spent(&format!("{documents} loaded, {} unknown; Ctrl-C ends it", loaded.unknown), &cosmos, started);
    stop.await;
    past.shutdown().await;
    Ok(if loaded.is_complete() { Exit::Done } else { Exit::Incomplete })
}
