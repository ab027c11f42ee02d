//! A backend as commands see it: what the engine needs of it, values that the host reads and writes, and DeMo over its
//! buffers.
#![allow(unsafe_code)] // DeMo's kernels get the engine's buffers by address: of the same device, borrowed as long

use std::borrow::Cow;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use gauntlet_demo::Format;
use gauntlet_demo::gpu::{View as DemoView, ViewMut as DemoViewMut};
use gauntlet_gpu::Counts;
use gauntlet_model::engine::Backend;
use gauntlet_model::engine::cpu::{Buf, Cpu};
use serde_json::{Map, Value};
#[cfg(not(target_feature = "crt-static"))]
use {
    gauntlet_demo::gpu::Tables,
    gauntlet_gpu::driver::Driver,
    gauntlet_gpu::{Device, fat_binary},
    gauntlet_model::engine::cuda::{Cuda, FAT_BINARY, Precision},
    gauntlet_model::engine::{View, ViewMut},
};

use super::demo::DeviceDemo;

/// A backend as commands see it.
pub(crate) trait Place: Backend + Send {
    /// What it is, in words.
    fn name(&self) -> String;

    /// Facts of a result, as JSON: device, threads, instruction set.
    fn facts(&self) -> Map<String, Value>;

    /// Threads for what the host does meanwhile, such as preparing text.
    fn host_threads(&self) -> usize;

    /// A buffer whose values `write` puts into zeros on the host, and what it says.
    fn make<R>(&self, len: usize, write: impl FnOnce(&mut [f32]) -> Result<R>) -> Result<(Self::Buf, R)>;

    /// Lets `change` work on the values on the host: in place where they lie there.
    fn change<R>(&self, buf: &mut Self::Buf, change: impl FnOnce(&mut [f32]) -> Result<R>) -> Result<R>;

    /// Values on the host, copied only where they lie elsewhere.
    fn host<'a>(&self, buf: &'a Self::Buf) -> Result<Cow<'a, [f32]>>;

    /// The values at `positions`, in their order; nothing else is copied.
    fn pick(&self, buf: &Self::Buf, positions: &[usize]) -> Result<Vec<f32>>;

    /// DeMo's kernels for `format`; none where it works on the host: on the CPU, and with f32 values.
    fn demo(&self, _format: &Arc<Format>) -> Result<Option<Box<dyn DeviceDemo>>> {
        Ok(None)
    }

    /// A buffer as those kernels read it.
    ///
    /// # Errors
    /// On a backend that has none.
    fn view<'a>(&self, _buf: &'a Self::Buf) -> Result<DemoView<'a, f32>> {
        bail!("{}: holds nothing on a device", self.name())
    }

    /// A buffer as those kernels write it.
    ///
    /// # Errors
    /// On a backend that has none.
    fn view_mut<'a>(&self, _buf: &'a mut Self::Buf) -> Result<DemoViewMut<'a, f32>> {
        bail!("{}: holds nothing on a device", self.name())
    }

    /// Free bytes of a device with memory of its own.
    fn free(&self) -> Result<Option<usize>>;

    /// What was asked of a device that queues so far.
    fn counts(&self) -> Option<Counts>;

    /// Whether one large product shows the device's peak rate, which a step is compared with.
    fn has_matrix_units(&self) -> bool;
}

impl Place for Cpu {
    fn name(&self) -> String {
        format!("{} threads, {}", self.threads(), self.simd_name())
    }

    fn facts(&self) -> Map<String, Value> {
        facts([
            ("device", "cpu".into()),
            ("threads", self.threads().into()),
            ("simd", self.simd_name().into()),
        ])
    }

    fn host_threads(&self) -> usize {
        self.threads()
    }

    fn make<R>(&self, len: usize, write: impl FnOnce(&mut [f32]) -> Result<R>) -> Result<(Buf, R)> {
        let mut buf = self.alloc(len)?;
        let said = write(&mut buf)?;
        Ok((buf, said))
    }

    fn change<R>(&self, buf: &mut Buf, change: impl FnOnce(&mut [f32]) -> Result<R>) -> Result<R> {
        change(buf)
    }

    fn host<'a>(&self, buf: &'a Buf) -> Result<Cow<'a, [f32]>> {
        Ok(Cow::Borrowed(buf))
    }

    fn pick(&self, buf: &Buf, positions: &[usize]) -> Result<Vec<f32>> {
        let value = |&at: &usize| buf.get(at).copied();
        positions.iter().map(value).collect::<Option<_>>().context("a position behind the last value")
    }

    fn free(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    fn counts(&self) -> Option<Counts> {
        None
    }

    fn has_matrix_units(&self) -> bool {
        false
    }
}

/// A device as results name it.
#[cfg(not(target_feature = "crt-static"))]
pub(crate) trait Named: Device {
    /// Which one it is.
    fn name(&self) -> String;

    /// How it computes products.
    fn products(&self) -> &'static str;

    /// Facts of a result.
    fn facts(&self) -> Map<String, Value>;
}

#[cfg(not(target_feature = "crt-static"))]
impl Named for Driver {
    fn name(&self) -> String {
        format!("cuda:{} ({})", self.found().ordinal, self.found().name)
    }

    fn products(&self) -> &'static str {
        if self.has_library() { "cuBLASLt" } else { "our own products" }
    }

    fn facts(&self) -> Map<String, Value> {
        let found = self.found();
        let code = fat_binary::fitting(FAT_BINARY, found.capability);
        facts([
            ("device", format!("cuda:{}", found.ordinal).into()),
            ("device_name", found.name.clone().into()),
            ("kernels", code.map(|code| code.to_string()).into()),
            ("cublaslt", self.has_library().into()),
        ])
    }
}

#[cfg(not(target_feature = "crt-static"))]
impl<D: Named + 'static, P: Precision> Place for Cuda<D, P> {
    fn name(&self) -> String {
        format!("{}, {}, {}", self.device().name(), P::SUFFIX, self.device().products())
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = self.device().facts();
        facts.insert("precision".into(), P::SUFFIX.into());
        facts
    }

    fn host_threads(&self) -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    fn make<R>(&self, len: usize, write: impl FnOnce(&mut [f32]) -> Result<R>) -> Result<(Self::Buf, R)> {
        let mut values = vec![0.0; len];
        let said = write(&mut values)?;
        let mut buf = self.alloc(len)?;
        self.upload(&values, ViewMut { buf: &mut buf, start: 0, len })?;
        Ok((buf, said))
    }

    fn change<R>(&self, buf: &mut Self::Buf, change: impl FnOnce(&mut [f32]) -> Result<R>) -> Result<R> {
        let mut values = self.host(buf)?.into_owned();
        let said = change(&mut values)?;
        let len = values.len();
        self.upload(&values, ViewMut { buf, start: 0, len })?;
        Ok(said)
    }

    fn host<'a>(&self, buf: &'a Self::Buf) -> Result<Cow<'a, [f32]>> {
        let mut values = vec![0.0; buf.len()];
        self.download(View { buf, start: 0, len: buf.len() }, &mut values)?;
        Ok(Cow::Owned(values))
    }

    fn pick(&self, buf: &Self::Buf, positions: &[usize]) -> Result<Vec<f32>> {
        Ok(Cuda::pick(self, buf, positions)?)
    }

    fn demo(&self, format: &Arc<Format>) -> Result<Option<Box<dyn DeviceDemo>>> {
        if format.codebook().is_exact() {
            return Ok(None);
        }
        Ok(Some(Box::new(Tables::new(Arc::clone(self.device()), Arc::clone(format))?)))
    }

    fn view<'a>(&self, buf: &'a Self::Buf) -> Result<DemoView<'a, f32>> {
        // SAFETY: the buffer is this device's and holds as many elements; it is borrowed as long as the view lives.
        Ok(unsafe { DemoView::from_address(buf.address(self.device()), buf.len()) })
    }

    fn view_mut<'a>(&self, buf: &'a mut Self::Buf) -> Result<DemoViewMut<'a, f32>> {
        // SAFETY: as above, and nobody else can use it meanwhile.
        Ok(unsafe { DemoViewMut::from_address(buf.address(self.device()), buf.len()) })
    }

    fn free(&self) -> Result<Option<usize>> {
        Ok(Some(self.device().memory()?.0))
    }

    fn counts(&self) -> Option<Counts> {
        Some(self.device().counts())
    }

    fn has_matrix_units(&self) -> bool {
        true
    }
}

fn facts<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
