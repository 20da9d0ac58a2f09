//! `provision`: creates the database and its containers, or checks those that exist.

use clap::Args;

use super::ConnectionArgs;
use crate::{
    config::{AccountSettings, Names},
    console::{CliError, Exit, Ui, render},
    cosmos::{Cosmos, Disposition, Failure, Status, provision::NotProvisioned},
    format::Format,
    provision::{self, ProvisionError, Request, Throughput},
};

/// Flags of `provision`.
#[derive(Debug, Args)]
#[command(after_help = "What exists is checked and left as it is. Running it again is harmless.")]
pub struct ProvisionArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Partition key path of a new source container; repeat for a hierarchical key [default: /pk]
    #[arg(long = "pk", value_name = "PATH")]
    paths: Vec<String>,
    /// Also index this path in a new changes container, so that the history can be searched by it; repeatable
    #[arg(long = "index", value_name = "PATH")]
    indexes: Vec<String>,
    /// Fixed throughput of new source and changes containers [default: the database's, or serverless]
    #[arg(long, value_name = "RU/S", conflicts_with = "autoscale", value_parser = clap::value_parser!(u64).range(400..=10_000_000))]
    throughput: Option<u64>,
    /// Autoscale maximum of new source and changes containers
    #[arg(long, value_name = "RU/S", value_parser = clap::value_parser!(u64).range(1000..=10_000_000))]
    autoscale: Option<u64>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
///
/// # Errors
/// When a path is wrong, the account refuses, or an existing container cannot be used.
pub async fn run(args: ProvisionArgs, ui: &Ui) -> Result<Exit, CliError> {
    let settings = args.connection.settings()?;
    let elsewhere = args.connection.mongo_uri(&settings)?.is_some();
    if elsewhere && !args.paths.is_empty() {
        return Err(CliError::usage(
            "--pk is for a source container, and the source is a MongoDB deployment",
            "leave it out: documents of MongoDB are known by their _id",
        ));
    }
    let request = Request {
        elsewhere,
        source_paths: args.paths,
        indexes: args.indexes,
        throughput: args.throughput.map(Throughput::Manual).or(args.autoscale.map(Throughput::Autoscale)),
    };
    request.check()?;
    let names = Names::from_settings(&settings, None)?;
    let cosmos = Cosmos::new(AccountSettings::from_settings(&settings)?);
    let report = provision::run(request, &ui.context(&cosmos, &names)).await?;
    render::provision::show(ui, &report, args.format)?;
    match report.unusable() {
        None => Ok(Exit::Done),
        Some(one) => {
            let role = one.role.as_str();
            Err(CliError::failed(format!("container {} cannot serve as {role}", one.name))
                .hint(format!("name another one with --{role}, and it is created")))
        }
    }
}

/// How paths are written.
const EXAMPLE: &str = "write paths like --pk /tenant --pk /user/id, --index /city_name";

impl From<ProvisionError> for CliError {
    fn from(error: ProvisionError) -> Self {
        match error {
            ProvisionError::SourcePaths(problem) => Self::usage("--pk", EXAMPLE).because(problem),
            ProvisionError::IndexPath(path) => Self::usage(format!("--index: {path:?} is not a path"), EXAMPLE),
            // Data-plane roles may not create containers, which a 403 does not make obvious.
            ProvisionError::Account(NotProvisioned::Create(failure))
                if failure.disposition == Disposition::Denied && failure.status != Status::OF_A_MOMENT =>
            {
                let hint = "identities with data roles cannot create databases or containers: use the account key once, \
                            or create them with az cosmosdb or Bicep";
                Self::from(failure).hint(hint)
            }
            ProvisionError::Account(error) => Failure::from(error).into(),
        }
    }
}
