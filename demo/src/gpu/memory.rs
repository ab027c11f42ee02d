//! Typed memory of a device.
#![allow(
    unsafe_code,
    reason = "memory reached by address: a buffer owns what it points to, a view borrows it, and plain numbers are bytes"
)]

use crate::error::{Error, Result};
use gauntlet_gpu::{Device, GpuError};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

mod sealed {
    pub trait Sealed {}
}

/// A number that is nothing but its bytes, with any bytes allowed.
pub trait Word: Copy + Default + sealed::Sealed {}

macro_rules! words {
    ($($word:ty),*) => { $(impl sealed::Sealed for $word {} impl Word for $word {})* };
}
words!(f32, f64, i8, i16, i32, u8, u16, u32, u64);

/// Elements of a device, owned.
pub struct Buffer<D: Device, T: Word> {
    mem: D::Mem,
    address: u64,
    len: usize,
    device: Arc<D>,
    elements: PhantomData<T>,
}

impl<D: Device, T: Word> Buffer<D, T> {
    /// `len` zeros.
    pub fn zeros(device: &Arc<D>, len: usize) -> Result<Self> {
        let bytes = len.checked_mul(size_of::<T>());
        let bytes = bytes.ok_or(GpuError::TooLarge { what: "a buffer's length", value: len })?;
        // A driver refuses to allocate nothing.
        let mem = device.alloc(bytes.max(1))?;
        let address = device.address(&mem);
        Ok(Self { mem, address, len, device: Arc::clone(device), elements: PhantomData })
    }

    /// A copy of `from`.
    pub fn from_slice(device: &Arc<D>, from: &[T]) -> Result<Self> {
        let mut buffer = Self::zeros(device, from.len())?;
        buffer.upload(0, from)?;
        Ok(buffer)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all elements.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// The memory behind it.
    pub fn memory(&self) -> &D::Mem {
        &self.mem
    }

    /// Writes `from` at element `at`, after everything queued before.
    pub fn upload(&mut self, at: usize, from: &[T]) -> Result<()> {
        self.check(at..at.saturating_add(from.len()))?;
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: a `Word` has no padding; the range lies in this buffer, which is borrowed exclusively.
        unsafe {
            let bytes = std::slice::from_raw_parts(from.as_ptr().cast::<u8>(), size_of_val(from));
            self.device.upload(bytes, self.address + (at * size_of::<T>()) as u64)?;
        }
        Ok(())
    }

    /// The elements of a range, after everything queued before.
    pub fn download(&self, range: Range<usize>) -> Result<Vec<T>> {
        self.check(range.clone())?;
        let mut out = vec![T::default(); range.len()];
        if out.is_empty() {
            return Ok(out);
        }
        // SAFETY: any bytes are a `Word`; the range lies in this buffer.
        unsafe {
            let bytes =
                std::slice::from_raw_parts_mut(out.as_mut_ptr().cast::<u8>(), size_of::<T>() * range.len());
            self.device.download(self.address + (range.start * size_of::<T>()) as u64, bytes)?;
        }
        Ok(out)
    }

    /// All elements, after everything queued before.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.download(0..self.len)
    }

    /// All elements, to read.
    pub fn view(&self) -> View<'_, T> {
        View { address: self.address, len: self.len, owner: PhantomData }
    }

    /// All elements, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut { address: self.address, len: self.len, owner: PhantomData }
    }

    fn check(&self, range: Range<usize>) -> Result<()> {
        if range.start <= range.end && range.end <= self.len {
            Ok(())
        } else {
            Err(Error::Length { what: "a part of a device buffer", expected: self.len, found: range.end })
        }
    }
}

/// Elements of a device, to read.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, T> {
    pub(super) address: u64,
    pub(super) len: usize,
    owner: PhantomData<&'a [T]>,
}

/// Elements of a device, to write.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    pub(super) address: u64,
    pub(super) len: usize,
    owner: PhantomData<&'a mut [T]>,
}

impl<T: Word> View<'_, T> {
    /// Elements somewhere else, such as the engine's θ and gradients.
    ///
    /// # Safety
    /// For the view's life `len` elements at `address` are live memory of the device it is used with, and nobody
    /// writes them.
    pub unsafe fn from_address(address: u64, len: usize) -> Self {
        Self { address, len, owner: PhantomData }
    }
}

impl<T: Word> ViewMut<'_, T> {
    /// Elements somewhere else, such as the engine's θ.
    ///
    /// # Safety
    /// For the view's life `len` elements at `address` are live memory of the device it is used with, and nobody
    /// else reads or writes them.
    pub unsafe fn from_address(address: u64, len: usize) -> Self {
        Self { address, len, owner: PhantomData }
    }
}
