//! `gauntlet init` writes a run manifest, `gauntlet config print` shows one resolved, with its run id.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::Usage;
use crate::corpus::DataArgs;
use crate::run::manifest::Manifest;
use crate::simulate::settings::of_flags;
use crate::{files, output};

/// Write a commented run manifest.
#[derive(Args)]
pub(crate) struct InitArgs {
    /// File to write.
    #[arg(long, value_name = "FILE", default_value = "run.toml")]
    out: PathBuf,
    /// Name of the run, for people.
    #[arg(long, default_value = "my-run")]
    name: String,
    /// Model shape.
    #[arg(long, default_value = "byte-1m")]
    preset: String,
    /// Tokens in a sequence.
    #[arg(long, default_value_t = 128)]
    seq: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 4e-3)]
    lr: f64,
    /// Windows after which the learning rate has come down.
    #[arg(long, default_value_t = 100)]
    windows: u64,
    /// Seed of the initial weights.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Settings of a run.
#[derive(Subcommand)]
pub(crate) enum Config {
    /// Print a manifest with every value, and the run id.
    Print(PrintArgs),
}

/// Which manifest.
#[derive(Args)]
pub(crate) struct PrintArgs {
    /// The manifest.
    #[arg(long, value_name = "FILE", default_value = "run.toml")]
    config: PathBuf,
}

pub(crate) fn init(args: &InitArgs) -> Result<()> {
    let path = args.out.display();
    if args.out.exists() && !args.force {
        return Err(Usage(format!("{path}: exists; name another --out, or replace it with --force")).into());
    }
    let Some(work) = args.out.parent() else { bail!("{path}: names no file") };
    let corpus = args.data.open(work, 0, args.seq)?;
    let rates = (args.lr, args.windows);
    let manifest =
        Manifest { name: args.name.clone(), ..of_flags(&args.preset, args.seq, rates, args.seed, &corpus) };
    manifest.check()?;
    files::write(&args.out, &commented(&manifest)?)?;
    // What was written is what is read: comments are not part of a run.
    let id = Manifest::read(&args.out)?.id()?;
    output::note(format_args!("{path}: run {id}"));
    Ok(())
}

pub(crate) fn print(args: &PrintArgs) -> Result<()> {
    let manifest = Manifest::read(&args.config)?;
    output::text(&format!("# run {}\n{}", manifest.id()?, toml::to_string(&manifest)?))
}

/// The manifest with what each section means; values that are usually left alone are left out.
fn commented(manifest: &Manifest) -> Result<String> {
    let mut text = String::from(
        "# A run: everything all its nodes must agree on. Its hash is the run's id, so any change makes another run;\n\
         # comments and order do not count. `gauntlet config print` shows every value.\n\n",
    );
    text +=
        &format!("protocol = {}\nname = {}\n", manifest.protocol, toml::Value::from(manifest.name.as_str()));
    text += "\n# What is trained: a named shape (the vocabulary is the tokenizer's), and the seed of its first weights.\n";
    text += &section("model", &manifest.model)?;
    text +=
        "\n# What it is trained on, by hash: each node keeps its own copy. `seq`: tokens in a sequence.\n";
    text += &section("data", &manifest.data)?;
    text += "\n# How submissions are made and applied (scheme demo). `decay`: share of the momentum that survives a window;\n\
             # `topk`: coefficients sent of each chunk; `min_gather`: fewer submissions make no step.\n";
    text += &section("optimizer", &manifest.optimizer)?;
    text += "\n# When what happens, in blocks. The first `commit` + `reveal` + 1 blocks of a window close the one before;\n\
             # then leaders have `record` blocks each to publish the record.\n";
    text += &section("window", &manifest.window)?;
    text += "\n# How peers are judged and paid: profile \"paper\" or \"reference-2026\"; every rule can be set below it,\n\
             # as in [gauntlet.proof] floor = 0.1.\n[gauntlet]\nprofile = \"paper\"\n";
    text += &format!(
        "\n# How much a match says about its peers: a short run needs a smaller beta than the paper's 20.\n\
         [gauntlet.rating]\nbeta = {}\n",
        toml::Value::from(manifest.gauntlet.rating.beta)
    );
    text += "\n# The embedded chain, and how often validators set weights.\n";
    text += &format!("[chain]\nwindows_per_weights = {}\n\n", manifest.chain.windows_per_weights);
    let ledger = &manifest.chain.ledger;
    text += &format!(
        "[chain.ledger]\nblock_time_ms = {}\nemission_per_block = {}\n",
        ledger.block_time_ms, ledger.emission_per_block
    );
    Ok(text)
}

/// A section as text.
fn section(name: &str, value: impl Serialize) -> Result<String> {
    let table = toml::Table::from_iter([(name.to_owned(), toml::Value::try_from(value)?)]);
    Ok(toml::to_string(&table)?)
}
