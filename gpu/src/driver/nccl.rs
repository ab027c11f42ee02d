//! NCCL, where a machine has it: sums over several GPUs that one process drives.
//!
//! cudarc's names for the library lack the one it has (`libnccl.so.2`).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::Arc;

use cudarc::driver::sys::CUstream;
use libloading::os::unix::Library;

use super::{Context, Driver, index, search};
use crate::error::{GpuError, Result};

/// Names the library goes by.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// `ncclFloat32`.
const FLOAT32: c_int = 7;
/// `ncclSum`.
const SUM: c_int = 0;
/// `ncclSuccess`.
const SUCCESS: Code = 0;

/// `ncclResult_t`.
type Code = c_int;
/// `ncclComm_t`.
type Communicator = *mut c_void;

/// The functions used, as `nccl.h` of version 2 declares them.
#[derive(Clone, Copy)]
struct Functions {
    version: unsafe extern "C" fn(*mut c_int) -> Code,
    error: unsafe extern "C" fn(Code) -> *const c_char,
    init_all: unsafe extern "C" fn(*mut Communicator, c_int, *const c_int) -> Code,
    all_reduce:
        unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Communicator, CUstream) -> Code,
    broadcast:
        unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Communicator, CUstream) -> Code,
    group_start: unsafe extern "C" fn() -> Code,
    group_end: unsafe extern "C" fn() -> Code,
    destroy: unsafe extern "C" fn(Communicator) -> Code,
    abort: unsafe extern "C" fn(Communicator) -> Code,
}

/// The GPUs of one process that sum together, in the order they were named.
pub struct Nccl {
    functions: Functions,
    members: Vec<Member>,
    version: String,
}

struct Member {
    communicator: Communicator,
    context: Arc<Context>,
}

// SAFETY: a communicator may be used from any thread, by one at a time, which `&mut self` sees to.
unsafe impl Send for Nccl {}

/// NCCL's version, such as "2.28.3", where it is found: in `folders`, then in the loader's path.
///
/// # Errors
/// [`GpuError::Unavailable`] with where to get it.
pub fn nccl_version(folders: &[PathBuf]) -> Result<String> {
    Functions::find(folders)?.version()
}

impl Functions {
    fn find(folders: &[PathBuf]) -> Result<Self> {
        let refused = match search::open(folders, &NAMES, Self::of) {
            Ok((functions, _)) => return Ok(functions),
            Err(refused) => refused,
        };
        let why = refused.unwrap_or_else(|| "libnccl.so.2 is not found".into());
        Err(GpuError::Unavailable(format!(
            "no NCCL: {why}; install the system's libnccl2, or pip install nvidia-nccl-cu13 in a Python environment and \
             set VIRTUAL_ENV to it; or name one GPU"
        )))
    }

    fn of(library: &Library) -> std::result::Result<Self, libloading::Error> {
        // SAFETY: each function is declared as in nccl.h.
        unsafe {
            Ok(Self {
                version: *library.get(b"ncclGetVersion\0")?,
                error: *library.get(b"ncclGetErrorString\0")?,
                init_all: *library.get(b"ncclCommInitAll\0")?,
                all_reduce: *library.get(b"ncclAllReduce\0")?,
                broadcast: *library.get(b"ncclBroadcast\0")?,
                group_start: *library.get(b"ncclGroupStart\0")?,
                group_end: *library.get(b"ncclGroupEnd\0")?,
                destroy: *library.get(b"ncclCommDestroy\0")?,
                abort: *library.get(b"ncclCommAbort\0")?,
            })
        }
    }

    fn version(&self) -> Result<String> {
        let mut code = 0;
        // SAFETY: NCCL writes one number.
        self.check("asking for its version", unsafe { (self.version)(&raw mut code) })?;
        // From 2.9 on: 10000 major + 100 minor + patch; before: 1000 major + 100 minor + patch.
        let (major, rest) =
            if code < 10_000 { (code / 1000, code % 1000) } else { (code / 10_000, code % 10_000) };
        Ok(format!("{major}.{}.{}", rest / 100, rest % 100))
    }

    fn check(&self, what: &str, code: Code) -> Result<()> {
        if code == SUCCESS {
            return Ok(());
        }
        // SAFETY: NCCL gives a text that lives for ever.
        let text = unsafe { CStr::from_ptr((self.error)(code)) };
        Err(GpuError::Failed(format!("NCCL, {what}: {}", text.to_string_lossy())))
    }
}

impl Nccl {
    /// Joins `drivers`, each of another GPU. `folders` are searched for the library before the loader's path.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`] where the library is missing; what NCCL refuses.
    pub fn open(drivers: &[&Driver], folders: &[PathBuf]) -> Result<Self> {
        let functions = Functions::find(folders)?;
        let version = functions.version()?;
        let ordinals: Vec<c_int> =
            drivers.iter().map(|driver| index(driver.found.ordinal)).collect::<Result<_>>()?;
        let mut communicators: Vec<Communicator> = vec![std::ptr::null_mut(); drivers.len()];
        let count = index(drivers.len())?;
        // SAFETY: both lists have `count` elements.
        let joined = unsafe { (functions.init_all)(communicators.as_mut_ptr(), count, ordinals.as_ptr()) };
        functions.check("joining the GPUs", joined)?;
        let members = communicators.into_iter().zip(drivers);
        let members = members
            .map(|(communicator, driver)| Member { communicator, context: Arc::clone(&driver.context) })
            .collect();
        Ok(Self { functions, members, version })
    }

    /// The library's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Queues on every member's stream: `len` floats at its address become the sum over all members.
    ///
    /// # Safety
    /// `len` floats from each address on lie in live memory of its device.
    ///
    /// # Errors
    /// When `at` are not the members in order, and what NCCL refuses; the members cannot sum any more then.
    pub unsafe fn sum(&mut self, at: &[(&Driver, u64)], len: usize) -> Result<()> {
        let function = self.functions.all_reduce;
        self.group(at, "summing", |from, to, communicator, stream| {
            // SAFETY: by this function's contract; summing in place is allowed.
            unsafe { function(from, to, len, FLOAT32, SUM, communicator, stream) }
        })
    }

    /// Queues on every member's stream: `len` floats at its address become the first member's.
    ///
    /// # Safety
    /// As [`Self::sum`].
    ///
    /// # Errors
    /// As [`Self::sum`].
    pub unsafe fn spread(&mut self, at: &[(&Driver, u64)], len: usize) -> Result<()> {
        let function = self.functions.broadcast;
        self.group(at, "spreading", |from, to, communicator, stream| {
            // SAFETY: by this function's contract; the first member sends in place.
            unsafe { function(from, to, len, FLOAT32, 0, communicator, stream) }
        })
    }

    /// One call a member, which NCCL starts together: a member that waited for another would wait for ever.
    fn group(
        &mut self,
        at: &[(&Driver, u64)],
        what: &str,
        call: impl Fn(*const c_void, *mut c_void, Communicator, CUstream) -> Code,
    ) -> Result<()> {
        let given = at.iter().map(|(driver, _)| Arc::as_ptr(&driver.context));
        if !given.eq(self.members.iter().map(|member| Arc::as_ptr(&member.context))) {
            return Err(GpuError::Unsupported(format!("{what}: other GPUs than those that were joined")));
        }
        // SAFETY: takes nothing; ended below.
        self.functions.check(what, unsafe { (self.functions.group_start)() })?;
        let queued = self.members.iter().zip(at).try_for_each(|(member, &(_, at))| {
            member.context.enter()?;
            let code =
                call(at as *const c_void, at as *mut c_void, member.communicator, member.context.stream);
            self.functions.check(what, code)
        });
        // SAFETY: ends the group that was started.
        let ended = self.functions.check(what, unsafe { (self.functions.group_end)() });
        let done = queued.and(ended);
        if done.is_err() {
            self.end(self.functions.abort);
        }
        done
    }

    /// Gives all communicators up.
    fn end(&mut self, how: unsafe extern "C" fn(Communicator) -> Code) {
        for member in self.members.drain(..) {
            // Errors cannot be told to anyone here.
            let _ = member.context.enter();
            // SAFETY: the communicator was made by `open` and is used no more.
            let _ = unsafe { how(member.communicator) };
        }
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        self.end(self.functions.destroy);
    }
}
