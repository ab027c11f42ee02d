//! The kernels of `model/kernels/`, found once by name.

use gauntlet_gpu::{Device, Kernel, Result};

use super::memory::Precision;

/// The compiled kernels: code for sm_80 and sm_90a, and PTX for later devices.
pub static FAT_BINARY: &[u8] = include_bytes!("../../../kernels/kernels.fatbin");

/// A product's kernel for each order of its factors: nn, nt, tn, tt.
pub(super) type Orders = [Kernel; 4];

/// Attention's kernels for one width of heads.
#[derive(Clone, Copy)]
pub(super) struct Attention {
    pub(super) forward: Kernel,
    pub(super) backward_q: Kernel,
    pub(super) backward_kv: Kernel,
}

pub(super) struct Kernels {
    pub(super) cast_f32_bf16: Kernel,
    pub(super) embedding_forward: Kernel,
    pub(super) embedding_backward: Kernel,
    pub(super) rms_norm_forward: Kernel,
    pub(super) rms_norm_again: Kernel,
    pub(super) rms_norm_backward: Kernel,
    pub(super) rms_norm_gain: Kernel,
    pub(super) rope: Kernel,
    pub(super) swiglu_forward: Kernel,
    pub(super) swiglu_backward: Kernel,
    pub(super) cross_entropy_forward: Kernel,
    pub(super) cross_entropy_backward: Kernel,
    pub(super) squares: Kernel,
    pub(super) squares_total: Kernel,
    pub(super) adamw: Kernel,
    pub(super) products: Products,
    /// For heads up to 64, 128 and 256 wide, each with what needs less shared memory; in f32 one kernel serves all.
    pub(super) attention: [[Attention; 2]; 3],
}

/// Products by output and alignment.
pub(super) struct Products {
    /// Output of activations' type.
    pub(super) act: Orders,
    /// Output f32.
    pub(super) f32: Orders,
    /// As `act` where rows are not aligned to 16 bytes.
    pub(super) act_unaligned: Orders,
    /// As `f32` where rows are not aligned to 16 bytes.
    pub(super) f32_unaligned: Orders,
}

impl Kernels {
    pub(super) fn find<D: Device, P: Precision>(device: &D) -> Result<Self> {
        let exact = |name: &str| device.kernel(name);
        let typed = |name: &str| device.kernel(&format!("{name}_{}", P::SUFFIX));
        Ok(Self {
            cast_f32_bf16: exact("cast_f32_bf16")?,
            embedding_forward: typed("embedding_forward")?,
            embedding_backward: typed("embedding_backward")?,
            rms_norm_forward: typed("rms_norm_forward")?,
            rms_norm_again: typed("rms_norm_again")?,
            rms_norm_backward: typed("rms_norm_backward")?,
            rms_norm_gain: exact("rms_norm_gain")?,
            rope: typed("rope")?,
            swiglu_forward: typed("swiglu_forward")?,
            swiglu_backward: typed("swiglu_backward")?,
            cross_entropy_forward: exact("cross_entropy_forward")?,
            cross_entropy_backward: exact("cross_entropy_backward")?,
            squares: exact("squares")?,
            squares_total: exact("squares_total")?,
            adamw: exact("adamw")?,
            products: Products::find::<D, P>(device)?,
            attention: [64, 128, 256]
                .map(|width| attention::<D, P>(device, width))
                .into_iter()
                .collect::<Result<Vec<_>>>()?
                .try_into()
                .map_err(|_| gauntlet_gpu::GpuError::NoKernel("attention".into()))?,
        })
    }
}

fn attention<D: Device, P: Precision>(device: &D, width: usize) -> Result<[Attention; 2]> {
    let fast = |pass: &str| match P::SUFFIX {
        "f32" => device.kernel(&format!("attention_{pass}_f32")),
        suffix => device.kernel(&format!("attention_{pass}_{suffix}_{width}")),
    };
    let small = |pass: &str| match (P::SUFFIX, width, pass) {
        // These need little as they are.
        ("f32", ..) | (_, 64, _) | (_, 256, "backward_q") => fast(pass),
        (suffix, ..) => device.kernel(&format!("attention_{pass}_{suffix}_{width}_small")),
    };
    let fast = Attention {
        forward: fast("forward")?,
        backward_q: fast("backward_q")?,
        backward_kv: fast("backward_kv")?,
    };
    let small = Attention {
        forward: small("forward")?,
        backward_q: small("backward_q")?,
        backward_kv: small("backward_kv")?,
    };
    Ok([fast, small])
}

impl Products {
    fn find<D: Device, P: Precision>(device: &D) -> Result<Self> {
        let orders = |kind: &str, types: &str| -> Result<Orders> {
            let find = |order: &str| device.kernel(&format!("matmul{kind}_{order}_{types}"));
            Ok([find("nn")?, find("nt")?, find("tn")?, find("tt")?])
        };
        if P::SUFFIX == "f32" {
            let all = orders("", "f32")?;
            return Ok(Self { act: all, f32: all, act_unaligned: all, f32_unaligned: all });
        }
        Ok(Self {
            act: orders("", "bf16_bf16")?,
            f32: orders("", "bf16_f32")?,
            act_unaligned: orders("_unaligned", "bf16_bf16")?,
            f32_unaligned: orders("_unaligned", "bf16_f32")?,
        })
    }
}
