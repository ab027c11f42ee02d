//! What is simulated, as typed.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use gauntlet::Digest;
use gauntlet_demo::{DemoConfig, Optimizer, Schedule};

use super::spec::{self, Entry, ValidatorKind};
use crate::cli::{Usage, kept_number};
use crate::corpus::{Corpus, DataArgs};
use crate::device::Choice;
use crate::run::manifest::{ChainSection, DataSection, Manifest, ModelSection, PROTOCOL, WindowSection};

/// Peers unless told otherwise.
const PEERS: &str = "honest:4,honest:4@2,lazy,copycat,signflip,stale,late,malformed";

/// Stake of the least validator; the others have multiples of it.
const STAKE: u64 = 1_000 * crate::chain::UNITS;

/// What `--validators` takes.
fn validators_help() -> String {
    let known = spec::known_validators();
    format!("Validators: a number, or a list of {known} (W: a window). The first has most stake")
}

/// A whole network in one process, under a virtual clock.
#[derive(Args, Clone, Debug)]
pub(crate) struct SimulateArgs {
    /// Who takes part: a number of honest peers, or a list (an unknown name prints all).
    #[arg(long, default_value = PEERS)]
    peers: String,
    /// Validators: a number, or a list of known kinds. The first has most stake.
    #[arg(long, default_value = "2", help = validators_help())]
    validators: String,
    /// Windows.
    #[arg(long, default_value_t = 100)]
    windows: u64,
    /// Sequences a machine of speed 1 trains on in a window.
    #[arg(long, default_value_t = 8)]
    sequences: u32,
    /// Run manifest (see `gauntlet init`): shape, rates and the hash of the text come from it; name the same text with --data
    /// (and --tokenizer).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["preset", "seq", "lr"])]
    pub(crate) manifest: Option<PathBuf>,
    /// Model shape.
    #[arg(long, default_value = "byte-1m")]
    preset: String,
    /// Tokens in a sequence.
    #[arg(long, default_value_t = 128)]
    pub(crate) seq: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 4e-3)]
    lr: f64,
    /// Seed of keys, blocks and behaviours and, without --manifest, of the initial weights.
    #[arg(long, default_value_t = 42, value_parser = kept_number::<u64>())]
    seed: u64,
    /// Keep all objects of the run in OUT/objects.
    #[arg(long)]
    keep_objects: bool,
    /// Do not train the centralised baseline beside it.
    #[arg(long)]
    pub(crate) no_baseline: bool,
    /// Folder of the run [default: the next free runs/simulate-NNN].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Threads; 0: one a core. Results do not depend on it.
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Where nodes compute: cpu (auto means the same here), or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value_t = Choice::Cpu)]
    pub(crate) device: Choice,
    /// Print the memory it would take at least, simulate nothing. Not counted: the CPU engine's activations, the text, the
    /// program.
    #[arg(long)]
    pub(crate) plan: bool,
    /// JSON lines on standard output even on a terminal.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// The same, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) peers: Vec<Entry>,
    pub(crate) validators: Vec<ValidatorKind>,
    pub(crate) stakes: Vec<u64>,
    pub(crate) windows: u64,
    pub(crate) sequences: u32,
    pub(crate) seed: u64,
    pub(crate) keep_objects: bool,
    pub(crate) baseline: bool,
}

impl Settings {
    /// Miners, whenever they join.
    pub(crate) fn n_peers(&self) -> usize {
        self.peers.iter().map(|entry| entry.count).sum()
    }

    /// Submissions that make a step at least: the protocol's number, or fewer where not so many peers are honest from the
    /// first window to the last, so that runs of one or two learn too.
    fn min_gather(&self) -> usize {
        let always = self.peers.iter().filter(|entry| entry.kind.is_always_honest());
        always.map(|entry| entry.count).sum::<usize>().clamp(1, DemoConfig::default().min_gather)
    }
}

impl SimulateArgs {
    /// Refuses values that no simulation can use; the message names the flag.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let wrong = |flag: &str, problem: String| Usage(format!("--{flag}: {problem}"));
        let peers = spec::peers(&self.peers).map_err(|e| wrong("peers", e))?;
        let validators = spec::validators(&self.validators).map_err(|e| wrong("validators", e))?;
        if !(1..=1_000_000).contains(&self.windows) {
            return Err(wrong("windows", format!("{} is not in 1..=1000000", self.windows)).into());
        }
        if !(1..=4096).contains(&self.sequences) {
            return Err(wrong("sequences", format!("{} is not in 1..=4096", self.sequences)).into());
        }
        let slowest = peers.iter().map(|e| e.speed).fold(f64::INFINITY, f64::min) * f64::from(self.sequences);
        if slowest < 0.5 {
            let problem = format!("the slowest peer would train on {slowest}, less than one; raise it");
            return Err(wrong("sequences", problem).into());
        }
        let fastest = peers.iter().map(|e| e.speed).fold(0.0, f64::max) * f64::from(self.sequences);
        if fastest > 4096.0 {
            return Err(wrong(
                "sequences",
                format!("the fastest peer would train on {fastest}, more than 4096"),
            )
            .into());
        }
        let stakes = (1..=validators.len() as u64).rev().map(|i| i * STAKE).collect();
        Ok(Settings {
            peers,
            validators,
            stakes,
            windows: self.windows,
            sequences: self.sequences,
            seed: self.seed,
            keep_objects: self.keep_objects,
            baseline: !self.no_baseline,
        })
    }

    /// The manifest that is named, if one is. Refuses what no text can mend, before any is prepared.
    pub(crate) fn named_manifest(&self, settings: &Settings) -> Result<Option<Manifest>> {
        if let Some(path) = &self.manifest {
            return Manifest::read(path).map(Some);
        }
        self.of_data(settings, no_text(self.seq)).check().map(|()| None)
    }

    /// The manifest of these flags.
    pub(crate) fn manifest_of(&self, settings: &Settings, corpus: &Corpus) -> Result<Manifest> {
        let manifest = self.of_data(settings, DataSection::of(corpus, self.seq));
        manifest.check()?;
        Ok(manifest)
    }

    fn of_data(&self, settings: &Settings, data: DataSection) -> Manifest {
        let mut manifest = of_section(&self.preset, (self.lr, self.windows), self.seed, data);
        if let Optimizer::Demo(demo) = &mut manifest.optimizer {
            demo.min_gather = settings.min_gather();
        }
        manifest
    }
}

/// β of the rating in short runs: OpenSkill's own default, 25/6. With the reference's 20 a match says so little that after
/// 100 windows σ has come from 8.3 to 7.8 and ranks are luck; it is made for thousands of windows.
const BETA: f64 = 25.0 / 6.0;

/// A manifest for a run of about so many windows.
pub(crate) fn of_flags(preset: &str, seq: usize, rates: (f64, u64), seed: u64, corpus: &Corpus) -> Manifest {
    of_section(preset, rates, seed, DataSection::of(corpus, seq))
}

/// Stands for a text that is not opened yet.
pub(crate) fn no_text(seq: usize) -> DataSection {
    let none = Digest([0; 32]).to_string();
    DataSection { hash: none.clone(), tokenizer: none, vocab: 256, eos: 0, seq }
}

/// As [`of_flags`], for what a manifest says of a text.
pub(crate) fn of_section(preset: &str, (lr, windows): (f64, u64), seed: u64, data: DataSection) -> Manifest {
    let warmup = windows / 10;
    let schedule = Schedule { peak: lr, warmup, t_max: windows.saturating_sub(warmup).max(1), floor: 0.1 };
    let mut rules = gauntlet::Rules::default();
    rules.rating.beta = BETA;
    Manifest {
        protocol: PROTOCOL,
        name: "simulation".into(),
        model: ModelSection { preset: preset.into(), seed },
        data,
        optimizer: Optimizer::Demo(DemoConfig { schedule, ..DemoConfig::default() }),
        window: WindowSection::default(),
        gauntlet: rules,
        chain: ChainSection::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_peers_make_a_step_too() {
        let of = |peers: &str| Settings {
            peers: spec::peers(peers).unwrap(),
            validators: Vec::new(),
            stakes: Vec::new(),
            windows: 1,
            sequences: 1,
            seed: 1,
            keep_objects: false,
            baseline: false,
        };
        for (peers, expected) in [
            (PEERS, 3),
            ("3", 3),
            ("honest:2,offline@4", 3),
            ("honest:2,joiner@9,leaver@3,lazy*2", 2),
            ("lazy", 1),
        ] {
            assert_eq!(of(peers).min_gather(), expected, "{peers}");
        }
    }
}
