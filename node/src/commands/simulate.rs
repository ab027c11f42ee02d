//! `gauntlet simulate`: a whole permissionless run on one machine.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, Result, bail};
use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};
use serde_json::json;

use crate::run::context::Run;
use crate::simulate::Simulation;
use crate::simulate::settings::SimulateArgs;
use crate::simulate::table::Table;
use crate::{files, output, progress};

/// Name of the resolved manifest in a run folder.
pub(crate) const MANIFEST: &str = "manifest.toml";

pub(crate) fn run(args: &SimulateArgs) -> Result<()> {
    let settings = args.settings()?;
    let cpu = Cpu::new(args.threads, CodePath::Best)?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => super::train::next_free(Path::new("runs"), "simulate")?,
    };
    if out.join(crate::simulate::log::EVENTS).exists() {
        bail!("{}: holds a run already; name another --out", out.display());
    }
    progress::catch_signals()?;
    let corpus = args.data.open(&out, cpu.threads())?;
    let manifest = args.manifest(&corpus)?;
    let run = Run::new(manifest, corpus)?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    files::write(&out.join(MANIFEST), &toml::to_string(&run.manifest)?)?;
    let parameters = run.layout.total();
    eprintln!("run {}: {parameters} parameters, {} threads, {}", run.id, cpu.threads(), cpu.simd_name());
    eprintln!("text: {}, {} tokens, hash {}", run.corpus.name, run.corpus.train.n_tokens(), run.corpus.hash);
    let mut table = (!args.json && std::io::stdout().is_terminal()).then(|| Table::new(settings.windows));
    let mut simulation = Simulation::new(&settings, run, cpu, &out)?;
    for w in 0..settings.windows {
        if progress::stopped() {
            break;
        }
        let result = simulation.window(w)?;
        match &mut table {
            Some(table) => table.draw(&simulation, &result)?,
            None => output::text(&format!("{}\n", serde_json::to_string(&result)?))?,
        }
    }
    let summary = simulation.summary(settings.seed)?;
    files::write(&out.join("summary.json"), &format!("{}\n", serde_json::to_string_pretty(&summary)?))?;
    files::write(&out.join("report.html"), &simulation.page(&summary)?)?;
    match table {
        Some(_) => println!("report: {}", out.join("report.html").display()),
        None => output::text(&format!("{}\n", json!({ "kind": "summary", "summary": summary })))?,
    }
    Ok(())
}
