//! Nodes in a small world: what they keep on disk, and what they publish.

mod disk;
mod judgement;
mod strangers;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gauntlet::State;
use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};

use super::compute::Compute;
use super::follower::Follower;
use super::identity::Identity;
use super::peer::Peer;
use super::theta::{Shared, Theta};
use super::*;
use crate::chain::{Clock, Ledger};
use crate::corpus::DataArgs;
use crate::simulate::settings::of_flags;
use crate::storage::ss58;

struct OneBucket(Storage);

impl Buckets for OneBucket {
    fn of(&self, _: &Hotkey, _: &Hotkey) -> Option<Storage> {
        Some(self.0.clone())
    }
}

/// Two miners and a validator, registered, in the first window of a run.
struct Small {
    run: Run,
    compute: Compute,
    chain: Ledger,
    buckets: OneBucket,
    height: Arc<AtomicU64>,
}

fn identity(n: u8) -> Identity {
    Identity::from_seed(&[n; 32]).unwrap()
}

impl Small {
    fn new(seed: u64) -> Self {
        let corpus = DataArgs::default().open(Path::new(""), 1, 32).unwrap();
        let manifest = of_flags("byte-1m", 32, (1e-3, 10), seed, &corpus);
        let run = Run::new(manifest, corpus).unwrap();
        let cpu = Cpu::new(1, CodePath::Best).unwrap();
        let compute = Compute::new(cpu, &run.config, 32).unwrap();
        let height = Arc::new(AtomicU64::new(0));
        let clock = Clock::Virtual { height: Arc::clone(&height), seed };
        let mut chain = Ledger::open(Path::new(":memory:"), &run.manifest.chain.ledger, clock).unwrap();
        for n in 1..=3 {
            let hotkey = identity(n).hotkey();
            chain.register(hotkey, hotkey).unwrap();
        }
        chain.add_stake(identity(3).hotkey(), 5).unwrap();
        let (now, block_ms) = (Arc::clone(&height), run.manifest.chain.ledger.block_time_ms);
        let bucket = Storage::memory().with_clock(move || now.load(Ordering::Acquire) * block_ms);
        let small = Self { run, compute, chain, buckets: OneBucket(bucket), height };
        small.height.store(small.run.manifest.window.opens(0), Ordering::Release);
        small
    }

    fn world(&mut self) -> World<'_> {
        World { run: &self.run, compute: &mut self.compute, chain: &mut self.chain, buckets: &self.buckets }
    }

    fn follower(&self, n: u8) -> Follower {
        let theta = Arc::new(Theta::initial(&self.run, self.compute.cpu()).unwrap());
        Follower::new(identity(n).hotkey(), self.run.id, theta, Shared::default())
    }

    fn peer(&mut self, n: u8) -> Peer {
        let follower = self.follower(n);
        Peer::new(&self.world(), identity(n), follower).unwrap()
    }
}
