//! One file a command.

mod bench;
mod bench_attention;
mod bench_demo;
mod bench_gemm;
mod bench_step;
mod data;
mod doctor;
mod eval;
mod explain;
mod export;
mod generate;
mod inspect;
mod manifest;
mod simulate;
mod train;

use anyhow::Result;
use clap::Subcommand;

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a whole permissionless network in one process.
    Simulate(Box<crate::simulate::settings::SimulateArgs>),
    /// Train a LLaMA on one machine, with AdamW or DeMo.
    Train(Box<train::TrainArgs>),
    /// Measure a model: loss on text, or multiple-choice questions.
    Eval(Box<eval::EvalArgs>),
    /// Continue a text.
    Generate(generate::GenerateArgs),
    /// Write a model for other programs.
    Export(export::ExportArgs),
    /// Prepare, inspect and check data.
    #[command(subcommand)]
    Data(data::Data),
    /// Say why a peer earned what it earned.
    Explain(explain::ExplainArgs),
    /// Write a commented run manifest.
    Init(manifest::InitArgs),
    /// Show the settings of a run.
    #[command(subcommand)]
    Config(manifest::Config),
    /// Print what an object of a run says.
    Inspect(inspect::InspectArgs),
    /// Measure speed; results as JSON.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Say what this machine computes with, and what is missing.
    Doctor(doctor::DoctorArgs),
}

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Simulate(args) => simulate::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Data(data) => data::run(data),
        Command::Explain(args) => explain::run(&args),
        Command::Init(args) => manifest::init(&args),
        Command::Config(manifest::Config::Print(args)) => manifest::print(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Bench(bench) => bench::run(bench),
        Command::Doctor(args) => doctor::run(&args),
    }
}
