//! DeMo on a GPU: the same operations as the rest of this crate, the same bits.
//!
//! ```text
//! grads ─ encode_chunks ─▶ m, indices, values ─ quantise_chunks, settle_tensors ─▶ Submission ─ subtract_chunks ─▶ m
//! Submission ─ measure_groups, place_groups, write_groups ─▶ bytes ─ read_groups ─▶ Submission
//! Submissions ─ scale_tensors ─▶ s_p ─ apply_gather ─▶ θ
//! ```
//!
//! The kernels (`demo/kernels`) follow the CPU's chains of operations: θ after an outer step, momenta and submissions
//! are equal to the bit. Every buffer is allocated once. Generic over [`Device`], so that tests run kernels and launches
//! without a GPU; a device must have [`FAT_BINARY`] loaded.
//!
//! The measurement codebook of f32 values stays on the CPU.

pub mod bench;
mod gather;
mod launch;
mod memory;
mod momentum;
mod payload;
mod size;
mod tables;

pub use gather::Gather;
pub use gauntlet_gpu::{Device, GpuError};
pub use memory::{Buffer, View, ViewMut, Word};
pub use momentum::Momentum;
pub use size::{gather_bytes, momentum_bytes, tables_bytes};
pub use tables::Tables;

/// The kernels of `demo/kernels` as a fat binary: code for sm_80 and sm_90a, PTX for the rest.
pub static FAT_BINARY: &[u8] = include_bytes!("../../kernels/kernels.fatbin");

/// The kernels on the CPU, or on the GPU that `GAUNTLET_TEST_DEVICE` names, for unit tests: one device a process.
#[cfg(test)]
pub(crate) fn test_device() -> std::sync::Arc<gauntlet_gpu::chosen::Chosen> {
    use gauntlet_gpu::chosen::Chosen;
    use std::sync::{Arc, LazyLock};

    static DEVICE: LazyLock<Arc<Chosen>> = LazyLock::new(|| {
        let kernels = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        // Unit tests have no folder of their own but the one they lie in.
        let program = std::env::current_exe().unwrap();
        let chosen = Chosen::new(&[&kernels], &[FAT_BINARY], program.parent().unwrap());
        Arc::new(chosen.unwrap_or_else(|e| panic!("{e}")))
    });
    Arc::clone(&DEVICE)
}
