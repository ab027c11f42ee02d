//! The entry points of the vectorised loops: one body each, compiled for every instruction set.
#![allow(
    unsafe_code,
    reason = "calling a function compiled for instructions that `Simd` has proven to be there"
)]

use crate::dct::{Basis, ForwardTile};
use crate::inverse::InverseTile;
use crate::lanes::Plain;
#[cfg(target_arch = "x86_64")]
use crate::lanes::{Avx2, Avx512};
#[cfg(target_arch = "x86_64")]
use crate::simd::Path;
use crate::simd::Simd;
use crate::topk::TopK;
use crate::{inverse as inverse_dct, momentum, outer_step};

/// `name(simd, …)` runs the body with the lanes of the path.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $module:ident::$body:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)?) => {
        $(#[$doc])*
        #[inline]
        pub(crate) fn $name(simd: Simd, $($arg: $ty),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                // As many as `Simd` asks the processor for.
                #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
                fn avx512($($arg: $ty),*) $(-> $out)? {
                    $module::$body::<Avx512>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $out)? {
                    $module::$body::<Avx2>($($arg),*)
                }
                match simd.path() {
                    // SAFETY: a `Simd` with this path exists only on a processor with these instructions.
                    Path::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Path::Avx2 => return unsafe { avx2($($arg),*) },
                    Path::Portable => {}
                }
            }
            let _ = simd;
            $module::$body::<Plain>($($arg),*)
        }
    };
}

#[cfg(test)]
use crate::{dct, topk};

kernel! {
    /// [`dct::forward`].
    #[cfg(test)]
    forward, dct::forward(bh: &Basis, bw: &Basis, x: &[f32], stride: usize, tile: &mut ForwardTile)
}

kernel! {
    /// [`topk::select`].
    #[cfg(test)]
    select, topk::select(x: &[f32], k: usize, out: &mut TopK) -> Option<f32>
}

kernel! {
    /// [`inverse_dct::inverse`].
    inverse, inverse_dct::inverse(bh: &Basis, bw: &Basis, tile: &mut InverseTile)
}

kernel! {
    /// [`momentum::accumulate`].
    accumulate, momentum::accumulate(
        step: &momentum::ChunkStep<'_>, grads: &[f32], m: &mut [f32], tile: &mut ForwardTile, top: &mut TopK,
    ) -> Option<f32>
}

kernel! {
    /// [`outer_step::apply_chunk`].
    apply_chunk, outer_step::apply_chunk(
        theta: &mut [f32], stride: usize, w: usize, delta: &[f32], rates: outer_step::Rates,
    )
}

kernel! {
    /// [`outer_step::trial_chunk`].
    trial_chunk, outer_step::trial_chunk(
        theta: &[f32], out: &mut [f32], stride: usize, w: usize, delta: &[f32], rate: f32,
    )
}
