//! Element-wise arithmetic compiled three times (portable, AVX2 + FMA, AVX-512) from one source, the
//! instruction set chosen at run time by crate pulp.
//!
//! Kernels are `#[inline(always)]` functions over slices, generic over [`Isa`]. Sums go over 16 lanes
//! in a fixed order, so that every path adds in the same order; paths differ only in whether
//! `a·b + c` is rounded once (FMA) or twice.

/// What a kernel may know of the instruction set it is compiled for.
pub(crate) trait Isa: Copy + Send + Sync {
    /// `a·b + c`.
    fn fma(a: f32, b: f32, c: f32) -> f32;
}

/// Instruction sets with fused multiply-add.
#[derive(Clone, Copy)]
pub(crate) struct Fused;
/// All others; `mul_add` would be a slow library call there.
#[derive(Clone, Copy)]
pub(crate) struct Separate;

impl Isa for Fused {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

impl Isa for Separate {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// Which code path our own kernels take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// The widest this processor has.
    Best,
    /// At most AVX2 + FMA.
    Avx2,
    /// No instruction set beyond the target's baseline.
    Portable,
}

/// Resolved path.
#[derive(Clone, Copy)]
pub(crate) enum Simd {
    #[cfg(target_arch = "x86_64")]
    V4(pulp::x86::V4),
    #[cfg(target_arch = "x86_64")]
    V3(pulp::x86::V3),
    Baseline,
}

impl Simd {
    pub(crate) fn new(path: Path) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if path == Path::Best
                && let Some(v4) = pulp::x86::V4::try_new()
            {
                return Self::V4(v4);
            }
            if path != Path::Portable
                && let Some(v3) = pulp::x86::V3::try_new()
            {
                return Self::V3(v3);
            }
        }
        let _ = path;
        Self::Baseline
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::V4(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::V3(_) => "avx2",
            Self::Baseline => "portable",
        }
    }
}

/// Fused multiply-add belongs to the baseline of aarch64.
#[cfg(target_arch = "aarch64")]
pub(crate) type Baseline = Fused;
#[cfg(not(target_arch = "aarch64"))]
pub(crate) type Baseline = Separate;

/// `simd!(level, I => expr)`: evaluates `expr`, in which `I` names the [`Isa`], compiled for `level`.
macro_rules! simd {
    ($level:expr, $isa:ident => $body:expr) => {
        match $level {
            #[cfg(target_arch = "x86_64")]
            $crate::engine::cpu::simd::Simd::V4(v4) => {
                type $isa = $crate::engine::cpu::simd::Fused;
                pulp::Simd::vectorize(v4, || $body)
            }
            #[cfg(target_arch = "x86_64")]
            $crate::engine::cpu::simd::Simd::V3(v3) => {
                type $isa = $crate::engine::cpu::simd::Fused;
                pulp::Simd::vectorize(v3, || $body)
            }
            $crate::engine::cpu::simd::Simd::Baseline => {
                type $isa = $crate::engine::cpu::simd::Baseline;
                $body
            }
        }
    };
}
pub(crate) use simd;

/// Lanes of every sum and maximum.
pub(crate) const LANES: usize = 16;

/// Sum of the lanes, pairwise.
#[inline(always)]
pub(crate) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ a·b`.
#[inline(always)]
pub(crate) fn dot<I: Isa>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (ca, cb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (ra, rb) = (ca.remainder(), cb.remainder());
    for (a, b) in ca.zip(cb) {
        for i in 0..LANES {
            lanes[i] = I::fma(a[i], b[i], lanes[i]);
        }
    }
    for (i, (a, b)) in ra.iter().zip(rb).enumerate() {
        lanes[i] = I::fma(*a, *b, lanes[i]);
    }
    fold(lanes)
}

/// Largest element; −∞ for none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for c in chunks {
        for i in 0..LANES {
            lanes[i] = if c[i] > lanes[i] { c[i] } else { lanes[i] };
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane = if v > *lane { v } else { *lane };
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

/// `e^x` to about 1 unit in the last place of f32; 0 below −87.3, finite above.
///
/// `x = n·ln 2 + r`, `|r| ≤ ln 2 / 2`, in two steps (Cody–Waite), a polynomial (Cephes)
/// for `e^r`, and `2^n` written into the exponent bits.
#[inline(always)]
pub(crate) fn exp<I: Isa>(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5·2²³: adding it rounds to an integer
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = I::fma(clamped, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = I::fma(n, -0.693_359_4, clamped);
    let r = I::fma(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    p = I::fma(p, r, 1.398_199_9e-3);
    p = I::fma(p, r, 8.333_452e-3);
    p = I::fma(p, r, 4.166_579_6e-2);
    p = I::fma(p, r, 0.166_666_65);
    p = I::fma(p, r, 0.5);
    p = I::fma(p, r * r, r) + 1.0;
    // `shifted` holds n in its lowest bits: moving them into the exponent multiplies by 2ⁿ.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    let value = p * scale;
    if x < -87.3 { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_f64() {
        let mut worst = 0.0f64;
        for i in -873_000..880_000 {
            let x = i as f32 * 1e-4;
            let (a, b) = (f64::from(exp::<Fused>(x)), f64::from(x).exp());
            worst = worst.max(((a - b) / b).abs());
            let c = f64::from(exp::<Separate>(x));
            assert!(((c - b) / b).abs() < 4e-7, "{x}");
        }
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!(exp::<Fused>(0.0), 1.0);
        assert_eq!(exp::<Fused>(-1000.0), 0.0);
        assert!(exp::<Fused>(1000.0).is_finite());
    }

    #[test]
    fn sums_and_maxima_take_every_element() {
        for n in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32 - 20.0).collect();
            let ones = vec![1.0; n];
            assert_eq!(dot::<Fused>(&x, &ones), x.iter().sum::<f32>());
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
