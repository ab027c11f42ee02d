//! The attack table: scripted score traces for each row of R§8.2 that concerns scoring, 100 windows each, mean of
//! 20 seeds (in `paper` 100 where the peer is honest), among twelve honest peers, under both profiles. The attacker's
//! share of the payout against the honest mean, with a bound.
//!
//! Print it: `cargo test -p gauntlet --test attacks -- --nocapture`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::network::{Act, Gain, HONEST, Network, Pair, Script, among_honest};
use gauntlet::fast_check::{FailReason, UnknownCause};
use gauntlet::{Profile, Rules};

const HONEST_PEERS: usize = 12;
const WINDOWS: usize = 100;

struct Row {
    /// Row of R§8.2; – for none.
    source: &'static str,
    attack: &'static str,
    settled_by: &'static str,
    script: fn() -> Script,
    overlaps: fn(u64) -> Vec<Pair>,
    /// Whose income is measured.
    peer: usize,
    /// First window that counts: attacks that begin with honest work are measured after it.
    from: usize,
    /// Runs under `paper`: an honest peer's income varies more from run to run than an attacker's.
    seeds: u64,
    /// Income against the honest mean under `paper`, least and most.
    bound: (f64, f64),
    /// The most under `reference-2026`.
    most_2026: f64,
}

const ATTACKER: usize = HONEST_PEERS;

fn no_overlaps(_: u64) -> Vec<Pair> {
    Vec::new()
}

/// `most` under `paper` and under `reference-2026`.
fn row(
    source: &'static str,
    attack: &'static str,
    settled_by: &'static str,
    script: fn() -> Script,
    most: (f64, f64),
) -> Row {
    Row {
        source,
        attack,
        settled_by,
        script,
        overlaps: no_overlaps,
        peer: ATTACKER,
        from: 0,
        seeds: 20,
        bound: (0.0, most.0),
        most_2026: most.1,
    }
}

/// Honest for 50 windows, then `act`; counted from there on.
fn turned(
    source: &'static str,
    attack: &'static str,
    settled_by: &'static str,
    script: fn() -> Script,
    most: (f64, f64),
) -> Row {
    Row { from: 50, ..row(source, attack, settled_by, script, most) }
}

fn always(own: f64, random: f64) -> Script {
    Box::new(move |_, _| Act::Submit(Gain { own, random }))
}

fn then(act: fn(u64) -> Act) -> Script {
    Box::new(move |window, _| if window < 50 { Act::Submit(HONEST) } else { act(window) })
}

/// Registers in window 85: all that it submits is in its first fifteen.
fn newcomer(own: f64) -> Script {
    Box::new(move |window, _| if window < 85 { Act::Gone } else { Act::Submit(Gain { own, random: 1.0 }) })
}

/// The attacker repeats so much of peer 0; all others overlap as honest peers do.
fn repeats_first(fraction: f64) -> Vec<Pair> {
    let mut pairs = all_pairs(0.05);
    pairs.retain(|(a, b, ..)| (*a, *b) != (ATTACKER, 0));
    pairs.push((ATTACKER, 0, 0, fraction));
    pairs
}

fn rows() -> Vec<Row> {
    vec![
        turned(
            "1",
            "uploads nothing more",
            "no commitment: φ every window",
            || then(|_| Act::Silent),
            (0.01, 0.05),
        ),
        turned(
            "1",
            "commits, reveals late",
            "put window",
            || then(|_| Act::Fails(FailReason::TooLate)),
            (0.05, 0.05),
        ),
        turned(
            "1",
            "commits junk, never reveals",
            "absent; last in the match",
            || then(|_| Act::Fails(FailReason::Absent)),
            (0.05, 0.05),
        ),
        turned(
            "1, 13",
            "commits junk, answers 503",
            "unknown is free only twice",
            || then(|_| Act::Unknown(UnknownCause::ServerError)),
            (0.1, 0.1),
        ),
        turned(
            "1, 13",
            "works every third window, else 503",
            "each readable window makes good one",
            || {
                then(
                    |w| {
                        if w % 3 == 0 { Act::Submit(HONEST) } else { Act::Unknown(UnknownCause::ServerError) }
                    },
                )
            },
            (0.25, 0.25),
        ),
        row(
            "2, 3",
            "zeros first, then random",
            "0 where either factor is ≤ 0",
            || {
                Box::new(|w, _| {
                    Act::Submit(if w < 30 {
                        Gain { own: 0.0, random: 0.0 }
                    } else {
                        Gain { own: -1.5, random: -1.0 }
                    })
                })
            },
            (0.01, 0.01),
        ),
        row(
            "4, 20",
            "undecodable, one shard only",
            "φ; last in the match",
            || Box::new(|_, _| Act::Fails(FailReason::Undecodable)),
            (0.0, 0.0),
        ),
        row("4", "NaN losses", "failed evaluation", || Box::new(|_, _| Act::Nan), (0.0, 0.0)),
        turned("4", "NaN losses later", "failed evaluation", || then(|_| Act::Nan), (0.05, 0.01)),
        row(
            "5",
            "trained on another state",
            "state tag",
            || Box::new(|_, _| Act::Fails(FailReason::WrongState)),
            (0.0, 0.0),
        ),
        Row {
            overlaps: |_| vec![(ATTACKER, 0, 0, 0.99)],
            ..row(
                "6",
                "copies a leaked object",
                "overlap; the higher μ_p counts",
                || always(1.0, 1.0),
                (0.01, 0.05),
            )
        },
        Row {
            overlaps: |_| vec![(ATTACKER, 0, 0, 0.99)],
            seeds: 100,
            peer: 0,
            bound: (0.6, 1.5),
            ..row(
                "6",
                "(the copied peer itself)",
                "its μ_p shows whose work it is",
                || always(1.0, 1.0),
                (1.5, 1.5),
            )
        },
        Row {
            overlaps: |w| if w > 0 { vec![(ATTACKER, 0, 1, 1.0)] } else { Vec::new() },
            ..row(
                "6",
                "replays the last window",
                "overlap with what was accepted",
                || always(0.9, 0.9),
                (0.01, 0.05),
            )
        },
        row(
            "6",
            "mixes the last windows + 1 own sequence",
            "proof of computation over chance",
            || always(1.25, 1.2),
            (0.125, 0.8),
        ),
        row(
            "6",
            "the same mix at gain 1.45",
            "proof of computation over chance",
            || always(1.5, 1.45),
            (0.125, 1.2),
        ),
        Row {
            overlaps: |w| if w < 50 { all_pairs(0.05) } else { repeats_first(0.5) },
            ..turned(
                "6",
                "repeats half of another's object",
                "overlap above 0.4",
                || then(|_| Act::Submit(Gain { own: 1.25, random: 1.0 })),
                (0.35, 0.8),
            )
        },
        Row {
            overlaps: |w| if w < 50 { all_pairs(0.05) } else { repeats_first(0.8) },
            ..turned(
                "6",
                "repeats four fifths of it",
                "overlap above 0.4",
                || then(|_| Act::Submit(Gain { own: 1.1, random: 1.0 })),
                (0.35, 0.6),
            )
        },
        Row {
            overlaps: |w| if w < 50 { all_pairs(0.05) } else { repeats_first(0.8) },
            peer: 0,
            seeds: 100,
            bound: (0.3, 1.5),
            ..turned(
                "6",
                "(the peer that it repeats)",
                "the higher μ counts",
                || then(|_| Act::Submit(Gain { own: 1.1, random: 1.0 })),
                (1.5, 1.5),
            )
        },
        Row {
            overlaps: |_| repeats_first(0.5),
            from: 85,
            ..row(
                "6",
                "half, in its first 15 submissions",
                "exempt, but too few evaluations",
                || newcomer(1.25),
                (0.01, 0.01),
            )
        },
        Row {
            overlaps: |_| repeats_first(0.8),
            from: 85,
            ..row(
                "6",
                "four fifths, in its first 15",
                "exempt, but too few evaluations",
                || newcomer(1.1),
                (0.01, 0.01),
            )
        },
        row(
            "7",
            "lazy: data of its own choice",
            "proof of computation over chance",
            || always(1.0, 1.0),
            (0.05, 0.2),
        ),
        row(
            "7",
            "lazy with three times the data",
            "proof of computation over chance",
            || always(1.3, 1.3),
            (0.1, 0.5),
        ),
        row("7", "idle: the old gradient again", "rank and proof", || always(0.2, 0.2), (0.01, 0.01)),
        row("12", "harmful: lowers D_p, raises D_rand", "LossRating ≤ 0", || always(1.5, -1.0), (0.01, 0.01)),
        row(
            "12",
            "harmful every second window",
            "LossRating ≤ 0",
            || {
                Box::new(|w, _| {
                    Act::Submit(if w % 2 == 0 { HONEST } else { Gain { own: 1.5, random: -1.0 } })
                })
            },
            (0.05, 0.05),
        ),
        turned(
            "12",
            "harmful after a good start",
            "LossRating falls",
            || then(|_| Act::Submit(Gain { own: 1.5, random: -1.0 })),
            (0.1, 0.1),
        ),
        row("–", "flips the signs", "0 where either factor is ≤ 0", || always(-1.5, -1.0), (0.0, 0.0)),
        row("–", "sends zeros", "a tie proves nothing; rank", || always(0.0, 0.0), (0.0, 0.0)),
        Row {
            seeds: 100,
            bound: (0.6, 1.5),
            ..row(
                "13",
                "honest, unreadable in 1 window of 5",
                "unknown is not failure",
                || {
                    Box::new(|_, dice| {
                        if dice.uniform() < 0.2 {
                            Act::Unknown(UnknownCause::TimeOut)
                        } else {
                            Act::Submit(HONEST)
                        }
                    })
                },
                (1.5, 1.5),
            )
        },
        Row {
            overlaps: |w| if w < 10 { all_pairs(0.65) } else { all_pairs(0.1) },
            seeds: 100,
            bound: (0.6, 1.5),
            ..row(
                "14",
                "honest, all alike in momentum warm-up",
                "no verdict while the median is high",
                || Box::new(|_, _| Act::Submit(HONEST)),
                (1.5, 1.5),
            )
        },
    ]
}

fn all_pairs(fraction: f64) -> Vec<Pair> {
    (0..=ATTACKER).flat_map(|a| (0..a).map(move |b| (a, b, 0, fraction))).collect()
}

/// Income against the honest mean, over all seeds.
fn measure(row: &Row, profile: Profile, seeds: u64) -> f64 {
    let (mut attacker, mut honest) = (0.0, 0.0);
    for seed in 0..seeds {
        let network = Network {
            overlaps: Box::new(row.overlaps),
            ..among_honest(Rules::of(profile), seed, HONEST_PEERS, vec![(row.script)()])
        };
        let history = network.run(WINDOWS as u64);
        attacker += history.income(row.peer, row.from..WINDOWS);
        honest += history.mean(0..HONEST_PEERS, row.from..WINDOWS);
    }
    attacker / honest
}

#[test]
fn attacks_earn_less_than_their_bound() {
    println!(
        "| R§8.2 | behaviour | from window | share of the honest mean | bound | settled by |\n|---|---|---|---|---|---|"
    );
    let mut broken = Vec::new();
    for row in rows() {
        let share = measure(&row, Profile::Paper, row.seeds);
        let (least, most) = row.bound;
        let bound = if least > 0.0 { format!("{least}–{most}") } else { most.to_string() };
        println!(
            "| {} | {} | {} | {share:.3} | {bound} | {} |",
            row.source, row.attack, row.from, row.settled_by
        );
        if !(least..=most).contains(&share) {
            broken.push(row.attack);
        }
    }
    assert!(broken.is_empty(), "out of bounds: {broken:?}");
}

#[test]
fn attacks_under_reference_2026() {
    println!("| R§8.2 | behaviour | from window | share of the honest mean | bound |\n|---|---|---|---|---|");
    let mut broken = Vec::new();
    for row in rows() {
        let share = measure(&row, Profile::Reference2026, 20);
        println!("| {} | {} | {} | {share:.3} | {} |", row.source, row.attack, row.from, row.most_2026);
        if share > row.most_2026 {
            broken.push(row.attack);
        }
    }
    assert!(broken.is_empty(), "out of bounds: {broken:?}");
}

#[test]
fn a_tiny_score_does_not_keep_its_pay_for_ever() {
    // Row 11: infinite decay. After thirty silent windows the share is exactly nothing.
    for seed in 0..10 {
        let script = then(|_| Act::Silent);
        let history = among_honest(Rules::default(), seed, HONEST_PEERS, vec![script]).run(WINDOWS as u64);
        assert_eq!(history.income(ATTACKER, 80..WINDOWS), 0.0);
    }
}
