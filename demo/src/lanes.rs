//! Sixteen f32 side by side: the register type the kernels are written in.
//!
//! Each instruction set has its own type; all of them round the same way, so a kernel gives the same bits with each.
#![allow(
    unsafe_code,
    reason = "processor intrinsics; each type exists only inside a kernel compiled for them"
)]

/// Lanes.
pub(crate) const LANES: usize = 16;

/// Sixteen f32.
///
/// The x86 types may be used only inside a function compiled for their instructions: see [`crate::kernel`].
pub(crate) trait Lanes: Copy {
    /// Rows a transform keeps in registers.
    const ROWS: usize;
    /// The same number in all lanes.
    fn splat(x: f32) -> Self;
    /// Reads.
    fn load(x: &[f32; LANES]) -> Self;
    /// Writes.
    fn store(self, out: &mut [f32; LANES]);
    /// self + b.
    fn add(self, b: Self) -> Self;
    /// self − b.
    fn sub(self, b: Self) -> Self;
    /// self · b + c, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// Last lane first.
    fn reverse(self) -> Self;
    /// self\[0\], b\[0\], self\[1\], b\[1\], …
    fn interleave(self, b: Self) -> [Self; 2];
    /// The larger magnitude by its bits, so that what is not finite is the largest.
    fn larger_magnitude(self, b: Self) -> Self;
    /// Lanes whose magnitude bits are at least `bits`, lowest lane first.
    fn reaching(self, bits: u32) -> u32;
}

/// Lanes without instructions of their own.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; LANES]);

impl Plain {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|l| f(self.0[l], b.0[l])))
    }
}

const MAGNITUDE: u32 = 0x7fff_ffff;

impl Lanes for Plain {
    const ROWS: usize = 1;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; LANES])
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        Self(*x)
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        *out = self.0;
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.zip(b, |a, b| a - b)
    }

    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|l| self.0[l].mul_add(b.0[l], c.0[l])))
    }

    #[inline(always)]
    fn reverse(self) -> Self {
        Self(std::array::from_fn(|l| self.0[LANES - 1 - l]))
    }

    #[inline(always)]
    fn interleave(self, b: Self) -> [Self; 2] {
        let pick = |l: usize| if l.is_multiple_of(2) { self.0[l / 2] } else { b.0[l / 2] };
        [Self(std::array::from_fn(pick)), Self(std::array::from_fn(|l| pick(LANES + l)))]
    }

    #[inline(always)]
    fn larger_magnitude(self, b: Self) -> Self {
        self.zip(b, |a, b| f32::from_bits((a.to_bits() & MAGNITUDE).max(b.to_bits() & MAGNITUDE)))
    }

    #[inline(always)]
    fn reaching(self, bits: u32) -> u32 {
        (0..LANES).fold(0, |mask, l| mask | u32::from(self.0[l].to_bits() & MAGNITUDE >= bits) << l)
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Lanes, MAGNITUDE};
    use std::arch::x86_64::*;

    /// One 512-bit register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    // SAFETY, for every block below: the trait's contract says that the caller is compiled for these instructions;
    // loads and stores go through references to exactly sixteen f32 and need no alignment.
    impl Lanes for Avx512 {
        const ROWS: usize = 8;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            Self(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        fn load(x: &[f32; LANES]) -> Self {
            Self(unsafe { _mm512_loadu_ps(x.as_ptr()) })
        }

        #[inline(always)]
        fn store(self, out: &mut [f32; LANES]) {
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), self.0) }
        }

        #[inline(always)]
        fn add(self, b: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, b.0) })
        }

        #[inline(always)]
        fn sub(self, b: Self) -> Self {
            Self(unsafe { _mm512_sub_ps(self.0, b.0) })
        }

        #[inline(always)]
        fn fma(self, b: Self, c: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
        }

        #[inline(always)]
        fn reverse(self) -> Self {
            unsafe {
                let order = _mm512_set_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                Self(_mm512_permutexvar_ps(order, self.0))
            }
        }

        #[inline(always)]
        fn interleave(self, b: Self) -> [Self; 2] {
            unsafe {
                let low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
                let high = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
                [
                    Self(_mm512_permutex2var_ps(self.0, low, b.0)),
                    Self(_mm512_permutex2var_ps(self.0, high, b.0)),
                ]
            }
        }

        #[inline(always)]
        fn larger_magnitude(self, b: Self) -> Self {
            unsafe {
                let mask = _mm512_set1_epi32(MAGNITUDE.cast_signed());
                let a = _mm512_and_si512(_mm512_castps_si512(self.0), mask);
                let b = _mm512_and_si512(_mm512_castps_si512(b.0), mask);
                Self(_mm512_castsi512_ps(_mm512_max_epu32(a, b)))
            }
        }

        #[inline(always)]
        fn reaching(self, bits: u32) -> u32 {
            unsafe {
                let mask = _mm512_set1_epi32(MAGNITUDE.cast_signed());
                let a = _mm512_and_si512(_mm512_castps_si512(self.0), mask);
                u32::from(_mm512_cmpge_epu32_mask(a, _mm512_set1_epi32(bits.cast_signed())))
            }
        }
    }

    /// Two 256-bit registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2([__m256; 2]);

    impl Lanes for Avx2 {
        const ROWS: usize = 2;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            Self([unsafe { _mm256_set1_ps(x) }; 2])
        }

        #[inline(always)]
        fn load(x: &[f32; LANES]) -> Self {
            unsafe { Self([_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x[8..].as_ptr())]) }
        }

        #[inline(always)]
        fn store(self, out: &mut [f32; LANES]) {
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), self.0[0]);
                _mm256_storeu_ps(out[8..].as_mut_ptr(), self.0[1]);
            }
        }

        #[inline(always)]
        fn add(self, b: Self) -> Self {
            unsafe { Self([_mm256_add_ps(self.0[0], b.0[0]), _mm256_add_ps(self.0[1], b.0[1])]) }
        }

        #[inline(always)]
        fn sub(self, b: Self) -> Self {
            unsafe { Self([_mm256_sub_ps(self.0[0], b.0[0]), _mm256_sub_ps(self.0[1], b.0[1])]) }
        }

        #[inline(always)]
        fn fma(self, b: Self, c: Self) -> Self {
            unsafe {
                Self([_mm256_fmadd_ps(self.0[0], b.0[0], c.0[0]), _mm256_fmadd_ps(self.0[1], b.0[1], c.0[1])])
            }
        }

        #[inline(always)]
        fn reverse(self) -> Self {
            unsafe {
                let order = _mm256_set_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                Self([_mm256_permutevar8x32_ps(self.0[1], order), _mm256_permutevar8x32_ps(self.0[0], order)])
            }
        }

        #[inline(always)]
        fn interleave(self, b: Self) -> [Self; 2] {
            let halves = |a: __m256, b: __m256| unsafe {
                let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                Self([_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)])
            };
            [halves(self.0[0], b.0[0]), halves(self.0[1], b.0[1])]
        }

        #[inline(always)]
        fn larger_magnitude(self, b: Self) -> Self {
            let larger = |a: __m256, b: __m256| unsafe {
                let mask = _mm256_set1_epi32(MAGNITUDE.cast_signed());
                let a = _mm256_and_si256(_mm256_castps_si256(a), mask);
                let b = _mm256_and_si256(_mm256_castps_si256(b), mask);
                _mm256_castsi256_ps(_mm256_max_epu32(a, b))
            };
            Self([larger(self.0[0], b.0[0]), larger(self.0[1], b.0[1])])
        }

        #[inline(always)]
        fn reaching(self, bits: u32) -> u32 {
            let reach = |a: __m256| unsafe {
                let a = _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(MAGNITUDE.cast_signed()));
                let bits = _mm256_set1_epi32(bits.cast_signed());
                let hits = _mm256_cmpeq_epi32(_mm256_max_epu32(a, bits), a);
                _mm256_movemask_ps(_mm256_castsi256_ps(hits)).cast_unsigned()
            };
            reach(self.0[0]) | reach(self.0[1]) << 8
        }
    }
}
