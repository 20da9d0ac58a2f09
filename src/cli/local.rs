//! `local`: runs the embedded Cosmos account and the trigger for development.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde_json::json;
use tracing::info;

use crate::{
    config::{self, Names, Settings},
    console::{CliError, Exit, Ui, signals::stop_signal},
    cosmos::{
        Failure,
        provision::{self, ProvisionOptions},
    },
    host::functions::all_names,
    local::{
        LocalCosmos, LocalOptions,
        environment::{handler_settings, prepare, this_program},
        trigger::{HandlerProgram, Trigger, TriggerMode, TriggerOptions},
    },
    telemetry,
};

/// Which change feed the trigger delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FeedModeArg {
    /// The newest version of each document; deletes are invisible
    Latest,
    /// Every version and every delete
    AllVersions,
}

impl From<FeedModeArg> for TriggerMode {
    fn from(mode: FeedModeArg) -> Self {
        match mode {
            FeedModeArg::Latest => Self::Latest,
            FeedModeArg::AllVersions => Self::AllVersions,
        }
    }
}

/// Flags of `local`
#[derive(Debug, Args)]
#[command(after_help = "Everything is in memory: stop it and start it again for an empty account.\n\
    The first line on stdout is JSON and says where it listens; logs are on stderr.")]
pub struct LocalArgs {
    /// Port on 127.0.0.1; 0 takes any free one
    #[arg(long, default_value_t = 8081)]
    port: u16,
    /// Change feed mode of the trigger [default: what function.json says, else latest]
    #[arg(long, value_enum)]
    mode: Option<FeedModeArg>,
    /// Only the database: no trigger, no handler
    #[arg(long)]
    no_trigger: bool,
    /// Physical partitions of each container, and thus leases of the trigger
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    partitions: u32,
    /// Executable of the handler, started with the arguments of host.json [default: this program, `serve`]
    #[arg(long, value_name = "PATH", conflicts_with = "no_trigger")]
    handler: Option<PathBuf>,
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// When the port is taken, the function folder is wrong, or the handler cannot be kept running.
pub async fn run(args: LocalArgs, ui: &Ui) -> Result<Exit, CliError> {
    let app_root = config::app_root();
    let settings = Settings::load(&app_root)?;
    telemetry::start(&settings, telemetry::LogStream::Stderr, "info")?;
    let names = Names::from_settings(&settings, None)?;
    // Registered before the handler starts: an early signal must not leave it behind.
    let stop = stop_signal()?;
    let local =
        LocalCosmos::start(LocalOptions { port: args.port, partitions: args.partitions, ..LocalOptions::default() })
            .await?;
    let cosmos = prepare(&local, &names).await?;
    // Functions that watch other containers have settings of their own.
    for own in all_names(&app_root, &settings)?.into_iter().filter(|own| *own != names) {
        provision::provision(&cosmos, &own, &ProvisionOptions::default()).await.map_err(Failure::from)?;
    }
    let trigger = if args.no_trigger {
        None
    } else {
        let mut options = TriggerOptions::new(&app_root);
        options.handler = match args.handler {
            Some(executable) => HandlerProgram::Program { executable, arguments: None },
            None => this_program()?,
        };
        options.settings = handler_settings(&local, &names);
        options.mode = args.mode.map(TriggerMode::from);
        Some(Trigger::start(&local, options).await?)
    };

    let ready = json!({
        "event": "ready", "endpoint": local.endpoint().as_str(), "key": local.key(), "database": names.database,
        "source": names.source, "changes": names.changes, "leases": names.leases,
    });
    ui.json(&ready)?;
    info!(endpoint = local.endpoint().as_str(), trigger = trigger.is_some(), "local environment is up; Ctrl-C ends it");

    let outcome = match &trigger {
        Some(trigger) => tokio::select! {
            reason = trigger.handler_stopped() => {
                let hint = "the handler's own lines above say why; the host would have given up too";
                Err(CliError::failed(reason).hint(hint))
            }
            () = stop => Ok(Exit::Done),
        },
        None => {
            stop.await;
            Ok(Exit::Done)
        }
    };
    if let Some(trigger) = trigger {
        let stats = trigger.stats().await;
        info!(
            delivered = stats.delivered,
            invocations = stats.invocations,
            failures = stats.failures,
            pending = stats.pending,
            "stopping"
        );
        trigger.stop().await;
    }
    let _ = tokio::time::timeout(Duration::from_secs(2), local.shutdown()).await;
    outcome
}
