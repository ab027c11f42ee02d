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
pub(crate) mod node;
mod report;
pub(crate) mod settings;
pub(crate) mod spec;
pub(crate) mod summary;
pub(crate) mod table;
#[cfg(test)]
mod tests;
mod timing;
mod turn;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use gauntlet::Hotkey;

use crate::chain::{Chain, Clock, Ledger};
use crate::run::World;
use crate::run::checkpoint;
use crate::run::compute::Compute;
use crate::run::context::Run;
use crate::run::follower::Follower;
use crate::run::identity::Identity;
use crate::run::peer::Peer;
use crate::run::persist::Disk;
use crate::run::stopwatch::Phase;
use crate::run::theta::{Shared, Theta};
use crate::run::validator::Validator;
use baseline::Baseline;
use behaviours::{Act, Behaviour, Draft, make};
use buckets::SimBuckets;
use log::Log;
use node::{Judge, Miner};
use settings::Settings;
use spec::{Join, Kind, ValidatorKind};
use timing::{Times, Timing};

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
    times: Times,
    log: Log,
    /// Holds what nodes keep on their disks, as long as the simulation lasts.
    disks: Option<tempfile::TempDir>,
}

/// What a window came to, for whoever shows it.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct WindowResult {
    pub(crate) window: u64,
    /// Mean loss of the honest peers' sequences before the step.
    pub(crate) train_loss: Option<f64>,
    /// Who led; none where nobody published in time.
    pub(crate) leader: Option<Hotkey>,
    /// Submissions made, and those that moved θ.
    pub(crate) submissions: u64,
    pub(crate) accepted: usize,
    #[serde(skip)]
    pub(crate) listed: Vec<Hotkey>,
    /// θ hash of the first validator that keeps to the rules, after the window; hex.
    pub(crate) theta: String,
    /// Nodes that stand elsewhere than it does.
    pub(crate) apart: Vec<Hotkey>,
    /// Bytes of the objects that were drafted.
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
            times,
            log: Log::create(out)?,
            disks: None,
        };
        if settings.baseline {
            simulation.baseline = Some(Baseline::new(&simulation.compute, &simulation.initial)?);
        }
        simulation.enrol(settings)?;
        Ok(simulation)
    }

    fn enrol(&mut self, settings: &Settings) -> Result<()> {
        for (i, (kind, stake)) in settings.validators.iter().zip(&settings.stakes).enumerate() {
            let identity = identity(settings.seed, "validator", i)?;
            let hotkey = identity.hotkey();
            let two_faces = matches!(kind, ValidatorKind::EquivocatingLeader(_));
            self.register(hotkey, Some(*stake), two_faces)?;
            let follower = self.follower(hotkey);
            let name = format!("validator-{}", i + 1);
            self.log.meet(hotkey, &name, &kind.to_string(), 0.0, *stake)?;
            let disk = match kind {
                ValidatorKind::Restart(_) => Some(self.disk(&hotkey)?),
                _ => None,
            };
            self.judges.push(Judge {
                name,
                kind: *kind,
                validator: Validator::new(identity, follower),
                withheld: None,
                disk,
            });
        }
        if let Some(owner) = self.run.manifest.chain.ledger.owner {
            self.chain.register(owner, owner).context("cannot register chain.ledger.owner")?;
        }
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        for entry in &settings.peers {
            for behaviour in make(&entry.kind, entry.count) {
                let number = numbers.entry(entry.kind.to_string()).or_default();
                *number += 1;
                let name = format!("{}-{number}", entry.kind);
                let identity = identity(settings.seed, "miner", self.miners.len())?;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked by the settings
                let budget = (f64::from(settings.sequences) * entry.speed).round().max(1.0) as u32;
                let (from, until) = match entry.kind {
                    Kind::Joiner(w, _) => (w, u64::MAX),
                    Kind::Leaver(w) => (0, w),
                    _ => (0, u64::MAX),
                };
                let kind = entry.kind.clone();
                self.log.meet(identity.hotkey(), &name, &kind.to_string(), entry.speed, 0)?;
                let disk = match kind {
                    Kind::Restart(_) => Some(self.disk(&identity.hotkey())?),
                    _ => None,
                };
                let (peer, draft) = (None, None);
                let miner = Miner { name, kind, behaviour, identity, peer, budget, from, until, draft, disk };
                self.miners.push(miner);
            }
        }
        self.order = (0..self.miners.len()).collect();
        self.order.sort_by_key(|i| self.miners[*i].behaviour.waits());
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

    fn follower(&self, hotkey: Hotkey) -> Follower {
        Follower::new(hotkey, self.run.id, Arc::clone(&self.initial), self.shared.clone())
    }

    /// Registers the miners that join in window `w`, in a block before it opens: later would be too late for `w`.
    fn enlist(&mut self, w: u64) -> Result<()> {
        let joining = |miner: &&Miner| miner.from == w;
        let joining = self.miners.iter().filter(joining);
        let joining: Vec<_> =
            joining.map(|miner| (miner.identity.hotkey(), miner.behaviour.has_two_faces())).collect();
        joining.into_iter().try_for_each(|(hotkey, two_faces)| self.register(hotkey, None, two_faces))
    }

    /// Miners that join in window `w` come from a checkpoint, or replay the run from its beginning.
    fn join(&mut self, w: u64) -> Result<()> {
        for i in 0..self.miners.len() {
            if self.miners[i].from != w {
                continue;
            }
            let hotkey = self.miners[i].identity.hotkey();
            let mut follower = self.follower(hotkey);
            let world = world!(self);
            if let Some(last) = w.checked_sub(1) {
                if matches!(self.miners[i].kind, Kind::Joiner(_, Join::Checkpoint))
                    && let Some(joined) = checkpoint::join(&world, hotkey, self.shared.clone())?
                {
                    follower = joined;
                }
                self.log.joined(w, &self.miners[i].name, follower.window())?;
                follower.read_proofs(&world)?;
                follower.read_anchors(&world)?;
                follower.follow(&world, last, None)?;
            }
            let peer = Peer::new(&world, self.miners[i].identity.clone(), follower)?;
            self.miners[i].peer = Some(peer);
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

    /// Nodes with a disk keep what a restart needs.
    pub(super) fn save(&self) -> Result<()> {
        for miner in &self.miners {
            if let (Some(disk), Some(peer)) = (&miner.disk, &miner.peer) {
                let sealed = miner.draft.as_ref().map(|draft| (peer.follower.window(), draft.object.clone()));
                disk.save_miner(self.run.id, peer, sealed)?;
            }
        }
        for judge in &self.judges {
            if let Some(disk) = &judge.disk {
                disk.save_validator(self.run.id, &judge.validator)?;
            }
        }
        Ok(())
    }

    /// Nodes that are killed in window `w` come back with nothing but what they kept.
    fn restart(&mut self, w: u64) -> Result<()> {
        let shared = self.shared.clone();
        let world = world!(self);
        for miner in self.miners.iter_mut().filter(|miner| miner.kind == Kind::Restart(w)) {
            if let (Some(disk), Some(peer)) = (&miner.disk, miner.peer.take()) {
                drop((peer, miner.draft.take()));
                let (peer, sealed) = disk.miner(&world, miner.identity.clone(), shared.clone())?;
                let sealed = sealed.filter(|(window, _)| *window == peer.follower.window());
                miner.draft = sealed.map(|(_, object)| Draft::made(object));
                miner.peer = Some(peer);
            }
        }
        for judge in self.judges.iter_mut().filter(|judge| judge.kind == ValidatorKind::Restart(w)) {
            if let Some(disk) = &judge.disk {
                let identity = judge.validator.identity.clone();
                judge.validator = disk.validator(&world, identity, shared.clone())?;
            }
        }
        Ok(())
    }

    fn advance_to(&self, height: u64) {
        self.height.fetch_max(height, Ordering::AcqRel);
    }

    /// Runs window `w` to its end: `train → commit → reveal → evaluate → record → apply`.
    pub(crate) fn window(&mut self, w: u64) -> Result<WindowResult> {
        let window = self.run.manifest.window.clone();
        let clock = self.compute.clock().clone();
        self.advance_to(window.opens(w));
        if let Some(last) = w.checked_sub(1) {
            clock.during(Phase::Record, || self.catch_up(last))?;
            self.miners.iter_mut().for_each(|miner| miner.draft = None);
            self.save()?;
            self.restart(w)?;
            self.join(w)?;
        }
        let (train_loss, ids) = clock.during(Phase::Train, || self.train(w))?;
        self.enlist(w + 1)?;
        self.advance_to(window.opens(w + 1));
        let commit = |act: &mut Act<'_, '_>, behaviour: &mut dyn Behaviour, draft: &Draft| {
            let theta = draft.state.clone().unwrap_or_else(|| Arc::clone(act.peer.follower.theta()));
            act.peer.publish_values(act.world, w, &theta)?;
            behaviour.commit(act, draft)
        };
        clock.during(Phase::Commit, || self.each_draft(w, commit))?;
        self.advance_to(window.commit_deadline(w));
        self.set_offline(w, true);
        let world = world!(self);
        let mut validators = self.judges.iter_mut().map(|judge| &mut judge.validator);
        clock.during(Phase::Read, || validators.try_for_each(|v| v.read_commitments(&world, w)))?;
        // And killed again, between commitment and object.
        self.save()?;
        self.restart(w)?;
        let reveal = |act: &mut Act<'_, '_>, behaviour: &mut dyn Behaviour, draft: &Draft| {
            behaviour.reveal(act, draft)
        };
        clock.during(Phase::Reveal, || self.each_draft(w, reveal))?;
        self.advance_to(window.record_opens(w));
        self.each_draft(w, |act, behaviour, draft| behaviour.overdue(act, draft))?;
        self.judge(w)?;
        self.each_draft(w, |act, behaviour, _| behaviour.afterwards(act))?;
        let (bytes, submissions) = self.sent();
        let leader = clock.during(Phase::Record, || self.close_pending(w))?;
        let sequences = ids.len() as u64;
        let mut result =
            WindowResult { train_loss, leader, bytes, submissions, sequences, ..self.result(w)? };
        clock.during(Phase::Measure, || self.measure(&mut result, &ids))?;
        self.times.close(w, submissions, self.compute.device_bytes()?);
        self.log.window(&result)?;
        Ok(result)
    }

    /// The baseline's step on the sequences `ids`, and what both models have learned.
    fn measure(&mut self, result: &mut WindowResult, ids: &[u64]) -> Result<()> {
        if let Some(baseline) = &mut self.baseline {
            baseline.step(&self.run, &mut self.compute, ids)?;
        }
        self.validate(result)
    }

    /// Losses on held-out sequences, spread over the text: a book begins with its table of contents.
    fn validate(&mut self, result: &mut WindowResult) -> Result<()> {
        let Some(data) = &self.run.corpus.validation else { return Ok(()) };
        let n = data.n_sequences(self.run.manifest.data.seq)?;
        let ids: Vec<u64> = (0..n.min(VALIDATION)).map(|i| i * (n / VALIDATION).max(1)).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let theta = self.observer().map_or(&self.initial, |judge| judge.validator.follower.theta());
        let theta = Arc::clone(theta);
        result.validation = Some(self.compute.loss(data, &theta, &ids)?);
        if let Some(baseline) = &self.baseline {
            result.baseline = Some(self.compute.loss(data, baseline.theta(), &ids)?);
        }
        Ok(())
    }

    /// Time spent in forward and backward passes so far.
    pub(crate) fn busy(&self) -> Duration {
        self.compute.busy()
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

    /// Everybody makes its submission; mean loss of the honest sequences, and which they are.
    fn train(&mut self, w: u64) -> Result<(Option<f64>, Vec<u64>)> {
        let (mut sum, mut ids) = (0.0, Vec::new());
        for &i in &self.order {
            let miner = &mut self.miners[i];
            miner.draft = None;
            let active = (miner.from..=miner.until).contains(&w);
            let Some(peer) = miner.peer.as_mut().filter(|peer| active && peer.follower.window() == w) else {
                continue;
            };
            let mut world = world!(self);
            let mut act = Act { peer, world: &mut world, window: w, budget: miner.budget };
            miner.draft = match miner.behaviour.draft(&mut act) {
                // It sends nothing in this window, as any miner would.
                Err(error) if is_not_finite(&error) => {
                    self.log.trouble(w, &miner.name, &format!("{error:#}"))?;
                    None
                }
                draft => draft?,
            };
            if let Some(loss) = miner.draft.as_ref().and_then(|d| d.loss).filter(|_| miner.kind.is_honest()) {
                sum += loss * f64::from(miner.budget);
                ids.extend(act.peer.assigned(act.world, w, miner.budget)?);
            }
        }
        #[allow(clippy::cast_precision_loss)] // a number of sequences
        let mean = (!ids.is_empty()).then(|| sum / ids.len() as f64);
        Ok((mean, ids))
    }

    fn each_draft(
        &mut self,
        w: u64,
        phase: impl Fn(&mut Act<'_, '_>, &mut dyn behaviours::Behaviour, &behaviours::Draft) -> Result<()>,
    ) -> Result<()> {
        for &i in &self.order {
            let miner = &mut self.miners[i];
            let (Some(draft), Some(peer)) = (&miner.draft, &mut miner.peer) else { continue };
            let mut world = world!(self);
            let mut act = Act { peer, world: &mut world, window: w, budget: miner.budget };
            phase(&mut act, miner.behaviour.as_mut(), draft)?;
        }
        Ok(())
    }

    /// Bytes and number of the objects made in this window.
    fn sent(&self) -> (u64, u64) {
        let drafts = self.miners.iter().filter_map(|miner| miner.draft.as_ref());
        let sizes = drafts.map(|draft| draft.object.len() as u64).filter(|size| *size > 0);
        sizes.fold((0, 0), |(bytes, count), size| (bytes + size, count + 1))
    }
}

/// Whether a gradient was no number.
fn is_not_finite(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(gauntlet_demo::Error::NonFinite { .. }))
}

/// The key of a simulated node.
fn identity(seed: u64, role: &str, number: usize) -> Result<Identity> {
    let mut hasher = blake3::Hasher::new_derive_key("gauntlet simulate v1 key of a node");
    hasher.update(&seed.to_le_bytes()).update(role.as_bytes()).update(&(number as u64).to_le_bytes());
    Identity::from_seed(hasher.finalize().as_bytes())
}
