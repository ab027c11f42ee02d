//! A whole permissionless run in one process: the nodes of `run/` under a virtual clock.

/// What nodes reach, without borrowing the nodes.
macro_rules! world {
    ($simulation:expr) => {
        World {
            run: &$simulation.run,
            compute: &mut $simulation.compute,
            chain: &mut $simulation.chain,
            buckets: &$simulation.buckets,
        }
    };
}

mod baseline;
pub(crate) mod behaviours;
pub(crate) mod buckets;
pub(crate) mod log;
pub(crate) mod needs;
pub(crate) mod node;
mod report;
pub(crate) mod settings;
pub(crate) mod spec;
pub(crate) mod summary;
pub(crate) mod table;
#[cfg(test)]
mod tests;
mod timing;
pub(crate) mod watch;
mod window;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use gauntlet::Hotkey;

use crate::chain::{Chain, Clock, Ledger};
use crate::run::World;
use crate::run::compute::Compute;
use crate::run::context::Run;
use crate::run::identity::Identity;
use crate::run::miner_node::MinerNode;
use crate::run::node::{Start, start};
use crate::run::peer::Peer;
use crate::run::persist::Disk;
use crate::run::theta::{Shared, Theta};
use crate::run::validator::Validator;
use crate::run::validator_node::ValidatorNode;
use baseline::Baseline;
use behaviours::{make, validators::conduct};
use buckets::SimBuckets;
use log::Log;
use node::{Judge, Miner};
use settings::Settings;
use spec::{Join, Kind, ValidatorKind};
use timing::{Spent, Times, Timing};
use watch::Watch;
use window::Tally;

/// Held-out sequences measured after every window.
const VALIDATION: u64 = 32;

/// A simulation in progress.
pub(crate) struct Simulation {
    run: Run,
    compute: Compute,
    chain: Ledger,
    height: Arc<AtomicU64>,
    buckets: SimBuckets,
    miners: Vec<Miner>,
    judges: Vec<Judge>,
    /// Order in which miners act: those who wait for others come last.
    order: Vec<usize>,
    initial: Arc<Theta>,
    shared: Shared,
    baseline: Option<Baseline>,
    tally: Tally,
    times: Times,
    /// Of what only a simulation does: the baseline and held-out losses.
    measured: Spent,
    log: Log,
    /// Holds what nodes keep on their disks, as long as the simulation lasts.
    disks: Option<tempfile::TempDir>,
    watch: Watch,
}

/// What a window came to, for whoever shows it.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct WindowResult {
    pub(crate) window: u64,
    /// Mean loss of the honest peers' sequences before the step.
    pub(crate) train_loss: Option<f64>,
    /// Who led; none where nobody published in time.
    pub(crate) leader: Option<Hotkey>,
    /// Submissions put, and those that moved θ.
    pub(crate) submissions: u64,
    pub(crate) accepted: usize,
    #[serde(skip)]
    pub(crate) listed: Vec<Hotkey>,
    /// θ hash of the first validator that keeps to the rules, after the window; hex.
    pub(crate) theta: String,
    /// Nodes that stand elsewhere than it does.
    pub(crate) apart: Vec<Hotkey>,
    /// Bytes of the submissions that were put.
    pub(crate) bytes: u64,
    /// Honest sequences trained on.
    pub(crate) sequences: u64,
    /// More stake differs from the record than agrees with it.
    pub(crate) disputed: bool,
    /// Loss on held-out text after the window, and the baseline's.
    pub(crate) validation: Option<f64>,
    pub(crate) baseline: Option<f64>,
}

impl Simulation {
    /// Sets everything up before window 0.
    pub(crate) fn new(settings: &Settings, run: Run, compute: Compute, out: &Path) -> Result<Self> {
        let height = Arc::new(AtomicU64::new(0));
        let clock = Clock::Virtual { height: Arc::clone(&height), seed: settings.seed };
        let chain = Ledger::open(Path::new(":memory:"), &run.manifest.chain.ledger, clock)?;
        let initial = Arc::new(Theta::initial(&run, compute.cpu())?);
        let (block_ms, now) = (run.manifest.chain.ledger.block_time_ms, Arc::clone(&height));
        let now_ms = Arc::new(move || now.load(Ordering::Acquire).saturating_mul(block_ms));
        let root = settings.keep_objects.then(|| out.join("objects"));
        let times = Times::new(compute.clock().clone());
        let mut simulation = Self {
            run,
            compute,
            chain,
            height,
            buckets: SimBuckets::new(root, now_ms),
            miners: Vec::new(),
            judges: Vec::new(),
            order: Vec::new(),
            initial,
            shared: Shared::default(),
            baseline: None,
            tally: Tally::default(),
            times,
            measured: Spent::default(),
            log: Log::create(out)?,
            disks: None,
            watch: Watch::default(),
        };
        if settings.baseline {
            simulation.baseline = Some(Baseline::new(&simulation.compute, &simulation.initial)?);
        }
        simulation.enrol(settings)?;
        // Who takes part can be read from the beginning.
        simulation.log.flush()?;
        Ok(simulation)
    }

    fn enrol(&mut self, settings: &Settings) -> Result<()> {
        for (i, (kind, stake)) in settings.validators.iter().zip(&settings.stakes).enumerate() {
            let identity = identity(settings.seed, "validator", i)?;
            let hotkey = identity.hotkey();
            self.register(hotkey, Some(*stake), kind.has_two_faces())?;
            let name = format!("validator-{}", i + 1);
            self.log.meet(hotkey, &name, &kind.to_string(), 0.0, *stake)?;
            let disk = match kind {
                ValidatorKind::Restart(..) => Some(self.disk(&hotkey)?),
                _ => None,
            };
            let (mut world, shared) = (world!(self), self.shared.clone());
            let follower = start(&world, hotkey, &self.initial, shared, Start::Beginning)?;
            let node =
                ValidatorNode::new(&mut world, Validator::new(identity, follower), conduct(*kind), disk)?;
            self.judges.push(Judge { name, kind: *kind, node });
        }
        if let Some(owner) = self.run.manifest.chain.ledger.owner {
            self.chain.register(owner, owner).context("cannot register chain.ledger.owner")?;
        }
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        for entry in &settings.peers {
            let budgets = entry.budgets(settings.sequences);
            for (behaviour, budget) in make(&entry.kind, entry.count).into_iter().zip(budgets) {
                let number = numbers.entry(entry.kind.to_string()).or_default();
                *number += 1;
                let name = format!("{}-{number}", entry.kind);
                let identity = identity(settings.seed, "miner", self.miners.len())?;
                let (from, until) = match entry.kind {
                    Kind::Joiner(w, _) => (w, u64::MAX),
                    Kind::Leaver(w) => (0, w),
                    _ => (0, u64::MAX),
                };
                let kind = entry.kind.clone();
                self.log.meet(identity.hotkey(), &name, &kind.to_string(), entry.speed, 0)?;
                let (behaviour, node) = (Some(behaviour), None);
                self.miners.push(Miner { name, kind, identity, behaviour, node, budget, from, until });
            }
        }
        self.order = (0..self.miners.len()).collect();
        self.order.sort_by_key(|i| self.miners[*i].kind.waits());
        self.enlist(0)?;
        self.join(0)?;
        // What was registered shows once its block is sealed.
        self.advance_to(self.run.manifest.window.opens(0));
        Ok(())
    }

    fn register(&mut self, hotkey: Hotkey, stake: Option<u64>, two_faces: bool) -> Result<()> {
        self.chain.register(hotkey, hotkey).with_context(|| format!("cannot register {hotkey}"))?;
        if let Some(stake) = stake {
            self.chain.add_stake(hotkey, stake)?;
        }
        let url = self.buckets.add(hotkey, two_faces)?;
        Ok(self.chain.publish_bucket(hotkey, &url)?)
    }

    /// Registers the miners that join in window `w`, in a block before it opens: later would be too late for `w`.
    fn enlist(&mut self, w: u64) -> Result<()> {
        let joining = self.miners.iter().filter(|miner| miner.from == w);
        let joining: Vec<_> =
            joining.map(|miner| (miner.identity.hotkey(), miner.kind.has_two_faces())).collect();
        joining.into_iter().try_for_each(|(hotkey, two_faces)| self.register(hotkey, None, two_faces))
    }

    /// Starts the miners that join in window `w`.
    fn join(&mut self, w: u64) -> Result<()> {
        for i in 0..self.miners.len() {
            let miner = &mut self.miners[i];
            let Some(behaviour) = miner.behaviour.take_if(|_| miner.from == w) else { continue };
            let (identity, kind, budget) = (miner.identity.clone(), miner.kind.clone(), miner.budget);
            let hotkey = identity.hotkey();
            let (from, disk) = match kind {
                Kind::Joiner(_, Join::Checkpoint) => (Start::Checkpoint, None),
                Kind::Restart(..) => (Start::Beginning, Some(self.disk(&hotkey)?)),
                _ => (Start::Beginning, None),
            };
            let (mut world, shared) = (world!(self), self.shared.clone());
            let follower = start(&world, hotkey, &self.initial, shared, from)?;
            if w > 0 {
                self.log.joined(w, &self.miners[i].name, follower.window())?;
            }
            let peer = Peer::new(&world, identity, follower)?;
            self.miners[i].node = Some(MinerNode::new(&mut world, peer, behaviour, budget, disk)?);
        }
        Ok(())
    }

    /// Where a node that will be killed keeps its state.
    fn disk(&mut self, hotkey: &Hotkey) -> Result<Disk> {
        let root = match &self.disks {
            Some(root) => root,
            None => {
                self.disks.insert(tempfile::tempdir().context("no temporary folder for what nodes keep")?)
            }
        };
        Disk::new(root.path(), hotkey)
    }

    fn advance_to(&self, height: u64) {
        self.height.fetch_max(height, Ordering::AcqRel);
    }

    /// Losses on held-out sequences, spread over the text: a book begins with its table of contents.
    fn validate(&mut self, result: &mut WindowResult) -> Result<()> {
        let Some(data) = &self.run.corpus.validation else { return Ok(()) };
        let n = data.n_sequences(self.run.manifest.data.seq)?;
        let ids: Vec<u64> = (0..n.min(VALIDATION)).map(|i| i * (n / VALIDATION).max(1)).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let theta = Arc::clone(self.theta());
        result.validation = Some(self.compute.loss(data, &theta, &ids)?);
        if let Some(baseline) = &self.baseline {
            result.baseline = Some(self.compute.loss(data, baseline.theta(), &ids)?);
        }
        Ok(())
    }

    /// Tells `watch` how far each window is.
    pub(crate) fn watched(&mut self, watch: Watch) {
        self.watch = watch;
    }

    /// A run that has taken `total` so far; and of that what only a simulation does, the baseline and held-out losses.
    pub(crate) fn spent(&self, total: Duration) -> (Spent, Spent) {
        (Spent { total, passes: self.compute.busy() }, self.measured)
    }

    /// How long the windows so far took.
    pub(crate) fn timing(&self) -> Timing {
        let manifest = &self.run.manifest;
        let milliseconds = manifest.window.blocks.saturating_mul(manifest.chain.ledger.block_time_ms);
        #[allow(clippy::cast_precision_loss)] // a window is not that long
        let seconds = milliseconds as f64 / 1000.0;
        self.times.summary(self.compute.name(), self.run.layout.total(), seconds)
    }

    /// The first validator that keeps to the rules: whose view is shown.
    pub(crate) fn observer(&self) -> Option<&Judge> {
        self.judges.iter().find(|j| j.kind.is_honest()).or(self.judges.first())
    }

    /// Its θ.
    fn theta(&self) -> &Arc<Theta> {
        self.observer().map_or(&self.initial, |judge| judge.validator().follower.theta())
    }
}

/// The key of a simulated node.
fn identity(seed: u64, role: &str, number: usize) -> Result<Identity> {
    let mut hasher = blake3::Hasher::new_derive_key("gauntlet simulate v1 key of a node");
    hasher.update(&seed.to_le_bytes()).update(role.as_bytes()).update(&(number as u64).to_le_bytes());
    Identity::from_seed(hasher.finalize().as_bytes())
}
