//! Which instructions the kernels use, chosen at run time.
//!
//! Every path computes the same operations in the same order with a true fused multiply-add, so the result does
//! not depend on the path. Without FMA instructions `f32::mul_add` is a library call: right, and slow.

/// A set of instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// What the target guarantees (on aarch64 that includes NEON with fused multiply-add).
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, CD, DQ, VL, and AVX2, FMA, BMI1, BMI2, LZCNT, POPCNT.
    Avx512,
}

/// Proof that the processor has the instructions of a [`Path`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simd(Path);

impl Simd {
    /// The widest path of this processor.
    pub fn detect() -> Self {
        [Path::Avx512, Path::Avx2].into_iter().find_map(Self::with_path).unwrap_or(Self(Path::Portable))
    }

    /// A chosen path, or nothing where the processor lacks it.
    pub fn with_path(path: Path) -> Option<Self> {
        supported(path).then_some(Self(path))
    }

    /// All paths of this processor.
    pub fn available() -> Vec<Self> {
        [Path::Portable, Path::Avx2, Path::Avx512].into_iter().filter_map(Self::with_path).collect()
    }

    /// The path.
    pub fn path(self) -> Path {
        self.0
    }
}

/// Every feature that `kernel.rs` compiles a path for: a virtual machine may hide any of them.
#[cfg(target_arch = "x86_64")]
fn supported(path: Path) -> bool {
    match path {
        Path::Portable => true,
        Path::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        Path::Avx512 => {
            supported(Path::Avx2)
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512cd")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt")
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn supported(path: Path) -> bool {
    path == Path::Portable
}
