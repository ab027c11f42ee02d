//! cuBLASLt, where a machine has it: it comes with CUDA's toolkit or a Python environment, not with the driver.
//!
//! Matrices here are row-major and the library's are column-major: `out = a · b` is computed as
//! `outᵀ = bᵀ · aᵀ`, whose factors are the same memory read column by column.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::sys;
use cudarc::driver::sys::CUstream;

use super::cublaslt::{Functions, Owned, made};
use super::{Context, Memory};
use crate::device::{Factor, LibraryProduct, Number};
use crate::error::{GpuError, Result};

/// Scratch the library may use: what NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;

pub(super) struct Library {
    functions: Functions,
    file: PathBuf,
    handle: sys::cublasLtHandle_t,
    workspace: Memory,
    plans: Mutex<HashMap<Shape, Option<Plan>>>,
}

/// What the choice of an algorithm depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    sizes: [usize; 3],
    a: (usize, bool, u32),
    b: (usize, bool, u32),
    out: u32,
    factors: Number,
    output: Number,
    add: bool,
}

/// A product's descriptors, and the algorithm the library chose.
struct Plan {
    description: Owned<sys::cublasLtMatmulDesc_t>,
    first: Owned<sys::cublasLtMatrixLayout_t>,
    second: Owned<sys::cublasLtMatrixLayout_t>,
    out: Owned<sys::cublasLtMatrixLayout_t>,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Library {
    /// The library, or `None` where the machine has none.
    pub(super) fn open(folders: &[PathBuf], context: &Arc<Context>) -> Result<Option<Self>> {
        let Some((functions, file)) = Functions::find(folders) else { return Ok(None) };
        let starting = format!("starting cuBLASLt ({})", file.display());
        let workspace =
            context.alloc(WORKSPACE).map_err(|e| GpuError::Unavailable(format!("{starting}: {e}")))?;
        // SAFETY: the library writes the handle it makes; the context was entered to allocate.
        let handle =
            made(|handle| unsafe { (functions.create)(handle) }).map_err(|e| failed(&starting, e))?;
        Ok(Some(Self { functions, file, handle, workspace, plans: Mutex::default() }))
    }

    /// The file it was opened from; without a folder where the loader's path has it.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Queues a product; `false` where the library has no algorithm for it.
    ///
    /// # Safety
    /// The matrices lie in live memory of the context's device.
    pub(super) unsafe fn product(&self, p: &LibraryProduct, stream: CUstream) -> Result<bool> {
        let shape = Shape {
            sizes: [p.m, p.n, p.k],
            a: (p.a.stride, p.a.transposed, alignment(p.a.address)),
            b: (p.b.stride, p.b.transposed, alignment(p.b.address)),
            out: alignment(p.out),
            factors: p.factors,
            output: p.output,
            add: p.add,
        };
        // Held while the product is queued, which takes microseconds: plans stay where they are.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match plans.entry(shape) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(self.plan(p, &shape)?),
        };
        let Some(plan) = plan else { return Ok(false) };
        let (alpha, beta) = (1.0f32, if p.add { 1.0f32 } else { 0.0 });
        let address = |at: u64| at as *mut c_void;
        // SAFETY: the plan was made for these shapes; factors are host values, read before the call returns.
        unsafe {
            (self.functions.matmul)(
                self.handle,
                plan.description.get(),
                std::ptr::from_ref(&alpha).cast(),
                address(p.b.address),
                plan.first.get(),
                address(p.a.address),
                plan.second.get(),
                std::ptr::from_ref(&beta).cast(),
                address(p.out),
                plan.out.get(),
                address(p.out),
                plan.out.get(),
                &raw const plan.algorithm,
                address(self.workspace.address),
                WORKSPACE,
                stream.cast(),
            )
        }
        .result()
        .map_err(|e| failed("a matrix product", e))?;
        Ok(true)
    }

    fn plan(&self, p: &LibraryProduct, shape: &Shape) -> Result<Option<Plan>> {
        use sys::cublasLtMatmulDescAttributes_t::{CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB};
        use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        use sys::cublasStatus_t as Status;
        let number = |number| match number {
            Number::F32 => sys::cudaDataType::CUDA_R_32F,
            Number::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        };
        let (f, refused) = (&self.functions, |e| failed("planning a matrix product", e));
        let layout = |kind, rows: usize, columns: usize, stride: usize| {
            let stride = i64::try_from(stride).unwrap_or(i64::MAX);
            let (rows, columns) = (rows as u64, columns as u64);
            // SAFETY: the library writes the layout it makes.
            let make = |layout| unsafe { (f.layout)(layout, number(kind), rows, columns, stride) };
            Owned::new(make, f.destroy_layout).map_err(refused)
        };
        // A factor stored [rows, columns] is a column-major [columns, rows].
        let factor = |f: &Factor, rows: usize, columns: usize| {
            let (rows, columns) = if f.transposed { (columns, rows) } else { (rows, columns) };
            layout(p.factors, columns, rows, f.stride)
        };
        let (first, second) = (factor(&p.b, p.k, p.n)?, factor(&p.a, p.m, p.k)?);
        let out = layout(p.output, p.n, p.m, p.n)?;
        let sums = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let scale = sys::cudaDataType::CUDA_R_32F;
        // SAFETY: the library writes the description it makes.
        let make = |made| unsafe { (f.description)(made, sums, scale) };
        let description = Owned::new(make, f.destroy_description).map_err(refused)?;
        // SAFETY: as above.
        let make = |made| unsafe { (f.preference)(made) };
        let preference = Owned::new(make, f.destroy_preference).map_err(refused)?;
        let orders = [
            (CUBLASLT_MATMUL_DESC_TRANSA, i32::from(p.b.transposed)),
            (CUBLASLT_MATMUL_DESC_TRANSB, i32::from(p.a.transposed)),
        ];
        for (attribute, order) in orders {
            // SAFETY: the description was just made; the attribute is an i32.
            unsafe {
                let value = std::ptr::from_ref(&order).cast();
                (f.describe)(description.get(), attribute, value, size_of::<i32>())
            }
            .result()
            .map_err(refused)?;
        }
        let workspace = WORKSPACE;
        // SAFETY: the preference was just made; the attribute is a size.
        unsafe {
            let (value, attribute) =
                (std::ptr::from_ref(&workspace).cast(), Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
            (f.prefer)(preference.get(), attribute, value, size_of::<usize>())
        }
        .result()
        .map_err(refused)?;
        let alignments = [
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape.b.2),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.a.2),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.out),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.out),
        ];
        for (attribute, bytes) in alignments {
            // SAFETY: the preference was just made; the attribute is a u32.
            unsafe {
                let value = std::ptr::from_ref(&bytes).cast();
                (f.prefer)(preference.get(), attribute, value, size_of::<u32>())
            }
            .result()
            .map_err(refused)?;
        }
        let mut found = 0;
        // SAFETY: all descriptors were just made; there is room for the one result asked for.
        let chosen = made(|chosen: *mut sys::cublasLtMatmulHeuristicResult_t| unsafe {
            let (handle, one) = (self.handle, 1);
            let status = (f.heuristic)(
                handle,
                description.get(),
                first.get(),
                second.get(),
                out.get(),
                out.get(),
                preference.get(),
                one,
                chosen,
                &raw mut found,
            );
            // Nothing is written where nothing is found.
            if status == Status::CUBLAS_STATUS_SUCCESS && found == 0 {
                Status::CUBLAS_STATUS_NOT_SUPPORTED
            } else {
                status
            }
        });
        match chosen.and_then(|chosen| chosen.state.result().map(|()| chosen.algo)) {
            Ok(algorithm) => Ok(Some(Plan { description, first, second, out, algorithm })),
            // None for this shape and alignment: our own kernel computes it. Anything else would be slow unseen.
            Err(CublasError(Status::CUBLAS_STATUS_NOT_SUPPORTED)) => Ok(None),
            Err(e) => Err(failed("choosing how to compute a matrix product", e)),
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `open`; a device is dropped when nothing is queued on it any more.
        let _ = unsafe { (self.functions.destroy)(self.handle) };
    }
}

/// Largest power of two up to 16 that divides an address: as much as kernels ask for. More would let the choice of an
/// algorithm, and so the sums' order, depend on where memory was allocated.
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(4)
}

fn failed(what: &str, error: CublasError) -> GpuError {
    GpuError::Failed(format!("{what}: {error}"))
}
