//! `follow`: capture with our own change feed reader, for those who run without the Functions host.

use std::{io, sync::Arc};

use tokio_util::sync::CancellationToken;

pub use super::follow_args::FollowArgs;
use super::{follow_args::options, sinks::targets};
use crate::{
    config::{self, AccountSettings, CaptureConfig, ConfigError, Names, Secret, Settings},
    console::{CliError, Exit, Ui, render::follow as render, signals::watch_signals},
    context::Context,
    cosmos::Cosmos,
    follow::{self, FieldRules, Filter, FollowedSource, Metrics, Request, health::Health},
    telemetry::{self, otlp::Export},
};

/// Runs until stopped, or until nothing is left.
///
/// # Errors
/// When a flag or setting is wrong, or when the source, a sink or the checkpoint refuses. What may pass is retried.
pub async fn run(args: FollowArgs, ui: &Ui) -> Result<Exit, CliError> {
    let settings = args.connection.settings_with(args.dead_letters.as_ref())?;
    let source = args.connection.followed(&settings)?;
    let account = account_of(&args, &source, &settings)?;
    let cosmos = Cosmos::new(account.clone());
    let options = options(ui, &args, &source, &cosmos).await?;
    let sinks = targets(ui, &args)?;
    let filter = args.filter.as_deref().map(Filter::compile).transpose()?;
    let config = CaptureConfig::from_settings(&settings, &config::app_root())?;
    let key = settings.get("REWIND_REDACT_KEY").map(Secret::new);
    let fields = FieldRules { only: args.fields, redact: args.redact, key };
    let metrics = Arc::new(Metrics::default());
    let (checkpoint_file, credential) = (args.checkpoint_file, account.credential);
    let request = Request {
        source,
        options,
        sinks,
        filter,
        fields,
        checkpoint_file,
        config,
        credential,
        metrics: metrics.clone(),
    };
    request.check()?;
    telemetry::start(&settings, telemetry::LogStream::Stderr, "info")?;
    let names = Names::from_settings(&settings, None)?;
    let stop = CancellationToken::new();
    tokio::spawn(watch_signals(stop.clone()));
    if let Some(address) = args.metrics {
        let health = Health::of(&request.options, metrics.clone(), cosmos.meter().clone(), ui.clock().clone());
        health.listen(address, stop.clone()).await.map_err(|e| {
            let hint = match e.kind() {
                io::ErrorKind::AddrNotAvailable => "name an address of this machine, or 0.0.0.0 for all of them",
                io::ErrorKind::PermissionDenied => "name a port from 1024 on; port 0 takes any free one",
                _ => "end the process that has the port, or name another one; port 0 takes any free one",
            };
            CliError::failed(format!("--metrics {address}")).because(e).hint(hint)
        })?;
    }
    let export = Export::start(&settings)?;
    if let Some(export) = &export {
        export.follow(&request.options.name, metrics, cosmos.meter().clone());
    }
    let ended = follow::run(request, &Context { stop, ..ui.context(&cosmos, &names) }).await;
    if let Some(export) = export {
        export.finish().await;
    }
    Ok(render::show(ui, &ended?))
}

/// The account of the history and the leases, which a follower of MongoDB into files does not have.
fn account_of(args: &FollowArgs, source: &FollowedSource, settings: &Settings) -> Result<AccountSettings, CliError> {
    if matches!(source, FollowedSource::Container) || AccountSettings::is_named(settings) {
        return Ok(AccountSettings::from_settings(settings)?);
    }
    let hint = if args.sinks.is_empty() || args.sinks.iter().any(|sink| sink == "changes") {
        "the sink `changes` is a container of Cosmos DB: set CosmosDB to the account's connection string, or \
         CosmosDB__accountEndpoint for keyless identity; with --sink stdout --checkpoint-file FILE no account is needed"
    } else if args.checkpoint_file.is_none() {
        "add --checkpoint-file FILE, which keeps the place in the stream, and no account is needed; or set CosmosDB to \
         the account that keeps it"
    } else {
        return Ok(AccountSettings::nowhere()?);
    };
    Err(ConfigError::new("CosmosDB", "is missing", hint).into())
}
