//! `gauntlet`: one binary for every role. This file parses, dispatches, and sets the exit code:
//! 0 done, 1 failed, 2 wrong usage.

mod allocator;
mod cli;
mod commands;
mod corpus;
mod eval;
mod export;
mod files;
mod memory;
mod model_folder;
mod output;
mod progress;
mod text_stream;
mod train;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    allocator::keep_memory();
    let cli = cli::Cli::parse();
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let usage = error.is::<cli::Usage>();
            eprintln!("error: {error:#}");
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}
