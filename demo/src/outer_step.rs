//! The outer step: aggregate to Δ to θ (PROTOCOL 6.3), the only place where θ changes; and the validator's trial.
//!
//! θ ← fma(−α, sign(Δ), θ·d), d = f32(1 − α·λ) computed in f64, the product rounded first, sign(0) = 0.
//! Trial: fma(−f32(c·α), sign(Δ_p), θ) into another buffer; θ stays.

use crate::aggregate::{Aggregate, StrengthCap, Sums};
use crate::chunk::{Grid, cut};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::inverse::InverseTile;
use crate::kernel;
use crate::lanes::Lanes;
use crate::submission::Submission;
use rayon::prelude::*;
use std::hint::black_box;
use std::sync::Arc;

/// What an outer step depends on beside the gather.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OuterStep {
    /// α of the window.
    pub lr: f32,
    /// λ of the manifest.
    pub weight_decay: f64,
    /// Fewer accepted submissions make no step.
    pub min_gather: usize,
}

impl OuterStep {
    /// Refuses rates that are negative or not finite.
    pub(crate) fn check(&self) -> Result<()> {
        check_rate("learning_rate", self.lr.into())?;
        check_rate("weight_decay", self.weight_decay)
    }
}

/// Whether θ moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It did; the schedule advances.
    Stepped,
    /// Too few submissions; θ and the schedule stay.
    TooFew,
}

/// α and d of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) lr: f32,
    pub(crate) decay: f32,
}

impl Rates {
    pub(crate) fn new(step: &OuterStep) -> Self {
        Self { lr: step.lr, decay: (1.0 - f64::from(step.lr) * step.weight_decay) as f32 }
    }
}

/// Applies a gather to θ.
///
/// An error leaves θ as it was, but for [`Error::FlushToZero`] of a thread that began to flush on the way.
pub fn apply(theta: &mut [f32], gather: &Aggregate<'_>, step: &OuterStep) -> Result<Applied> {
    gather.format().layout().check("θ", theta.len())?;
    step.check()?;
    if gather.len() < step.min_gather {
        return Ok(Applied::TooFew);
    }
    // Any thread of the pool may take a piece: one that flushes is found before the first piece is written.
    rayon::broadcast(|_| subnormals_survive()).into_iter().collect::<Result<()>>()?;
    let rates = Rates::new(step);
    let simd = gather.format().simd();
    let parts = cut(theta, piece_lengths(gather.format()));
    for_each_chunk(gather, parts, |theta, origin, grid, delta| {
        kernel::apply_chunk(simd, &mut theta[origin..], grid.stride(), grid.w, delta, rates);
    })?;
    Ok(Applied::Stepped)
}

/// Writes into `out` what θ would be after one peer's submission alone at `c` times the rate `lr`.
pub fn trial(theta: &[f32], submission: &Submission, lr: f32, c: f32, out: &mut [f32]) -> Result<()> {
    let format = submission.format();
    format.layout().check("θ", theta.len())?;
    format.layout().check("the trial buffer", out.len())?;
    let rate = trial_rate(lr, c)?;
    let mut gather = Aggregate::new(Arc::clone(format), StrengthCap::Off);
    gather.add([0; 32], submission)?;
    let mut rest = theta;
    let parts = cut(out, piece_lengths(format)).into_iter().map(|out| {
        let (theta, tail) = rest.split_at(out.len());
        rest = tail;
        (theta, out)
    });
    let simd = format.simd();
    for_each_chunk(&gather, parts.collect(), |(theta, out), origin, grid, delta| {
        kernel::trial_chunk(simd, &theta[origin..], &mut out[origin..], grid.stride(), grid.w, delta, rate);
    })
}

/// Writes Δ, the decoded aggregate before its sign is taken, into `out`.
pub fn decode(gather: &Aggregate<'_>, out: &mut [f32]) -> Result<()> {
    gather.format().layout().check("the output", out.len())?;
    let parts = cut(out, piece_lengths(gather.format()));
    for_each_chunk(gather, parts, |out, origin, grid, delta| {
        for (row, delta) in delta.chunks(grid.w).enumerate() {
            out[origin + row * grid.stride()..][..grid.w].copy_from_slice(delta);
        }
    })
}

/// c·α, rounded once.
pub(crate) fn trial_rate(lr: f32, c: f32) -> Result<f32> {
    let rate = (f64::from(c) * f64::from(lr)) as f32;
    check_rate("learning_rate", rate.into())?;
    Ok(rate)
}

/// Refuses a rate that is negative or not finite.
fn check_rate(field: &'static str, rate: f64) -> Result<()> {
    if rate.is_finite() && rate >= 0.0 {
        Ok(())
    } else {
        Err(Error::Config { field, reason: format!("{rate}: finite and not negative") })
    }
}

fn piece_lengths(format: &Format) -> impl Iterator<Item = usize> {
    format.plans().flat_map(|(_, plan)| plan.grid.pieces().map(|bands| bands.len() * plan.grid.band_len()))
}

/// Decodes chunk after chunk, in parallel over pieces; `each` gets its piece, the chunk's origin in it, and Δ.
fn for_each_chunk<T: Send>(
    gather: &Aggregate<'_>,
    parts: Vec<T>,
    each: impl Fn(&mut T, usize, &Grid, &[f32]) + Sync,
) -> Result<()> {
    let format = &**gather.format();
    let pieces: Vec<_> = format
        .plans()
        .enumerate()
        .flat_map(|(tensor, (_, plan))| plan.grid.pieces().map(move |bands| (tensor, plan, bands)))
        .collect();
    parts.into_par_iter().zip(&pieces).try_for_each_init(
        || (Sums::new(), InverseTile::new()),
        |(sums, tile), (mut part, (tensor, plan, bands))| {
            // `trial` and `decode` ask here alone: an error may leave their outputs half written. In `apply` this finds a
            // thread that began to flush after it was asked: θ is lost, but nobody takes it for the others'.
            subnormals_survive()?;
            let grid = &plan.grid;
            let Some((bh, bw)) = format.bases(grid) else { return Ok(()) };
            for (band, y) in bands.clone().enumerate() {
                for x in 0..grid.per_band {
                    gather.sum_chunk(*tensor, plan, y * grid.per_band + x, sums, tile);
                    kernel::inverse(format.simd(), bh, bw, tile);
                    each(
                        &mut part,
                        band * grid.band_len() + x * grid.w,
                        grid,
                        &tile.delta[..grid.chunk_len()],
                    );
                }
            }
            Ok(())
        },
    )
}

/// Subnormal results (FTZ) and operands (DAZ) are kept by this thread.
fn subnormals_survive() -> Result<()> {
    let halved = black_box(f32::MIN_POSITIVE) * black_box(0.5);
    let raised = black_box(f32::from_bits(1)) * black_box(16_777_216.0);
    if halved > 0.0 && raised > 0.0 { Ok(()) } else { Err(Error::FlushToZero) }
}

#[inline(always)]
fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// θ ← fma(−α, sign(Δ), θ·d) for one chunk.
#[inline(always)]
pub(crate) fn apply_chunk<L: Lanes>(theta: &mut [f32], stride: usize, w: usize, delta: &[f32], rates: Rates) {
    for (row, delta) in delta.chunks_exact(w).enumerate() {
        for (theta, delta) in theta[row * stride..][..w].iter_mut().zip(delta) {
            *theta = (-rates.lr).mul_add(sign(*delta), *theta * rates.decay);
        }
    }
}

/// out = fma(−rate, sign(Δ), θ) for one chunk.
#[inline(always)]
pub(crate) fn trial_chunk<L: Lanes>(
    theta: &[f32],
    out: &mut [f32],
    stride: usize,
    w: usize,
    delta: &[f32],
    rate: f32,
) {
    for (row, delta) in delta.chunks_exact(w).enumerate() {
        let theta = &theta[row * stride..][..w];
        for ((out, theta), delta) in out[row * stride..][..w].iter_mut().zip(theta).zip(delta) {
            *out = (-rate).mul_add(sign(*delta), *theta);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Simd;

    fn applied(theta: f32, delta: f32, lr: f32, decay: f32) -> Vec<u32> {
        Simd::available()
            .into_iter()
            .map(|simd| {
                // Sixteen lanes and a tail.
                let mut theta = [theta; 19];
                kernel::apply_chunk(simd, &mut theta, 19, 19, &[delta; 19], Rates { lr, decay });
                assert!(theta.iter().all(|x| x.to_bits() == theta[0].to_bits()));
                theta[0].to_bits()
            })
            .collect()
    }

    #[test]
    fn the_decayed_theta_is_rounded_before_the_step() {
        // Rounded once after both, each of these would be the next float.
        for (lr, theta, d, expected) in [
            (0.045_1, 0.091_915_965, 1_065_277_551, 1_027_477_355_u32),
            (0.099_2, 0.187_901_08, 1_065_186_786, 1_035_065_253),
            (0.030_6, 0.562_265_63, 1_065_301_878, 1_057_467_003),
        ] {
            assert!(applied(theta, 1.0, lr, f32::from_bits(d)).iter().all(|&x| x == expected));
            assert!(applied(-theta, -1.0, lr, f32::from_bits(d)).iter().all(|&x| x == expected | 1 << 31));
        }
    }

    #[test]
    fn the_decay_is_computed_in_f64() {
        for (lr, weight_decay, expected) in [
            (0.511_945_3, 0.03, 1_065_095_545),
            (0.667_302_85, 0.03, 1_065_017_351),
            // With λ as an f32, or with α·λ exactly, one less.
            (0.562_359_4, 0.1, 1_064_409_734),
            // With α·λ rounded to f32, and the difference in f32, one less.
            (0.421_101_84, 0.03, 1_065_141_269),
        ] {
            let step = OuterStep { lr, weight_decay, min_gather: 1 };
            assert_eq!(Rates::new(&step).decay.to_bits(), expected);
        }
    }

    #[test]
    fn the_sign_of_zero_is_zero() {
        for zero in [0.0, -0.0] {
            assert!(applied(1.5, zero, 0.25, 0.5).iter().all(|&x| x == 0.75_f32.to_bits()));
            assert!(applied(-0.0, zero, 0.25, 1.0).iter().all(|&x| x == (-0.0_f32).to_bits()));
        }
        let least = f32::from_bits(1);
        assert!(applied(1.5, least, 0.25, 1.0).iter().all(|&x| x == 1.25_f32.to_bits()));
        assert!(applied(1.5, -least, 0.25, 1.0).iter().all(|&x| x == 1.75_f32.to_bits()));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn flushed_subnormals_are_refused() {
        use crate::{Codebook, Layout};
        let layout = Layout::from_shapes([("t", vec![8])]).unwrap();
        let format = Format::new(layout, 8, 1, Codebook::with_bits(3).unwrap()).unwrap();
        let nothing = Submission::empty(Arc::clone(&format));
        let mut gather = Aggregate::new(format, StrengthCap::Off);
        gather.add([0; 32], &nothing).unwrap();
        let step = OuterStep { lr: 0.1, weight_decay: 0.0, min_gather: 1 };
        let run = || apply(&mut [0.0; 8], &gather, &step);
        let tried = || trial(&[0.0; 8], &nothing, 0.1, 1.0, &mut [0.0; 8]);
        // The pool's only thread computes, so its control register is the one that counts.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| {
            assert_eq!((run(), tried()), (Ok(Applied::Stepped), Ok(())));
            for bits in [1 << 15, 1 << 6] {
                let found = flush::with_control_bits(bits, || (run(), tried()));
                assert_eq!(found, (Err(Error::FlushToZero), Err(Error::FlushToZero)));
            }
            assert_eq!((run(), tried()), (Ok(Applied::Stepped), Ok(())));
        });
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn one_thread_that_flushes_leaves_theta_untouched() {
        use crate::{Codebook, Layout};
        // Eight pieces, so that the other thread has some to itself.
        let layout = Layout::from_shapes([("t", vec![1 << 19])]).unwrap();
        let format = Format::new(layout, 64, 1, Codebook::with_bits(3).unwrap()).unwrap();
        let nothing = Submission::empty(Arc::clone(&format));
        let mut gather = Aggregate::new(format, StrengthCap::Off);
        gather.add([0; 32], &nothing).unwrap();
        let step = OuterStep { lr: 0.1, weight_decay: 0.1, min_gather: 1 };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let mut theta = vec![1.0; 1 << 19];
        for round in 0..20 {
            let flushes = |thread: usize| if thread == round % 2 { 1 << 15 } else { 0 };
            pool.broadcast(|thread| flush::set_control_bits(flushes(thread.index())));
            assert_eq!(pool.install(|| apply(&mut theta, &gather, &step)), Err(Error::FlushToZero));
            assert!(theta.iter().all(|&x| x == 1.0), "round {round}");
        }
        pool.broadcast(|_| flush::set_control_bits(0));
        assert_eq!(pool.install(|| apply(&mut theta, &gather, &step)), Ok(Applied::Stepped));
        assert!(theta.iter().all(|&x| x == 0.99));
    }

    /// Sets FTZ (bit 15) or DAZ (bit 6) of this thread for the time of a call.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "the control register of a thread that belongs to the test")]
    mod flush {
        use std::arch::asm;

        pub(super) fn with_control_bits<T>(bits: u32, run: impl FnOnce() -> T) -> T {
            set_control_bits(bits);
            let out = run();
            set_control_bits(0);
            out
        }

        /// Sets these of both bits, clears the others.
        pub(super) fn set_control_bits(bits: u32) {
            let mut control = 0_u32;
            // SAFETY: reads only the floating-point control register.
            unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut control) };
            control = control & !(1 << 15 | 1 << 6) | bits;
            // SAFETY: writes only that register; rounding and exceptions stay.
            unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control) };
        }
    }
}
