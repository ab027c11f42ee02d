//! The NVIDIA driver, opened at run time: a program that holds this starts without one.
//!
//! One stream a device: copies and kernels run in the order they are queued, and the host goes on meanwhile.
//! Memory is freed at once and in order, since nothing here frees while work that uses it is queued without
//! waiting (`cuMemFree` waits for the device).
#![allow(unsafe_code)] // calls of the driver's C interface

mod cublaslt;
mod library;
mod nccl;
mod search;

use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use crate::device::{Arg, Counter, Counts, Device, Grid, Kernel, LibraryProduct};
use crate::error::{GpuError, Result};
pub use cublaslt::cublaslt;
use library::Library;
pub use nccl::{Nccl, nccl_version};
pub use search::folders as library_folders;

/// Dynamic shared memory every kernel may use without asking: 48 KiB less what a kernel declares itself.
const FREE_SHARED: u32 = 32 << 10;

/// What a machine's driver offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Number for [`Driver::open`].
    pub ordinal: usize,
    /// The device's name.
    pub name: String,
    /// Bytes of memory.
    pub memory: usize,
    /// Compute capability, such as (9, 0).
    pub capability: (i32, i32),
    /// Bytes of shared memory a block may have.
    pub shared_memory: u32,
}

/// The devices of this machine.
///
/// # Errors
/// [`GpuError::Unavailable`] without a driver, or when the driver cannot start.
pub fn devices() -> Result<Vec<Found>> {
    start()?;
    let count = result::device::get_count().map_err(|e| failed("counting devices", e))?;
    (0..count).map(found).collect()
}

/// The version of CUDA the driver is made for, such as (13, 0).
///
/// # Errors
/// As [`devices`].
pub fn version() -> Result<(i32, i32)> {
    start()?;
    let mut version = 0;
    // SAFETY: the driver writes one number.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(|e| failed("asking for the driver's version", e))?;
    Ok((version / 1000, version % 1000 / 10))
}

/// Free bytes of a device.
///
/// # Errors
/// As [`devices`], and when there is no such device.
pub fn free_memory(ordinal: usize) -> Result<usize> {
    start()?;
    let context = Context::new(index(ordinal)?)?;
    context.enter()?;
    result::mem_get_info().map(|(free, _)| free).map_err(|e| failed("asking for free memory", e))
}

/// An NVIDIA GPU with one stream, the modules it was opened with, and cuBLASLt where it was found.
pub struct Driver {
    context: Arc<Context>,
    found: Found,
    modules: Vec<sys::CUmodule>,
    functions: Mutex<Vec<Function>>,
    library: Option<Box<Library>>,
    library_problem: Option<String>,
    left_over: LeftOver,
    counter: Counter,
}

/// What becomes of a product that the library has no algorithm for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOver {
    /// Our own kernel computes it.
    Own,
    /// It fails: only the library's products are wanted.
    Refused,
}

/// Memory of a GPU; keeps the context alive.
pub struct Memory {
    context: Arc<Context>,
    address: u64,
}

/// The device's context and stream.
struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
}

struct Function {
    name: String,
    handle: sys::CUfunction,
    /// Dynamic shared memory that was asked for so far.
    shared: AtomicU32,
}

// SAFETY: the driver's handles may be used from any thread that made the context current, which every call does.
unsafe impl Send for Context {}
// SAFETY: as above; the driver's calls are thread-safe.
unsafe impl Sync for Context {}
// SAFETY: as above; the handles of modules and functions are only read.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

impl Driver {
    /// Opens a device and loads `images` (fat binaries). `folders` are searched for cuBLASLt before the loader's path.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] with what is missing: the driver, the device, or code for it.
    pub fn open(ordinal: usize, images: &[&'static [u8]], folders: &[PathBuf]) -> Result<Self> {
        let all = devices()?;
        let count = all.len();
        let found = all.into_iter().nth(ordinal).ok_or_else(|| {
            GpuError::Unavailable(format!("there is no GPU {ordinal}: the driver knows {count}"))
        })?;
        if found.capability.0 < 8 {
            let (name, (major, minor)) = (&found.name, found.capability);
            return Err(GpuError::Unavailable(format!(
                "{name} has compute capability {major}.{minor}; the kernels need 8.0 or later"
            )));
        }
        let context = Arc::new(Context::new(index(ordinal)?)?);
        let load = |image: &&'static [u8]| {
            // SAFETY: the image is a whole fat binary and lives for ever.
            unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(|e| {
                GpuError::Unavailable(format!(
                    "{}: loading the kernels: {e} (they need driver 580 or later)",
                    found.name
                ))
            })
        };
        let modules = images.iter().map(load).collect::<Result<_>>()?;
        // One that is there and does not start leaves a GPU that computes all the same.
        let (library, library_problem) = match Library::open(folders, &context) {
            Ok(library) => (library.map(Box::new), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let (functions, counter) = (Mutex::default(), Counter::default());
        let left_over = LeftOver::Own;
        Ok(Self { context, found, modules, functions, library, library_problem, left_over, counter })
    }

    /// The device.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Whether matrix products go through cuBLASLt; else through our own kernels.
    pub fn has_library(&self) -> bool {
        self.library.is_some()
    }

    /// The file cuBLASLt was opened from; without a folder where the loader's path has it.
    pub fn library_file(&self) -> Option<&Path> {
        self.library.as_deref().map(Library::file)
    }

    /// Why a cuBLASLt that was found does not compute.
    pub fn library_problem(&self) -> Option<&str> {
        self.library_problem.as_deref()
    }

    /// As a device whose blocks have at most `bytes` of shared memory, so that what others launch can be tested here.
    #[must_use]
    pub fn with_shared_memory(mut self, bytes: u32) -> Self {
        self.found.shared_memory = self.found.shared_memory.min(bytes);
        self
    }

    /// Computes products by our own kernels from here on.
    pub fn without_library(&mut self) {
        self.library = None;
    }

    /// Refuses products that the library does not compute from here on.
    pub fn without_own_products(&mut self) {
        self.left_over = LeftOver::Refused;
    }

    fn functions(&self) -> MutexGuard<'_, Vec<Function>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stream(&self) -> Result<sys::CUstream> {
        self.context.enter()?;
        Ok(self.context.stream)
    }
}

impl Context {
    fn new(ordinal: i32) -> Result<Self> {
        let device = result::device::get(ordinal).map_err(|e| failed("opening the device", e))?;
        // A host thread that waits sleeps, so that it takes no core from data loading and the network.
        let flags = sys::CUctx_flags_enum::CU_CTX_SCHED_BLOCKING_SYNC as u32;
        let (mut current, mut active) = (0, 0);
        // SAFETY: the device was given by the driver, which writes two numbers.
        unsafe { sys::cuDevicePrimaryCtxGetState(device, &raw mut current, &raw mut active) }
            .result()
            .map_err(|e| failed("asking for the device's context", e))?;
        if active == 0 {
            // SAFETY: the device was given by the driver. Without the flag a wait takes a core: no harm.
            let _ = unsafe { sys::cuDevicePrimaryCtxSetFlags_v2(device, flags) };
        }
        // SAFETY: the device was given by the driver.
        let context =
            unsafe { result::primary_ctx::retain(device) }.map_err(|e| failed("opening the device", e))?;
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context) }.map_err(|e| failed("opening the device", e))?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(|e| failed("making a stream", e))?;
        Ok(Self { device, context, stream })
    }

    /// Makes the context current in this thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| failed("entering the context", e))
    }

    fn alloc(self: &Arc<Self>, bytes: usize) -> Result<Memory> {
        self.enter()?;
        let wanted = bytes.max(256);
        // SAFETY: the memory is set below before anything reads it.
        let address = unsafe { result::malloc_sync(wanted) }.map_err(|e| self.out_of_memory(wanted, e))?;
        let memory = Memory { context: Arc::clone(self), address };
        // SAFETY: the memory was just allocated with this size.
        unsafe { result::memset_d8_async(address, 0, wanted, self.stream) }
            .map_err(|e| failed("clearing memory", e))?;
        Ok(memory)
    }

    fn out_of_memory(&self, wanted: usize, error: DriverError) -> GpuError {
        if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return failed("allocating memory", error);
        }
        let (free, total) = result::mem_get_info().unwrap_or_default();
        GpuError::Memory { wanted, free, total }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Errors cannot be told to anyone here, and the process's end frees everything.
        let _ = self.enter();
        // SAFETY: nothing uses the stream and the context any more: all that does holds the `Arc`.
        unsafe {
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = self.context.enter();
        // SAFETY: the memory was allocated by `Context::alloc` and is freed once; the driver waits for its uses.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

impl Device for Driver {
    type Mem = Memory;

    fn alloc(&self, bytes: usize) -> Result<Memory> {
        self.context.alloc(bytes)
    }

    fn address(&self, mem: &Memory) -> u64 {
        mem.address
    }

    fn kernel(&self, name: &str) -> Result<Kernel> {
        self.context.enter()?;
        let missing = || GpuError::NoKernel(name.into());
        let c_name = CString::new(name).map_err(|_| missing())?;
        // SAFETY: the modules are loaded as long as `self` lives.
        let get =
            |&module: &sys::CUmodule| unsafe { result::module::get_function(module, c_name.clone()) }.ok();
        let handle = self.modules.iter().find_map(get).ok_or_else(missing)?;
        let mut functions = self.functions();
        // What was asked for a kernel holds for its handle, whoever looks it up again.
        if let Some(known) = functions.iter().position(|f| f.handle == handle) {
            return Ok(Kernel(known));
        }
        functions.push(Function { name: name.into(), handle, shared: AtomicU32::new(FREE_SHARED) });
        Ok(Kernel(functions.len() - 1))
    }

    unsafe fn launch(&self, kernel: Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
        let stream = self.stream()?;
        let functions = self.functions();
        let f = functions.get(kernel.0).ok_or_else(|| GpuError::NoKernel(format!("number {}", kernel.0)))?;
        let refused = |e: DriverError| GpuError::Launch { kernel: f.name.clone(), reason: e.to_string() };
        if grid.shared > f.shared.load(Ordering::Relaxed) {
            let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(grid.shared).unwrap_or(i32::MAX);
            // SAFETY: the function belongs to a loaded module.
            unsafe { result::function::set_function_attribute(f.handle, most, bytes) }.map_err(refused)?;
            f.shared.store(grid.shared, Ordering::Relaxed);
        }
        let mut values: Vec<u64> = args.iter().map(|arg| arg.bytes().0).collect();
        let mut params: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        let [x, y, z] = grid.blocks;
        // SAFETY: the caller answers for the arguments; the driver copies them before it returns.
        unsafe {
            result::launch_kernel(f.handle, (x, y, z), (grid.threads, 1, 1), grid.shared, stream, &mut params)
        }
        .map_err(refused)?;
        self.counter.launch();
        Ok(())
    }

    unsafe fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        let stream = self.stream()?;
        self.counter.copy();
        // SAFETY: by this function's contract; pageable memory is staged before the driver returns.
        unsafe { result::memcpy_htod_async(to, from, stream) }.map_err(|e| failed("copying to the GPU", e))
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        let stream = self.stream()?;
        self.counter.copy();
        // SAFETY: by this function's contract; the copy is waited for below.
        unsafe { result::memcpy_dtoh_async(to, from, stream) }
            .map_err(|e| failed("copying from the GPU", e))?;
        self.wait()
    }

    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<()> {
        let stream = self.stream()?;
        if bytes == 0 {
            return Ok(());
        }
        self.counter.copy();
        // SAFETY: by this function's contract.
        unsafe { result::memset_d8_async(at, 0, bytes, stream) }.map_err(|e| failed("clearing memory", e))
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        let stream = self.stream()?;
        self.counter.copy();
        // SAFETY: by this function's contract.
        unsafe { result::memcpy_dtod_async(to, from, bytes, stream) }
            .map_err(|e| failed("copying in the GPU", e))
    }

    unsafe fn library_product(&self, product: &LibraryProduct) -> Result<bool> {
        let stream = self.stream()?;
        let taken = match &self.library {
            // SAFETY: by this function's contract.
            Some(library) => unsafe { library.product(product, stream) }?,
            None => false,
        };
        if taken {
            self.counter.library_product();
        } else if self.left_over == LeftOver::Refused {
            let LibraryProduct { m, n, k, .. } = product;
            return Err(GpuError::Failed(format!(
                "cuBLASLt has no algorithm for a product of {m} × {n} × {k}, and our own kernels are ruled out; choose \
                 --products auto"
            )));
        } else {
            self.counter.own_product();
        }
        Ok(taken)
    }

    fn shared_memory(&self) -> u32 {
        self.found.shared_memory
    }

    fn memory(&self) -> Result<(usize, usize)> {
        self.context.enter()?;
        result::mem_get_info().map_err(|e| failed("asking for free memory", e))
    }

    fn counts(&self) -> Counts {
        self.counter.counts()
    }

    fn wait(&self) -> Result<()> {
        let stream = self.stream()?;
        self.counter.wait();
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(stream) }.map_err(|e| failed("running kernels", e))
    }
}

/// Opens the driver once.
fn start() -> Result<()> {
    // SAFETY: opens libcuda, whose constructors do nothing that matters here.
    if !unsafe { sys::is_culib_present() } {
        return Err(GpuError::Unavailable(
            "no CUDA driver: libcuda.so.1 is not found; install NVIDIA's driver (580 or later), or in a container \
             start it with the NVIDIA runtime (--gpus all)"
                .into(),
        ));
    }
    result::init().map_err(|e| failed("starting the driver", e))
}

fn found(ordinal: i32) -> Result<Found> {
    let device = result::device::get(ordinal).map_err(|e| failed("opening a device", e))?;
    let name = result::device::get_name(device).map_err(|e| failed("naming a device", e))?;
    let attribute = |which| {
        // SAFETY: the device was given by the driver.
        unsafe { result::device::get_attribute(device, which) }.map_err(|e| failed("describing a device", e))
    };
    let capability = (
        attribute(sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let shared =
        attribute(sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    let shared_memory = u32::try_from(shared).unwrap_or_default();
    // SAFETY: the device was given by the driver.
    let memory =
        unsafe { result::device::total_mem(device) }.map_err(|e| failed("describing a device", e))?;
    let ordinal = usize::try_from(ordinal).unwrap_or_default();
    Ok(Found { ordinal, name, memory, capability, shared_memory })
}

fn index(ordinal: usize) -> Result<i32> {
    i32::try_from(ordinal).map_err(|_| GpuError::Unavailable(format!("there is no GPU {ordinal}")))
}

fn failed(what: &str, error: DriverError) -> GpuError {
    GpuError::Failed(format!("{what}: {error}"))
}
