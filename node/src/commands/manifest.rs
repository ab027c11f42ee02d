//! `gauntlet init` writes a run manifest, `gauntlet config print` shows one resolved, with its run id.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::{Usage, kept_number};
use crate::corpus::DataArgs;
use crate::run::manifest::Manifest;
use crate::simulate::settings::{no_text, of_flags, of_section};
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
    #[arg(long, default_value_t = 100, value_parser = kept_number::<u64>())]
    windows: u64,
    /// Seed of the initial weights.
    #[arg(long, default_value_t = 42, value_parser = kept_number::<u64>())]
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
    let rates = (args.lr, args.windows);
    // What no text can mend is refused before any is prepared.
    of_section(&args.preset, rates, args.seed, no_text(args.seq)).check()?;
    let Some(work) = args.out.parent() else { bail!("{path}: names no file") };
    if let Some(folder) = args.data.prepared_in(work) {
        let folder = folder.display();
        output::note(format_args!(
            "text: prepared in {folder}, which nodes of this run take with --data {folder}"
        ));
    }
    let corpus = args.data.open(work, 0, args.seq)?;
    let manifest =
        Manifest { name: args.name.clone(), ..of_flags(&args.preset, args.seq, rates, args.seed, &corpus) };
    manifest.check()?;
    let text = written(&args.out, &manifest)?;
    files::write(&args.out, &text)?;
    output::note(format_args!("{path}: run {}", manifest.id()?));
    Ok(())
}

pub(crate) fn print(args: &PrintArgs) -> Result<()> {
    let manifest = Manifest::read(&args.config)?;
    output::text(&format!("# run {}\n{}", manifest.id()?, toml::to_string(&manifest)?))
}

/// The text of `manifest` as the file `path`. What is read of it must be the same run: comments are no part of one, and
/// what the text leaves out must have its default.
fn written(path: &Path, manifest: &Manifest) -> Result<String> {
    let text = commented(manifest)?;
    let (meant, read) = (manifest.id()?, Manifest::parse(path, &text)?.id()?);
    if read != meant {
        bail!("{}: would read as run {read}, not as {meant}; nothing was written", path.display());
    }
    Ok(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_the_run_that_was_meant() {
        let corpus = DataArgs::default().open(Path::new(""), 1, 32).unwrap();
        let path = Path::new("run.toml");
        for (lr, windows, seed) in [(4e-3, 100, 42), (1.0 / 3.0, 1, 0), (1e-7, 1_000_000, 1 << 62)] {
            let manifest = of_flags("byte-1m", 32, (lr, windows), seed, &corpus);
            let text = written(path, &manifest).unwrap();
            assert_eq!(Manifest::parse(path, &text).unwrap(), manifest);
            assert!(text.contains("\nmin_gather = 3\n"), "the protocol's: {text}");
        }
        // A rule that the text does not carry.
        let mut other = of_flags("byte-1m", 32, (4e-3, 100), 42, &corpus);
        other.gauntlet.proof.floor = 0.25;
        let error = written(path, &other).unwrap_err().to_string();
        assert!(error.contains(&other.id().unwrap().to_string()), "{error}");
    }
}
