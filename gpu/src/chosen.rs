//! The device tests run on: emulated, or the GPU that `GAUNTLET_TEST_DEVICE` names (`cuda:0`), so that one
//! test binary checks kernels on both.
#![allow(unsafe_code)] // hands calls on to the device, with their contracts

use std::path::Path;

use crate::device::{Arg, Counts, Device, Grid, Kernel, LibraryProduct};
use crate::driver::{self, Driver};
use crate::emulated::{self, Emulated};
use crate::error::{GpuError, Result};

/// The device a test chose.
pub enum Chosen {
    /// The CPU, as a GPU.
    Emulated(Emulated),
    /// A GPU.
    Driver(Driver),
}

/// Memory of a [`Chosen`] device.
pub enum Memory {
    /// Guarded memory of this process.
    Emulated(emulated::Memory),
    /// A GPU's memory.
    Driver(driver::Memory),
}

/// The same call on whichever device it is.
macro_rules! on {
    ($self:ident, $device:ident => $call:expr) => {
        match $self {
            Self::Emulated($device) => $call,
            Self::Driver($device) => $call,
        }
    };
}

impl Chosen {
    /// Kernels of `folders` on the CPU (compiled into `cache`), or their fat binaries on the GPU that
    /// `GAUNTLET_TEST_DEVICE` names. With `GAUNTLET_TEST_LIBRARY=0` the GPU's products go through our own kernels even
    /// where cuBLASLt is found.
    ///
    /// # Errors
    /// When there is no such device, or no compiler for the emulation.
    pub fn new(folders: &[&Path], images: &[&'static [u8]], cache: &Path) -> Result<Self> {
        let Ok(name) = std::env::var("GAUNTLET_TEST_DEVICE") else {
            return Emulated::new(folders, cache).map(Self::Emulated);
        };
        let ordinal = name.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        let ordinal = ordinal
            .ok_or_else(|| GpuError::Unavailable(format!("'{name}' is no device: cuda:0, for example")))?;
        let folders = driver::library_folders(|name| std::env::var(name).ok());
        let mut driver = Driver::open(ordinal, images, &folders)?;
        if std::env::var("GAUNTLET_TEST_LIBRARY").is_ok_and(|value| value == "0") {
            driver.without_library();
        }
        Ok(Self::Driver(driver))
    }

    /// As a device whose blocks have at most `bytes` of shared memory.
    #[must_use]
    pub fn with_shared_memory(self, bytes: u32) -> Self {
        match self {
            Self::Emulated(device) => Self::Emulated(device.with_shared_memory(bytes)),
            Self::Driver(device) => Self::Driver(device.with_shared_memory(bytes)),
        }
    }
}

impl Device for Chosen {
    type Mem = Memory;

    fn alloc(&self, bytes: usize) -> Result<Memory> {
        match self {
            Self::Emulated(device) => device.alloc(bytes).map(Memory::Emulated),
            Self::Driver(device) => device.alloc(bytes).map(Memory::Driver),
        }
    }

    fn address(&self, mem: &Memory) -> u64 {
        match (self, mem) {
            (Self::Emulated(device), Memory::Emulated(mem)) => device.address(mem),
            (Self::Driver(device), Memory::Driver(mem)) => device.address(mem),
            _ => 0, // memory of another device: no kernel can use it
        }
    }

    fn kernel(&self, name: &str) -> Result<Kernel> {
        on!(self, device => device.kernel(name))
    }

    unsafe fn launch(&self, kernel: Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
        // SAFETY: by this function's contract.
        on!(self, device => unsafe { device.launch(kernel, grid, args) })
    }

    unsafe fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        // SAFETY: by this function's contract.
        on!(self, device => unsafe { device.upload(from, to) })
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        // SAFETY: by this function's contract.
        on!(self, device => unsafe { device.download(from, to) })
    }

    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<()> {
        // SAFETY: by this function's contract.
        on!(self, device => unsafe { device.zero(at, bytes) })
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: by this function's contract.
        on!(self, device => unsafe { device.copy(from, to, bytes) })
    }

    unsafe fn library_product(&self, product: &LibraryProduct) -> Result<bool> {
        // SAFETY: by this function's contract.
        on!(self, device => unsafe { device.library_product(product) })
    }

    fn shared_memory(&self) -> u32 {
        on!(self, device => device.shared_memory())
    }

    fn memory(&self) -> Result<(usize, usize)> {
        on!(self, device => device.memory())
    }

    fn counts(&self) -> Counts {
        on!(self, device => device.counts())
    }

    fn wait(&self) -> Result<()> {
        on!(self, device => device.wait())
    }
}
