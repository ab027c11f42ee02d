//! Weights that a validator sets by its newest split.

use std::collections::BTreeMap;

use gauntlet::incentive::Incentives;

use super::super::validator::Memory;
use super::*;

#[test]
fn a_split_that_pays_nobody_takes_the_weights_of_the_one_before_away_once() {
    let mut small = Small::new(1);
    // Past an epoch, for a permit.
    small.height.store(25, Ordering::Release);
    let mut validator = Validator::new(identity(3), small.follower(3));
    let state = State::default().to_bytes().unwrap();
    let mut set = |small: &mut Small, incentives: Incentives| {
        let memory = Memory { state: state.clone(), incentives: Some(incentives), ..Memory::default() };
        let mut world = small.world();
        validator.remember(&world, memory, BTreeMap::new()).unwrap();
        let after = validator.afterwards(&mut world, 0..3).unwrap();
        assert_eq!(after.refused, []);
        small.height.fetch_add(1, Ordering::AcqRel);
        after.weights
    };
    let nobody = Incentives::default;
    assert_eq!(set(&mut small, nobody()), None, "there is nothing to take away");
    let shares = BTreeMap::from([(identity(1).hotkey(), 1.0)]);
    let paid = Incentives { shares, ..Incentives::default() };
    assert_eq!(set(&mut small, paid), Some((2, vec![(0, u16::MAX)])), "miner 1 has uid 0");
    assert_eq!(set(&mut small, nobody()), Some((2, vec![(2, u16::MAX)])), "all on itself");
    assert_eq!(set(&mut small, nobody()), None);
}
