//! The CUDA backend: kernels of `model/kernels/` on any [`Device`], the driver's or the emulated one.
//!
//! Operations are queued in order on one stream. The first that fails is kept, those after it are skipped,
//! and the next download or sum reports it, so that the passes need no error of every step. Every launch
//! checks that its views hold what its kernel reaches.
//!
//! Results are the same bits for every run on one kind of device: each sum has one owner and one order, and
//! blocks of partial sums depend on the shape alone.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use gauntlet_gpu::Device;
//! use gauntlet_gpu::driver::{Driver, library_folders};
//! use gauntlet_model::engine::cuda::{Bf16, Cuda, FAT_BINARY};
//! use gauntlet_model::engine::{Backend, Engine, EngineOptions, MemoryPlan, Mode};
//!
//! # fn main() -> Result<(), gauntlet_model::ModelError> {
//! let driver = Driver::open(0, &[FAT_BINARY], &library_folders(|name| std::env::var(name).ok()))?;
//! let config = gauntlet_model::preset("1b")?;
//! let options = EngineOptions { batch: 8, seq: 2048, mode: Mode::Train };
//! // Refused before anything is allocated.
//! MemoryPlan::on(<Cuda<Driver, Bf16>>::FOOTPRINT, &config, options, 2)?.check(driver.memory()?.0)?;
//! let engine = Engine::new(Cuda::<Driver, Bf16>::new(Arc::new(driver))?, &config, options)?;
//! # Ok(()) }
//! ```
#![allow(unsafe_code)] // launches of our own kernels over views whose bounds were checked

mod attention;
mod kernels;
mod matmul;
mod memory;
#[cfg(not(target_feature = "crt-static"))]
mod nccl;
mod ops;

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gauntlet_gpu::{Arg, Device, GpuError, Grid, Kernel, Result};

pub use attention::head_widths;
pub use kernels::FAT_BINARY;
use kernels::Kernels;
pub use memory::{Bf16, Buffer, Element, F32, Precision};
use memory::{bytes, bytes_mut};

use super::backend::{View, ViewMut};
use crate::error::ModelError;

/// A GPU and how to compute on it.
pub struct Cuda<D: Device, P: Precision> {
    device: Arc<D>,
    kernels: Kernels,
    scratch: Mutex<Scratch<D>>,
    failed: Mutex<Option<GpuError>>,
    precision: PhantomData<P>,
}

/// Memory that an operation uses while it runs, grown to the largest need; operations run one after another.
struct Scratch<D: Device> {
    floats: Buffer<D, f32>,
    ids: Buffer<D, u32>,
    squares: Buffer<D, f64>,
}

/// Token ids on the device, and on the host for what is decided there.
pub struct Ids<D: Device> {
    device: Buffer<D, u32>,
    host: Vec<u32>,
}

impl<D: Device, P: Precision> Cuda<D, P> {
    /// A backend on a device that holds [`FAT_BINARY`].
    ///
    /// # Errors
    /// When a kernel is missing or memory is short.
    pub fn new(device: Arc<D>) -> crate::Result<Self> {
        let kernels = Kernels::find::<D, P>(&*device)?;
        let scratch = Scratch {
            floats: Buffer::new(&*device, 0)?,
            ids: Buffer::new(&*device, 0)?,
            squares: Buffer::new(&*device, ops::SQUARE_BLOCKS + 1)?,
        };
        let (scratch, failed) = (Mutex::new(scratch), Mutex::new(None));
        Ok(Self { device, kernels, scratch, failed, precision: PhantomData })
    }

    /// The device.
    pub fn device(&self) -> &Arc<D> {
        &self.device
    }

    fn gpu(&self) -> &D {
        &self.device
    }

    /// Copies from the host, rounded to activations; the view holds as many.
    ///
    /// # Errors
    /// When the device fails.
    pub fn upload_act(&self, from: &[f32], to: &ViewMut<'_, Buffer<D, P::Element>>) -> crate::Result<()> {
        let rounded: Vec<P::Element> = from.iter().map(|&value| P::round(value)).collect();
        let at = to.buf.at(self.gpu(), to.start, from.len())?;
        // SAFETY: the buffer holds as many values.
        Ok(unsafe { self.gpu().upload(bytes(&rounded), at) }?)
    }

    /// Copies activations to the host; the view holds as many.
    ///
    /// # Errors
    /// When the device, or an operation queued before, failed.
    pub fn download_act(&self, from: View<'_, Buffer<D, P::Element>>, to: &mut [f32]) -> crate::Result<()> {
        self.check()?;
        let mut elements = vec![P::Element::default(); to.len()];
        let at = from.buf.at(self.gpu(), from.start, to.len())?;
        // SAFETY: the buffer holds as many values.
        unsafe { self.gpu().download(at, bytes_mut(&mut elements)) }?;
        for (to, element) in to.iter_mut().zip(elements) {
            *to = P::value(element);
        }
        Ok(())
    }

    /// The elements of `from` at `positions`, in their order: copied side by side on the device, so that one copy
    /// comes down.
    ///
    /// # Errors
    /// A position outside; when the device, or an operation queued before, failed.
    pub fn pick(&self, from: &Buffer<D, f32>, positions: &[usize]) -> crate::Result<Vec<f32>> {
        self.check()?;
        let mut picked = vec![0.0; positions.len()];
        if picked.is_empty() {
            return Ok(picked);
        }
        let room = self.room(picked.len())?;
        for (to, &position) in (room..).step_by(f32::BYTES).zip(positions) {
            let at = from.at(self.gpu(), position, 1)?;
            // SAFETY: one element of `from`, and one of the scratch memory, which holds as many as there are positions.
            unsafe { self.gpu().copy(at, to, f32::BYTES) }?;
        }
        // SAFETY: as above.
        unsafe { self.gpu().download(room, bytes_mut(&mut picked)) }?;
        Ok(picked)
    }

    /// Runs what queues an operation, unless one failed before; keeps its error.
    fn queue(&self, operation: impl FnOnce() -> Result<()>) {
        let mut failed = lock(&self.failed);
        if failed.is_none()
            && let Err(error) = operation()
        {
            *failed = Some(error);
        }
    }

    /// The first failure since the last call.
    fn check(&self) -> crate::Result<()> {
        lock(&self.failed).take().map_or(Ok(()), |error| Err(ModelError::Gpu(error)))
    }

    fn launch(&self, kernel: Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
        // SAFETY: callers take addresses from views whose bounds they checked against the kernel's reach.
        unsafe { self.gpu().launch(kernel, grid, args) }
    }

    /// Scratch of at least `len` floats.
    fn floats(&self, len: usize) -> Result<Arg> {
        self.room(len).map(Arg::Ptr)
    }

    /// Address of scratch of at least `len` floats.
    fn room(&self, len: usize) -> Result<u64> {
        let mut scratch = lock(&self.scratch);
        if scratch.floats.len() < len {
            self.gpu().wait()?; // what is queued may still use the memory that is given back here
            scratch.floats = Buffer::new(self.gpu(), len)?;
        }
        scratch.floats.at(self.gpu(), 0, len)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
