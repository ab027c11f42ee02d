//! What leaders sign, and what is counted for and against them.

use std::collections::BTreeMap;

use gauntlet::record::Record;
use gauntlet::record::agreement::{Difference, Tally, View};
use gauntlet::record::equivocation::Equivocation;

use super::super::follower::Followed;
use super::super::statement::Said;
use super::*;

impl Small {
    /// Validator `n` says what it thinks of a record.
    fn say(&mut self, n: u8, signed: &SignedRecord, view: View) {
        let (me, w) = (identity(n), signed.record.window);
        let said = Said::new(&me, signed, view).unwrap().to_bytes().unwrap();
        let world = self.world();
        world.put(&me.hotkey(), &world.run.keys.agreement(w, &me.hotkey()), &said).unwrap();
    }

    /// Puts two records of window `w` by validator 3 on chain as a proof.
    fn prove(&mut self, w: u64) {
        let (validator, signed, _) = self.led();
        let [first, second] = [1, 2].map(|published| {
            validator.sign(Record { window: w, published, ..signed.record.clone() }).unwrap()
        });
        let proof = postcard::to_allocvec(&Equivocation { first, second }).unwrap();
        self.world().chain.report_equivocation(identity(1).hotkey(), &proof).unwrap();
    }
}

#[test]
fn a_proof_of_a_window_to_come_means_the_same_to_nodes_that_run_and_that_start() {
    let mut small = Small::new(1);
    let window = small.run.manifest.window.clone();
    small.prove(5);
    let mut running = small.follower(1);
    for block in window.record_opens(0)..window.opens(7) {
        small.height.store(block, Ordering::Release);
        running.read_proofs(&small.world()).unwrap();
        let mut started = small.follower(2);
        started.read_proofs(&small.world()).unwrap();
        assert_eq!(running.records().barred(), started.records().barred(), "block {block}");
        // It cannot be reported again, so once its window is there it counts.
        let expected = (block >= window.opens(5)).then(|| (identity(3).hotkey(), 6));
        assert_eq!(running.records().barred(), &BTreeMap::from_iter(expected), "block {block}");
    }
    assert_eq!(running.places().1.records.barred().len(), 1, "it stays barred after a roll-back");
}

#[test]
fn a_leader_counts_once_whatever_it_says_of_its_own_record() {
    let mut small = Small::staked(1, &[(4, 4), (5, 4)]);
    let (validator, signed, bundle) = small.led();
    validator.publish(&small.world(), &signed, &bundle).unwrap();
    let mut follower = small.follower(1);
    let leader = validator.hotkey();
    assert_eq!(follower.follow(&small.world(), 0, Some(leader)).unwrap(), Followed::Applied);
    let differs = View::Differs { hotkey: identity(1).hotkey(), reason: Difference::LeftOut };
    small.say(4, &signed, differs);
    small.say(5, &signed, differs);
    let counted = Tally { agree: 5, differ: 8, silent: 0 };
    assert_eq!(follower.tally(&small.world()).unwrap(), counted);
    for view in [View::Agree, differs] {
        small.say(3, &signed, view);
        let tally = follower.tally(&small.world()).unwrap();
        assert_eq!(tally, counted, "{view:?}");
        assert!(tally.is_disputed());
    }
}

/// Validator 3 as it starts in an empty folder, a block later, and what it would publish of window 0.
fn anew(small: &mut Small) -> Option<(SignedRecord, Vec<u8>)> {
    small.height.fetch_add(1, Ordering::AcqRel);
    let mut validator = Validator::new(identity(3), small.follower(3));
    let mut world = small.world();
    validator.read_commitments(&world, 0).unwrap();
    validator.judge(&mut world, 0).unwrap().unwrap();
    validator.record(&world, 0).unwrap()
}

#[test]
fn a_validator_that_starts_anew_signs_no_second_record() {
    let mut small = Small::staked(1, &[(4, 4)]);
    let (validator, signed, bundle) = small.led();
    let another = anew(&mut small).unwrap().0;
    assert_ne!(another, signed, "nobody has seen the first one");
    validator.publish(&small.world(), &signed, &bundle).unwrap();
    assert_eq!(anew(&mut small), Some((signed.clone(), bundle)), "its own bucket has it");
    // One of another run is none of this.
    let foreign = validator.sign(Record { run: Digest([9; 32]), ..signed.record.clone() }).unwrap();
    let (run, key) = (small.run.id, small.run.keys.record(0));
    small.world().put(&identity(3).hotkey(), &key, &foreign.to_bytes().unwrap()).unwrap();
    let (own, _) = anew(&mut small).unwrap();
    assert_eq!(own.record.run, run);
    assert_ne!(own, signed);
    small.say(4, &signed, View::Agree);
    assert_eq!(anew(&mut small).unwrap().0, signed, "another validator has it");
    // What it would list now is something else, and it shows nothing.
    let (miner, world) = (identity(1).hotkey(), small.world());
    world.buckets.of(&miner, &miner).unwrap().delete(&[world.run.keys.submission(0, &miner)]).unwrap();
    assert_eq!(anew(&mut small), None);
}
