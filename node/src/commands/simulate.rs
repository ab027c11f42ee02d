//! `gauntlet simulate`: a whole permissionless run on one machine.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use gauntlet_model::engine::Footprint;
use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};
use serde_json::json;

use crate::cli::Usage;
use crate::device;
use crate::run::compute::Plan;
use crate::run::context::Run;
use crate::simulate::Simulation;
use crate::simulate::settings::{Settings, SimulateArgs};
use crate::simulate::table::Table;
use crate::{files, memory, output, progress};

/// Name of the resolved manifest in a run folder.
pub(crate) const MANIFEST: &str = "manifest.toml";

/// Name of the file of times in a run folder.
const TIMING: &str = "timing.json";

pub(crate) fn run(args: &SimulateArgs) -> Result<()> {
    let settings = args.settings()?;
    if args.plan {
        return plan(args, &settings);
    }
    // A simulation is a function of manifest, seed and program: the machine's GPU has no say unless it is named.
    let opened = device::open(args.device.device.or_cpu())?;
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
    let peers: usize = settings.peers.iter().map(|entry| entry.count).sum();
    let ledger = &run.manifest.chain.ledger;
    let nodes = peers + settings.validators.len() + usize::from(ledger.owner.is_some());
    let slots = ledger.subnet.registry.max_uids;
    if nodes > usize::from(slots) {
        let problem =
            format!("--peers: {nodes} nodes with validators and owner; the chain has {slots} slots");
        return Err(Usage(format!("{problem} (chain.ledger.subnet.registry.max_uids)")).into());
    }
    memory::check(host_bytes(&run, peers), "lower --peers or choose a smaller --preset")?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    files::write(&out.join(MANIFEST), &toml::to_string(&run.manifest)?)?;
    let parameters = run.layout.total();
    // On a GPU every outer step is made on the CPU too: that both give the same θ is what a simulation there shows.
    let compute = opened.compute(cpu, &run, peers)?.checked();
    eprintln!("run {}: {parameters} parameters, {}", run.id, compute.name());
    eprintln!("text: {}, {} tokens, hash {}", run.corpus.name, run.corpus.train.n_tokens(), run.corpus.hash);
    let started = Instant::now();
    let mut table = (!args.json && std::io::stdout().is_terminal()).then(|| Table::new(settings.windows));
    let mut simulation = Simulation::new(&settings, run, compute, &out)?;
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
    files::write(&out.join("summary.json"), format!("{}\n", serde_json::to_string_pretty(&summary)?))?;
    files::write(&out.join("report.html"), &simulation.page(&summary)?)?;
    files::write(&out.join(TIMING), format!("{:#}\n", json!(simulation.timing())))?;
    match table {
        Some(_) => println!("report: {}", out.join("report.html").display()),
        None => output::text(&format!("{}\n", json!({ "kind": "summary", "summary": summary })))?,
    }
    if summary.stalled > 0 {
        let (open, windows) = (summary.windows - summary.stalled, summary.windows);
        bail!("the run stood still: no validator published a record of window {open}, {windows} windows ran");
    }
    if !summary.all_agree {
        bail!(
            "honest nodes ended with different θ; {} says who stands where",
            out.join("summary.json").display()
        );
    }
    let (total, busy) = (started.elapsed().as_secs_f64(), simulation.busy().as_secs_f64());
    let rest = 100.0 * (1.0 - busy / total.max(1e-9));
    let peak =
        memory::peak_rss_bytes().map_or(String::new(), |bytes| format!(", {} MB at most", bytes / 1_000_000));
    eprintln!("{total:.1} s, {rest:.1} % of them not in forward and backward passes{peak}");
    Ok(())
}

/// Bytes of this machine's memory: θ, gradient, trial, a few results of outer steps, the baseline's three; a momentum each.
fn host_bytes(run: &Run, peers: usize) -> usize {
    (peers + 12).saturating_mul(4 * run.layout.total())
}

/// Prints what a run would take of this machine's memory and of the device's, whether it is there or not.
fn plan(args: &SimulateArgs, settings: &Settings) -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder for the text")?;
    let cpu = Cpu::new(args.threads, CodePath::Best)?;
    let corpus = args.data.open(folder.path(), cpu.threads())?;
    let manifest = args.manifest(&corpus)?;
    let run = Run::new(manifest, corpus)?;
    let peers: usize = settings.peers.iter().map(|entry| entry.count).sum();
    let footprint = device::footprint(args.device.device.or_cpu());
    let device =
        (footprint != Footprint::CPU).then(|| Plan::new(footprint, &run, peers, None)).transpose()?;
    let parameters = run.layout.total();
    let plan = json!({ "parameters": parameters, "host_bytes": host_bytes(&run, peers), "device": device });
    output::text(&format!("{plan:#}\n"))
}
