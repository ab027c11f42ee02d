//! Objects that do not belong: each gives a scored reason, and nobody else notices.

use gauntlet::fast_check::{Check, FailReason, check};
use gauntlet::submission::Commitment;

use super::super::reader::{self, Phase};
use super::super::records::expected;
use super::super::{commitment, values};
use super::*;

/// A signed object of miner 1 for window `w`, made in the run of `small`.
fn object(small: &mut Small, w: u64) -> Vec<u8> {
    let mut peer = small.peer(1);
    let mut world = small.world();
    let (sent, _) = peer.train(&mut world, &[1]).unwrap();
    let theta = Arc::clone(peer.follower.theta());
    peer.seal(&world, w, &theta, &sent, 1).unwrap()
}

/// What a validator makes of `bytes` as the object of miner `n` in window 0, committed to in time.
fn judged(small: &mut Small, n: u8, bytes: &[u8]) -> Check {
    let owner = identity(n);
    let follower = small.follower(3);
    let world = small.world();
    let (keys, hotkey) = (&world.run.keys, owner.hotkey());
    let promise = commitment::seal(&owner, &world.run.id, 0, &Digest::of(bytes));
    world.put(&hotkey, &keys.commitment(0, &hotkey), &promise).unwrap();
    world.put(&hotkey, &keys.submission(0, &hotkey), bytes).unwrap();
    let me = follower.hotkey();
    let promise = reader::commitments(&world, &me, [hotkey], 0, Phase::ANY)[&hotkey];
    assert_eq!(promise, Commitment::InTime(Digest::of(bytes)));
    let read = reader::objects(&world, &me, [hotkey], 0, Phase::ANY).remove(&hotkey).unwrap();
    let opening = world.opening(0).unwrap();
    let wanted = expected(world.run, 0, follower.theta(), &opening, hotkey);
    check(&world.run.manifest.gauntlet.fast, &wanted, promise, &read.object)
}

#[test]
fn each_object_that_does_not_belong_has_its_reason() {
    let (mut small, mut other) = (Small::new(1), Small::new(2));
    small.height.store(small.run.manifest.window.opens(2), Ordering::Release);
    other.height.store(other.run.manifest.window.opens(2), Ordering::Release);
    let good = object(&mut small, 0);
    assert_eq!(judged(&mut small, 1, &good), Check::Passed { count: 1 });
    let failed = |check| match check {
        Check::Failed(reason) => reason,
        other => panic!("{other:?}"),
    };
    let foreign = object(&mut other, 0);
    assert_eq!(failed(judged(&mut small, 1, &foreign)), FailReason::WrongRun);
    let later = object(&mut small, 1);
    assert_eq!(failed(judged(&mut small, 1, &later)), FailReason::WrongWindow);
    assert_eq!(failed(judged(&mut small, 2, &good)), FailReason::WrongHotkey);
    // Magic, then the version.
    let mut version = good.clone();
    version[4] ^= 1;
    assert_eq!(failed(judged(&mut small, 1, &version)), FailReason::OtherVersion);
    let mut flipped = good.clone();
    let middle = good.len() / 2;
    flipped[middle] ^= 1;
    assert_eq!(failed(judged(&mut small, 1, &flipped)), FailReason::Undecodable);
    let mut signature = good.clone();
    *signature.last_mut().unwrap() ^= 1;
    assert!(matches!(judged(&mut small, 1, &signature), Check::Failed(_)));
    let large = vec![0; usize::try_from(small.run.max_object()).unwrap() + 1];
    assert_eq!(failed(judged(&mut small, 1, &large)), FailReason::TooLarge);
}

#[test]
fn what_belongs_to_another_run_or_version_is_not_read() {
    let (mut small, mut other) = (Small::new(1), Small::new(2));
    let (me, key) = (identity(1), identity(1).hotkey());
    let world = small.world();
    let theta = vec![1.0; 100];
    let foreign = values::of(&theta, &other.world().run.id, &Digest([1; 32]));
    let published = values::seal(&me, &other.world().run.id, 0, &foreign);
    assert_eq!(values::open(&published, &world.run.id, 0, &key), None);
    let mut promise = commitment::seal(&me, &world.run.id, 0, &Digest([1; 32]));
    assert!(commitment::open(&promise, &world.run.id, 0, &key).is_some());
    promise[4] ^= 1;
    assert!(commitment::open(&promise, &world.run.id, 0, &key).is_none(), "another version");
    let refused = small.chain.register(key, key).unwrap_err().to_string();
    assert!(refused.contains("refused by the chain") && refused.contains(&key.to_string()), "{refused}");
}
