//! Nodes as processes of their own run them: nothing but blocks tells them what to do.

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
