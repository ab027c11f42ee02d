//! The functions of cuBLASLt that are used, bound to one file.

use std::ffi::{c_int, c_void};
use std::path::PathBuf;

use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t, cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t, cublasLtMatrixLayout_t, cublasStatus_t, cudaDataType, cudaStream_t,
};
use libloading::os::unix::Library;

use super::search;

/// Names the library goes by.
const NAMES: [&str; 3] = ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"];

/// Gives back what another function made.
type Destroy<T> = unsafe extern "C" fn(T) -> cublasStatus_t;

/// As `cublasLt.h` declares them.
#[derive(Clone, Copy)]
pub(super) struct Functions {
    version: unsafe extern "C" fn() -> usize,
    pub(super) create: unsafe extern "C" fn(*mut cublasLtHandle_t) -> cublasStatus_t,
    pub(super) destroy: unsafe extern "C" fn(cublasLtHandle_t) -> cublasStatus_t,
    pub(super) destroy_layout: Destroy<cublasLtMatrixLayout_t>,
    pub(super) destroy_description: Destroy<cublasLtMatmulDesc_t>,
    pub(super) layout:
        unsafe extern "C" fn(*mut cublasLtMatrixLayout_t, cudaDataType, u64, u64, i64) -> cublasStatus_t,
    pub(super) description:
        unsafe extern "C" fn(*mut cublasLtMatmulDesc_t, cublasComputeType_t, cudaDataType) -> cublasStatus_t,
    pub(super) describe: unsafe extern "C" fn(
        cublasLtMatmulDesc_t,
        cublasLtMatmulDescAttributes_t,
        *const c_void,
        usize,
    ) -> cublasStatus_t,
    pub(super) preference: unsafe extern "C" fn(*mut cublasLtMatmulPreference_t) -> cublasStatus_t,
    pub(super) prefer: unsafe extern "C" fn(
        cublasLtMatmulPreference_t,
        cublasLtMatmulPreferenceAttributes_t,
        *const c_void,
        usize,
    ) -> cublasStatus_t,
    pub(super) destroy_preference: Destroy<cublasLtMatmulPreference_t>,
    pub(super) heuristic: unsafe extern "C" fn(
        cublasLtHandle_t,
        cublasLtMatmulDesc_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        cublasLtMatmulPreference_t,
        c_int,
        *mut cublasLtMatmulHeuristicResult_t,
        *mut c_int,
    ) -> cublasStatus_t,
    pub(super) matmul: unsafe extern "C" fn(
        cublasLtHandle_t,
        cublasLtMatmulDesc_t,
        *const c_void,
        *const c_void,
        cublasLtMatrixLayout_t,
        *const c_void,
        cublasLtMatrixLayout_t,
        *const c_void,
        *const c_void,
        cublasLtMatrixLayout_t,
        *mut c_void,
        cublasLtMatrixLayout_t,
        *const cublasLtMatmulAlgo_t,
        *mut c_void,
        usize,
        cudaStream_t,
    ) -> cublasStatus_t,
}

/// The library's file and version, such as "13.1.0", where it is found: in `folders`, then in the loader's path, where
/// the file has no folder.
pub fn cublaslt(folders: &[PathBuf]) -> Option<(PathBuf, String)> {
    Functions::find(folders).map(|(functions, file)| (file, functions.version()))
}

impl Functions {
    pub(super) fn find(folders: &[PathBuf]) -> Option<(Self, PathBuf)> {
        search::open(folders, &NAMES, Self::of).ok()
    }

    fn of(library: &Library) -> Result<Self, libloading::Error> {
        // SAFETY: each function is declared as in cublasLt.h.
        unsafe {
            Ok(Self {
                version: *library.get(b"cublasLtGetVersion\0")?,
                create: *library.get(b"cublasLtCreate\0")?,
                destroy: *library.get(b"cublasLtDestroy\0")?,
                layout: *library.get(b"cublasLtMatrixLayoutCreate\0")?,
                description: *library.get(b"cublasLtMatmulDescCreate\0")?,
                describe: *library.get(b"cublasLtMatmulDescSetAttribute\0")?,
                preference: *library.get(b"cublasLtMatmulPreferenceCreate\0")?,
                prefer: *library.get(b"cublasLtMatmulPreferenceSetAttribute\0")?,
                destroy_layout: *library.get(b"cublasLtMatrixLayoutDestroy\0")?,
                destroy_description: *library.get(b"cublasLtMatmulDescDestroy\0")?,
                destroy_preference: *library.get(b"cublasLtMatmulPreferenceDestroy\0")?,
                heuristic: *library.get(b"cublasLtMatmulAlgoGetHeuristic\0")?,
                matmul: *library.get(b"cublasLtMatmul\0")?,
            })
        }
    }

    pub(super) fn version(&self) -> String {
        // SAFETY: gives a number.
        let code = unsafe { (self.version)() };
        // 10000 major + 100 minor + patch.
        format!("{}.{}.{}", code / 10_000, code % 10_000 / 100, code % 100)
    }
}

/// What a function of the library made, given back when it is dropped.
pub(super) struct Owned<T: Copy> {
    handle: T,
    destroy: Destroy<T>,
}

impl<T: Copy> Owned<T> {
    /// Has `make` make it; `destroy` belongs to that function.
    pub(super) fn new(
        make: impl FnOnce(*mut T) -> cublasStatus_t,
        destroy: Destroy<T>,
    ) -> Result<Self, CublasError> {
        Ok(Self { handle: made(make)?, destroy })
    }

    /// For calls while this lives.
    pub(super) fn get(&self) -> T {
        self.handle
    }
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made by the function that `destroy` belongs to, and given back once.
        let _ = unsafe { (self.destroy)(self.handle) };
    }
}

/// What a function makes, by its first argument.
pub(super) fn made<T>(make: impl FnOnce(*mut T) -> cublasStatus_t) -> Result<T, CublasError> {
    let mut value = std::mem::MaybeUninit::uninit();
    make(value.as_mut_ptr()).result()?;
    // SAFETY: the function succeeded, so it wrote what it makes.
    Ok(unsafe { value.assume_init() })
}
