//! Proof 3, PROTOCOL 6.1: a peer that puts its norm into one chunk, all of it or some, flips there about what a peer
//! flips that spreads it.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test stops at the first surprise")]

use gauntlet_demo::synthetic::{self, mix, normal};
use gauntlet_demo::{
    Aggregate, Codebook, Format, Layout, Momentum, StrengthCap, Submission, Subtract, Values, outer_step,
};
use std::sync::Arc;

/// 8 × 8 chunks, of which the attack is on the first.
const EDGE: usize = 512;
const HONEST: u64 = 14;
const SEEDS: u64 = 8;
/// What the attacker leaves of its gradient in the other chunks. 1 is a peer that spreads; at 0.001 the
/// chunk holds all there is.
const ELSEWHERE: [f32; 9] = [1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.1, 1e-3];

struct Attack {
    format: Arc<Format>,
    seed: u64,
    honest: Vec<Submission>,
}

impl Attack {
    fn new(bits: u32, seed: u64) -> Self {
        let layout = Layout::from_shapes([("a", vec![EDGE, EDGE])]).unwrap();
        let format = Format::new(layout, 64, 32, Codebook::with_bits(bits).unwrap()).unwrap();
        let mut attack = Self { format, seed: mix(seed), honest: Vec::new() };
        attack.honest = (1..=HONEST).map(|peer| attack.peer(peer, 1.0, 1.0)).collect();
        attack
    }

    /// Half of every honest gradient is common to all; `direction` −1 turns it.
    fn peer(&self, peer: u64, direction: f32, elsewhere: f32) -> Submission {
        let grads: Vec<f32> = (0..EDGE * EDGE)
            .map(|i| {
                let at = i as u64;
                let g = direction * normal(self.seed ^ at) + normal(self.seed ^ (peer << 32 | at));
                if inside(i) { g } else { elsewhere * g }
            })
            .collect();
        let momentum = Momentum::new(Arc::clone(&self.format), 0.999, 0, Subtract::Always);
        momentum.unwrap().step(&grads, 0.01).unwrap()
    }

    /// A peer that holds all it has in the chunk and writes its levels by hand: `level(i, level)` of the i-th entry.
    fn crafted(&self, direction: f32, level: impl Fn(usize, i8) -> i8) -> Submission {
        let sent = self.peer(HONEST + 1, direction, 1e-3);
        let k = self.format.topk();
        let Values::Levels(mut levels) = sent.values().clone() else { unreachable!() };
        for (i, x) in levels[..k].iter_mut().enumerate() {
            *x = level(i, *x);
        }
        let (exponents, indices) = (sent.exponents().to_vec(), sent.indices().to_vec());
        Submission::new(Arc::clone(&self.format), exponents, indices, Values::Levels(levels)).unwrap()
    }

    /// The same at coefficients that no honest peer sends, so that nobody divides them: `level(i)` of the i-th entry.
    fn alone(&self, level: impl Fn(usize) -> i8) -> Submission {
        let sent = self.peer(HONEST + 1, 1.0, 1e-3);
        let k = self.format.topk();
        let mut taken = vec![false; 64 * 64];
        for peer in &self.honest {
            peer.indices()[..k].iter().for_each(|&i| taken[usize::from(i)] = true);
        }
        let free: Vec<u16> = (0..64 * 64).filter(|&i| !taken[usize::from(i)]).collect();
        let (mut indices, Values::Levels(mut levels)) = (sent.indices().to_vec(), sent.values().clone())
        else {
            unreachable!()
        };
        for i in 0..k {
            indices[i] = free[free.len() / k * i + mix(self.seed) as usize % (free.len() / k)];
            levels[i] = level(i) * if mix(self.seed ^ i as u64).is_multiple_of(2) { 1 } else { -1 };
        }
        let exponents = sent.exponents().to_vec();
        Submission::new(Arc::clone(&self.format), exponents, indices, Values::Levels(levels)).unwrap()
    }

    /// Share of the chunk's signs that one more peer flips.
    fn flips(&self, cap: StrengthCap, more: &Submission) -> f64 {
        let honest: Vec<_> = self.honest.iter().collect();
        let before = signs(&self.format, cap, &honest);
        let after = signs(&self.format, cap, &[&honest[..], &[more]].concat());
        share_inside(&before, &after)
    }

    /// What each honest peer flips among the others and the spread one, with the cap.
    fn honest_flips(&self) -> Vec<f64> {
        let spread = self.peer(HONEST + 1, 1.0, 1.0);
        let all: Vec<_> = self.honest.iter().chain([&spread]).collect();
        let after = signs(&self.format, StrengthCap::LowerMedian, &all);
        let without = |peer: usize| [&all[..peer], &all[peer + 1..]].concat();
        (0..self.honest.len())
            .map(|peer| {
                let before = signs(&self.format, StrengthCap::LowerMedian, &without(peer));
                share_inside(&before, &after)
            })
            .collect()
    }

    /// The same without and with the cap, for each of `ELSEWHERE`.
    fn sweep(&self, direction: f32) -> [Vec<f64>; 2] {
        let sent = ELSEWHERE.map(|elsewhere| self.peer(HONEST + 1, direction, elsewhere));
        [StrengthCap::Off, StrengthCap::LowerMedian]
            .map(|cap| sent.iter().map(|sent| self.flips(cap, sent)).collect())
    }
}

/// Signs of Δ.
fn signs(format: &Arc<Format>, cap: StrengthCap, sent: &[&Submission]) -> Vec<i8> {
    let mut gather = Aggregate::new(Arc::clone(format), cap);
    for (peer, submission) in (0..).zip(sent) {
        gather.add([peer; 32], submission).unwrap();
    }
    let mut delta = vec![0.0; format.layout().len()];
    outer_step::decode(&gather, &mut delta).unwrap();
    delta.iter().map(|&x| i8::from(x > 0.0) - i8::from(x < 0.0)).collect()
}

/// Share of the chunk's signs that differ.
fn share_inside(before: &[i8], after: &[i8]) -> f64 {
    let flipped = (0..EDGE * EDGE).filter(|&i| inside(i) && before[i] != after[i]).count();
    flipped as f64 / (64 * 64) as f64
}

fn inside(i: usize) -> bool {
    i / EDGE < 64 && i % EDGE < 64
}

/// The table of docs/demo.md: `cargo test -p gauntlet-demo --test strength_cap -- --nocapture`.
#[test]
fn concentrating_gains_nothing_under_the_cap() {
    println!("share of the chunk's signs that a fifteenth peer flips, worst of the sweep (spread):");
    for bits in [3, 4] {
        // [direction][cap][worst, spread], means over the seeds.
        let mut means = [[[0.0; 2]; 2]; 2];
        for seed in 0..SEEDS {
            let attack = Attack::new(bits, seed);
            for (direction, means) in [1.0, -1.0].into_iter().zip(&mut means) {
                for (flips, means) in attack.sweep(direction).iter().zip(means) {
                    means[0] += flips.iter().copied().fold(0.0, f64::max) / SEEDS as f64;
                    means[1] += flips[0] / SEEDS as f64;
                }
            }
        }
        for ([off, capped], name) in means.into_iter().zip(["with the others", "against them"]) {
            println!(
                "  {bits} bits, {name}: cap off {:.3} ({:.3}), on {:.3} ({:.3})",
                off[0], off[1], capped[0], capped[1]
            );
            assert!(off[0] > 2.5 * off[1], "without the cap the attack works");
            // The worst of nine is a little above any one of them.
            assert!(capped[0] <= 1.05 * capped[1], "with the cap it flips what a spread peer does");
        }
    }
}

/// Levels no encoder would choose: all the highest; the lowest but for one; one alone.
#[test]
fn crafted_levels_gain_nothing_under_the_cap() {
    for bits in [3, 4] {
        // [direction][spread, concentrated, crafted…], and the honest peer that flips most, means over the seeds.
        let (mut means, mut strongest, mut alone) = ([[0.0; 5]; 2], 0.0, [0.0; 2]);
        for seed in 0..SEEDS {
            let attack = Attack::new(bits, seed);
            strongest += attack.honest_flips().into_iter().fold(0.0, f64::max) / SEEDS as f64;
            let levels = attack.format.codebook().levels();
            let (low, top) = (levels[0], levels[levels.len() - 1]);
            let sent = [attack.alone(|_| top), attack.alone(|i| if i == 0 { top } else { 0 })];
            for (mean, sent) in alone.iter_mut().zip(&sent) {
                *mean += attack.flips(StrengthCap::LowerMedian, sent) / SEEDS as f64;
            }
            for (direction, means) in [1.0, -1.0].into_iter().zip(&mut means) {
                let sent = [
                    attack.peer(HONEST + 1, direction, 1.0),
                    attack.peer(HONEST + 1, direction, 1e-3),
                    attack.crafted(direction, |_, x| x.signum() * top),
                    attack.crafted(direction, |i, x| x.signum() * if i == 0 { top } else { low }),
                    attack.crafted(direction, |i, x| if i == 0 { x.signum() * top } else { 0 }),
                ];
                for (mean, sent) in means.iter_mut().zip(&sent) {
                    *mean += attack.flips(StrengthCap::LowerMedian, sent) / SEEDS as f64;
                }
            }
        }
        println!(
            "{bits} bits, the honest peer that flips most {strongest:.3}, spread, concentrated, crafted:"
        );
        println!(
            "  with the others {:.3?}, against them {:.3?}, nobody else's {alone:.3?}",
            means[0], means[1]
        );
        for [spread, attacks @ ..] in means {
            assert!(attacks.iter().all(|&flips| flips <= 1.1 * spread), "{bits} bits: {means:?}");
        }
        assert!(means[0].iter().all(|&flips| flips < strongest), "{bits} bits: {means:?}, {strongest}");
        // The mean over senders does this, not strength: what nobody else sends is divided by one.
        assert!(alone.iter().all(|&flips| flips < 1.5 * means[1][0]), "{bits} bits: {alone:?}, {means:?}");
    }
}

/// Peers whose gradients have a falling spectrum, strong rows and strong columns, as training's have: all are honest.
#[test]
fn honest_signs_hardly_change() {
    let layout = Layout::from_shapes([("a", vec![EDGE, EDGE]), ("b", vec![256, 1024])]).unwrap();
    for bits in [3, 4] {
        let format = Format::new(layout.clone(), 64, 32, Codebook::with_bits(bits).unwrap()).unwrap();
        let sent: Vec<_> = (0..HONEST)
            .map(|peer| {
                let mut momentum = Momentum::new(Arc::clone(&format), 0.999, 0, Subtract::Always).unwrap();
                let mut grads = vec![0.0; layout.len()];
                let windows = (0..4).map(|window| {
                    synthetic::gradient(&layout, window, peer, &mut grads);
                    momentum.step(&grads, 0.01).unwrap()
                });
                windows.last().unwrap()
            })
            .collect();
        let sent: Vec<_> = sent.iter().collect();
        let [off, capped] =
            [StrengthCap::Off, StrengthCap::LowerMedian].map(|cap| signs(&format, cap, &sent));
        let changed = off.iter().zip(&capped).filter(|(a, b)| a != b).count() as f64 / off.len() as f64;
        println!("{bits} bits: the cap changes {changed:.4} of the signs of {HONEST} honest peers");
        assert!(changed < 0.04, "{bits} bits: {changed}");
    }
}
