//! Anchors of records that a node did not follow.

use std::collections::BTreeMap;

use gauntlet::Digest;
use gauntlet::record::SignedRecord;

use super::super::bundle;
use super::super::conduct::Honest;
use super::super::follower::Followed;
use super::super::miner_node::MinerNode;
use super::super::node::{Node, Part};
use super::super::persist::Disk;
use super::super::records::anchored;
use super::super::validator_node::ValidatorNode;
use super::*;
use crate::chain::Anchor;

/// Window 0, led by validator 3, which signed two records of it: one lists both miners, the other nobody.
struct Twice {
    small: Small,
    validator: Validator,
    first: (SignedRecord, Vec<u8>),
    second: (SignedRecord, Vec<u8>),
}

fn twice() -> Twice {
    let mut small = Small::new(1);
    let (validator, signed, objects) = small.led();
    let nothing = bundle::seal(std::iter::empty::<&[u8]>());
    let mut record = signed.record.clone();
    record.accepted.clear();
    record.bundle = Digest::of(&nothing);
    let second = validator.sign(record).unwrap();
    Twice { small, validator, first: (signed, objects), second: (second, nothing) }
}

impl Twice {
    /// Shows one of its records to everybody, in place of the other.
    fn show(&mut self, which: fn(&Self) -> &(SignedRecord, Vec<u8>)) {
        let (signed, bundle) = which(self).clone();
        self.validator.publish(&self.small.world(), &signed, &bundle).unwrap();
    }

    /// Anchors a record of window 0, by all stake there is, in a block that is then sealed.
    fn anchor(&mut self, record: Digest) {
        let hotkey = self.validator.hotkey();
        self.small.world().chain.anchor(hotkey, Anchor { window: 0, record }).unwrap();
        self.small.height.fetch_add(1, Ordering::AcqRel);
    }

    /// Miner 1 as it stands after the record of window 0 that is shown now.
    fn followed(&mut self) -> Follower {
        let mut follower = self.small.follower(1);
        let leader = self.validator.hotkey();
        assert_eq!(follower.follow(&self.small.world(), 0, Some(leader)).unwrap(), Followed::Applied);
        follower
    }
}

#[test]
fn an_anchor_of_another_record_takes_a_node_back_and_on_by_that_one() {
    let mut twice = twice();
    let (first, second) = (twice.first.0.record.hash().unwrap(), twice.second.0.record.hash().unwrap());
    twice.show(|t| &t.second);
    let other = twice.followed();
    twice.show(|t| &t.first);
    let mut node = twice.followed();
    assert_eq!((node.records().head(), other.records().head()), (first, second));
    assert_ne!(node.theta().hash, other.theta().hash);
    twice.show(|t| &t.second);
    node.read_anchors(&twice.small.world()).unwrap();
    assert_eq!(node.records().head(), first, "no anchor, no reason to go back");
    twice.anchor(second);
    node.read_anchors(&twice.small.world()).unwrap();
    assert_eq!((node.window(), node.records().head()), (1, second));
    assert_eq!((node.theta().hash, node.theta().steps), (other.theta().hash, other.theta().steps));
    assert_eq!(node.accepted(0).unwrap().len(), 0, "what the other record listed is forgotten");
    // And there it stays.
    node.read_anchors(&twice.small.world()).unwrap();
    assert_eq!(node.records().head(), second);
}

#[test]
fn a_node_keeps_its_place_until_the_anchored_record_can_be_had() {
    let mut twice = twice();
    let (first, second) = (twice.first.0.record.hash().unwrap(), twice.second.0.record.hash().unwrap());
    twice.show(|t| &t.first);
    let mut node = twice.followed();
    twice.anchor(second);
    node.read_anchors(&twice.small.world()).unwrap();
    assert_eq!((node.window(), node.records().head()), (1, first));
    twice.show(|t| &t.second);
    node.read_anchors(&twice.small.world()).unwrap();
    assert_eq!((node.window(), node.records().head()), (1, second));
}

#[test]
fn an_anchor_counts_where_its_maker_was_not_barred_yet() {
    let mut twice = twice();
    let (first, leader) = (twice.first.0.record.hash().unwrap(), twice.validator.hotkey());
    twice.anchor(first);
    let mut found = |from: u64| {
        let barred = BTreeMap::from([(leader, from)]);
        anchored(&twice.small.world(), &barred, 0).unwrap()
    };
    assert_eq!(found(1), [(0, first)]);
    assert_eq!(found(0), []);
}

/// Takes `parts` of the newest block.
fn take(node: &mut dyn Node, small: &mut Small, parts: &[Part]) {
    let block = small.height.load(Ordering::Acquire);
    for part in parts {
        node.take(&mut small.world(), block, *part, &mut Vec::new()).unwrap();
    }
}

#[test]
fn a_roll_back_to_the_same_window_is_kept_and_what_was_made_before_it_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let disk = |n: u8| Disk::new(folder.path(), &identity(n).hotkey()).unwrap();
    let mut twice = twice();
    let (first, second) = (twice.first.0.record.hash().unwrap(), twice.second.0.record.hash().unwrap());
    twice.show(|t| &t.first);
    let (peer, follower) = (twice.small.peer(1), twice.small.follower(3));
    let mut world = twice.small.world();
    let mut miner = MinerNode::new(&mut world, peer, Box::new(Honest), 1, Some(disk(1))).unwrap();
    let validator = Validator::new(identity(3), follower);
    let mut validator = ValidatorNode::new(&mut world, validator, Box::new(Honest), Some(disk(3))).unwrap();
    take(&mut miner, &mut twice.small, &[Part::Follow, Part::Train]);
    take(&mut validator, &mut twice.small, &[Part::Follow]);
    assert_eq!(miner.peer.follower.position(), (1, first));
    assert_eq!(validator.validator.follower.position(), (1, first));
    assert!(miner.made(1));
    twice.show(|t| &t.second);
    twice.anchor(second);
    take(&mut miner, &mut twice.small, &[Part::CatchUp]);
    take(&mut validator, &mut twice.small, &[Part::CatchUp]);
    assert!(!miner.made(1), "it was made on another state");
    let (kept, shared) = (miner.killed().unwrap(), Shared::default());
    let mut world = twice.small.world();
    let miner = MinerNode::restore(&mut world, identity(1), Box::new(Honest), 1, kept, shared.clone());
    let kept = validator.killed().unwrap();
    let validator = ValidatorNode::restore(&mut world, identity(3), Box::new(Honest), kept, shared).unwrap();
    let mut miner = miner.unwrap();
    assert_eq!(miner.peer.follower.position(), (1, second));
    assert_eq!(validator.validator.follower.position(), (1, second));
    assert!(!miner.made(1));
    take(&mut miner, &mut twice.small, &[Part::Train]);
    assert!(miner.made(1), "the window is still open");
}

#[test]
fn a_record_that_cannot_be_there_yet_is_not_anchored() {
    let mut small = Small::new(1);
    let (validator, signed, _) = small.led();
    let record = signed.record.hash().unwrap();
    for window in [0, 1, 9, 1 << 40] {
        small.world().chain.anchor(validator.hotkey(), Anchor { window, record }).unwrap();
    }
    let anchored_at = |small: &mut Small, block| {
        small.height.store(block, Ordering::Release);
        anchored(&small.world(), &BTreeMap::new(), 0).unwrap()
    };
    let window = small.run.manifest.window.clone();
    assert_eq!(anchored_at(&mut small, window.record_opens(1) - 1), [(0, record)]);
    assert_eq!(anchored_at(&mut small, window.record_opens(1)), [(0, record), (1, record)]);
}
