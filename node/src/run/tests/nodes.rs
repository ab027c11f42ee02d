//! Nodes as processes of their own run them: nothing but blocks tells them what to do.

use super::super::conduct::Honest;
use super::super::miner_node::MinerNode;
use super::super::node::{Happened, Node};
use super::super::validator::Validator;
use super::super::validator_node::ValidatorNode;
use super::*;

#[test]
fn blocks_are_all_that_nodes_need() {
    let mut small = Small::new(1);
    let (peers, follower) = ([small.peer(1), small.peer(2)], small.follower(3));
    let initial = follower.theta().hash;
    let window = small.run.manifest.window.clone();
    let world = small.world();
    let validator = Validator::new(identity(3), follower);
    let mut validator = ValidatorNode::new(&world, validator, Box::new(Honest), None).unwrap();
    let mut miners = peers.map(|peer| MinerNode::new(&world, peer, Box::new(Honest), 1, None).unwrap());
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
