//! Stores that fail: a node's own, and those of others.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::super::conduct::Honest;
use super::super::miner_node::MinerNode;
use super::super::node::{Happened, Node};
use super::super::validator_node::ValidatorNode;
use super::*;
use crate::storage::{Patience, Trouble};

/// Miners 1 and 2, validators 3 and 4, and stake of one that does nothing: 3 leads, and has no majority by itself.
fn small() -> Small {
    Small::staked(1, &[(4, 2), (5, 4)])
}

/// Miners 1 and 2 and validators 3 and 4 after two windows: their θ hashes and all trouble that they told.
fn two_windows(small: &mut Small) -> ([Digest; 4], Vec<String>) {
    let (peers, judges) = ([small.peer(1), small.peer(2)], [3, 4].map(|n| (n, small.follower(n))));
    let window = small.run.manifest.window.clone();
    let mut world = small.world();
    let mut judges = judges.map(|(n, follower)| {
        let validator = Validator::new(identity(n), follower);
        ValidatorNode::new(&mut world, validator, Box::new(Honest), None).unwrap()
    });
    let mut miners = peers.map(|peer| MinerNode::new(&mut world, peer, Box::new(Honest), 1, None).unwrap());
    let mut happened = Vec::new();
    for block in window.opens(0)..window.opens(3) {
        small.height.store(block, Ordering::Release);
        // As processes that look again before the next block is there.
        for _ in 0..5 {
            let mut world = small.world();
            for judge in &mut judges {
                judge.at_block(&mut world, block, &mut happened).unwrap();
            }
            for miner in &mut miners {
                miner.at_block(&mut world, block, &mut happened).unwrap();
            }
        }
    }
    let followers = miners.iter().map(|miner| &miner.peer.follower);
    let followers = followers.chain(judges.iter().map(|judge| &judge.validator.follower));
    let thetas: Vec<Digest> = followers
        .map(|follower| {
            assert_eq!((follower.window(), follower.accepted(1).unwrap().len()), (2, 2));
            follower.theta().hash
        })
        .collect();
    let told = happened.into_iter().filter_map(|event| match event {
        Happened::Trouble { what, .. } => Some(what),
        _ => None,
    });
    (thetas.try_into().unwrap(), told.collect())
}

/// The θ that all four have where nothing fails.
fn without_trouble() -> Digest {
    let (thetas, told) = two_windows(&mut small());
    assert_eq!((thetas, told), ([thetas[0]; 4], Vec::new()));
    thetas[0]
}

#[test]
fn a_node_outlives_what_its_own_store_refuses() {
    let theta = without_trouble();
    let mut small = small();
    // Not in the id of the run: the same blocks and keys as without trouble.
    (small.run.manifest.window.checkpoint_every, small.run.manifest.window.keep) = (1, 1);
    for n in 1..=4 {
        let bucket = small.buckets.place.with_patience(Patience::none());
        // Whatever is put or taken back fails once.
        let seen = Mutex::new(BTreeSet::new());
        let first = move |change: String| seen.lock().unwrap().insert(change);
        let bucket = bucket.with_trouble(move |asked| {
            let action = format!("{:?}", asked.action);
            let changes = action == "Put" || action == "Delete";
            (changes && first(action + asked.key)).then_some(Trouble::Status(503))
        });
        small.shows(n, n, Some(bucket));
    }
    let (thetas, told) = two_windows(&mut small);
    assert_eq!(thetas, [theta; 4], "{told:#?}");
    for refused in [
        ".values",
        ".commit",
        ".grad",
        "/judge/",
        "/bundle",
        "/record",
        "/agree/",
        "/checkpoints/",
        "take back",
    ] {
        assert!(told.iter().any(|what| what.contains(refused)), "{refused}: {told:#?}");
    }
    assert!(told.iter().all(|what| what.ends_with("the server failed")), "{told:#?}");
}

#[test]
fn who_cannot_have_one_listed_object_takes_the_bundle() {
    let theta = without_trouble();
    let hours = std::time::Duration::from_secs(36_000);
    for trouble in [Trouble::Status(503), Trouble::Status(404), Trouble::Flip(100), Trouble::Delay(hours)] {
        let mut small = small();
        // Miner 2 cannot read what miner 1 sends; from the leader's bucket it has the bundle, soon after it asks.
        let patience = Patience { base: hours, ..Patience::none() };
        let bucket = small.buckets.place.with_patience(patience);
        let object = bucket.with_trouble(move |asked| asked.key.ends_with(".grad").then_some(trouble));
        small.shows(2, 1, Some(object));
        let asked_for = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked_for);
        let patience = Patience { base: std::time::Duration::from_millis(400), ..Patience::default() };
        let leader = small.buckets.place.with_patience(patience).with_trouble(move |asked| {
            count.fetch_add(u64::from(asked.key.ends_with("/bundle")), Ordering::AcqRel);
            None
        });
        small.shows(2, 3, Some(leader));
        let (thetas, told) = two_windows(&mut small);
        assert_eq!((thetas, told), ([theta; 4], Vec::new()), "{trouble:?}");
        assert_eq!(asked_for.load(Ordering::Acquire), 2, "{trouble:?}: once a window");
    }
}

#[test]
fn dust_stake_keeps_nobody_from_judging() {
    let dust = [4, 5, 6, 7];
    let accepted = |dust: &[u8], bucket: fn(&Storage) -> Option<Storage>| {
        let stakes: Vec<(u8, u64)> = dust.iter().map(|n| (*n, 1)).collect();
        let mut small = Small::staked(1, &stakes);
        for n in dust {
            let bucket = bucket(&small.buckets.place);
            small.shows(3, *n, bucket);
        }
        let (_, signed, _) = small.led();
        signed.record.accepted.iter().map(|accepted| accepted.hotkey).collect::<BTreeSet<_>>()
    };
    let both = BTreeSet::from([1, 2].map(|n| identity(n).hotkey()));
    assert_eq!(accepted(&[], |_| None), both);
    assert_eq!(accepted(&dust, |_| None), both, "they have no buckets");
    let fails = |place: &Storage| {
        let place = place.with_patience(Patience::none());
        Some(place.with_trouble(|_| Some(Trouble::Status(503))))
    };
    assert_eq!(accepted(&dust, fails), both, "their buckets fail");
}
