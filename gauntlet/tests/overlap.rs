//! Copy verdicts: who of a cluster counts, when there is none, and re-use of what was accepted before.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gauntlet::overlap::{Context, CopyVerdict, Overlap, OverlapRules, Standing, verdicts};
use gauntlet::{Digest, Hotkey, Profile};
use std::collections::{BTreeMap, BTreeSet};

const WINDOW: u64 = 50;

fn key(n: u8) -> Hotkey {
    Hotkey([n; 32])
}

fn pair(a: u8, b: u8, fraction: f64) -> Overlap {
    Overlap { hotkey: key(a), other: key(b), window: WINDOW, fraction }
}

fn past(a: u8, b: u8, back: u64, fraction: f64) -> Overlap {
    Overlap { window: WINDOW - back, ..pair(a, b, fraction) }
}

/// Ten peers in the gather set, all seasoned, μ_p falling from peer 0 on.
fn judge(
    overlaps: &[Overlap],
    change: impl Fn(&mut BTreeMap<Hotkey, Standing>),
) -> BTreeMap<Hotkey, CopyVerdict> {
    let gather: BTreeSet<Hotkey> = (0..10).map(key).collect();
    let standing = |n: u8| Standing { commitments: 40, proof: 0.9 - f64::from(n) / 100.0 };
    let mut standings: BTreeMap<Hotkey, Standing> = (0..12).map(|n| (key(n), standing(n))).collect();
    change(&mut standings);
    let context =
        Context { window: WINDOW, step: WINDOW, run: Digest([3; 32]), gather: &gather, standing: &standings };
    verdicts(&OverlapRules::of(Profile::Paper), &context, overlaps)
}

fn blamed(overlaps: &[Overlap]) -> Vec<(u8, u8)> {
    judge(overlaps, |_| {}).into_iter().map(|(copy, verdict)| (copy.0[0], verdict.of.0[0])).collect()
}

/// All pairs of the gather set at one level.
fn background(fraction: f64) -> Vec<Overlap> {
    (0..10).flat_map(|a| (0..a).map(move |b| pair(a, b, fraction))).collect()
}

fn with(background_level: f64, extra: &[Overlap]) -> Vec<Overlap> {
    let mut all = background(background_level);
    all.retain(|o| !extra.iter().any(|e| (e.hotkey, e.other, e.window) == (o.hotkey, o.other, o.window)));
    all.extend(extra);
    all
}

#[test]
fn the_bound_is_point_four_or_three_medians() {
    assert_eq!(blamed(&with(0.02, &[pair(5, 2, 0.39)])), []);
    assert_eq!(blamed(&with(0.02, &[pair(5, 2, 0.41)])), [(5, 2)]);
    assert_eq!(blamed(&with(0.2, &[pair(5, 2, 0.55)])), [], "three medians are 0.6");
    assert_eq!(blamed(&with(0.2, &[pair(5, 2, 0.65)])), [(5, 2)]);
    assert_eq!(blamed(&with(0.3, &[pair(5, 2, 0.94)])), [], "no verdict while everybody overlaps");
    assert_eq!(blamed(&with(0.3, &[pair(5, 2, 0.96)])), [(5, 2)], "but this is certain");
}

#[test]
fn of_a_cluster_one_member_counts() {
    // 2–5, 5–7 and 7–8 are one cluster of four.
    let chain = with(0.02, &[pair(5, 2, 0.8), pair(7, 5, 0.6), pair(8, 7, 0.5)]);
    assert_eq!(blamed(&chain), [(5, 2), (7, 2), (8, 2)]);
    // Whoever has the highest μ_p counts; at equal μ_p, whoever submitted longer.
    let by_proof = judge(&chain, |s| s.get_mut(&key(8)).unwrap().proof = 0.95);
    assert!(by_proof.len() == 3 && !by_proof.contains_key(&key(8)));
    let by_age = judge(&chain, |s| {
        s.values_mut().for_each(|standing| standing.proof = 0.5);
        s.get_mut(&key(7)).unwrap().commitments = 41;
    });
    assert!(by_age.len() == 3 && !by_age.contains_key(&key(7)));
    assert_eq!(by_age[&key(8)].fraction, 0.5, "each is blamed for its own overlap");
}

#[test]
fn young_peers_are_exempt_until_it_is_certain() {
    let young = |s: &mut BTreeMap<Hotkey, Standing>| s.get_mut(&key(5)).unwrap().commitments = 15;
    assert!(judge(&with(0.02, &[pair(5, 2, 0.9)]), young).is_empty());
    assert_eq!(judge(&with(0.02, &[pair(5, 2, 0.95)]), young).len(), 1);
    // While nothing is subtracted from its momentum, an honest peer repeats itself.
    assert!(judge(&with(0.02, &[past(5, 5, 1, 0.99)]), young).is_empty());
    assert_eq!(judge(&with(0.02, &[past(5, 5, 1, 0.99)]), |_| {}).len(), 1);
}

#[test]
fn re_use_of_accepted_submissions() {
    assert_eq!(blamed(&with(0.02, &[past(4, 9, 1, 0.5)])), [(4, 9)], "the μ_p of the owner does not matter");
    assert_eq!(blamed(&with(0.02, &[past(4, 9, 4, 0.9)])), [], "more than three windows back");
    assert_eq!(blamed(&with(0.02, &[past(4, 4, 1, 0.8)])), [], "one momentum resembles itself");
    assert_eq!(blamed(&with(0.02, &[past(4, 4, 1, 0.92)])), [(4, 4)]);
    // Who replays does not become the one that counts, whatever its μ_p.
    let replayed = with(0.02, &[past(0, 3, 1, 1.0), pair(3, 0, 0.9)]);
    assert_eq!(blamed(&replayed), [(0, 3)]);
}

#[test]
fn values_that_are_no_overlap_do_nothing() {
    assert_eq!(blamed(&with(0.02, &[pair(5, 2, f64::NAN), pair(6, 6, 1.0)])), []);
}
