//! Launches of causal attention, forward and backward.

use gauntlet_gpu::{Arg, Device, GpuError, Grid, Result};

use super::Cuda;
use super::kernels::Attention;
use super::memory::{Precision, size};
use crate::engine::backend::Heads;

/// Addresses of what a pass reads and writes.
pub(super) struct Forward {
    pub(super) q: Arg,
    pub(super) k: Arg,
    pub(super) v: Arg,
    pub(super) out: Arg,
    pub(super) lse: Arg,
}

/// As [`Forward`], with the gradients.
pub(super) struct Backward {
    pub(super) saved: Forward,
    pub(super) dout: Arg,
    pub(super) dq: Arg,
    pub(super) dk: Arg,
    pub(super) dv: Arg,
    /// Room for `[B, H, T]` floats.
    pub(super) delta: Arg,
}

/// How a pass is cut into blocks, as the kernels' sources say.
#[derive(Clone, Copy)]
struct Cut {
    /// Rows of a block.
    rows: usize,
    threads: u32,
    /// Bytes of shared memory asked for at the launch.
    shared: usize,
    /// Bytes the kernel declares besides (docs/kernels.md).
    declared: usize,
}

/// The three passes for one width of heads.
#[derive(Clone, Copy)]
struct Cuts {
    forward: Cut,
    backward_q: Cut,
    backward_kv: Cut,
}

impl Cuts {
    /// Bytes of shared memory that a block has in the pass that needs most.
    fn shared(&self) -> usize {
        let passes = [&self.forward, &self.backward_q, &self.backward_kv];
        passes.iter().map(|cut| cut.shared + cut.declared).max().unwrap_or_default()
    }
}

/// Widths of heads that the bf16 kernels are made for.
const WIDTHS: [usize; 3] = [64, 128, 256];

/// Those of the kernels' widths (64, 128, 256) whose blocks have room in `shared_memory` bytes; heads between two take the
/// kernels of the wider one.
pub fn head_widths(shared_memory: u32) -> Vec<usize> {
    let fits = |width: &usize| cuts_bf16(*width).iter().any(|cuts| cuts.shared() <= shared_memory as usize);
    WIDTHS.into_iter().filter(fits).collect()
}

fn cuts_f32(width: usize) -> Cuts {
    let tile = 4 * 32 * (width + 1);
    let cut = |tiles: usize| Cut { rows: 32, threads: 256, shared: tiles * tile, declared: 0 };
    Cuts { forward: cut(3), backward_q: cut(4), backward_kv: cut(4) }
}

/// Of the fast kernels for a width of 64, 128 or 256, and of those that need at most 99 KiB of shared memory.
fn cuts_bf16(width: usize) -> [Cuts; 2] {
    let row = 2 * (width + 8);
    // (rows, threads, tiles held for these rows, rows of the other side's tile, bytes declared)
    let cut = |rows: usize, threads: u32, own: usize, other: usize, declared: usize| Cut {
        rows,
        threads,
        shared: (own * rows + 4 * other) * row,
        declared,
    };
    match width {
        64 => {
            let cuts = Cuts {
                forward: cut(128, 256, 1, 64, 0),
                backward_q: cut(128, 256, 2, 64, 0),
                backward_kv: cut(128, 256, 2, 64, 1024),
            };
            [cuts, cuts]
        }
        128 => [
            Cuts {
                forward: cut(128, 256, 1, 64, 0),
                backward_q: cut(128, 256, 2, 64, 0),
                backward_kv: cut(128, 256, 2, 32, 512),
            },
            Cuts {
                forward: cut(128, 256, 1, 48, 0),
                backward_q: cut(128, 256, 2, 16, 0),
                backward_kv: cut(128, 256, 2, 16, 256),
            },
        ],
        _ => [
            Cuts {
                forward: cut(128, 256, 1, 32, 0),
                backward_q: cut(64, 128, 2, 16, 0),
                backward_kv: cut(64, 256, 2, 32, 10_752),
            },
            Cuts {
                forward: cut(128, 256, 1, 16, 0),
                backward_q: cut(64, 128, 2, 16, 0),
                backward_kv: cut(16, 64, 2, 32, 3072),
            },
        ],
    }
}

impl<D: Device, P: Precision> Cuda<D, P> {
    /// The kernels for heads of this width, and their cuts: the fast ones where a block has room for them.
    fn attention_kernels(&self, head_dim: usize) -> Result<(Attention, Cuts)> {
        let refuse = |why| Err(GpuError::Unsupported(format!("attention with heads {head_dim} wide: {why}")));
        if head_dim > 256 {
            return refuse("at most 256");
        }
        if P::SUFFIX == "f32" {
            return Ok((self.kernels.attention[0][0], cuts_f32(head_dim)));
        }
        if !head_dim.is_multiple_of(8) {
            return refuse("tensor cores need a multiple of 8; compute in f32");
        }
        let (i, width) = match head_dim {
            ..=64 => (0, 64),
            65..=128 => (1, 128),
            _ => (2, 256),
        };
        let [fast, small] = cuts_bf16(width);
        let [fast_kernels, small_kernels] = self.kernels.attention[i];
        if fast.shared() <= self.gpu().shared_memory() as usize {
            return Ok((fast_kernels, fast));
        }
        Ok((small_kernels, small))
    }

    /// Refuses heads whose kernels this device has too little shared memory for.
    pub(super) fn check_attention(&self, head_dim: usize) -> Result<()> {
        let (_, cuts) = self.attention_kernels(head_dim)?;
        let (needed, most) = (cuts.shared(), self.gpu().shared_memory());
        if needed <= most as usize {
            return Ok(());
        }
        let widest = match head_widths(most).last() {
            Some(width) if P::SUFFIX != "f32" => format!("heads up to {width} wide fit it; "),
            _ => String::new(),
        };
        Err(GpuError::Unsupported(format!(
            "attention with heads {head_dim} wide needs {needed} bytes of shared memory a block, and this GPU allows \
             {most}: {widest}GPUs of compute capability 8.0, 9.0 and 10.0 have room for all"
        )))
    }

    pub(super) fn launch_attention(&self, h: Heads, f: &Forward) -> Result<()> {
        let (kernels, cuts) = self.attention_kernels(h.head_dim)?;
        let args = [f.q, f.k, f.v, f.out, f.lse];
        self.pass(kernels.forward, &cuts.forward, h, h.n_heads, &args)
    }

    pub(super) fn launch_attention_backward(&self, h: Heads, b: &Backward) -> Result<()> {
        let (kernels, cuts) = self.attention_kernels(h.head_dim)?;
        let Forward { q, k, v, out, lse } = b.saved;
        let args = [q, k, v, out, lse, b.dout, b.dq, b.delta];
        self.pass(kernels.backward_q, &cuts.backward_q, h, h.n_heads, &args)?;
        let args = [q, k, v, lse, b.delta, b.dout, b.dk, b.dv];
        self.pass(kernels.backward_kv, &cuts.backward_kv, h, h.n_kv_heads, &args)
    }

    fn pass(
        &self,
        kernel: gauntlet_gpu::Kernel,
        cut: &Cut,
        h: Heads,
        heads: usize,
        buffers: &[Arg],
    ) -> Result<()> {
        let blocks = [
            size("blocks of rows", h.seq.div_ceil(cut.rows))?,
            size("heads", heads)?,
            size("sequences", h.batch)?,
        ];
        let grid = Grid { blocks, threads: cut.threads, shared: size("shared memory", cut.shared)? };
        #[allow(clippy::cast_precision_loss)] // a head's width
        let scale = 1.0 / (h.head_dim as f32).sqrt();
        let sizes = [h.seq, h.n_heads, h.n_kv_heads, h.head_dim];
        let mut args = buffers.to_vec();
        for value in sizes {
            args.push(Arg::U32(size("attention's shape", value)?));
        }
        args.push(Arg::F32(scale));
        self.launch(kernel, grid, &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The compiler's report, which `gpu/build-kernels.sh --check` holds to the sources.
    const REPORT: &str = include_str!("../../../../docs/kernels.md");

    fn declared(kernel: &str) -> usize {
        let row = REPORT.lines().find(|line| line.starts_with(&format!("| `{kernel}` |")));
        let cells: Vec<&str> =
            row.unwrap_or_else(|| panic!("no {kernel}")).split('|').map(str::trim).collect();
        cells[3].parse::<usize>().unwrap().max(cells[6].parse().unwrap())
    }

    #[test]
    fn blocks_declare_what_the_compiler_says_and_the_small_ones_fit_99_kib() {
        for width in WIDTHS {
            let [fast, small] = cuts_bf16(width);
            for (cuts, kind) in [(fast, ""), (small, "_small")] {
                let passes = [
                    ("forward", cuts.forward),
                    ("backward_q", cuts.backward_q),
                    ("backward_kv", cuts.backward_kv),
                ];
                for (pass, cut) in passes {
                    let kind = if width == 64 || (width, pass) == (256, "backward_q") { "" } else { kind };
                    let kernel = format!("attention_{pass}_bf16_{width}{kind}");
                    assert_eq!(cut.declared, declared(&kernel), "{kernel}");
                }
            }
            assert!(small.shared() <= 99 << 10, "{width}: {}", small.shared());
        }
        assert_eq!(declared("attention_forward_f32"), 0);
    }
}
