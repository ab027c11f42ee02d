//! A backend as commands see it: what the engine needs of it, and values that the host reads and writes.

use std::borrow::Cow;

use anyhow::Result;
use gauntlet_gpu::Counts;
use gauntlet_model::engine::Backend;
use gauntlet_model::engine::cpu::{Buf, Cpu};
use serde_json::{Map, Value};
#[cfg(not(target_feature = "crt-static"))]
use {
    gauntlet_gpu::driver::Driver,
    gauntlet_gpu::{Device, fat_binary},
    gauntlet_model::engine::cuda::{Bf16, Cuda, FAT_BINARY},
    gauntlet_model::engine::{View, ViewMut},
};

/// A backend as commands see it.
pub(crate) trait Place: Backend {
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

#[cfg(not(target_feature = "crt-static"))]
impl Place for Cuda<Driver, Bf16> {
    fn name(&self) -> String {
        let driver = self.device();
        let products = if driver.has_library() { "cuBLASLt" } else { "our own products" };
        format!("cuda:{} ({}), bf16, {products}", driver.found().ordinal, driver.found().name)
    }

    fn facts(&self) -> Map<String, Value> {
        let (driver, found) = (self.device(), self.device().found());
        let code = fat_binary::fitting(FAT_BINARY, found.capability);
        facts([
            ("device", format!("cuda:{}", found.ordinal).into()),
            ("device_name", found.name.clone().into()),
            ("kernels", code.map(|code| code.to_string()).into()),
            ("precision", "bf16".into()),
            ("cublaslt", driver.has_library().into()),
        ])
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
