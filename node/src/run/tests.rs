//! Nodes in a small world: what they keep on disk, and what they publish.

mod anchors;
mod audit;
mod disk;
mod judgement;
mod leaders;
mod nodes;
mod strangers;
mod trouble;
mod weights;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gauntlet::State;
use gauntlet::record::SignedRecord;
use gauntlet_demo::Optimizer;
use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};

use super::compute::Compute;
use super::follower::Follower;
use super::identity::Identity;
use super::peer::Peer;
use super::theta::{Shared, Theta};
use super::validator::Validator;
use super::*;
use crate::chain::{Clock, Ledger};
use crate::corpus::DataArgs;
use crate::simulate::settings::of_flags;
use crate::storage::ss58;

/// One place for everybody.
struct OneBucket {
    place: Storage,
    /// As what a reader sees an owner's, where it sees something else; none: the owner has none.
    otherwise: BTreeMap<(Hotkey, Hotkey), Option<Storage>>,
}

impl Buckets for OneBucket {
    fn of(&self, reader: &Hotkey, owner: &Hotkey) -> Option<Storage> {
        let otherwise = self.otherwise.get(&(*reader, *owner)).cloned();
        otherwise.unwrap_or_else(|| Some(self.place.clone()))
    }
}

/// Two miners and a validator, registered, in the first window of a run.
pub(crate) struct Small {
    pub(crate) run: Run,
    compute: Compute,
    chain: Ledger,
    buckets: OneBucket,
    pub(crate) height: Arc<AtomicU64>,
}

pub(crate) fn identity(n: u8) -> Identity {
    Identity::from_seed(&[n; 32]).unwrap()
}

impl Small {
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(seed, &[])
    }

    /// With more miners.
    pub(crate) fn of(seed: u64, more: &[u8]) -> Self {
        Self::staked(seed, &more.iter().map(|n| (*n, 0)).collect::<Vec<_>>())
    }

    /// With more nodes: validators where they have stake. Validator 3 has 5.
    fn staked(seed: u64, more: &[(u8, u64)]) -> Self {
        let corpus = DataArgs::default().open(Path::new(""), 1, 32).unwrap();
        let mut manifest = of_flags("byte-1m", 32, (1e-3, 10), seed, &corpus);
        if let Optimizer::Demo(demo) = &mut manifest.optimizer {
            demo.min_gather = 1;
        }
        let run = Run::new(manifest, corpus).unwrap();
        let cpu = Cpu::new(1, CodePath::Best).unwrap();
        let compute = Compute::new(cpu, &run.config, 32).unwrap();
        let height = Arc::new(AtomicU64::new(0));
        let clock = Clock::Virtual { height: Arc::clone(&height), seed };
        let mut chain = Ledger::open(Path::new(":memory:"), &run.manifest.chain.ledger, clock).unwrap();
        for (n, stake) in [(1, 0), (2, 0), (3, 5)].iter().chain(more) {
            let hotkey = identity(*n).hotkey();
            chain.register(hotkey, hotkey).unwrap();
            if *stake > 0 {
                chain.add_stake(hotkey, *stake).unwrap();
            }
        }
        let (now, block_ms) = (Arc::clone(&height), run.manifest.chain.ledger.block_time_ms);
        let bucket = Storage::memory().with_clock(move || now.load(Ordering::Acquire) * block_ms);
        let buckets = OneBucket { place: bucket, otherwise: BTreeMap::new() };
        let small = Self { run, compute, chain, buckets, height };
        small.height.store(small.run.manifest.window.opens(0), Ordering::Release);
        small
    }

    pub(crate) fn world(&mut self) -> World<'_> {
        World { run: &self.run, compute: &mut self.compute, chain: &mut self.chain, buckets: &self.buckets }
    }

    /// What node `reader` sees of the bucket of `owner` from now on.
    fn shows(&mut self, reader: u8, owner: u8, bucket: Option<Storage>) {
        self.buckets.otherwise.insert((identity(reader).hotkey(), identity(owner).hotkey()), bucket);
    }

    fn follower(&self, n: u8) -> Follower {
        let theta = Arc::new(Theta::initial(&self.run, self.compute.cpu()).unwrap());
        Follower::new(identity(n).hotkey(), self.run.id, theta, Shared::default())
    }

    /// Window 0, with what miners 1 and 2 send, up to the record that validator 3 signs, which is not published yet.
    fn led(&mut self) -> (Validator, SignedRecord, Vec<u8>) {
        let mut validator = Validator::new(identity(3), self.follower(3));
        let (mut peers, window) = ([self.peer(1), self.peer(2)], self.run.manifest.window.clone());
        self.height.store(window.opens(1), Ordering::Release);
        let mut world = self.world();
        let mut objects = Vec::new();
        for peer in &mut peers {
            let ids = peer.assigned(&world, 0, 1).unwrap();
            let (sent, _) = peer.train(&mut world, &ids).unwrap();
            let theta = Arc::clone(peer.follower.theta());
            let object = peer.seal(&world, 0, &theta, &sent, 1).unwrap();
            peer.commit(&world, 0, &object).unwrap();
            objects.push(object);
        }
        self.height.store(window.commit_deadline(0), Ordering::Release);
        let world = self.world();
        validator.read_commitments(&world, 0).unwrap();
        peers.iter_mut().zip(&objects).for_each(|(peer, object)| peer.reveal(&world, 0, object).unwrap());
        self.height.store(window.record_opens(0), Ordering::Release);
        let mut world = self.world();
        validator.judge(&mut world, 0).unwrap().unwrap();
        validator.announce(&world).unwrap();
        let (signed, bundle) = validator.record(&world, 0).unwrap().unwrap();
        (validator, signed, bundle)
    }

    pub(crate) fn peer(&mut self, n: u8) -> Peer {
        let follower = self.follower(n);
        Peer::new(&self.world(), identity(n), follower).unwrap()
    }
}
