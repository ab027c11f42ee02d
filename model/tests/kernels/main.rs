//! The CUDA backend without a GPU: every kernel, through the launches that a GPU would get, on the emulated
//! device, against plain f64 references with fresh random inputs and odd sizes.
//!
//! Needs a C++ compiler: `g++`, or the program named in `GAUNTLET_KERNEL_CXX`. A failure prints its seed;
//! `GAUNTLET_TEST_SEED` repeats it. With `GAUNTLET_TEST_DEVICE=cuda:0` the same tests run on a GPU.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test binary
#![allow(clippy::print_stdout)] // with a word on its measurements

mod attention;
mod engine;
mod launches;
mod matmul;
mod operations;
mod optimizer;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use gauntlet_gpu::chosen::Chosen;
use gauntlet_model::engine::cuda::{Buffer, Cuda, FAT_BINARY, Precision};
use gauntlet_model::engine::{Backend, View, ViewMut};

pub type Floats = Buffer<Chosen, f32>;
pub type Acts<P> = Buffer<Chosen, <P as Precision>::Element>;

fn open() -> Chosen {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let device = Chosen::new(&[&kernels], &[FAT_BINARY], Path::new(env!("CARGO_TARGET_TMPDIR")));
    device.unwrap_or_else(|e| panic!("{e}"))
}

/// One for all tests of a process: a GPU takes its time to open, and to load the kernels.
static DEVICE: LazyLock<Arc<Chosen>> = LazyLock::new(|| Arc::new(open()));
/// The same, with as little shared memory as compute capability 8.6, 8.9 and 12.0 have.
static SMALL: LazyLock<Arc<Chosen>> = LazyLock::new(|| Arc::new(open().with_shared_memory(99 << 10)));

/// A backend on the emulated device, or on the GPU that `GAUNTLET_TEST_DEVICE` names.
pub fn cuda<P: Precision>() -> Cuda<Chosen, P> {
    Cuda::new(Arc::clone(&DEVICE)).unwrap()
}

/// As [`cuda`], where blocks have 99 KiB of shared memory.
pub fn cuda_small<P: Precision>() -> Cuda<Chosen, P> {
    Cuda::new(Arc::clone(&SMALL)).unwrap()
}

/// What ‖out − reference‖ / ‖reference‖ may be.
pub fn limit<P: Precision>() -> f64 {
    if P::SUFFIX == "f32" { 1e-5 } else { 1e-2 }
}

/// Random numbers (SplitMix64) from a fresh seed.
pub struct Random(u64);

impl Random {
    pub fn fresh() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let fresh = now.as_nanos() as u64;
        let seed = std::env::var("GAUNTLET_TEST_SEED").map_or(fresh, |seed| seed.parse().unwrap());
        println!("GAUNTLET_TEST_SEED={seed}");
        Self(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Values in (−size, size).
    pub fn values(&mut self, n: usize, size: f32) -> Vec<f32> {
        (0..n).map(|_| ((self.word() >> 40) as f32 / 8_388_608.0 - 1.0) * size).collect()
    }

    /// Values in (−size, size) that activations hold exactly.
    pub fn acts<P: Precision>(&mut self, n: usize, size: f32) -> Vec<f32> {
        self.values(n, size).into_iter().map(|v| P::value(P::round(v))).collect()
    }

    pub fn ids(&mut self, n: usize, below: u64) -> Vec<u32> {
        (0..n).map(|_| (self.word() % below) as u32).collect()
    }
}

pub fn put<P: Precision>(cuda: &Cuda<Chosen, P>, values: &[f32]) -> Floats {
    let mut buf = cuda.alloc(values.len()).unwrap();
    cuda.upload(values, all_mut(&mut buf)).unwrap();
    buf
}

pub fn put_act<P: Precision>(cuda: &Cuda<Chosen, P>, values: &[f32]) -> Acts<P> {
    let mut buf = cuda.alloc_act(values.len()).unwrap();
    cuda.upload_act(values, &all_mut(&mut buf)).unwrap();
    buf
}

/// NaN everywhere: what a kernel does not write shows.
pub fn poison<P: Precision>(cuda: &Cuda<Chosen, P>, len: usize) -> Floats {
    put(cuda, &vec![f32::NAN; len])
}

pub fn poison_act<P: Precision>(cuda: &Cuda<Chosen, P>, len: usize) -> Acts<P> {
    put_act(cuda, &vec![f32::NAN; len])
}

pub fn get<P: Precision>(cuda: &Cuda<Chosen, P>, buf: &Floats) -> Vec<f32> {
    let mut out = vec![0.0; buf.len()];
    cuda.download(all(buf), &mut out).unwrap();
    out
}

pub fn get_act<P: Precision>(cuda: &Cuda<Chosen, P>, buf: &Acts<P>) -> Vec<f32> {
    let mut out = vec![0.0; buf.len()];
    cuda.download_act(all(buf), &mut out).unwrap();
    out
}

pub fn all<T>(buf: &Buffer<Chosen, T>) -> View<'_, Buffer<Chosen, T>>
where
    T: gauntlet_model::engine::cuda::Element,
{
    View { buf, start: 0, len: buf.len() }
}

pub fn all_mut<T>(buf: &mut Buffer<Chosen, T>) -> ViewMut<'_, Buffer<Chosen, T>>
where
    T: gauntlet_model::engine::cuda::Element,
{
    let len = buf.len();
    ViewMut { buf, start: 0, len }
}

/// ‖out − reference‖ / ‖reference‖ is below `limit`.
pub fn close(what: &str, out: &[f32], reference: &[f64], limit: f64) {
    assert_eq!(out.len(), reference.len(), "{what}");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut out.iter().zip(reference).map(|(a, b)| f64::from(*a) - b));
    let size = norm(&mut reference.iter().copied());
    assert!(size > 0.0, "{what}: the reference is 0");
    let relative = difference / size;
    println!("{what}: {relative:.2e}");
    assert!(relative < limit, "{what}: relative difference {relative:.3e}, allowed {limit:e}");
}

/// Runs a check in both precisions.
#[macro_export]
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod f32 {
            $(#[test] fn $name() { super::$name::<gauntlet_model::engine::cuda::F32>(); })*
        }
        mod bf16 {
            $(#[test] fn $name() { super::$name::<gauntlet_model::engine::cuda::Bf16>(); })*
        }
    };
}

/// As f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}
