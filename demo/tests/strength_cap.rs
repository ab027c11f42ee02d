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
const CHUNK: usize = 64;
const CAPS: [StrengthCap; 2] = [StrengthCap::Off, StrengthCap::LowerMedian];
/// With the others, and against them.
const DIRECTIONS: [i8; 2] = [1, -1];
/// What the attacker leaves of its gradient in the other chunks. 1 is a peer that spreads; at 0.001 the
/// chunk holds all there is.
const ELSEWHERE: [f32; 5] = [1.0, 0.8, 0.5, 0.2, 1e-3];

struct Attack {
    format: Arc<Format>,
    seed: u64,
    honest: Vec<Submission>,
    /// Signs of the honest peers' Δ, without and with the cap.
    before: [Vec<i8>; 2],
}

impl Attack {
    /// On `honest` peers, by one more.
    fn new(bits: u32, honest: u64, seed: u64) -> Self {
        let layout = Layout::from_shapes([("a", vec![EDGE, EDGE])]).unwrap();
        let format = Format::new(layout, CHUNK, 32, Codebook::with_bits(bits).unwrap()).unwrap();
        let before = [Vec::new(), Vec::new()];
        let mut attack = Self { format, seed: mix(seed), honest: Vec::new(), before };
        attack.honest = (1..=honest).map(|peer| attack.peer(peer, 1, 1.0)).collect();
        let sent: Vec<_> = attack.honest.iter().collect();
        attack.before = CAPS.map(|cap| signs(&attack.format, cap, &sent));
        attack
    }

    /// Half of every honest gradient is common to all; `direction` −1 turns it.
    fn peer(&self, peer: u64, direction: i8, elsewhere: f32) -> Submission {
        let grads: Vec<f32> = (0..EDGE * EDGE)
            .map(|i| {
                let at = i as u64;
                let g = f32::from(direction) * normal(self.seed ^ at) + normal(self.seed ^ (peer << 32 | at));
                if inside(i) { g } else { elsewhere * g }
            })
            .collect();
        let momentum = Momentum::new(Arc::clone(&self.format), 0.999, 0, Subtract::Always);
        momentum.unwrap().step(&grads, 0.01).unwrap()
    }

    fn attacker(&self, direction: i8, elsewhere: f32) -> Submission {
        self.peer(self.honest.len() as u64 + 1, direction, elsewhere)
    }

    /// A peer that holds all it has in the chunk and writes its levels by hand: `level(i, level)` of the i-th entry.
    fn crafted(&self, direction: i8, level: impl Fn(usize, i8) -> i8) -> Submission {
        let (exponents, indices, mut levels) = parts(&self.attacker(direction, 1e-3));
        for (i, x) in levels[..self.format.topk()].iter_mut().enumerate() {
            *x = level(i, *x);
        }
        self.submission(exponents, indices, levels)
    }

    /// Levels no encoder would choose: all the highest; the lowest but for one; one alone, where a code is not sent.
    fn all_crafted(&self, direction: i8) -> Vec<Submission> {
        let levels = self.format.codebook().levels();
        let (low, top) = (levels[0], levels[levels.len() - 1]);
        let mut sent = vec![
            self.crafted(direction, |_, x| x.signum() * top),
            self.crafted(direction, |i, x| x.signum() * if i == 0 { top } else { low }),
        ];
        if self.format.codebook().bits() > 1 {
            sent.push(self.crafted(direction, |i, x| if i == 0 { x.signum() * top } else { 0 }));
        }
        sent
    }

    /// A peer that writes the chunk by hand at coefficients that no honest peer sends, so that nobody divides them: as many
    /// as there is room for, or one. The rest of its gradient is an honest peer's: the chunk's exponent alone is raised,
    /// as far as the cap lets anybody come.
    fn alone(&self, one: bool) -> Submission {
        let (mut exponents, mut indices, mut levels) = parts(&self.attacker(1, 1.0));
        let (k, book) = (self.format.topk(), self.format.codebook());
        let (top, zero) = (*book.levels().last().unwrap(), book.bits() > 1);
        let mut taken = [false; CHUNK * CHUNK];
        for peer in &self.honest {
            peer.indices()[..k].iter().for_each(|&i| taken[usize::from(i)] = true);
        }
        let free: Vec<u16> = (0..).zip(taken).filter(|(_, taken)| !taken).map(|(i, _)| i).collect();
        for i in 0..k {
            indices[i] = free[free.len() / k * i + mix(self.seed) as usize % (free.len() / k)];
            let sign = if mix(self.seed ^ i as u64).is_multiple_of(2) { 1 } else { -1 };
            levels[i] = if one && zero && i > 0 { 0 } else { sign * top };
        }
        exponents[0] += 3;
        self.submission(exponents, indices, levels)
    }

    fn submission(&self, exponents: Vec<i16>, indices: Vec<u16>, levels: Vec<i8>) -> Submission {
        Submission::new(Arc::clone(&self.format), exponents, indices, Values::Levels(levels)).unwrap()
    }

    /// Share of the chunk's signs that one more peer flips, without or with the cap.
    fn flips(&self, cap: StrengthCap, more: &Submission) -> f64 {
        let sent: Vec<_> = self.honest.iter().chain([more]).collect();
        share_inside(&self.before[usize::from(cap == CAPS[1])], &signs(&self.format, cap, &sent))
    }

    /// With the cap, in each direction: what that honest peer flips that flips most, among the others and the spread one.
    /// Turned, it sends the opposite of what it found.
    fn strongest(&self) -> [f64; 2] {
        let spread = self.attacker(1, 1.0);
        let all: Vec<_> = self.honest.iter().chain([&spread]).collect();
        let mut most = [0.0_f64; 2];
        for peer in 0..self.honest.len() {
            let mut sent = all.clone();
            sent.remove(peer);
            let before = signs(&self.format, StrengthCap::LowerMedian, &sent);
            let (exponents, indices, levels) = parts(all[peer]);
            for (most, direction) in most.iter_mut().zip(DIRECTIONS) {
                let levels = levels.iter().map(|level| direction * level).collect();
                let turned = self.submission(exponents.clone(), indices.clone(), levels);
                let after = signs(&self.format, StrengthCap::LowerMedian, &[&sent[..], &[&turned]].concat());
                *most = most.max(share_inside(&before, &after));
            }
        }
        most
    }
}

fn parts(sent: &Submission) -> (Vec<i16>, Vec<u16>, Vec<i8>) {
    let Values::Levels(levels) = sent.values().clone() else { unreachable!() };
    (sent.exponents().to_vec(), sent.indices().to_vec(), levels)
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
    flipped as f64 / (CHUNK * CHUNK) as f64
}

fn inside(i: usize) -> bool {
    i / EDGE < CHUNK && i % EDGE < CHUNK
}

/// Shares of the chunk's signs, means over seeds.
#[derive(Debug, Default)]
struct Flips {
    /// \[direction\]\[cap\]: the worst of `ELSEWHERE`, and the spread peer.
    sweep: [[[f64; 2]; 2]; 2],
    /// \[direction\]: [`Attack::all_crafted`].
    crafted: [[f64; 3]; 2],
    /// \[direction\]: the honest peer that flips most.
    strongest: [f64; 2],
    /// At coefficients that nobody else sends: many, one.
    alone: [f64; 2],
}

impl Flips {
    fn measure(bits: u32, honest: u64, seeds: u64) -> Self {
        let mut out = Self::default();
        let mean = |sum: &mut f64, flips: f64| *sum += flips / seeds as f64;
        for seed in 0..seeds {
            let attack = Attack::new(bits, honest, seed);
            for (d, direction) in DIRECTIONS.into_iter().enumerate() {
                let sent = ELSEWHERE.map(|elsewhere| attack.attacker(direction, elsewhere));
                for (cap, [worst, spread]) in CAPS.into_iter().zip(&mut out.sweep[d]) {
                    let flips = sent.each_ref().map(|sent| attack.flips(cap, sent));
                    mean(worst, flips.into_iter().fold(0.0, f64::max));
                    mean(spread, flips[0]);
                }
                for (sum, sent) in out.crafted[d].iter_mut().zip(&attack.all_crafted(direction)) {
                    mean(sum, attack.flips(StrengthCap::LowerMedian, sent));
                }
            }
            out.strongest.iter_mut().zip(attack.strongest()).for_each(|(sum, flips)| mean(sum, flips));
            for (sum, one) in out.alone.iter_mut().zip([false, true]) {
                mean(sum, attack.flips(StrengthCap::LowerMedian, &attack.alone(one)));
            }
        }
        println!("{bits} bits, {honest} honest peers and one more, means of {seeds} seeds:");
        for (d, name) in ["with the others", "against them"].into_iter().enumerate() {
            let [[off, off_spread], [on, spread]] = out.sweep[d];
            println!(
                "  {name}: worst (spread) cap off {off:.3} ({off_spread:.3}), on {on:.3} ({spread:.3});"
            );
            println!("    crafted {:.3?}, strongest honest {:.3}", out.crafted[d], out.strongest[d]);
        }
        println!("  nobody else's {:.3?}", out.alone);
        out
    }

    fn check(&self, most: &Most) {
        for ([[off, off_spread], [on, spread]], (crafted, strongest)) in
            self.sweep.into_iter().zip(self.crafted.into_iter().zip(self.strongest))
        {
            assert!(off > 2.0 * off_spread, "without the cap the attack works: {self:?}");
            let worst = crafted.into_iter().fold(on, f64::max);
            let found = [on / spread, worst / spread, worst / strongest];
            let bounds = [most.concentrated_by_spread, most.crafted_by_spread, most.crafted_by_strongest];
            assert!(found.iter().zip(bounds).all(|(found, most)| *found <= most), "{found:?}: {self:?}");
        }
        // The mean over senders does this, not strength: what nobody else sends is divided by one.
        let alone = self.alone[0].max(self.alone[1]) / self.strongest[0];
        assert!(alone <= most.alone_by_strongest, "{alone}: {self:?}");
    }
}

/// Most that an attack flips, as multiples of what others flip who point the same way. All arithmetic is the same on every
/// machine, so the bounds are just above what was measured.
struct Most {
    /// The worst of `ELSEWHERE`, of what the peer flips that spreads.
    concentrated_by_spread: f64,
    /// That and levels written by hand.
    crafted_by_spread: f64,
    /// The same, of what the strongest honest peer flips.
    crafted_by_strongest: f64,
    /// At coefficients that nobody else sends.
    alone_by_strongest: f64,
}

const AMONG_FOURTEEN: Most = Most {
    concentrated_by_spread: 1.03,
    crafted_by_spread: 1.05,
    crafted_by_strongest: 0.95,
    alone_by_strongest: 1.38,
};

/// The table of docs/demo.md: `cargo test -p gauntlet-demo --test strength_cap -- --nocapture`.
#[test]
fn nothing_is_gained_by_concentrating_under_the_cap() {
    for bits in [1, 3, 4] {
        Flips::measure(bits, 14, 8).check(&AMONG_FOURTEEN);
    }
}

#[test]
fn nor_with_other_codes() {
    for bits in [2, 8] {
        Flips::measure(bits, 14, 4).check(&AMONG_FOURTEEN);
    }
}

/// Of three the lower median is the second: one honest peer and the attacker decide what the attacker may.
#[test]
fn nor_in_gathers_of_three_and_five() {
    let most = Most { crafted_by_strongest: 1.03, alone_by_strongest: 1.25, ..AMONG_FOURTEEN };
    for (bits, honest) in [(1, 2), (1, 4), (3, 2), (3, 4)] {
        Flips::measure(bits, honest, 8).check(&most);
    }
}

/// Peers whose gradients have a falling spectrum, strong rows and strong columns, as training's have: all are honest.
#[test]
fn honest_signs_hardly_change() {
    const PEERS: u64 = 14;
    let layout = Layout::from_shapes([("a", vec![EDGE, EDGE]), ("b", vec![256, 1024])]).unwrap();
    // With one bit a chunk's energy is its exponent, and the next is four times as strong.
    for (bits, most) in [(1, 0.06), (3, 0.04), (4, 0.04)] {
        let format = Format::new(layout.clone(), 64, 32, Codebook::with_bits(bits).unwrap()).unwrap();
        let sent: Vec<_> = (0..PEERS)
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
        println!("{bits} bits: the cap changes {changed:.4} of the signs of {PEERS} honest peers");
        assert!(changed < most, "{bits} bits: {changed}");
    }
}
