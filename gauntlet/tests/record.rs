//! The window record: validity, agreement, succession, equivocation, anchors; any bytes decode to a record or an error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gauntlet::fast_check::{Check, FailReason, UnknownCause};
use gauntlet::record::agreement::{Difference, Seen, Statement, Tally, View, compare};
use gauntlet::record::chain::{Anchored, RecordChain};
use gauntlet::record::equivocation::Equivocation;
use gauntlet::record::succession::Turns;
use gauntlet::record::{Accepted, Here, Objects, PROTOCOL_VERSION, Record, RecordLimits, SignedRecord};
use gauntlet::selection::Selection;
use gauntlet::submission::Commitment;
use gauntlet::{Digest, Error, Hotkey, RecordFault, Signature};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const RUN: Digest = Digest([7; 32]);
const LIMITS: RecordLimits = RecordLimits { gather: 4, object_bytes: 1000 };
/// Records can be published from this block on; a turn lasts ten.
const OPENS: u64 = 500;

fn key(n: u8) -> Hotkey {
    Hotkey([n; 32])
}

/// A stand-in for sr25519: who knows the hotkey can sign, which is enough to test who signed what.
fn sign(signer: &Hotkey, message: &[u8]) -> Signature {
    let mut bytes = [0; 64];
    blake3::Hasher::new_keyed(&signer.0).update(message).finalize_xof().fill(&mut bytes);
    Signature(bytes)
}

fn verify(signer: &Hotkey, message: &[u8], signature: &Signature) -> bool {
    sign(signer, message) == *signature
}

fn signed(record: Record) -> SignedRecord {
    let signature = sign(&record.leader, &record.message().unwrap());
    SignedRecord { record, signature }
}

fn state(window: u64) -> Digest {
    Digest::of(format!("θ before {window}").as_bytes())
}

fn content(hotkey: u8, window: u64) -> Digest {
    Digest::of(&[&[hotkey][..], &window.to_le_bytes()].concat())
}

/// A record of peers 1, 2, 3 by leader 100, on top of `previous`.
fn record(window: u64, previous: Digest) -> Record {
    let accepted = |n| Accepted { hotkey: key(n), content: content(n, window), size: 100 };
    Record {
        protocol: PROTOCOL_VERSION,
        run: RUN,
        window,
        previous,
        state_before: state(window),
        accepted: [1, 2].map(accepted).to_vec(),
        bundle: Digest([5; 32]),
        commitments: [1, 2, 3].map(|n| (key(n), content(n, window))).to_vec(),
        selection: Selection {
            window: window + 2,
            gather: [1, 2, 3].map(key).to_vec(),
            reserve: vec![key(4)],
        },
        published: OPENS + 3,
        leader: key(100),
    }
}

/// A chain after records of windows 0 and 1, and the record of window 2 that follows.
fn chain_and_next() -> (RecordChain, Record) {
    let mut chain = RecordChain::new(RUN, 0);
    for window in 0..2 {
        let next = record(window, chain.head());
        extend(&mut chain, &signed(next)).unwrap();
    }
    let next = record(2, chain.head());
    (chain, next)
}

fn extend(chain: &mut RecordChain, signed: &SignedRecord) -> Result<(), Error> {
    let registered = [1, 2, 3, 4, 5, 6].map(key).into();
    let order = [key(100), key(101)];
    let here = Here {
        state: state(chain.next_window()),
        registered: &registered,
        turns: Turns { order: &order, opens: OPENS, deadline: 10 },
        block: OPENS + 15,
    };
    chain.extend(signed, &here, &LIMITS, &verify)
}

fn fault(result: Result<(), Error>) -> RecordFault {
    match result {
        Err(Error::Record { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_fault_is_found_and_changes_nothing() {
    let (chain, next) = chain_and_next();
    type Spoil = fn(&mut Record);
    let cases: [(Spoil, RecordFault); 22] = [
        (|r| r.protocol = 2, RecordFault::Protocol(2)),
        (|r| r.run = Digest([0; 32]), RecordFault::Run(Digest([0; 32]))),
        (|r| r.window = 3, RecordFault::Window { next: 2 }),
        (|r| r.previous = RUN, RecordFault::Previous(RUN)),
        (|r| r.leader = key(101), RecordFault::Leader(key(101))),
        (|r| r.published = OPENS - 1, RecordFault::Leader(key(100))),
        (|r| r.published = OPENS + 10, RecordFault::Leader(key(100))),
        (|r| r.published = OPENS + 16, RecordFault::Published(OPENS + 16)),
        (|r| r.commitments[2].0 = key(9), RecordFault::NotRegistered(key(9))),
        (|r| r.selection.reserve = vec![key(9)], RecordFault::NotRegistered(key(9))),
        (|r| r.state_before = RUN, RecordFault::State(RUN)),
        (|r| r.accepted = vec![r.accepted[0]; 5], RecordFault::Length("accepted")),
        (|r| r.accepted[0].size = 1001, RecordFault::Length("an accepted object")),
        (|r| r.commitments = vec![r.commitments[0]; 7], RecordFault::Length("commitments")),
        (|r| r.selection.gather = vec![key(9); 5], RecordFault::Length("selection")),
        (|r| r.accepted.reverse(), RecordFault::Order("accepted")),
        (|r| r.accepted[1] = r.accepted[0], RecordFault::Order("accepted")),
        (|r| r.commitments.reverse(), RecordFault::Order("commitments")),
        (|r| r.selection.reserve = vec![key(1)], RecordFault::Order("selection")),
        (|r| r.selection.window = 3, RecordFault::Selection),
        (|r| r.accepted[1].hotkey = key(5), RecordFault::NotSelected(key(5))),
        (|r| r.accepted[1].content = RUN, RecordFault::NotCommitted(key(2))),
    ];
    for (spoil, expected) in cases {
        let (mut chain, mut bad) = (chain.clone(), next.clone());
        spoil(&mut bad);
        assert_eq!(fault(extend(&mut chain, &signed(bad))), expected);
        assert_eq!(chain, chain_and_next().0);
    }
    let mut late = next.clone();
    (late.leader, late.published) = (key(101), OPENS + 10);
    extend(&mut chain.clone(), &signed(late)).unwrap();
    let mut forged = signed(next.clone());
    forged.signature.0[3] ^= 1;
    assert_eq!(fault(extend(&mut chain.clone(), &forged)), RecordFault::Signature(key(100)));
    let mut good = chain.clone();
    extend(&mut good, &signed(next.clone())).unwrap();
    assert_eq!((good.next_window(), good.head()), (3, next.hash().unwrap()));
}

#[test]
fn listed_objects_must_pass_and_missing_ones_are_waited_for() {
    let record = record(0, RUN);
    let passed = |n| (key(n), Check::Passed { count: 1 });
    let check = |checks: &[(Hotkey, Check)]| record.check_objects(&checks.iter().copied().collect());
    assert_eq!(check(&[passed(1), passed(2)]), Ok(Objects::Complete));
    assert_eq!(check(&[passed(1)]), Ok(Objects::Waiting(vec![key(2)])));
    assert_eq!(
        check(&[passed(1), (key(2), Check::Unknown(UnknownCause::TimeOut))]),
        Ok(Objects::Waiting(vec![key(2)]))
    );
    let failed = (key(2), Check::Failed(FailReason::WrongState));
    let expected = Error::Record { window: 0, fault: RecordFault::Object(key(2)) };
    assert_eq!(check(&[passed(1), failed]), Err(expected));
}

#[test]
fn validators_say_where_they_differ_and_unknown_is_no_difference() {
    let record = record(0, RUN);
    let gather: BTreeSet<Hotkey> = [1, 2, 3].map(key).into();
    let commitments: BTreeMap<Hotkey, Commitment> =
        [1, 2, 3].map(|n| (key(n), Commitment::InTime(content(n, 0)))).into();
    let passed = |n| (key(n), Check::Passed { count: 1 });
    let view = |commitments: &BTreeMap<Hotkey, Commitment>, checks: &[(Hotkey, Check)]| {
        let checks = checks.iter().copied().collect();
        compare(&record, &Seen { gather: &gather, commitments, checks: &checks, selection: None })
    };
    let differs = |n, reason| View::Differs { hotkey: key(n), reason };
    assert_eq!(view(&commitments, &[passed(1), passed(2)]), View::Agree);
    assert_eq!(view(&commitments, &[passed(1), passed(2), passed(3)]), differs(3, Difference::LeftOut));
    let fails = (key(2), Check::Failed(FailReason::BadSignature));
    assert_eq!(
        view(&commitments, &[passed(1), fails]),
        differs(2, Difference::Fails(FailReason::BadSignature))
    );
    let unknown = (key(3), Check::Unknown(UnknownCause::ServerError));
    assert_eq!(view(&commitments, &[passed(1), passed(2), unknown]), View::Agree);
    let mut late = commitments.clone();
    late.insert(key(3), Commitment::Late);
    assert_eq!(view(&late, &[passed(1), passed(2)]), differs(3, Difference::Commitment));
    let mut other = commitments.clone();
    other.insert(key(4), Commitment::InTime(RUN));
    assert_eq!(view(&other, &[passed(1), passed(2)]), differs(4, Difference::Commitment));
}

#[test]
fn another_selection_than_the_one_that_follows_is_a_difference() {
    let record = record(0, RUN);
    let view = |selection: Option<&Selection>| {
        let (gather, commitments, checks) = Default::default();
        compare(&record, &Seen { gather: &gather, commitments: &commitments, checks: &checks, selection })
    };
    let differs = |n| View::Differs { hotkey: key(n), reason: Difference::Selection };
    assert_eq!(view(None), View::Agree, "unknown is no difference");
    assert_eq!(view(Some(&record.selection)), View::Agree);
    let with = |gather: &[u8], reserve: &[u8]| Selection {
        gather: gather.iter().copied().map(key).collect(),
        reserve: reserve.iter().copied().map(key).collect(),
        ..record.selection.clone()
    };
    assert_eq!(view(Some(&with(&[1, 3, 5], &[4]))), differs(2), "left out here, named there");
    assert_eq!(view(Some(&with(&[1, 2, 3], &[]))), differs(4));
    assert_eq!(
        view(Some(&with(&[1, 2, 4], &[3]))),
        differs(3),
        "gather set and reserve are not the same place"
    );
}

#[test]
fn statements_weigh_by_stake_and_contradictions_are_silence() {
    let hash = record(0, RUN).hash().unwrap();
    let stakes = BTreeMap::from([(key(100), 10), (key(101), 7), (key(102), 5), (key(103), 2)]);
    let differs = View::Differs { hotkey: key(1), reason: Difference::LeftOut };
    let say = |n, view| {
        let signature = sign(&key(n), &Statement::message(&hash, &view).unwrap());
        Statement { record: hash, validator: key(n), view, signature }
    };
    let forged = Statement { signature: Signature([0; 64]), ..say(103, View::Agree) };
    let stranger = say(200, View::Agree);
    let elsewhere = Statement { record: RUN, ..say(103, View::Agree) };
    let said = [
        say(100, differs),
        say(101, View::Agree),
        say(102, View::Agree),
        say(102, differs),
        forged,
        stranger,
        elsewhere,
    ];
    let tally = Tally::count(&hash, &said, &stakes, &verify).unwrap();
    assert_eq!(tally, Tally { agree: 7, differ: 10, silent: 7 });
    assert!(tally.is_disputed());
}

#[test]
fn two_records_for_one_window_bar_their_leader() {
    let (mut chain, next) = chain_and_next();
    let mut other = next.clone();
    other.accepted.pop();
    let proof = Equivocation { first: signed(next.clone()), second: signed(other.clone()) };
    assert_eq!(proof.culprit(&RUN, &verify), Ok(key(100)));
    let foreign = Digest([9; 32]);
    assert_eq!(fault(proof.culprit(&foreign, &verify).map(|_| ())), RecordFault::Run(RUN));
    chain.bar(key(100), 2);
    assert_eq!(fault(extend(&mut chain, &signed(next.clone()))), RecordFault::Barred(key(100)));
    let no_proof = |second: SignedRecord| {
        let proof = Equivocation { first: signed(next.clone()), second };
        fault(proof.culprit(&RUN, &verify).map(|_| ()))
    };
    assert_eq!(no_proof(signed(next.clone())), RecordFault::NoProof, "one record twice");
    assert_eq!(
        no_proof(signed(Record { window: 3, ..other.clone() })),
        RecordFault::NoProof,
        "another window"
    );
    assert_eq!(
        no_proof(signed(Record { leader: key(101), ..other.clone() })),
        RecordFault::NoProof,
        "another leader"
    );
    let unsigned = SignedRecord { record: other, signature: Signature([0; 64]) };
    assert_eq!(no_proof(unsigned), RecordFault::Signature(key(100)));
}

#[test]
fn another_anchored_record_rolls_back_and_is_the_only_one_taken_then() {
    let mut chain = RecordChain::new(RUN, 0);
    let mut hashes = Vec::new();
    for window in 0..6 {
        let next = record(window, chain.head());
        extend(&mut chain, &signed(next)).unwrap();
        hashes.push(chain.head());
    }
    assert_eq!(chain.anchored(2, hashes[2]), Anchored::Confirmed { next_window: 3 });
    assert_eq!(chain.anchored(1, hashes[1]), Anchored::Old);
    assert_eq!(chain.anchored(9, RUN), Anchored::Ahead);
    let theirs = |previous| Record { bundle: Digest([6; 32]), ..record(5, previous) };
    let anchored = theirs(hashes[4]).hash().unwrap();
    assert_eq!(chain.anchored(5, anchored), Anchored::RollBack { next_window: 3 });
    assert_eq!((chain.next_window(), chain.head()), (3, hashes[2]));
    // The gather sets of the windows to replay are still known, so the records can be checked again.
    let mut outsider = record(3, chain.head());
    outsider.accepted[1].hotkey = key(9);
    assert_eq!(fault(extend(&mut chain, &signed(outsider))), RecordFault::NotSelected(key(9)));
    for window in 3..5 {
        let next = record(window, chain.head());
        extend(&mut chain, &signed(next)).unwrap();
    }
    // The record that was rolled back does not come in again, now or after any other.
    let before = chain.clone();
    let ours = signed(record(5, chain.head()));
    assert_eq!(fault(extend(&mut chain, &ours)), RecordFault::Anchored(anchored));
    assert_eq!(chain, before);
    let next = theirs(chain.head());
    extend(&mut chain, &signed(next)).unwrap();
    assert_eq!((chain.next_window(), chain.head()), (6, anchored));
    assert_eq!(chain.anchored(5, anchored), Anchored::Confirmed { next_window: 6 });
}

#[test]
fn an_anchor_seen_ahead_of_its_record_holds_too() {
    let (mut chain, next) = chain_and_next();
    let other = Record { bundle: Digest([6; 32]), ..next.clone() };
    let anchored = other.hash().unwrap();
    assert_eq!(chain.anchored(2, anchored), Anchored::Ahead);
    assert_eq!(fault(extend(&mut chain, &signed(next))), RecordFault::Anchored(anchored));
    extend(&mut chain, &signed(other)).unwrap();
    assert_eq!(chain.anchored(2, anchored), Anchored::Confirmed { next_window: 3 });
}

#[test]
fn what_a_leader_led_before_it_was_barred_is_replayed() {
    let mut chain = RecordChain::new(RUN, 0);
    for window in 0..5 {
        let next = record(window, chain.head());
        extend(&mut chain, &signed(next)).unwrap();
    }
    let forked = |window| Record { bundle: Digest([6; 32]), ..record(window, RUN) };
    let proof = Equivocation { first: signed(record(4, RUN)), second: signed(forked(4)) };
    assert_eq!(proof.culprit(&RUN, &verify), Ok(key(100)));
    chain.bar(key(100), 6);
    // The earliest window counts.
    chain.bar(key(100), 9);
    assert_eq!(chain.barred(), &BTreeMap::from([(key(100), 6)]));
    // A roll-back to the start: windows 0 to 5 are taken from it again, window 6 is not.
    assert!(matches!(chain.anchored(4, forked(4).hash().unwrap()), Anchored::RollBack { next_window: 0 }));
    let mut replayed = RecordChain::new(RUN, 0);
    replayed.bar(key(100), 6);
    for chain in [&mut chain, &mut replayed] {
        for window in 0..4 {
            let next = record(window, chain.head());
            extend(chain, &signed(next)).unwrap();
        }
    }
    for window in 4..6 {
        let next = record(window, replayed.head());
        extend(&mut replayed, &signed(next)).unwrap();
    }
    let next = record(6, replayed.head());
    assert_eq!(fault(extend(&mut replayed, &signed(next))), RecordFault::Barred(key(100)));
}

#[test]
fn the_form_is_canonical() {
    let signed = signed(record(1, RUN));
    let bytes = signed.to_bytes().unwrap();
    assert_eq!(SignedRecord::from_bytes(&bytes), Ok(signed));
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(SignedRecord::from_bytes(&longer).is_err());
    // Protocol 1 as a two-byte varint says the same in other bytes.
    let mut padded = vec![0x81, 0x00];
    padded.extend(&bytes[1..]);
    assert!(SignedRecord::from_bytes(&padded).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(record) = SignedRecord::from_bytes(&bytes) {
            prop_assert_eq!(record.to_bytes().unwrap(), bytes);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed(at in 0..10_000_usize, bit in 0..8_u32) {
        let good = signed(record(1, RUN));
        let mut bytes = good.to_bytes().unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(read) = SignedRecord::from_bytes(&bytes) {
            prop_assert!(read.check_signature(&verify).is_err());
        }
    }
}
