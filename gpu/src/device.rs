//! What a device does: hold memory, copy, and run kernels in the order they were launched.
#![allow(unsafe_code)] // declares functions that reach memory by address; who implements them says why it is right

#[cfg(not(target_feature = "crt-static"))]
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;

/// A kernel of a loaded module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(pub(crate) usize);

/// How many threads a launch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block (in x).
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
}

impl Grid {
    /// `blocks` × `threads` in one dimension, without dynamic shared memory.
    pub fn new(blocks: u32, threads: u32) -> Self {
        Self { blocks: [blocks, 1, 1], threads, shared: 0 }
    }
}

/// An argument of a kernel, of the size the kernel declares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// Address in the device's memory.
    Ptr(u64),
    /// `int`.
    I32(i32),
    /// `unsigned`.
    U32(u32),
    /// `unsigned long long`, `size_t`.
    U64(u64),
    /// `float`.
    F32(f32),
    /// `double`.
    F64(f64),
}

impl Arg {
    /// The value's bytes (the lower ones for 4-byte values) and their number.
    #[cfg(not(target_feature = "crt-static"))] // only a device that can be opened needs them
    pub(crate) fn bytes(self) -> (u64, usize) {
        match self {
            Self::Ptr(v) | Self::U64(v) => (v, 8),
            Self::I32(v) => (u64::from(v.cast_unsigned()), 4),
            Self::U32(v) => (u64::from(v), 4),
            Self::F32(v) => (u64::from(v.to_bits()), 4),
            Self::F64(v) => (v.to_bits(), 8),
        }
    }
}

/// What was asked of a device since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kernels queued, and products queued by the vendor's library.
    pub launches: u64,
    /// Copies and clears queued.
    pub copies: u64,
    /// Times the host waited for the device.
    pub waits: u64,
    /// Products that the vendor's library took.
    pub library_products: u64,
    /// Products that it did not take, or that had none: our own kernels compute them.
    pub own_products: u64,
}

impl std::ops::Sub for Counts {
    type Output = Self;

    /// What was asked since `earlier`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            launches: self.launches.saturating_sub(earlier.launches),
            copies: self.copies.saturating_sub(earlier.copies),
            waits: self.waits.saturating_sub(earlier.waits),
            library_products: self.library_products.saturating_sub(earlier.library_products),
            own_products: self.own_products.saturating_sub(earlier.own_products),
        }
    }
}

/// [`Counts`] in the making: the numbers alone, which order nothing.
#[cfg(not(target_feature = "crt-static"))] // only a device that can be opened counts
#[derive(Debug, Default)]
pub(crate) struct Counter {
    launches: AtomicU64,
    copies: AtomicU64,
    waits: AtomicU64,
    library_products: AtomicU64,
    own_products: AtomicU64,
}

#[cfg(not(target_feature = "crt-static"))]
impl Counter {
    pub(crate) fn launch(&self) {
        self.launches.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn copy(&self) {
        self.copies.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn wait(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    /// A product of the library, which is a launch.
    pub(crate) fn library_product(&self) {
        self.library_products.fetch_add(1, Ordering::Relaxed);
        self.launch();
    }

    /// A product that is left to our own kernels, whose launch counts itself.
    pub(crate) fn own_product(&self) {
        self.own_products.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            launches: self.launches.load(Ordering::Relaxed),
            copies: self.copies.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
            library_products: self.library_products.load(Ordering::Relaxed),
            own_products: self.own_products.load(Ordering::Relaxed),
        }
    }
}

/// Type of a matrix's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Number {
    /// 4 bytes.
    F32,
    /// 2 bytes.
    Bf16,
}

/// A factor of a product, row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor {
    /// Address of the first element.
    pub address: u64,
    /// Elements from one stored row to the next.
    pub stride: usize,
    /// Whether the matrix is stored transposed.
    pub transposed: bool,
}

/// `out[m, n] (=|+=) a[m, k] · b[k, n]`, sums in f32, `out` without gaps between its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LibraryProduct {
    /// Rows of the output.
    pub m: usize,
    /// Columns of the output.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Left factor.
    pub a: Factor,
    /// Right factor.
    pub b: Factor,
    /// Address of the output.
    pub out: u64,
    /// Type of both factors.
    pub factors: Number,
    /// Type of the output.
    pub output: Number,
    /// Whether the output is added to.
    pub add: bool,
}

/// A device that runs one stream of copies and kernels, in order.
pub trait Device: Send + Sync {
    /// Owned memory of the device.
    type Mem: Send + Sync;

    /// `bytes` zeros, aligned to 256 bytes.
    ///
    /// # Errors
    /// When the device has not enough memory.
    fn alloc(&self, bytes: usize) -> Result<Self::Mem>;

    /// Address of the first byte.
    fn address(&self, mem: &Self::Mem) -> u64;

    /// Finds a kernel in the loaded modules.
    ///
    /// # Errors
    /// When no module holds it.
    fn kernel(&self, name: &str) -> Result<Kernel>;

    /// Queues a kernel.
    ///
    /// # Safety
    /// The arguments are those the kernel declares, and every element it reaches through its pointers lies
    /// in live memory of this device.
    ///
    /// # Errors
    /// When the launch is refused.
    unsafe fn launch(&self, kernel: Kernel, grid: Grid, args: &[Arg]) -> Result<()>;

    /// Copies from the host, after everything queued before.
    ///
    /// # Safety
    /// `from.len()` bytes from `to` on lie in live memory of this device.
    ///
    /// # Errors
    /// When the device fails.
    unsafe fn upload(&self, from: &[u8], to: u64) -> Result<()>;

    /// Copies to the host, after everything queued before, and waits for it.
    ///
    /// # Safety
    /// `to.len()` bytes from `from` on lie in live memory of this device.
    ///
    /// # Errors
    /// When the device, or anything queued before, failed.
    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<()>;

    /// Queues setting `bytes` bytes to 0.
    ///
    /// # Safety
    /// `bytes` bytes from `at` on lie in live memory of this device.
    ///
    /// # Errors
    /// When the device fails.
    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<()>;

    /// Queues a copy inside the device; the two places do not overlap.
    ///
    /// # Safety
    /// `bytes` bytes from `from` and from `to` on lie in live memory of this device.
    ///
    /// # Errors
    /// When the device fails.
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;

    /// Queues a matrix product by the vendor's library; `false` where the device has none, or none for this
    /// product, and nothing was queued: it counts as one of our own.
    ///
    /// # Safety
    /// The matrices lie in live memory of this device.
    ///
    /// # Errors
    /// When the library fails.
    unsafe fn library_product(&self, product: &LibraryProduct) -> Result<bool>;

    /// Bytes of shared memory a block may have, of its own and asked for at a launch together.
    fn shared_memory(&self) -> u32;

    /// Bytes free and in all.
    ///
    /// # Errors
    /// When the device fails.
    fn memory(&self) -> Result<(usize, usize)>;

    /// What was asked of it so far: what a step costs the host.
    fn counts(&self) -> Counts;

    /// Waits for everything queued.
    ///
    /// # Errors
    /// When anything queued failed.
    fn wait(&self) -> Result<()>;
}
