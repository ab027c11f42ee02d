//! cuBLASLt, where a machine has it: it comes with CUDA's toolkit or a Python environment, not with the driver.
//!
//! Matrices here are row-major and the library's are column-major: `out = a · b` is computed as
//! `outᵀ = bᵀ · aᵀ`, whose factors are the same memory read column by column.

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver::sys::CUstream;
use libloading::os::unix::{Library as Opened, RTLD_GLOBAL, RTLD_NOW};

use super::{Context, Memory};
use crate::device::{Factor, LibraryProduct, Number};
use crate::error::{GpuError, Result};

/// Scratch the library may use: what NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;

/// Names the library goes by.
const NAMES: [&str; 3] = ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"];

pub(super) struct Library {
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

/// A product's descriptors, and the algorithm the library chose; kept as long as the process runs.
#[derive(Clone, Copy)]
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    first: sys::cublasLtMatrixLayout_t,
    second: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// Where CUDA's libraries may lie, by the environment's variables (`variable` looks one up).
pub fn folders(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for name in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(home) = variable(name).map(PathBuf::from) {
            all.extend([home.join("lib64"), home.join("targets/x86_64-linux/lib"), home.join("lib")]);
        }
    }
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        if let Some(home) = variable(name).map(PathBuf::from) {
            all.push(home.join("lib"));
            all.extend(packages(&home.join("lib")));
        }
    }
    all.extend(["/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib"].map(PathBuf::from));
    for home in ["/usr/local/lib", "/usr/lib", "/usr/lib/python3"] {
        all.extend(packages(Path::new(home)));
    }
    all
}

/// The library's file in the first of `folders` that has it. Not finding it here is no proof: the loader's own path is
/// searched after them.
pub fn file(folders: &[PathBuf]) -> Option<PathBuf> {
    files(folders, &NAMES).next()
}

/// Files of these names in the folders, the first folder's first.
pub(super) fn files(folders: &[PathBuf], names: &[&str]) -> impl Iterator<Item = PathBuf> {
    let all = folders.iter().flat_map(move |folder| names.iter().map(move |name| folder.join(name)));
    all.filter(|file| file.is_file())
}

/// Folders of NVIDIA's wheels in the Pythons below `lib`.
fn packages(lib: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(lib) else { return Vec::new() };
    let mut pythons: Vec<PathBuf> =
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    pythons.sort();
    let places = ["nvidia/cu13/lib", "nvidia/cublas/lib", "nvidia/nccl/lib"];
    pythons
        .iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")))
        .flat_map(|python| ["site-packages", "dist-packages"].map(|kind| python.join(kind)))
        .flat_map(|packages| places.map(|place| packages.join(place)))
        .filter(|path| path.is_dir())
        .collect()
}

impl Library {
    /// The library, or `None` where the machine has none.
    pub(super) fn open(folders: &[PathBuf], context: &Arc<Context>) -> Result<Option<Self>> {
        // An open library is found by its name afterwards, wherever it lies. cudarc panics where it finds none.
        for file in files(folders, &NAMES) {
            // SAFETY: NVIDIA's library, whose constructors do nothing that matters here.
            if let Ok(opened) = unsafe { Opened::open(Some(&file), RTLD_NOW | RTLD_GLOBAL) } {
                std::mem::forget(opened); // stays open as long as the process runs
                break;
            }
        }
        // SAFETY: as above.
        if !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        context.enter()?;
        let handle = result::create_handle().map_err(|e| failed("starting cuBLASLt", e))?;
        Ok(Some(Self { handle, workspace: context.alloc(WORKSPACE)?, plans: Mutex::default() }))
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
        let plan = {
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            match plans.get(&shape) {
                Some(plan) => *plan,
                None => {
                    let plan = self.plan(p, &shape)?;
                    plans.insert(shape, plan);
                    plan
                }
            }
        };
        let Some(plan) = plan else { return Ok(false) };
        let (alpha, beta) = (1.0f32, if p.add { 1.0f32 } else { 0.0 });
        let address = |at: u64| at as *mut c_void;
        // SAFETY: the plan was made for these shapes; factors are host values, read before the call returns.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                std::ptr::from_ref(&alpha).cast(),
                std::ptr::from_ref(&beta).cast(),
                address(p.b.address),
                plan.first,
                address(p.a.address),
                plan.second,
                address(p.out),
                plan.out,
                address(p.out),
                plan.out,
                &raw const plan.algorithm,
                address(self.workspace.address),
                WORKSPACE,
                stream.cast(),
            )
        }
        .map_err(|e| failed("a matrix product", e))?;
        Ok(true)
    }

    fn plan(&self, p: &LibraryProduct, shape: &Shape) -> Result<Option<Plan>> {
        use sys::cublasLtMatmulDescAttributes_t::{CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB};
        use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let number = |number| match number {
            Number::F32 => sys::cudaDataType::CUDA_R_32F,
            Number::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        };
        let refused = |e| failed("planning a matrix product", e);
        let layout = |kind, rows: usize, columns: usize, stride: usize| {
            let stride = i64::try_from(stride).unwrap_or(i64::MAX);
            result::create_matrix_layout(number(kind), rows as u64, columns as u64, stride).map_err(refused)
        };
        // A factor stored [rows, columns] is a column-major [columns, rows].
        let factor = |f: &Factor, rows: usize, columns: usize| {
            let (rows, columns) = if f.transposed { (columns, rows) } else { (rows, columns) };
            layout(p.factors, columns, rows, f.stride)
        };
        let (first, second) = (factor(&p.b, p.k, p.n)?, factor(&p.a, p.m, p.k)?);
        let out = layout(p.output, p.n, p.m, p.n)?;
        let sums = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let description = result::create_matmul_desc(sums, sys::cudaDataType::CUDA_R_32F).map_err(refused)?;
        let preference = result::create_matmul_pref().map_err(refused)?;
        let orders = [
            (CUBLASLT_MATMUL_DESC_TRANSA, i32::from(p.b.transposed)),
            (CUBLASLT_MATMUL_DESC_TRANSB, i32::from(p.a.transposed)),
        ];
        for (attribute, order) in orders {
            // SAFETY: the description was just made; the attribute is an i32.
            unsafe {
                let value = std::ptr::from_ref(&order).cast();
                result::set_matmul_desc_attribute(description, attribute, value, size_of::<i32>())
            }
            .map_err(refused)?;
        }
        let workspace = WORKSPACE;
        // SAFETY: the preference was just made; the attribute is a size.
        unsafe {
            let (value, attribute) =
                (std::ptr::from_ref(&workspace).cast(), Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
            result::set_matmul_pref_attribute(preference, attribute, value, size_of::<usize>())
        }
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
                result::set_matmul_pref_attribute(preference, attribute, value, size_of::<u32>())
            }
            .map_err(refused)?;
        }
        // SAFETY: all descriptors were just made.
        let chosen = unsafe {
            result::get_matmul_algo_heuristic(self.handle, description, first, second, out, out, preference)
        };
        // SAFETY: made above, and used no more.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        // None for this shape and alignment: our own kernel computes it.
        Ok(chosen.ok().map(|chosen| Plan { description, first, second, out, algorithm: chosen.algo }))
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `open`; a device is dropped when nothing is queued on it any more.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// Largest power of two up to 256 that divides an address.
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}

fn failed(what: &str, error: CublasError) -> GpuError {
    GpuError::Failed(format!("{what}: {error}"))
}
