//! The emulated device: kernel sources compiled as C++ and run on the CPU, for tests.
//!
//! The compiler is the program named in `GAUNTLET_KERNEL_CXX`, or `g++`. (Not in `CXX`: the project's
//! own build proves that it needs no C++ by setting that to a program that fails.)
#![allow(unsafe_code)] // calls into the compiled library, and memory reached by address, as on a GPU

use std::ffi::{CString, c_char, c_int, c_void};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use libloading::{Library, Symbol};

use crate::device::{Arg, Counter, Counts, Device, Grid, Kernel, LibraryProduct};
use crate::error::{GpuError, Result};

type Launch = unsafe extern "C" fn(
    *const c_char,
    *const u32,
    *const u32,
    u32,
    *mut *mut c_void,
    *mut c_char,
    usize,
) -> c_int;
type Arguments = unsafe extern "C" fn(*const c_char, *mut u32, c_int) -> c_int;

/// Words around each allocation that no kernel may change; NaN as f32, f64 and bf16.
const GUARD: u64 = u64::MAX;
/// Words of guard on each side: a multiple of the alignment.
const GUARD_WORDS: usize = 64;

/// Shared memory of a block where nothing else is asked for: that of compute capability 9.0.
const SHARED: u32 = 227 << 10;

/// Kernels of some folders, run on the CPU.
pub struct Emulated {
    library: Library,
    shared: u32,
    counter: Counter,
    names: Mutex<Vec<(CString, Vec<u32>)>>,
}

/// Emulated device memory, guarded on both sides.
pub struct Memory {
    words: Vec<u64>,
    start: usize,
    bytes: usize,
}

impl Memory {
    /// Whether nothing was written outside.
    pub fn intact(&self) -> bool {
        // SAFETY: any bytes are u8.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<u8>(), 8 * self.words.len()) };
        let end = self.start * 8 + self.bytes;
        bytes[..self.start * 8].iter().chain(&bytes[end..]).all(|&byte| byte == 0xff)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        assert!(std::thread::panicking() || self.intact(), "a kernel wrote outside of its buffer");
    }
}

impl Emulated {
    /// Compiles all kernels of `folders` (unless `cache` has them already) and loads them. `includes` are searched
    /// for headers; `gpu/kernels` always is.
    ///
    /// # Errors
    /// When there is no compiler, or it refuses a source.
    pub fn new(folders: &[&Path], cache: &Path) -> Result<Self> {
        let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let path = compile(folders, &shared, cache)?;
        // SAFETY: the library was compiled from this repository's sources; its constructors only register kernels.
        let library = unsafe { Library::new(&path) }.map_err(|e| unavailable(&path, e))?;
        Ok(Self { library, shared: SHARED, counter: Counter::default(), names: Mutex::default() })
    }

    /// As a device whose blocks have at most `bytes` of shared memory.
    #[must_use]
    pub fn with_shared_memory(self, bytes: u32) -> Self {
        Self { shared: bytes, ..self }
    }

    fn symbol<T>(&self, name: &str) -> Result<Symbol<'_, T>> {
        // SAFETY: the two symbols are declared as in gpu/kernels/host/launch.h.
        unsafe { self.library.get(name.as_bytes()) }
            .map_err(|e| GpuError::Unavailable(format!("{name}: {e}")))
    }
}

impl Device for Emulated {
    type Mem = Memory;

    fn alloc(&self, bytes: usize) -> Result<Memory> {
        const ALIGN: usize = 256 / 8;
        let mut words = vec![GUARD; 2 * GUARD_WORDS + ALIGN + bytes.div_ceil(8)];
        let start = GUARD_WORDS + (words.as_ptr() as usize / 8).wrapping_neg() % ALIGN;
        // SAFETY: the bytes lie inside `words`.
        unsafe { words.as_mut_ptr().add(start).cast::<u8>().write_bytes(0, bytes) };
        Ok(Memory { words, start, bytes })
    }

    fn address(&self, mem: &Memory) -> u64 {
        mem.words[mem.start..].as_ptr() as u64
    }

    fn kernel(&self, name: &str) -> Result<Kernel> {
        let c_name = CString::new(name).map_err(|_| GpuError::NoKernel(name.into()))?;
        let mut sizes = vec![0; 64];
        let find: Symbol<'_, Arguments> = self.symbol("host_arguments")?;
        // SAFETY: `sizes` has 64 elements.
        let count = unsafe { find(c_name.as_ptr(), sizes.as_mut_ptr(), 64) };
        let count = usize::try_from(count).map_err(|_| GpuError::NoKernel(name.into()))?;
        sizes.truncate(count);
        let mut names = self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        names.push((c_name, sizes));
        Ok(Kernel(names.len() - 1))
    }

    unsafe fn launch(&self, kernel: Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
        let (name, sizes) = {
            let names = self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            names[kernel.0].clone()
        };
        let failed =
            |reason: String| GpuError::Launch { kernel: name.to_string_lossy().into_owned(), reason };
        if grid.shared > self.shared {
            return Err(failed(format!("{} bytes of shared memory, of {}", grid.shared, self.shared)));
        }
        let (mut values, given): (Vec<u64>, Vec<usize>) = args.iter().map(|arg| arg.bytes()).unzip();
        if !given.iter().copied().eq(sizes.iter().map(|&size| size as usize)) {
            return Err(failed(format!("arguments of {given:?} bytes, declared with {sizes:?}")));
        }
        let mut params: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        let launch: Symbol<'_, Launch> = self.symbol("host_launch")?;
        let mut message = vec![0u8; 512];
        let block = [grid.threads, 1, 1];
        // SAFETY: arguments were compared with the declaration; the caller answers for their pointers.
        let code = unsafe {
            let (blocks, params) = (grid.blocks.as_ptr(), params.as_mut_ptr());
            let text = message.as_mut_ptr().cast();
            launch(name.as_ptr(), blocks, block.as_ptr(), grid.shared, params, text, message.len())
        };
        self.counter.launch();
        if code == 0 {
            return Ok(());
        }
        let text = message.split(|&byte| byte == 0).next().unwrap_or_default();
        Err(failed(String::from_utf8_lossy(text).into_owned()))
    }

    unsafe fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        // SAFETY: by this function's contract.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        self.counter.copy();
        Ok(())
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        // SAFETY: by this function's contract.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        self.counter.copy();
        self.wait()
    }

    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<()> {
        // SAFETY: by this function's contract.
        unsafe { (at as *mut u8).write_bytes(0, bytes) };
        self.counter.copy();
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: by this function's contract.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        self.counter.copy();
        Ok(())
    }

    unsafe fn library_product(&self, _: &LibraryProduct) -> Result<bool> {
        self.counter.own_product();
        Ok(false)
    }

    fn shared_memory(&self) -> u32 {
        self.shared
    }

    fn memory(&self) -> Result<(usize, usize)> {
        Ok((usize::MAX, usize::MAX))
    }

    fn counts(&self) -> Counts {
        self.counter.counts()
    }

    fn wait(&self) -> Result<()> {
        self.counter.wait();
        Ok(())
    }
}

fn unavailable(path: &Path, problem: impl std::fmt::Display) -> GpuError {
    GpuError::Unavailable(format!("{}: {problem}", path.display()))
}

/// Compiles the folders' kernels into one library in `cache`, named by the hash of all it is made of, and
/// gives its path. Tests that start together wait for the one that compiles.
fn compile(folders: &[&Path], shared: &Path, cache: &Path) -> Result<PathBuf> {
    let compiler = std::env::var("GAUNTLET_KERNEL_CXX").unwrap_or_else(|_| "g++".into());
    std::fs::create_dir_all(cache).map_err(|e| unavailable(cache, e))?;
    let mut sources = Vec::new();
    let mut includes = vec![shared.to_path_buf()];
    let mut hash = Fnv::new(&compiler);
    for folder in [shared, &shared.join("host")].into_iter().chain(folders.iter().copied()) {
        includes.push(folder.to_path_buf());
        let entries = std::fs::read_dir(folder).map_err(|e| unavailable(folder, e))?;
        let mut files: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        files.sort();
        for file in files.into_iter().filter(|file| file.is_file()) {
            let kind = file.extension().and_then(|kind| kind.to_str());
            if matches!(kind, Some("cu" | "cuh" | "h")) {
                hash.add(file.to_string_lossy().as_bytes());
                hash.add(&std::fs::read(&file).map_err(|e| unavailable(&file, e))?);
            }
            if kind == Some("cu") {
                sources.push(file);
            }
        }
    }
    let library = cache.join(format!("kernels-{:016x}.so", hash.0));
    let lock_path = library.with_extension("lock");
    let lock = std::fs::File::create(&lock_path).map_err(|e| unavailable(&lock_path, e))?;
    lock.lock().map_err(|e| unavailable(&lock_path, e))?;
    if !library.exists() {
        run_compiler(&compiler, &sources, &includes, &library)?;
    }
    Ok(library)
}

fn run_compiler(compiler: &str, sources: &[PathBuf], includes: &[PathBuf], library: &Path) -> Result<()> {
    let unit = library.with_extension("cpp");
    let mut file = std::fs::File::create(&unit).map_err(|e| unavailable(&unit, e))?;
    for source in sources {
        let path = source.canonicalize().map_err(|e| unavailable(source, e))?;
        writeln!(file, "#include \"{}\"", path.display()).map_err(|e| unavailable(&unit, e))?;
    }
    let partial = library.with_extension("part");
    let mut command = Command::new(compiler);
    // Exact rounding as written: products and sums are contracted only where a kernel says so.
    command.args(["-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-w", "-x", "c++"]);
    command.args(includes.iter().map(|folder| format!("-I{}", folder.display())));
    let output = command.arg(&unit).arg("-o").arg(&partial).output().map_err(|e| {
        GpuError::Unavailable(format!(
            "the emulation of CUDA kernels needs a C++ compiler and '{compiler}' cannot be run ({e}); install g++ or \
             name one in GAUNTLET_KERNEL_CXX"
        ))
    })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(GpuError::Unavailable(format!("{compiler} refuses the kernels:\n{text}")));
    }
    std::fs::rename(&partial, library).map_err(|e| unavailable(library, e))
}

/// FNV-1a: names a cached file, guards nothing.
struct Fnv(u64);

impl Fnv {
    fn new(seed: &str) -> Self {
        let mut hash = Self(0xcbf2_9ce4_8422_2325);
        hash.add(seed.as_bytes());
        hash
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
