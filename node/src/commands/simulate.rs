//! `gauntlet simulate`: a whole permissionless run on one machine.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};
use serde_json::json;

use crate::cli::Usage;
use crate::device;
use crate::output::note;
use crate::run::compute::Plan;
use crate::run::context::Run;
use crate::simulate::Simulation;
use crate::simulate::settings::{Settings, SimulateArgs};
use crate::simulate::table::Table;
use crate::simulate::watch::Watch;
use crate::{files, memory, output, progress};

/// Name of the resolved manifest in a run folder.
pub(crate) const MANIFEST: &str = "manifest.toml";

/// Name of the summary in a run folder.
pub(crate) const SUMMARY: &str = "summary.json";

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
    let named = args.named_manifest()?;
    progress::catch_signals()?;
    let fresh = Fresh::new(&out);
    let seq = named.as_ref().map_or(args.seq, |manifest| manifest.data.seq);
    let corpus = args.data.open(&out, cpu.threads(), seq)?;
    let manifest = match named {
        Some(manifest) => manifest,
        None => args.manifest_of(&corpus)?,
    };
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
    let there = there(args, &run, peers)?;
    let needed = host_bytes(&run, &settings, there.as_ref());
    memory::check(needed, "lower --peers or choose a smaller --preset")?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    files::write(&out.join(MANIFEST), &toml::to_string(&run.manifest)?)?;
    let parameters = run.layout.total();
    // On a GPU every outer step is made on the CPU too: that both give the same θ is what a simulation there shows.
    let compute = opened.compute(cpu, &run, peers)?.checked();
    note(format_args!("run {}: {parameters} parameters, {}", run.id, compute.name()));
    let (name, tokens) = (&run.corpus.name, run.corpus.train.n_tokens());
    note(format_args!("text: {name}, {tokens} tokens, hash {}", run.corpus.hash));
    let started = Instant::now();
    let table = (!args.json && std::io::stdout().is_terminal())
        .then(|| Rc::new(RefCell::new(Table::new(settings.windows))));
    let mut simulation = Simulation::new(&settings, run, compute, &out)?;
    fresh.keep();
    if let Some(table) = table.clone() {
        simulation.watched(Watch::by(move |moment| table.borrow_mut().moment(moment)));
    }
    for w in 0..settings.windows {
        if progress::stopped() {
            break;
        }
        let result = simulation.window(w)?;
        match &table {
            Some(table) => table.borrow_mut().window(&simulation, &result)?,
            None => output::text(&format!("{}\n", serde_json::to_string(&result)?))?,
        }
    }
    let summary = simulation.summary(&settings)?;
    files::write(&out.join(SUMMARY), format!("{}\n", serde_json::to_string_pretty(&summary)?))?;
    files::write(&out.join("report.html"), &simulation.page(&summary)?)?;
    files::write(&out.join(TIMING), format!("{:#}\n", json!(simulation.timing())))?;
    match table {
        Some(_) => output::text(&format!("report: {}\n", out.join("report.html").display()))?,
        None => output::text(&format!("{}\n", json!({ "kind": "summary", "summary": summary })))?,
    }
    if summary.stalled > 0 {
        let (open, windows) = (summary.windows - summary.stalled, summary.windows);
        bail!("the run stood still: no validator published a record of window {open}, {windows} windows ran");
    }
    if !summary.all_agree {
        bail!("honest nodes ended with different θ; {} says who stands where", out.join(SUMMARY).display());
    }
    if summary.interrupted {
        note(format_args!("interrupted after {} of {} windows", summary.windows, settings.windows));
    }
    let (total, busy) = (started.elapsed().as_secs_f64(), simulation.busy().as_secs_f64());
    let rest = 100.0 * (1.0 - busy / total.max(1e-9));
    let peak =
        memory::peak_rss_bytes().map_or(String::new(), |bytes| format!(", {} MB at most", bytes / 1_000_000));
    note(format_args!("{total:.1} s, {rest:.1} % of them not in forward and backward passes{peak}"));
    Ok(())
}

/// The folder of a run that is being set up. Where that fails, what was not there before goes again.
struct Fresh(Vec<PathBuf>);

impl Fresh {
    fn new(out: &Path) -> Self {
        Self([out.to_path_buf(), out.join("data")].into_iter().filter(|path| !path.exists()).collect())
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        for path in &self.0 {
            // It may never have been made.
            _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Bytes of this machine's memory: θ, gradient, trial, a few results of outer steps; the baseline's three where it runs; a
/// momentum each where they are not on the device.
fn host_bytes(run: &Run, settings: &Settings, there: Option<&Plan>) -> usize {
    let momenta = match there {
        Some(plan) if plan.momenta_on_device => 0,
        _ => settings.peers.iter().map(|entry| entry.count).sum(),
    };
    let baseline = if settings.baseline { 3 } else { 0 };
    (9 + baseline + momenta).saturating_mul(4 * run.layout.total())
}

/// What is computed on a device with memory of its own, where one is named.
fn there(args: &SimulateArgs, run: &Run, peers: usize) -> Result<Option<Plan>> {
    let known = device::known(args.device.device.or_cpu());
    known.own_memory.then(|| Plan::new(known.footprint, run, peers, known.free.device)).transpose()
}

/// Prints what a run would take of this machine's memory and of the device's, whether it is there or not.
fn plan(args: &SimulateArgs, settings: &Settings) -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder for the text")?;
    let cpu = Cpu::new(args.threads, CodePath::Best)?;
    let named = args.named_manifest()?;
    let seq = named.as_ref().map_or(args.seq, |manifest| manifest.data.seq);
    let corpus = args.data.open(folder.path(), cpu.threads(), seq)?;
    let manifest = named.map_or_else(|| args.manifest_of(&corpus), Ok)?;
    let run = Run::new(manifest, corpus)?;
    let peers: usize = settings.peers.iter().map(|entry| entry.count).sum();
    let device = there(args, &run, peers)?;
    let (parameters, host_bytes) = (run.layout.total(), host_bytes(&run, settings, device.as_ref()));
    let plan = json!({ "parameters": parameters, "host_bytes": host_bytes, "device": device });
    output::text(&format!("{plan:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setup_that_fails_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let prepare = || std::fs::create_dir_all(out.join("data/train")).unwrap();
        let fresh = Fresh::new(&out);
        prepare();
        drop(fresh);
        assert!(!out.exists());
        std::fs::create_dir(&out).unwrap();
        let fresh = Fresh::new(&out);
        prepare();
        drop(fresh);
        assert!(out.exists() && !out.join("data").exists());
        prepare();
        drop(Fresh::new(&out));
        let fresh = Fresh::new(&folder.path().join("other"));
        std::fs::create_dir(folder.path().join("other")).unwrap();
        fresh.keep();
        assert!(out.join("data/train").exists() && folder.path().join("other").exists());
    }
}
