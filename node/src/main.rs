//! `gauntlet`: one binary for every role. This file parses, dispatches, and sets the exit code:
//! 0 done, 1 failed, 2 wrong usage.

mod allocator;
mod chain;
mod cli;
mod commands;
mod corpus;
mod device;
mod eval;
mod export;
mod files;
mod fit;
mod memory;
mod model_folder;
mod output;
mod progress;
mod report;
mod run;
mod simulate;
mod storage;
mod text_stream;
mod train;

use std::process::ExitCode;

use clap::Parser;
use gauntlet_model::ModelError;

fn main() -> ExitCode {
    allocator::keep_memory();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            eprintln!("{}; see --help", one_line(&error.render().to_string()));
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

/// Whether the command line was wrong, rather than the world.
fn is_usage(error: &anyhow::Error) -> bool {
    use gauntlet_data::Error::{HubSpec, Part, ShardLimit, Validation, VocabSize};
    let shape = matches!(
        error.downcast_ref(),
        Some(ModelError::UnknownPreset { .. } | ModelError::Threads { .. } | ModelError::Batch(_))
    );
    let text = matches!(
        error.downcast_ref(),
        Some(HubSpec { .. } | Part { .. } | ShardLimit | Validation { .. } | VocabSize { .. })
    );
    shape || text || error.is::<cli::Usage>()
}

/// The first paragraph of the parser's message, without its line breaks.
fn one_line(message: &str) -> String {
    let paragraph = message.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
    paragraph.collect::<Vec<_>>().join(" ")
}
