//! One file a command.

mod bench;
mod train;

use anyhow::Result;
use clap::Subcommand;

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Train a LLaMA on one machine with AdamW.
    Train(Box<train::TrainArgs>),
    /// Measure speed; results as JSON.
    #[command(subcommand)]
    Bench(bench::Bench),
}

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Train(args) => train::run(&args),
        Command::Bench(bench) => bench::run(bench),
    }
}
