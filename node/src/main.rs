//! `gauntlet`: one binary for every role. This file parses, dispatches, and sets the exit code:
//! 0 done, 1 failed, 2 wrong usage.

mod allocator;
mod chain;
mod claim;
mod cli;
mod commands;
mod corpus;
mod device;
mod eval;
mod export;
mod failure;
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
mod team;
mod text_stream;
mod train;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

fn main() -> ExitCode {
    allocator::keep_memory();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        // No command at all: the list of them.
        Err(help) if help.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => help.exit(),
        Err(error) if error.use_stderr() => {
            output::note(format_args!("{}; see --help", one_line(&error.render().to_string())));
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("error: {}", failure::line(&error)));
            ExitCode::from(if failure::is_usage(&error) { 2 } else { 1 })
        }
    }
}

/// The first paragraph of the parser's message, without its line breaks.
fn one_line(message: &str) -> String {
    let paragraph = message.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
    paragraph.collect::<Vec<_>>().join(" ")
}
