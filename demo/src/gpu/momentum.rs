//! A peer's momentum on a GPU: [`crate::Momentum`], bit for bit.

use crate::error::{Error, Result};
use crate::gpu::launch::{ChosenMut, EncodeKernels, EncodeRates, Sent, SentMut, StreamKernels};
use crate::gpu::memory::{Buffer, View};
use crate::gpu::payload::Writer;
use crate::gpu::tables::Tables;
use crate::momentum::{Pending, Recorded, Subtract};
use crate::submission::{Submission, Values};
use gauntlet_gpu::Device;
use std::sync::Arc;

/// No tensor is bad.
const NONE_BAD: u32 = u32::MAX;

/// The local optimiser of one peer; see [`crate::Momentum`] for what it computes.
pub struct Momentum<D: Device> {
    tables: Arc<Tables<D>>,
    kernels: EncodeKernels,
    decay: f32,
    warmup: u64,
    subtract: Subtract,
    submissions: u64,
    /// The last submission waits for [`Self::settle`].
    pending: bool,
    /// DCT of m: tensors in manifest order, in each its chunks, each h × w.
    m: Buffer<D, f32>,
    largest: Buffer<D, u32>,
    values: Buffer<D, f32>,
    first_bad: Buffer<D, u32>,
    /// Σ v·q and Σ q² of each chunk.
    products: Buffer<D, f64>,
    /// ŝ of each tensor.
    scales: Buffer<D, f64>,
    // The last submission.
    exponents: Buffer<D, i16>,
    indices: Buffer<D, u16>,
    levels: Buffer<D, i8>,
    /// e_max of each tensor.
    tops: Buffer<D, i32>,
    writer: Writer<D>,
}

impl<D: Device> Momentum<D> {
    /// Momentum 0. The first `warmup` submissions are not subtracted.
    pub fn new(tables: Arc<Tables<D>>, decay: f32, warmup: u64, subtract: Subtract) -> Result<Self> {
        if !(0.0..=1.0).contains(&decay) {
            return Err(Error::Config { field: "decay", reason: format!("{decay}: 0 to 1") });
        }
        let (device, format) = (&tables.device, &tables.format);
        let (chunks, entries) = (format.chunks(), format.entries());
        Ok(Self {
            kernels: EncodeKernels::find(&**device)?,
            m: Buffer::zeros(device, format.layout().len())?,
            largest: Buffer::zeros(device, chunks)?,
            values: Buffer::zeros(device, entries)?,
            first_bad: Buffer::zeros(device, 1)?,
            products: Buffer::zeros(device, 2 * chunks)?,
            scales: Buffer::zeros(device, tables.n_tensors as usize)?,
            exponents: Buffer::zeros(device, chunks)?,
            indices: Buffer::zeros(device, entries)?,
            levels: Buffer::zeros(device, entries)?,
            tops: Buffer::zeros(device, tables.n_tensors as usize)?,
            writer: Writer::new(&tables)?,
            decay,
            warmup,
            subtract,
            submissions: 0,
            pending: false,
            tables,
        })
    }

    /// Takes one window's gradient (mean over its tokens, in θ's order) at rate `lr`; gives what to send.
    ///
    /// A gradient that is not finite is an error and sends nothing; the finite chunks have taken it up by then.
    pub fn step(&mut self, grads: View<'_, f32>, lr: f32) -> Result<Submission> {
        self.queue(grads, lr)?;
        self.submission()
    }

    /// The step, with the bytes to send instead of what they stand for: those of [`Submission::encode`].
    pub fn step_payload(&mut self, grads: View<'_, f32>, lr: f32) -> Result<Vec<u8>> {
        self.queue(grads, lr)?;
        self.queue_payload()?;
        self.payload()
    }

    /// The bytes written last.
    pub(super) fn payload(&self) -> Result<Vec<u8>> {
        self.writer.payload()
    }

    /// Writes the last submission's bytes on the device.
    pub(super) fn queue_payload(&mut self) -> Result<()> {
        let (exponents, indices, levels) = (self.exponents.view(), self.indices.view(), self.levels.view());
        self.writer.queue(&self.tables, Sent { exponents, indices, levels }, self.tops.view())
    }

    /// The step without the copy of what is sent to the host.
    pub(super) fn queue(&mut self, grads: View<'_, f32>, lr: f32) -> Result<()> {
        self.tables.format.layout().check("the gradient", grads.len)?;
        self.pending = false;
        self.accumulate(grads, lr)?;
        self.submissions += 1;
        if self.submissions > self.warmup {
            match self.subtract {
                Subtract::Always => self.subtract()?,
                Subtract::WhenRecorded => self.pending = true,
            }
        }
        Ok(())
    }

    /// With [`Subtract::WhenRecorded`]: whether the window's record lists the last submission. A step that comes
    /// first counts as not listed.
    pub fn settle(&mut self, recorded: Recorded) -> Result<()> {
        if std::mem::take(&mut self.pending) && recorded == Recorded::Yes {
            self.subtract()?;
        }
        Ok(())
    }

    /// Submissions made so far.
    pub fn submissions(&self) -> u64 {
        self.submissions
    }

    /// The DCT of m, chunk after chunk: with [`Self::submissions`] and [`Self::pending`] what a restart needs, here or
    /// on the CPU.
    pub fn coefficients(&self) -> Result<Vec<f32>> {
        self.m.to_vec()
    }

    /// What waits for [`Self::settle`].
    pub fn pending(&self) -> Result<Option<Pending>> {
        if !self.pending {
            return Ok(None);
        }
        Ok(Some(Pending { sent: self.submission()?, scales: self.scales.to_vec()? }))
    }

    /// Continues from a saved state, in which nothing waits. Errors: another length, or values that are not finite.
    pub fn restore(&mut self, coefficients: &[f32], submissions: u64) -> Result<()> {
        self.tables.format.layout().check_saved(coefficients)?;
        self.m.upload(0, coefficients)?;
        self.submissions = submissions;
        self.pending = false;
        Ok(())
    }

    /// After [`Self::restore`]: what waits for [`Self::settle`]. Errors: as [`crate::Momentum::restore_pending`].
    pub fn restore_pending(&mut self, pending: &Pending) -> Result<()> {
        pending.check(&self.tables.format)?;
        let Values::Levels(levels) = &pending.sent.values else { return Err(Error::Format) };
        self.exponents.upload(0, &pending.sent.exponents)?;
        self.indices.upload(0, &pending.sent.indices)?;
        self.levels.upload(0, levels)?;
        self.scales.upload(0, &pending.scales)?;
        self.pending = true;
        Ok(())
    }

    /// Bytes of all buffers.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let Self { m, largest, values, first_bad, products, scales, .. } = self;
        let Self { exponents, indices, levels, tops, writer, .. } = self;
        let state = m.bytes() + largest.bytes() + values.bytes() + first_bad.bytes() + products.bytes();
        let sent = exponents.bytes() + indices.bytes() + levels.bytes() + tops.bytes() + scales.bytes();
        state + sent + writer.held()
    }

    fn accumulate(&mut self, grads: View<'_, f32>, lr: f32) -> Result<()> {
        let (tables, kernels) = (&*self.tables, &self.kernels);
        self.first_bad.upload(0, &[NONE_BAD])?;
        let chosen = ChosenMut {
            largest: self.largest.view_mut(),
            indices: self.indices.view_mut(),
            values: self.values.view_mut(),
            first_bad: self.first_bad.view_mut(),
        };
        let rates = EncodeRates { decay: self.decay, lr };
        kernels.encode(tables, grads, self.m.view_mut(), rates, chosen)?;
        let sent = SentMut {
            exponents: self.exponents.view_mut(),
            indices: self.indices.view_mut(),
            levels: self.levels.view_mut(),
        };
        let products = self.products.view_mut();
        kernels.quantise(tables, self.largest.view(), self.values.view(), &sent, &products)?;
        let (tops, scales) = (self.tops.view_mut(), self.scales.view_mut());
        kernels.settle(tables, &sent, self.products.view(), &tops, &scales)?;
        let bad = self.first_bad.to_vec()?;
        let tensors = tables.format.layout().tensors();
        match bad.first().and_then(|&bad| tensors.get(bad as usize)) {
            Some(tensor) => Err(Error::NonFinite { tensor: tensor.name.clone() }),
            None => Ok(()),
        }
    }

    /// The least traffic of a step.
    pub(super) fn stream(&mut self, kernels: &StreamKernels, grads: View<'_, f32>) -> Result<()> {
        kernels.momentum(&self.tables, grads, self.m.view_mut())
    }

    fn subtract(&mut self) -> Result<()> {
        let sent = Sent {
            exponents: self.exponents.view(),
            indices: self.indices.view(),
            levels: self.levels.view(),
        };
        self.kernels.subtract(&self.tables, sent, self.scales.view(), self.m.view_mut())
    }

    /// The last submission.
    fn submission(&self) -> Result<Submission> {
        Ok(Submission {
            exponents: self.exponents.to_vec()?,
            indices: self.indices.to_vec()?,
            values: Values::Levels(self.levels.to_vec()?),
            format: Arc::clone(&self.tables.format),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::test_device;
    use crate::synthetic::normal;
    use crate::{Codebook, Format, Layout};

    #[test]
    fn what_waits_for_its_record_moves_between_devices() {
        let layout = Layout::from_shapes([("a", vec![64, 40]), ("b", vec![96])]).unwrap();
        let format = Format::new(layout, 64, 6, Codebook::with_bits(3).unwrap()).unwrap();
        let grads: Vec<f32> = (0..64 * 40 + 96).map(normal).collect();
        let device = test_device();
        let tables = Tables::new(Arc::clone(&device), Arc::clone(&format)).unwrap();
        let (late, grads_there) = (Subtract::WhenRecorded, Buffer::from_slice(&device, &grads).unwrap());
        let mut here = crate::Momentum::new(Arc::clone(&format), 0.9, 0, late).unwrap();
        let mut there = Momentum::new(Arc::clone(&tables), 0.9, 0, late).unwrap();
        assert_eq!(there.pending().unwrap(), None);
        here.step(&grads, 1.0).unwrap();
        there.step(grads_there.view(), 1.0).unwrap();
        let pending = here.pending().cloned().unwrap();
        assert_eq!(there.pending().unwrap().as_ref(), Some(&pending));
        let mut moved = Momentum::new(tables, 0.9, 0, late).unwrap();
        moved.restore(here.coefficients(), here.submissions()).unwrap();
        moved.restore_pending(&pending).unwrap();
        here.settle(Recorded::Yes);
        for momentum in [&mut there, &mut moved] {
            momentum.settle(Recorded::Yes).unwrap();
            assert_eq!(momentum.coefficients().unwrap(), here.coefficients());
        }
    }

    #[test]
    fn least_squares_scales_are_summed_in_the_cpus_order() {
        // More chunks than are summed at a time, their strengths far apart: sums that round at every step.
        let layout = Layout::from_shapes([("a", vec![662]), ("b", vec![331])]).unwrap();
        let format = Format::new(layout, 64, 2, Codebook::with_bits(4).unwrap()).unwrap();
        let grads: Vec<f32> =
            (0..993_u64).map(|i| normal(i) * f32::from_bits((127 + (i / 2 % 13) as u32) << 23)).collect();
        let mut expected = crate::Momentum::new(Arc::clone(&format), 0.9, 9, Subtract::Always).unwrap();
        let sent = expected.step(&grads, 1.0).unwrap();
        let device = test_device();
        let tables = Tables::new(Arc::clone(&device), Arc::clone(&format)).unwrap();
        let mut found = Momentum::new(tables, 0.9, 9, Subtract::Always).unwrap();
        let got = found.step(Buffer::from_slice(&device, &grads).unwrap().view(), 1.0).unwrap();
        assert_eq!(got, sent);
        let scales: Vec<u64> =
            format.plans().map(|(_, plan)| expected.scale(plan, &sent).to_bits()).collect();
        assert_eq!(found.scales.to_vec().unwrap().iter().map(|s| s.to_bits()).collect::<Vec<_>>(), scales);
    }
}
