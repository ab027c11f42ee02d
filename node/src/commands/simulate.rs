//! `gauntlet simulate`: a whole permissionless run on one machine.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};
use serde_json::json;

use crate::claim::{Claim, Leftovers};
use crate::cli::Usage;
use crate::device;
use crate::output::note;
use crate::run::compute::Plan;
use crate::run::context::Run;
use crate::simulate::Simulation;
use crate::simulate::needs::HostMemory;
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

/// What to do where a run does not fit the machine's memory.
const REMEDY: &str =
    "lower --peers or --windows, keep objects in files with --keep-objects, or choose a smaller --preset";

pub(crate) fn run(args: &SimulateArgs) -> Result<()> {
    let settings = args.settings()?;
    if args.plan {
        return plan(args, &settings);
    }
    // A simulation is a function of manifest, seed and program: the machine's GPU has no say unless it is named.
    let opened = device::open(args.device.or_cpu())?;
    let cpu = Cpu::new(args.threads, CodePath::Best)?;
    let named = args.named_manifest(&settings)?;
    progress::catch_signals()?;
    let mut claim = Claim::new(args.out.as_deref(), "simulate", Leftovers::Remove)?;
    let out = claim.folder().to_path_buf();
    if out.join(crate::simulate::log::EVENTS).exists() {
        bail!("{}: holds a run already; name another --out", out.display());
    }
    let seq = named.as_ref().map_or(args.seq, |manifest| manifest.data.seq);
    let corpus = args.data.open(&out, cpu.threads(), seq)?;
    let manifest = match named {
        Some(manifest) => manifest,
        None => args.manifest_of(&settings, &corpus)?,
    };
    let run = Run::new(manifest, corpus)?;
    let peers = settings.n_peers();
    let ledger = &run.manifest.chain.ledger;
    let nodes = peers + settings.validators.len() + usize::from(ledger.owner.is_some());
    let slots = ledger.subnet.registry.max_uids;
    if nodes > usize::from(slots) {
        let problem =
            format!("--peers: {nodes} nodes with validators and owner; the chain has {slots} slots");
        return Err(Usage(format!("{problem} (chain.ledger.subnet.registry.max_uids)")).into());
    }
    let there = there(args, &run, peers)?;
    memory::check(HostMemory::new(&run, &settings, there.as_ref()).total(), REMEDY)?;
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
    claim.keep();
    if let Some(table) = table.clone() {
        simulation.watched(Watch::by(move |moment| table.borrow_mut().moment(moment)));
    }
    for w in 0..settings.windows {
        if progress::stopped() {
            break;
        }
        let Some(result) = simulation.window(w)? else { break };
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
        None => {
            output::text(&format!("{}\n", json!({ "kind": "summary", "summary": summary })))?;
            note(format_args!("report: {}", out.join("report.html").display()));
        }
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
    let (all, measured) = simulation.spent(started.elapsed());
    let peak =
        memory::peak_rss_bytes().map_or(String::new(), |bytes| format!(", {} MB at most", bytes / 1_000_000));
    note(format_args!("the run: {all}{peak}"));
    note(format_args!("its windows, without baseline and held-out losses: {}", all.without(measured)));
    Ok(())
}

/// What is computed on a device with memory of its own, where one is named.
fn there(args: &SimulateArgs, run: &Run, peers: usize) -> Result<Option<Plan>> {
    let known = device::known(args.device.or_cpu());
    known.own_memory.then(|| Plan::new(known.footprint, run, peers, known.free.device)).transpose()
}

/// Prints what a run would take of this machine's memory and of the device's, whether it is there or not.
fn plan(args: &SimulateArgs, settings: &Settings) -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder for the text")?;
    let cpu = Cpu::new(args.threads, CodePath::Best)?;
    let named = args.named_manifest(settings)?;
    let seq = named.as_ref().map_or(args.seq, |manifest| manifest.data.seq);
    let corpus = args.data.open(folder.path(), cpu.threads(), seq)?;
    let manifest = named.map_or_else(|| args.manifest_of(settings, &corpus), Ok)?;
    let run = Run::new(manifest, corpus)?;
    let device = there(args, &run, settings.n_peers())?;
    let (parameters, host) = (run.layout.total(), HostMemory::new(&run, settings, device.as_ref()));
    let plan = json!({
        "parameters": parameters, "host_bytes": host.total(), "host": host, "device": device,
    });
    output::text(&format!("{plan:#}\n"))
}
