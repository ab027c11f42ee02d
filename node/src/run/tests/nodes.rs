//! Nodes as processes of their own run them: nothing but blocks tells them what to do.

use std::collections::BTreeSet;

use gauntlet_demo::Subtract;

use super::super::conduct::Honest;
use super::super::miner_node::MinerNode;
use super::super::node::{Happened, Node, Part};
use super::super::persist::Disk;
use super::super::validator::Validator;
use super::super::validator_node::ValidatorNode;
use super::*;

#[test]
fn blocks_are_all_that_nodes_need() {
    let mut small = Small::new(1);
    let (peers, follower) = ([small.peer(1), small.peer(2)], small.follower(3));
    let initial = follower.theta().hash;
    let window = small.run.manifest.window.clone();
    let mut world = small.world();
    let validator = Validator::new(identity(3), follower);
    let mut validator = ValidatorNode::new(&mut world, validator, Box::new(Honest), None).unwrap();
    let mut miners = peers.map(|peer| MinerNode::new(&mut world, peer, Box::new(Honest), 1, None).unwrap());
    let mut happened = Vec::new();
    for block in window.opens(0)..=window.record_opens(1) {
        small.height.store(block, Ordering::Release);
        // Twice, as a process that looks again before the next block is there.
        for _ in 0..2 {
            let mut world = small.world();
            validator.at_block(&mut world, block, &mut happened).unwrap();
            for miner in &mut miners {
                miner.at_block(&mut world, block, &mut happened).unwrap();
            }
        }
    }
    let theta = validator.validator.follower.theta().hash;
    assert_ne!(theta, initial);
    for miner in &miners {
        let follower = &miner.peer.follower;
        assert_eq!((follower.window(), follower.theta().hash), (2, theta));
        assert_eq!(follower.accepted(1).unwrap().len(), 2);
    }
    let count = |what: fn(&Happened) -> bool| happened.iter().filter(|event| what(event)).count();
    // In the block in which window 1 was closed, window 2 has long been open.
    assert_eq!(count(|event| matches!(event, Happened::Trained { loss: Some(_) })), 6);
    assert_eq!(count(|event| matches!(event, Happened::Judged(_))), 2);
    assert_eq!(count(|event| matches!(event, Happened::Published(_))), 2);
    assert_eq!(count(|event| matches!(event, Happened::Followed { .. })), 6);
    assert_eq!(count(|event| matches!(event, Happened::Trouble { .. })), 0);
}

/// A miner on no disk, or on one below `root`.
fn miner(small: &mut Small, n: u8, root: Option<&Path>) -> Result<MinerNode> {
    let peer = small.peer(n);
    let disk = root.map(|root| Disk::new(root, &peer.hotkey()).unwrap());
    MinerNode::new(&mut small.world(), peer, Box::new(Honest), 1, disk)
}

#[test]
fn one_node_works_with_a_hotkey() {
    let folder = tempfile::tempdir().unwrap();
    let (here, elsewhere) = (folder.path().join("here"), folder.path().join("elsewhere"));
    let mut small = Small::new(1);
    let (blocks, start) = (small.run.manifest.window.blocks, small.height.load(Ordering::Acquire));
    let refused = |result: Result<()>| {
        let error = format!("{:#}", result.unwrap_err());
        let hotkey = identity(1).hotkey().to_string();
        assert!(error.contains(&hotkey) && error.contains("stop that one"), "{error}");
    };
    let first = miner(&mut small, 1, Some(&here)).unwrap();
    miner(&mut small, 2, None).unwrap();
    refused(miner(&mut small, 1, None).map(|_| ()));
    refused(miner(&mut small, 1, Some(&elsewhere)).map(|_| ()));
    // The same folder is the same node, whenever it starts again.
    let disk = first.killed().unwrap();
    let mut world = small.world();
    let back = MinerNode::restore(&mut world, identity(1), Box::new(Honest), 1, disk, Shared::default());
    let mut back = back.unwrap();
    let mut look = |small: &mut Small, block| {
        small.height.store(block, Ordering::Release);
        back.take(&mut small.world(), block, Part::CatchUp, &mut Vec::new())
    };
    look(&mut small, start + blocks).unwrap();
    small.height.store(start + 2 * blocks, Ordering::Release);
    refused(miner(&mut small, 1, None).map(|_| ()));
    // It was renewed once and then no more: who takes it now keeps it.
    small.height.store(start + 3 * blocks, Ordering::Release);
    miner(&mut small, 1, None).unwrap();
    refused(look(&mut small, start + 3 * blocks));
}

#[test]
fn who_catches_up_anchors_and_weighs_what_came_due_meanwhile() {
    let mut small = Small::staked(1, &[(4, 4), (9, 0)]);
    // Nobody earns anything so early, so all weight is the owner's, to burn.
    small.run.manifest.gauntlet.incentive.burn = 0.5;
    small.run.manifest.chain.ledger.owner = Some(identity(9).hotkey());
    small.run.manifest.window.anchor_every = 1;
    small.run.manifest.chain.windows_per_weights = 3;
    let window = small.run.manifest.window.clone();
    let (peers, followers) = ([small.peer(1), small.peer(2)], [small.follower(3), small.follower(4)]);
    let mut world = small.world();
    let mut judge = |(n, follower)| {
        let validator = Validator::new(identity(n), follower);
        ValidatorNode::new(&mut world, validator, Box::new(Honest), None).unwrap()
    };
    let [first, second] = followers;
    let (mut always, mut away) = (judge((3, first)), judge((4, second)));
    let mut miners = peers.map(|peer| MinerNode::new(&mut world, peer, Box::new(Honest), 1, None).unwrap());
    let (mut happened, mut late) = (Vec::new(), Vec::new());
    let (leaves, back) = (window.record_opens(0), window.record_opens(3));
    for block in window.opens(0)..=back {
        small.height.store(block, Ordering::Release);
        let mut world = small.world();
        if block <= leaves {
            // Before the leader, so that it has judged window 0 when it goes.
            away.at_block(&mut world, block, &mut late).unwrap();
        }
        always.at_block(&mut world, block, &mut happened).unwrap();
        for miner in &mut miners {
            miner.at_block(&mut world, block, &mut happened).unwrap();
        }
        if block == back {
            away.at_block(&mut world, block, &mut late).unwrap();
        }
    }
    assert_eq!(away.validator.follower.window(), 4);
    let due = |event: &Happened| match event {
        Happened::Weighed { window, .. } => Some(*window),
        // A chain may refuse; then it was asked.
        Happened::Trouble { window, what } if what.starts_with("weights: ") => Some(*window),
        _ => None,
    };
    assert_eq!(late.iter().filter_map(due).collect::<Vec<_>>(), [2], "windows 0 to 3 were closed at once");
    small.height.fetch_add(1, Ordering::AcqRel);
    let anchors = small.world().chain.anchors(0, 1 << 40).unwrap();
    let by = |n: u8| {
        let by = anchors.iter().filter(|(_, by, _)| *by == identity(n).hotkey());
        by.map(|(_, _, anchor)| (anchor.window, anchor.record)).collect::<BTreeSet<_>>()
    };
    assert_eq!(by(4).len(), 4);
    assert_eq!(by(4), by(3));
}

/// Nobody can be reached.
struct Nobody;

impl Buckets for Nobody {
    fn of(&self, _: &Hotkey, _: &Hotkey) -> Option<Storage> {
        None
    }
}

impl Small {
    /// Publishes the record of window 0, which lists miners 1 and 2.
    fn publish_first(&mut self) {
        let (validator, signed, bundle) = self.led();
        validator.publish(&self.world(), &signed, &bundle).unwrap();
    }

    fn cut_off(&mut self) -> World<'_> {
        World { run: &self.run, compute: &mut self.compute, chain: &mut self.chain, buckets: &Nobody }
    }

    /// Miner `n` where a checkpoint of window 1 leaves it.
    fn joined(&mut self, n: u8) -> Follower {
        let (mut follower, leader) = (self.follower(n), identity(3).hotkey());
        follower.follow(&self.world(), 0, Some(leader)).unwrap();
        let place = follower.places().0;
        Follower::at(identity(n).hotkey(), place.records.clone(), Arc::clone(&place.theta), Shared::default())
    }
}

#[test]
fn what_was_accepted_lately_is_read_as_soon_as_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = Small::new(1);
    small.publish_first();
    let mut node = miner(&mut small, 1, Some(folder.path())).unwrap();
    let block = small.height.load(Ordering::Acquire);
    node.take(&mut small.world(), block, Part::Follow, &mut Vec::new()).unwrap();
    assert_eq!(node.peer.follower.accepted(0).unwrap().len(), 2);
    // It starts again while it reaches nobody.
    let disk = node.killed().unwrap();
    let mut world = small.cut_off();
    let node = MinerNode::restore(&mut world, identity(1), Box::new(Honest), 1, disk, Shared::default());
    let mut node = node.unwrap();
    node.take(&mut world, block, Part::CatchUp, &mut Vec::new()).unwrap();
    assert!(node.peer.follower.accepted(0).is_none());
    node.take(&mut small.world(), block, Part::CatchUp, &mut Vec::new()).unwrap();
    assert_eq!(node.peer.follower.accepted(0).unwrap().len(), 2);
    // And so does who joins.
    let follower = small.joined(2);
    assert!(follower.accepted(0).is_none());
    let peer = Peer::new(&small.world(), identity(2), follower).unwrap();
    let mut node = MinerNode::new(&mut small.world(), peer, Box::new(Honest), 1, None).unwrap();
    node.take(&mut small.world(), block, Part::CatchUp, &mut Vec::new()).unwrap();
    assert_eq!(node.peer.follower.accepted(0).unwrap().len(), 2);
}

#[test]
fn a_miner_that_cannot_know_yet_whether_it_was_listed_waits() {
    let mut small = Small::new(1);
    (small.run.demo.subtract, small.run.demo.momentum_warmup) = (Subtract::WhenRecorded, 0);
    small.publish_first();
    let mut peer = small.peer(1);
    peer.train(&mut small.world(), &[1]).unwrap();
    peer.follower = small.joined(1);
    let sent = peer.memory().0.coefficients().unwrap().to_vec();
    assert!(!peer.settle(&small.world()).unwrap());
    assert!(peer.memory().0.pending().unwrap().is_some());
    peer.follower.recall(&small.world()).unwrap();
    assert!(peer.settle(&small.world()).unwrap());
    assert!(peer.memory().0.pending().unwrap().is_none());
    assert_ne!(peer.memory().0.coefficients().unwrap().to_vec(), sent, "what was listed is subtracted");
    // A record that it followed says so too, however much it moved on since.
    let mut peer = small.peer(2);
    peer.train(&mut small.world(), &[1]).unwrap();
    let (mut follower, leader) = (small.follower(2), identity(3).hotkey());
    follower.follow(&small.world(), 0, Some(leader)).unwrap();
    let (place, anchor) = follower.places();
    let (place, anchor, hashes) = (place.clone(), anchor.clone(), follower.followed().clone());
    peer.follower =
        Follower::restored(&small.cut_off(), peer.hotkey(), Shared::default(), place, anchor, hashes)
            .unwrap();
    assert!(peer.follower.accepted(0).is_none());
    assert!(peer.settle(&small.world()).unwrap());
}
