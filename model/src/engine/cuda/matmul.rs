//! Launches of matrix products: by the vendor's library where the device has it, else by our kernels.

use gauntlet_gpu::{Arg, Device, Factor, Grid, LibraryProduct, Number, Result};

use super::Cuda;
use super::kernels::Orders;
use super::memory::{Precision, size};
use crate::engine::backend::{Order, Product, Write};

/// Tile of a block in both products' kernels.
const TILE: usize = 128;
/// Dynamic shared memory of a block of the tensor-core kernel, as its source says.
const SHARED: u32 = 81_920;

impl<D: Device, P: Precision> Cuda<D, P> {
    /// `out` is of activations' type, or f32 (`f32_out`).
    pub(super) fn launch_product(
        &self,
        p: Product,
        a: u64,
        b: u64,
        out: u64,
        f32_out: OutputType,
    ) -> Result<()> {
        let (lda, ldb) =
            (if p.a == Order::Normal { p.k } else { p.m }, if p.b == Order::Normal { p.n } else { p.k });
        if self.library_product(p, (a, lda), (b, ldb), out, f32_out)? {
            return Ok(());
        }
        let aligned = lda.is_multiple_of(8) && ldb.is_multiple_of(8) && (a | b).is_multiple_of(16);
        let products = &self.kernels.products;
        let orders: &Orders = match (f32_out, aligned) {
            (OutputType::Activation, true) => &products.act,
            (OutputType::Activation, false) => &products.act_unaligned,
            (OutputType::F32, true) => &products.f32,
            (OutputType::F32, false) => &products.f32_unaligned,
        };
        let kernel =
            orders[2 * usize::from(p.a == Order::Transposed) + usize::from(p.b == Order::Transposed)];
        let blocks = size("blocks of a product", p.m.div_ceil(TILE) * p.n.div_ceil(TILE))?;
        let shared = if P::SUFFIX == "f32" { 0 } else { SHARED };
        let mut args = vec![Arg::Ptr(a), Arg::Ptr(b), Arg::Ptr(out)];
        for value in [p.m, p.n, p.k, lda, ldb, p.n] {
            args.push(Arg::U32(size("a product's shape", value)?));
        }
        args.extend([Arg::F32(1.0), Arg::U32(u32::from(p.write == Write::Add))]);
        self.launch(kernel, Grid { shared, ..Grid::new(blocks, 256) }, &args)
    }

    /// Whether the library took the product.
    fn library_product(
        &self,
        p: Product,
        (a, lda): (u64, usize),
        (b, ldb): (u64, usize),
        out: u64,
        f32_out: OutputType,
    ) -> Result<bool> {
        let number = if P::SUFFIX == "f32" { Number::F32 } else { Number::Bf16 };
        let factor =
            |address, stride, order| Factor { address, stride, transposed: order == Order::Transposed };
        let product = LibraryProduct {
            m: p.m,
            n: p.n,
            k: p.k,
            a: factor(a, lda, p.a),
            b: factor(b, ldb, p.b),
            out,
            factors: number,
            output: if f32_out == OutputType::F32 { Number::F32 } else { number },
            add: p.write == Write::Add,
        };
        // SAFETY: the views were checked against the product's shape.
        unsafe { self.gpu().library_product(&product) }
    }
}

/// Type of a product's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputType {
    /// That of activations.
    Activation,
    /// f32 whatever the activations are.
    F32,
}
