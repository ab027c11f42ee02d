//! The gather: any number of submissions to one coefficient sum, in integers (PROTOCOL 6.1).
//!
//! value = level << (14 − (e_max − e)), 0 below; s_p = round(2⁴⁸ / sqrt(Σ value²)) a tensor; per coefficient
//! A = Σ value·s_p over the n peers that sent it, c = f32(A) / f32(n). Every peer weighs the same, whatever its scale.
//!
//! Strength cap: within a chunk value·s_p = level·unit_p, and the peer's energy there is E_p = unit_p²·Σ level². Where it
//! exceeds M, the lower median of the gather's energies in that chunk, unit_p is max(1, ⌊sqrt(M / Σ level²)⌋) instead; in f64,
//! each operation rounded once. Without it a peer can put its whole norm into one chunk and own its signs.
//!
//! Nothing dense is kept: the sums of a chunk are made when the outer step comes to it.

use crate::chunk::MAX_CHUNK;
use crate::error::{Error, Result};
use crate::format::{Format, Plan};
use crate::inverse::InverseTile;
use crate::momentum::EXPONENT_RANGE;
use crate::submission::{EMPTY, Submission, Values};
use rayon::prelude::*;
use std::sync::Arc;

/// Most submissions of one gather: |value·s_p| < 2⁴⁹, so their sum stays far inside an i64; a GPU's block holds as
/// many units.
pub const MAX_PEERS: usize = 512;
/// s_p of a tensor of unit norm.
const ONE: f64 = (1_u64 << 48) as f64;

/// Whether a peer's strength in one chunk is limited by the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrengthCap {
    /// Who is stronger than the lower median is brought down to it.
    LowerMedian,
    /// No limit.
    Off,
}

/// The submissions that one outer step applies.
#[derive(Debug)]
pub struct Aggregate<'a> {
    format: Arc<Format>,
    cap: StrengthCap,
    peers: Vec<Peer<'a>>,
}

#[derive(Debug)]
struct Peer<'a> {
    hotkey: [u8; 32],
    submission: &'a Submission,
    tensors: Vec<Scale>,
}

/// How one peer's tensor is brought to unit norm.
#[derive(Debug, Clone, Copy)]
struct Scale {
    e_max: i16,
    /// s_p; 0 for a tensor that sends nothing.
    levels: u64,
    /// 2⁴⁸/‖v‖ of f32 values.
    exact: f64,
}

impl<'a> Aggregate<'a> {
    /// Nothing gathered yet.
    pub fn new(format: Arc<Format>, cap: StrengthCap) -> Self {
        Self { format, cap, peers: Vec::new() }
    }

    /// Adds a peer's submission. The order in which peers are added does not matter.
    pub fn add(&mut self, hotkey: [u8; 32], submission: &'a Submission) -> Result<()> {
        self.format.check(&submission.format)?;
        let place = match self.peers.binary_search_by(|peer| peer.hotkey.cmp(&hotkey)) {
            Ok(_) => return Err(Error::DuplicatePeer { hotkey }),
            Err(place) => place,
        };
        if self.peers.len() == MAX_PEERS {
            return Err(Error::TooManyPeers { limit: MAX_PEERS });
        }
        let plans: Vec<&Plan> = self.format.plans().map(|(_, plan)| plan).collect();
        let tensors = plans.par_iter().map(|plan| scale_of(submission, plan)).collect();
        self.peers.insert(place, Peer { hotkey, submission, tensors });
        Ok(())
    }

    /// Submissions gathered.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// True before the first submission.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// What is gathered must have this format.
    pub fn format(&self) -> &Arc<Format> {
        &self.format
    }

    /// Puts the coefficients c ≠ 0 of a chunk into `out`.
    pub(crate) fn sum_chunk(
        &self,
        tensor: usize,
        plan: &Plan,
        chunk: usize,
        sums: &mut Sums,
        out: &mut InverseTile,
    ) {
        self.shares(tensor, plan, chunk, sums);
        let entries = plan.chunk_entries(chunk);
        for (number, peer) in self.peers.iter().enumerate() {
            let share = sums.shares[number];
            if share.energy == 0.0 {
                continue;
            }
            let indices = &peer.submission.indices[entries.clone()];
            match &peer.submission.values {
                Values::Levels(levels) => {
                    let unit = share.limited_unit(sums.limit);
                    for (&i, &level) in indices.iter().zip(&levels[entries.clone()]) {
                        sums.add(i, i64::from(level) * unit, level != 0);
                    }
                }
                Values::Exact(values) => {
                    for (&i, &value) in indices.iter().zip(&values[entries.clone()]) {
                        let x = exact(value, peer.tensors[tensor]);
                        sums.add(i, share.limited_value(x, sums.limit), value != 0.0);
                    }
                }
            }
        }
        sums.drain(out);
    }

    /// What each peer sends in a chunk, and the lower median of the energies of those that send any.
    fn shares(&self, tensor: usize, plan: &Plan, chunk: usize, sums: &mut Sums) {
        sums.shares.clear();
        sums.shares.extend(self.peers.iter().map(|peer| Share::of(peer, tensor, plan, chunk)));
        sums.limit = f64::INFINITY;
        if self.cap == StrengthCap::LowerMedian {
            sums.sorted.clear();
            sums.sorted.extend(sums.shares.iter().map(|share| share.energy).filter(|&energy| energy > 0.0));
            sums.sorted.sort_unstable_by(f64::total_cmp);
            if let Some(&median) = sums.sorted.get(sums.sorted.len().saturating_sub(1) / 2) {
                sums.limit = median;
            }
        }
    }
}

/// What one peer sends in one chunk.
#[derive(Debug, Clone, Copy)]
struct Share {
    /// value·s_p of level 1, below 2⁴⁹.
    unit: u64,
    /// Σ level²
    squares: f64,
    /// Σ (value·s_p)², rounded; 0 where nothing is sent that counts.
    energy: f64,
}

impl Share {
    const SILENT: Self = Self { unit: 0, squares: 0.0, energy: 0.0 };

    fn new(unit: u64, squares: u32) -> Self {
        let squares = f64::from(squares);
        Self { unit, squares, energy: unit as f64 * unit as f64 * squares }
    }

    fn of(peer: &Peer<'_>, tensor: usize, plan: &Plan, chunk: usize) -> Self {
        let (scale, exponent) = (peer.tensors[tensor], peer.submission.exponents[plan.first_chunk + chunk]);
        if exponent == EMPTY {
            return Self::SILENT;
        }
        let entries = plan.chunk_entries(chunk);
        match &peer.submission.values {
            Values::Levels(levels) => {
                let left = shift(scale.e_max, exponent);
                if left < 0 {
                    return Self::SILENT;
                }
                Self::new(scale.levels << left, squares(&levels[entries]))
            }
            Values::Exact(values) => {
                let square = |&v: &f32| exact(v, scale) as f64 * exact(v, scale) as f64;
                Self { energy: values[entries].iter().map(square).sum(), ..Self::SILENT }
            }
        }
    }

    /// The unit that leaves about the energy of `limit`. Never 0, so that a peer stays a sender.
    fn limited_unit(self, limit: f64) -> i64 {
        if self.energy > limit {
            ((limit / self.squares).sqrt() as i64).max(1)
        } else {
            self.unit.cast_signed()
        }
    }

    /// One value that has no levels, by the same factor, toward zero.
    fn limited_value(self, x: i64, limit: f64) -> i64 {
        if self.energy > limit { (x as f64 * (limit / self.energy).sqrt()) as i64 } else { x }
    }
}

/// Left shift of a chunk's levels; its values are 0 where there is none.
fn shift(e_max: i16, exponent: i16) -> i16 {
    EXPONENT_RANGE - (e_max - exponent)
}

/// Σ level² of one chunk.
fn squares(levels: &[i8]) -> u32 {
    levels.iter().map(|&l| (i32::from(l) * i32::from(l)) as u32).sum()
}

/// Σ value² of a tensor, and what follows from it.
fn scale_of(submission: &Submission, plan: &Plan) -> Scale {
    let Some(e_max) = submission.max_exponent(plan) else {
        return Scale { e_max: EMPTY, levels: 0, exact: 0.0 };
    };
    match &submission.values {
        Values::Levels(levels) => {
            let mut sum = 0_u128;
            for (chunk, &exponent) in submission.exponents[plan.chunks()].iter().enumerate() {
                let left = if exponent == EMPTY { -1 } else { shift(e_max, exponent) };
                if left >= 0 {
                    sum += u128::from(squares(&levels[plan.chunk_entries(chunk)])) << (2 * left);
                }
            }
            Scale { e_max, levels: unit_scale(sum), exact: 0.0 }
        }
        Values::Exact(values) => {
            let sum = values[plan.entries()].iter().fold(0.0, |sum, &v| sum + f64::from(v) * f64::from(v));
            Scale { e_max, levels: 0, exact: if sum > 0.0 { ONE / sum.sqrt() } else { 0.0 } }
        }
    }
}

/// s_p = round(2⁴⁸ / sqrt(Σ value²)), ties to even; 0 for an empty tensor.
pub fn unit_scale(sum: u128) -> u64 {
    if sum == 0 { 0 } else { (ONE / (sum as f64).sqrt()).round_ties_even() as u64 }
}

/// The integer that stands for an f32 value.
fn exact(value: f32, scale: Scale) -> i64 {
    (f64::from(value) * scale.exact).round_ties_even() as i64
}

/// Sums of one chunk.
pub(crate) struct Sums {
    sums: [i64; MAX_CHUNK],
    counts: [u16; MAX_CHUNK],
    seen: [u64; MAX_CHUNK / 64],
    shares: Vec<Share>,
    /// Energies, ascending, and their lower median; infinite where nothing is capped.
    sorted: Vec<f64>,
    limit: f64,
}

impl Sums {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            sums: [0; MAX_CHUNK],
            counts: [0; MAX_CHUNK],
            seen: [0; MAX_CHUNK / 64],
            shares: Vec::new(),
            sorted: Vec::new(),
            limit: f64::INFINITY,
        })
    }

    #[inline(always)]
    fn add(&mut self, index: u16, x: i64, sent: bool) {
        let i = usize::from(index) % MAX_CHUNK;
        self.sums[i] += x;
        self.counts[i] += u16::from(sent);
        self.seen[i / 64] |= u64::from(sent) << (i % 64);
    }

    /// Moves the means into `out`, ascending, and leaves zeros.
    #[inline(always)]
    fn drain(&mut self, out: &mut InverseTile) {
        out.len = 0;
        for (word, seen) in self.seen.iter_mut().enumerate() {
            while *seen != 0 {
                let i = word * 64 + seen.trailing_zeros() as usize;
                *seen &= *seen - 1;
                let c = mean(std::mem::take(&mut self.sums[i]), std::mem::take(&mut self.counts[i]));
                if c != 0.0 {
                    out.push(i as u16, c);
                }
            }
        }
    }
}

/// c = f32(A) / f32(n), each rounded once.
#[inline(always)]
pub(crate) fn mean(sum: i64, count: u16) -> f32 {
    sum as f32 / f32::from(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codebook::Codebook;
    use crate::layout::Layout;

    /// One chunk of eight coefficients, three sent; chunks as (exponent, levels at indices 0, 1, 2).
    fn gather(cap: StrengthCap, peers: &[Vec<(i16, [i8; 3])>]) -> Vec<Vec<(u16, f32)>> {
        let layout = Layout::from_shapes([("t", vec![8 * peers[0].len()])]).unwrap();
        let format = Format::new(layout, 8, 3, Codebook::with_bits(8).unwrap()).unwrap();
        let submissions: Vec<_> = peers
            .iter()
            .map(|chunks| {
                let sent = |&(e, _): &(i16, [i8; 3])| if e == EMPTY { [0; 3] } else { [0, 1, 2] };
                let indices = chunks.iter().flat_map(sent).collect();
                let levels = chunks.iter().flat_map(|c| c.1).collect();
                let exponents = chunks.iter().map(|c| c.0).collect();
                Submission::new(Arc::clone(&format), exponents, indices, Values::Levels(levels)).unwrap()
            })
            .collect();
        let mut gather = Aggregate::new(Arc::clone(&format), cap);
        for (peer, submission) in (0..).zip(&submissions) {
            gather.add(hotkey(peer), submission).unwrap();
        }
        let (mut sums, mut tile) = (Sums::new(), InverseTile::new());
        let (_, plan) = format.plans().next().unwrap();
        (0..plan.grid.chunks())
            .map(|chunk| {
                gather.sum_chunk(0, plan, chunk, &mut sums, &mut tile);
                tile.indices[..tile.len]
                    .iter()
                    .copied()
                    .zip(tile.values[..tile.len].iter().copied())
                    .collect()
            })
            .collect()
    }

    fn hotkey(peer: u16) -> [u8; 32] {
        std::array::from_fn(|i| peer.to_be_bytes()[i % 2])
    }

    #[test]
    fn unit_scale_rounds_halves_to_even() {
        // 2⁴⁸/√2246 and 2⁴⁸/√14586 are halves in f64, the lower neighbour even.
        assert_eq!(unit_scale(2246), 5_939_295_260_364);
        assert_eq!(unit_scale(14_586), 2_330_621_171_312);
        assert_eq!([unit_scale(0), unit_scale(1), unit_scale(1 << 98)], [0, 1 << 48, 0]);
    }

    #[test]
    fn a_sum_of_squares_is_rounded_once_and_to_the_nearest() {
        // Σ lies three quarters of the way between two f64, of which the lower gives s_p = 1,839,324.
        let sum = 23_418_730_267_605_607_u128;
        assert_eq!(unit_scale(sum - 3), 1_839_324);
        assert_eq!(unit_scale(sum), 1_839_323);
        // Chunks at shifts 14, 7 and 0 add up to the lower, three more to Σ: added one by one in f64 these would vanish.
        let (mut exponents, mut levels) = (Vec::new(), Vec::new());
        let mut rest = sum - 3;
        for left in [14, 7, 0] {
            let mut squares = rest >> (2 * left);
            rest -= squares << (2 * left);
            while squares > 0 {
                for _ in 0..64 {
                    let level = squares.isqrt().min(127);
                    squares -= level * level;
                    levels.push(level as i8);
                }
                exponents.push(left - 14);
            }
        }
        for _ in 0..3 {
            levels.push(1);
            levels.extend([0; 63]);
            exponents.push(-14);
        }
        let layout = Layout::from_shapes([("t", vec![levels.len()])]).unwrap();
        let format = Format::new(layout, 64, 64, Codebook::with_bits(8).unwrap()).unwrap();
        let indices = (0..64).cycle().take(levels.len()).collect();
        let sent = Submission::new(Arc::clone(&format), exponents, indices, Values::Levels(levels)).unwrap();
        assert_eq!(scale_of(&sent, format.plans().next().unwrap().1).levels, 1_839_323);
    }

    #[test]
    fn the_mean_rounds_the_sum_first() {
        assert_eq!(mean(160_216_815_874_549, 3).to_bits(), 0x5642_49d8);
        assert_eq!(mean(126_521_193_688_900, 5).to_bits(), 0x55b8_1cd2);
    }

    #[test]
    fn the_sum_becomes_an_f32_at_once() {
        // Just above the middle of two f32: an f64 on the way would land on the middle, and go down to the even one.
        assert_eq!(mean((1 << 55) + (1 << 31) + 1, 1), ((1_u64 << 55) + (1 << 32)) as f32);
        assert_eq!(mean(-(1 << 55) - (1 << 31) - 1, 1), -(((1_u64 << 55) + (1 << 32)) as f32));
    }

    #[test]
    fn the_stronger_are_brought_down_to_the_lower_median() {
        // Each peer is strong in one chunk, as weak in the other as still counts.
        let found = gather(
            StrengthCap::LowerMedian,
            &[vec![(0, [127, 50, 0]), (-14, [1, 0, 0])], vec![(-14, [0, 0, 3]), (0, [0, 127, 0])]],
        );
        let squares = |levels: &[u64]| levels.iter().map(|l| u128::from(l * l)).sum::<u128>();
        let s = unit_scale((squares(&[127, 50]) << 28) + 1);
        let t = unit_scale((squares(&[127]) << 28) + 9);
        // In integers: ⌊sqrt(M / Σ level²)⌋, far from where f64 would round to another.
        let unit =
            |unit: u64, level: u64, sum: u128| ((u128::from(unit * level).pow(2) / sum).isqrt()) as u64;
        let [first, second] = [unit(t, 3, squares(&[127, 50])), unit(s, 1, squares(&[127]))];
        assert_eq!(found[0], [(0, (127 * first) as f32), (1, (50 * first) as f32), (2, (3 * t) as f32)]);
        assert_eq!(found[1], [(0, s as f32), (1, (127 * second) as f32)]);
    }

    #[test]
    fn energies_and_units_are_rounded_operation_by_operation() {
        let share = |unit: u64, squares: u32| Share::new(unit, squares);
        // Exactly, or as unit·(unit·Σ level²), this would be the f64 before.
        assert_eq!(share(425_188_623_627_429, 25_780).energy.to_bits(), 0x46ec_b934_38cb_00e5);
        let limit = (461_168_395_530_741_u128.pow(2) * 55_539) as f64;
        assert!(
            limit as u128 / 55_539 < 461_168_395_530_741_u128.pow(2),
            "in integers the root would be one less"
        );
        assert_eq!(share(461_168_395_530_742, 55_539).limited_unit(limit), 461_168_395_530_741);
        // One less by the root of the exact quotient, or as a quotient of roots.
        let limit = f64::from_bits(0x46cc_33e3_8b51_9773);
        assert_eq!(share(265_538_619_226_400, 16_225).limited_unit(limit), 265_538_619_226_300);

        assert_eq!(
            [700.0, 699.9, 7.0 * 81.0, 1e-3].map(|limit| share(10, 7).limited_unit(limit)),
            [10, 9, 9, 1]
        );
        // The median's own peer keeps its unit, where root and quotient would give one less.
        for (unit, squares) in [(15_865_166, 417_732), (126_316_343_994_075, 106_964)] {
            let median = share(unit, squares);
            assert_eq!(median.limited_unit(median.energy), unit.cast_signed());
            assert_eq!(((median.energy / median.squares).sqrt() as u64), unit - 1);
        }
        assert_eq!([-7, 7, 8].map(|x| share(1, 4).limited_value(x, 3.0)), [-6, 6, 6]);
        assert_eq!(share(1, 4).limited_value(i64::MAX, 4.0), i64::MAX);
    }

    #[test]
    fn levels_fourteen_binary_orders_below_the_largest_still_count() {
        let chunk = |e| gather(StrengthCap::Off, &[vec![(20, [1, 0, 0]), (e, [127, 0, 0])]])[1].len();
        assert_eq!([chunk(6), chunk(5)], [1, 0]);
        // value = level << (14 − (e_max − e)): 1 << 14 and 127 << 0.
        let found = gather(StrengthCap::Off, &[vec![(20, [1, 0, 0]), (6, [127, 0, 0])]]);
        let s = unit_scale((1 << 28) + 127 * 127);
        assert_eq!((found[0][0].1, found[1][0].1), ((s << 14) as f32, (127 * s) as f32));
    }

    #[test]
    fn zeros_are_not_senders_and_cancelled_sums_are_zero() {
        let one = |levels| vec![(0, levels)];
        // Both have norm √2·2⁶ in units, so equal s: index 0 has one sender, index 1 two that cancel.
        let found = gather(StrengthCap::Off, &[one([64, 64, 0]), one([0, -64, 64])]);
        let s = unit_scale(2 << 40) << 20;
        assert_eq!(found[0], [(0, s as f32), (2, s as f32)]);
        let lost = gather(
            StrengthCap::Off,
            &[vec![(20, [64, 0, 0]), (0, [64, 64, 64])], vec![(0, [64, 0, 0]), (0, [64, 0, 0])]],
        );
        let alone = unit_scale(2 << 40) << 20;
        assert_eq!(lost[1], [(0, alone as f32)], "a value shifted out of range has no sender");
    }

    #[test]
    fn the_largest_gather_is_summed_exactly() {
        let sum = |level: fn(usize) -> i8| {
            let peers: Vec<_> = (0..MAX_PEERS).map(|peer| vec![(0, [level(peer), 0, 0])]).collect();
            let expected: i128 = (0..MAX_PEERS)
                .map(|peer| {
                    let level = i128::from(level(peer));
                    // Value·s_p of a tensor that sends one number: about 2⁴⁸, whatever it sends.
                    (level << 14) * i128::from(unit_scale((level.unsigned_abs() << 14).pow(2)))
                })
                .sum();
            (gather(StrengthCap::Off, &peers)[0].clone(), expected)
        };
        let mean = |sum: i128| vec![(0, sum as f32 / MAX_PEERS as f32)];
        let (found, expected) = sum(|_| 127);
        assert!(expected > 1 << 56 && found == mean(expected), "{found:?}, {expected}");
        let (found, expected) = sum(|_| -127);
        assert!(expected < -1 << 56 && found == mean(expected), "{found:?}, {expected}");
        // They cancel, but for what rounding s_p leaves: less than an f32 of a value could hold beside it.
        let (found, expected) = sum(|peer| if peer % 2 == 0 { 127 } else { -126 });
        assert!(expected.unsigned_abs() < 1 << 32 && expected != 0, "{expected}");
        assert_eq!(found, mean(expected));
    }

    #[test]
    fn one_peer_more_than_fits_is_refused() {
        let layout = Layout::from_shapes([("t", vec![8])]).unwrap();
        let format = Format::new(layout, 8, 3, Codebook::with_bits(3).unwrap()).unwrap();
        let nothing = Submission::empty(Arc::clone(&format));
        let mut gather = Aggregate::new(format, StrengthCap::LowerMedian);
        for peer in (0..).take(MAX_PEERS) {
            gather.add(hotkey(peer), &nothing).unwrap();
        }
        assert_eq!(gather.add(hotkey(9), &nothing), Err(Error::DuplicatePeer { hotkey: hotkey(9) }));
        assert_eq!(gather.add(hotkey(512), &nothing), Err(Error::TooManyPeers { limit: 512 }));
        assert_eq!(gather.len(), 512);
    }

    #[test]
    fn strength_is_capped_at_the_lower_median() {
        // Four peers; chunk 1 carries most of their norm, so energies in chunk 0 are set by the level there.
        let peer = |level: i8| vec![(0, [level, 0, 0]), (0, [127, 127, 127])];
        let sums = |levels: [i8; 4]| {
            let capped = gather(StrengthCap::LowerMedian, &levels.map(peer))[0][0].1;
            let free = gather(StrengthCap::Off, &levels.map(peer))[0][0].1;
            capped / free
        };
        let near =
            |found: f32, expected: f32| assert!((found / expected - 1.0).abs() < 1e-2, "{found}, {expected}");
        assert_eq!(sums([8, 8, 8, 8]), 1.0);
        // The lower median of four is the second: who is weaker stays, who is stronger has its strength.
        near(sums([8, 8, 10, 12]), 32.0 / 38.0);
        near(sums([2, 8, 9, 32]), 26.0 / 51.0);
        near(sums([2, 2, 2, 32]), 8.0 / 38.0);
    }

    #[test]
    fn empty_chunks_do_not_pull_the_median() {
        let peer = |level: i8| {
            if level == 0 {
                vec![(EMPTY, [0; 3]), (0, [127; 3])]
            } else {
                vec![(0, [level, 0, 0]), (0, [127; 3])]
            }
        };
        let peers = [peer(0), peer(0), peer(0), peer(64)];
        let capped = gather(StrengthCap::LowerMedian, &peers);
        assert_eq!(capped, gather(StrengthCap::Off, &peers));
    }
}
