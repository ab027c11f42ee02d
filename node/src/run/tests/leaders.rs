//! What leaders sign, and what is counted for and against them.

use std::collections::BTreeMap;

use gauntlet::record::Record;
use gauntlet::record::agreement::{Difference, Tally, View};
use gauntlet::record::equivocation::Equivocation;

use super::super::follower::Followed;
use super::super::node::{Course, Happened, Reports};
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
        self.report(first, second);
    }

    /// Puts two records on chain as a proof.
    fn report(&mut self, first: SignedRecord, second: SignedRecord) {
        let proof = postcard::to_allocvec(&Equivocation { first, second }).unwrap();
        self.world().chain.report_equivocation(identity(1).hotkey(), &proof).unwrap();
    }
}

/// A record that node `n` signs as its leader.
fn by(n: u8, record: Record) -> SignedRecord {
    let record = Record { leader: identity(n).hotkey(), ..record };
    let signature = identity(n).sign(&record.message().unwrap());
    SignedRecord { record, signature }
}

#[test]
fn records_of_strangers_and_of_other_runs_are_none_of_the_window() {
    let mut small = Small::staked(1, &[(4, 4)]);
    let (validator, signed, bundle) = small.led();
    validator.publish(&small.world(), &signed, &bundle).unwrap();
    let own_place = Storage::memory();
    small.shows(1, 4, Some(own_place.clone()));
    let other_run = Record { run: Digest([9; 32]), ..signed.record.clone() };
    let stranger = |published| by(9, Record { published, ..signed.record.clone() });
    let key = small.run.keys.record(0);
    let said = small.run.keys.agreement(0, &identity(4).hotkey());
    // Validator 4 shows two records by a key that leads nothing; then one that validator 3 signed in an earlier run.
    for (served, seen) in
        [(stranger(1), stranger(2)), (by(3, other_run.clone()), by(3, Record { published: 1, ..other_run }))]
    {
        own_place.put(&key, &served.to_bytes().unwrap()).unwrap();
        let view = Said::new(&identity(4), &seen, View::Agree).unwrap();
        own_place.put(&said, &view.to_bytes().unwrap()).unwrap();
        let mut follower = small.follower(1);
        assert_eq!(follower.records_of(&small.world(), 0).unwrap().0, std::slice::from_ref(&signed));
        assert_eq!(follower.equivocation(&small.world()).unwrap(), None);
        assert_eq!(follower.follow(&small.world(), 0, Some(validator.hotkey())).unwrap(), Followed::Applied);
    }
    // Two that it signed in this run are a proof.
    let second = by(3, Record { published: 1, ..signed.record.clone() });
    own_place.put(&key, &second.to_bytes().unwrap()).unwrap();
    assert!(small.follower(1).equivocation(&small.world()).unwrap().is_some());
}

#[test]
fn proofs_of_other_runs_and_against_strangers_bar_nobody() {
    let mut small = Small::new(1);
    let (_, signed, _) = small.led();
    let of = |n, run, window, published| by(n, Record { run, window, published, ..signed.record.clone() });
    let run = small.run.id;
    small.report(of(3, Digest([9; 32]), 0, 1), of(3, Digest([9; 32]), 0, 2));
    for window in [0, 5, u64::MAX] {
        small.report(of(9, run, window, 1), of(9, run, window, 2));
    }
    let mut follower = small.follower(1);
    for block in [small.run.manifest.window.opens(1), small.run.manifest.window.opens(7)] {
        small.height.store(block, Ordering::Release);
        follower.read_proofs(&small.world()).unwrap();
        assert!(follower.records().barred().is_empty());
    }
}

#[test]
fn a_report_that_the_chain_refuses_is_made_again() {
    let mut small = Small::new(1);
    let (validator, signed, bundle) = small.led();
    validator.publish(&small.world(), &signed, &bundle).unwrap();
    small.say(3, &by(3, Record { published: 1, ..signed.record.clone() }), View::Agree);
    // Node 8 is not registered yet, so the chain takes nothing from it.
    let (mut follower, me) = (small.follower(8), identity(8).hotkey());
    let mut course = Course::new(&mut small.world(), me, None).unwrap();
    let mut reported = |small: &mut Small| {
        let (block, mut happened) = (small.height.fetch_add(1, Ordering::AcqRel), Vec::new());
        course.report(&mut small.world(), &mut follower, block, Reports::AtOnce, &mut happened).unwrap();
        happened
    };
    assert!(matches!(reported(&mut small)[..], [Happened::Trouble { .. }]));
    assert!(reported(&mut small).is_empty(), "it is said once");
    small.chain.register(me, me).unwrap();
    assert!(matches!(reported(&mut small)[..], [Happened::Reported { .. }]));
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
