//! The gather: any number of submissions to one coefficient sum, in integers (PROTOCOL 6.1).
//!
//! value = level << (14 − (e_max − e)), 0 below; s_p = round(2⁴⁸ / sqrt(Σ value²)) a tensor; per coefficient
//! A = Σ value·s_p over the n peers that sent it, c = f32(A) / f32(n). Every peer weighs the same, whatever its scale.
//!
//! Strength cap: b_p = floor(log2(max|value|·s_p)) a chunk; what exceeds the gather's lower median there by more than
//! 1 is shifted toward zero by the excess over median + 1. Without it a peer can put its whole norm into one chunk.
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

/// Most submissions of one gather: |value·s_p| < 2⁴⁹, so their sum stays inside an i64.
pub const MAX_PEERS: usize = 4096;
/// s_p of a tensor of unit norm.
const ONE: f64 = (1_u64 << 48) as f64;

/// Whether a peer's strength in one chunk is limited by the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrengthCap {
    /// At most one binary order above the lower median.
    MedianPlusOne,
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
        self.strengths(tensor, plan, chunk, sums);
        let entries = plan.chunk_entries(chunk);
        for (number, peer) in self.peers.iter().enumerate() {
            let Some(excess) = sums.strengths[number].map(|b| b.saturating_sub(sums.limit)) else { continue };
            let (scale, indices) = (peer.tensors[tensor], &peer.submission.indices[entries.clone()]);
            match &peer.submission.values {
                Values::Levels(levels) => {
                    let exponent = peer.submission.exponents[plan.first_chunk + chunk];
                    let unit = (scale.levels << shift(scale.e_max, exponent)).cast_signed();
                    for (&i, &level) in indices.iter().zip(&levels[entries.clone()]) {
                        sums.add(i, toward_zero(i64::from(level) * unit, excess), level != 0);
                    }
                }
                Values::Exact(values) => {
                    for (&i, &value) in indices.iter().zip(&values[entries.clone()]) {
                        sums.add(i, toward_zero(exact(value, scale), excess), value != 0.0);
                    }
                }
            }
        }
        sums.drain(out);
    }

    /// Each peer's strength in a chunk, and the limit for all of them.
    fn strengths(&self, tensor: usize, plan: &Plan, chunk: usize, sums: &mut Sums) {
        sums.strengths.clear();
        sums.strengths.extend(self.peers.iter().map(|peer| strength(peer, tensor, plan, chunk)));
        sums.sorted.clear();
        sums.sorted.extend(sums.strengths.iter().flatten());
        sums.sorted.sort_unstable();
        let median = sums.sorted.get(sums.sorted.len().saturating_sub(1) / 2);
        sums.limit = match (self.cap, median) {
            (StrengthCap::MedianPlusOne, Some(median)) => median + 1,
            _ => u32::MAX,
        };
    }
}

/// Left shift of a chunk's levels; its values are 0 where there is none.
fn shift(e_max: i16, exponent: i16) -> i16 {
    EXPONENT_RANGE - (e_max - exponent)
}

/// floor(log2(max|value|·s_p)) of a peer's chunk; `None` if all its values are 0.
fn strength(peer: &Peer<'_>, tensor: usize, plan: &Plan, chunk: usize) -> Option<u32> {
    let (scale, exponent) = (peer.tensors[tensor], peer.submission.exponents[plan.first_chunk + chunk]);
    if exponent == EMPTY {
        return None;
    }
    let entries = plan.chunk_entries(chunk);
    match &peer.submission.values {
        Values::Levels(levels) => {
            let left = shift(scale.e_max, exponent);
            let max = levels[entries].iter().fold(0, |max, l| max.max(l.unsigned_abs()));
            (left >= 0 && max > 0).then(|| ((u64::from(max) << left) * scale.levels).ilog2())
        }
        Values::Exact(values) => {
            let max = values[entries].iter().fold(0, |max, &v| max.max(exact(v, scale).unsigned_abs()));
            max.checked_ilog2()
        }
    }
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
                    let squares = levels[plan.chunk_entries(chunk)]
                        .iter()
                        .map(|&l| (i32::from(l) * i32::from(l)) as u32);
                    sum += u128::from(squares.sum::<u32>()) << (2 * left);
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

#[inline(always)]
fn toward_zero(x: i64, shift: u32) -> i64 {
    let sign = x >> 63;
    ((((x ^ sign) - sign) >> shift.min(63)) ^ sign) - sign
}

/// Sums of one chunk.
pub(crate) struct Sums {
    sums: [i64; MAX_CHUNK],
    counts: [u16; MAX_CHUNK],
    seen: [u64; MAX_CHUNK / 64],
    /// Strength of each peer in the chunk; `None` where it sends nothing.
    strengths: Vec<Option<u32>>,
    sorted: Vec<u32>,
    /// Largest strength that is not shifted.
    limit: u32,
}

impl Sums {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            sums: [0; MAX_CHUNK],
            counts: [0; MAX_CHUNK],
            seen: [0; MAX_CHUNK / 64],
            strengths: Vec::new(),
            sorted: Vec::new(),
            limit: u32::MAX,
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
