//! Buffers on a GPU, and the two ways to compute: f32 throughout, or bf16 activations.

use std::marker::PhantomData;

use gauntlet_gpu::{Arg, Device, GpuError};
use half::bf16;

use crate::engine::backend::{Footprint, View, ViewMut};

/// An element of device memory.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// Bytes of an element.
    const BYTES: usize = size_of::<Self>();
}

// Types of which any bytes are a value, without padding: slices of them are read and written as bytes.
impl Element for f32 {}
impl Element for f64 {}
impl Element for u32 {}
impl Element for bf16 {}

/// A slice's memory.
pub(super) fn bytes<T: Element>(values: &[T]) -> &[u8] {
    // SAFETY: elements have no padding, and any memory may be read as bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// A slice's memory, to write.
pub(super) fn bytes_mut<T: Element>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: elements have no padding, and any bytes are a value.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// `len` elements of a device's memory.
pub struct Buffer<D: Device, T> {
    mem: D::Mem,
    len: usize,
    element: PhantomData<T>,
}

impl<D: Device, T: Element> Buffer<D, T> {
    /// `len` zeros.
    pub(super) fn new(device: &D, len: usize) -> gauntlet_gpu::Result<Self> {
        let bytes = len.checked_mul(T::BYTES);
        let bytes = bytes.ok_or(GpuError::TooLarge { what: "a buffer's length", value: len })?;
        Ok(Self { mem: device.alloc(bytes)?, len, element: PhantomData })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of the first element on `device`, the one it was made on: for kernels of others over the same memory, such
    /// as DeMo's.
    pub fn address(&self, device: &D) -> u64 {
        device.address(&self.mem)
    }

    /// Address of element `start`, of which at least `len` follow.
    pub(super) fn at(&self, device: &D, start: usize, len: usize) -> gauntlet_gpu::Result<u64> {
        if start.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(GpuError::Outside { start, len, held: self.len });
        }
        Ok(self.address(device) + (start * T::BYTES) as u64)
    }
}

/// Address of a view of at least `len` elements.
pub(super) fn read<D: Device, T: Element>(
    device: &D,
    view: &View<'_, Buffer<D, T>>,
    len: usize,
) -> gauntlet_gpu::Result<Arg> {
    view.buf.at(device, view.start, len.max(view.len)).map(Arg::Ptr)
}

/// Address of a view of at least `len` elements, to write.
pub(super) fn write<D: Device, T: Element>(
    device: &D,
    view: &ViewMut<'_, Buffer<D, T>>,
    len: usize,
) -> gauntlet_gpu::Result<Arg> {
    view.buf.at(device, view.start, len.max(view.len)).map(Arg::Ptr)
}

/// A size as kernels take it.
pub(super) fn size(what: &'static str, value: usize) -> gauntlet_gpu::Result<u32> {
    u32::try_from(value).map_err(|_| GpuError::TooLarge { what, value })
}

/// What activations and products are computed in.
pub trait Precision: Send + Sync + 'static {
    /// Element of an activation.
    type Element: Element;
    /// Ending of the kernels' names.
    const SUFFIX: &'static str;
    /// What this costs in memory.
    const FOOTPRINT: Footprint;

    /// An activation.
    fn round(value: f32) -> Self::Element;

    /// An activation's value.
    fn value(element: Self::Element) -> f32;

    /// f32 memory as activations, where activations are f32.
    fn as_is<D: Device>(from: View<'_, Buffer<D, f32>>) -> Option<View<'_, Buffer<D, Self::Element>>>;
}

/// f32 throughout: what bf16 is compared with.
pub struct F32;

/// bf16 activations and weight copies, f32 sums, parameters and gradients.
pub struct Bf16;

impl Precision for F32 {
    type Element = f32;
    const SUFFIX: &'static str = "f32";
    const FOOTPRINT: Footprint = Footprint { activation: 4, logits: LOGITS };

    fn round(value: f32) -> f32 {
        value
    }

    fn value(element: f32) -> f32 {
        element
    }

    fn as_is<D: Device>(from: View<'_, Buffer<D, f32>>) -> Option<View<'_, Buffer<D, f32>>> {
        Some(from)
    }
}

impl Precision for Bf16 {
    type Element = bf16;
    const SUFFIX: &'static str = "bf16";
    const FOOTPRINT: Footprint = Footprint { activation: 2, logits: LOGITS };

    fn round(value: f32) -> bf16 {
        bf16::from_f32(value)
    }

    fn value(element: bf16) -> f32 {
        element.to_f32()
    }

    fn as_is<D: Device>(_: View<'_, Buffer<D, f32>>) -> Option<View<'_, Buffer<D, bf16>>> {
        None
    }
}

/// Logits of one chunk of the loss (256 MiB): large enough that the products of a chunk fill a GPU and that
/// adding to the output projection's gradient, once a chunk, costs little.
const LOGITS: usize = 64 << 20;
