//! argv -> command -> exit code.

use std::process::ExitCode;

use clap::Parser;
use cosmos_rewind::{
    cli::Cli,
    console::{Exit, Ui},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| cosmos_rewind::cli::explained(error).exit());
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = cli.worker_threads() {
        builder.worker_threads(threads);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start the runtime: {e}");
            return Exit::Failed.into();
        }
    };
    let exit = runtime.block_on(cosmos_rewind::cli::run(cli, &Ui::standard()));
    #[cfg(feature = "mongodb")]
    runtime.block_on(cosmos_rewind::mongo::close());
    // A batch that outlived the drain must not keep the process alive: the host delivers it again.
    runtime.shutdown_background();
    exit.into()
}
