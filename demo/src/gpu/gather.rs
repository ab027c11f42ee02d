//! A gather on a GPU, and the outer step it leads to: [`crate::Aggregate`] and [`crate::outer_step`], bit for bit.

use crate::aggregate::{MAX_PEERS, StrengthCap};
use crate::error::{Error, Result};
use crate::gpu::launch::{GatherKernels, Gathered, SCALE_BYTES, Sent, SentMut};
use crate::gpu::memory::{Buffer, View, ViewMut};
use crate::gpu::payload::{Reader, Verdict};
use crate::gpu::tables::Tables;
use crate::outer_step::{Applied, OuterStep, Rates, trial_rate};
use crate::submission::{Submission, Values};
use gauntlet_gpu::Device;
use std::sync::Arc;

/// The submissions that one outer step applies, on the device: 2 bytes a chunk and 3 an entry for each.
pub struct Gather<D: Device> {
    tables: Arc<Tables<D>>,
    kernels: GatherKernels,
    capacity: usize,
    hotkeys: Vec<[u8; 32]>,
    exponents: Buffer<D, i16>,
    indices: Buffer<D, u16>,
    levels: Buffer<D, i8>,
    /// `Scale` of demo/kernels/gather.cuh.
    scales: Buffer<D, u64>,
    reader: Reader<D>,
}

impl<D: Device> Gather<D> {
    /// Room for `capacity` submissions, nothing gathered yet.
    pub fn new(tables: Arc<Tables<D>>, capacity: usize) -> Result<Self> {
        if capacity > MAX_PEERS {
            return Err(Error::TooManyPeers { limit: MAX_PEERS });
        }
        let (device, format) = (&tables.device, &tables.format);
        Ok(Self {
            kernels: GatherKernels::find(&**device)?,
            capacity,
            hotkeys: Vec::with_capacity(capacity),
            exponents: Buffer::zeros(device, capacity * format.chunks())?,
            indices: Buffer::zeros(device, capacity * format.entries())?,
            levels: Buffer::zeros(device, capacity * format.entries())?,
            scales: Buffer::zeros(device, capacity * tables.n_tensors as usize * SCALE_BYTES / 8)?,
            reader: Reader::new(&tables)?,
            tables,
        })
    }

    /// Forgets the submissions.
    pub fn clear(&mut self) {
        self.hotkeys.clear();
    }

    /// Adds a peer's submission. The order in which peers are added does not matter.
    pub fn add(&mut self, hotkey: [u8; 32], submission: &Submission) -> Result<()> {
        let format = &self.tables.format;
        format.check(&submission.format)?;
        self.has_room(hotkey)?;
        let Values::Levels(levels) = &submission.values else { return Err(Error::Format) };
        let place = self.hotkeys.len();
        self.exponents.upload(place * format.chunks(), &submission.exponents)?;
        self.indices.upload(place * format.entries(), &submission.indices)?;
        self.levels.upload(place * format.entries(), levels)?;
        self.hotkeys.push(hotkey);
        Ok(())
    }

    /// Adds a peer's submission by its payload, decoded on the device. What [`Submission::decode`] refuses is refused
    /// with the same error.
    pub fn add_payload(&mut self, hotkey: [u8; 32], payload: &[u8]) -> Result<()> {
        self.has_room(hotkey)?;
        let out = SentMut {
            exponents: self.exponents.view_mut(),
            indices: self.indices.view_mut(),
            levels: self.levels.view_mut(),
        };
        match self.reader.decode(&self.tables, payload, &out, self.hotkeys.len())? {
            Verdict::Canonical => self.hotkeys.push(hotkey),
            // The CPU has the last word on what is valid.
            Verdict::Faulty => self.add(hotkey, &Submission::decode(&self.tables.format, payload)?)?,
        }
        Ok(())
    }

    fn has_room(&self, hotkey: [u8; 32]) -> Result<()> {
        if self.hotkeys.contains(&hotkey) {
            return Err(Error::DuplicatePeer { hotkey });
        }
        if self.hotkeys.len() == self.capacity {
            return Err(Error::TooManyPeers { limit: self.capacity });
        }
        Ok(())
    }

    /// A gathered submission, by the order in which they came.
    pub fn submission(&self, place: usize) -> Result<Submission> {
        let format = &self.tables.format;
        self.check_place(place)?;
        let (chunks, entries) = (format.chunks(), format.entries());
        Ok(Submission {
            exponents: self.exponents.download(place * chunks..(place + 1) * chunks)?,
            indices: self.indices.download(place * entries..(place + 1) * entries)?,
            values: Values::Levels(self.levels.download(place * entries..(place + 1) * entries)?),
            format: Arc::clone(format),
        })
    }

    /// Submissions gathered.
    pub fn len(&self) -> usize {
        self.hotkeys.len()
    }

    /// True before the first submission.
    pub fn is_empty(&self) -> bool {
        self.hotkeys.is_empty()
    }

    /// Applies what is gathered to θ.
    pub fn apply(&mut self, theta: ViewMut<'_, f32>, cap: StrengthCap, step: &OuterStep) -> Result<Applied> {
        self.tables.format.layout().check("θ", theta.len)?;
        step.check()?;
        if self.len() < step.min_gather {
            return Ok(Applied::TooFew);
        }
        self.scale()?;
        let rates = Rates::new(step);
        self.kernels.apply_in_place(&self.tables, self.gathered(cap), [rates.lr, rates.decay], theta)?;
        Ok(Applied::Stepped)
    }

    /// As [`Self::apply`], into `out`; θ stays. With too few submissions nothing is written.
    pub fn apply_to(
        &mut self,
        theta: View<'_, f32>,
        cap: StrengthCap,
        step: &OuterStep,
        out: ViewMut<'_, f32>,
    ) -> Result<Applied> {
        step.check()?;
        if self.len() < step.min_gather {
            return Ok(Applied::TooFew);
        }
        self.scale()?;
        let rates = Rates::new(step);
        self.kernels.apply(&self.tables, self.gathered(cap), [rates.lr, rates.decay], theta, out)?;
        Ok(Applied::Stepped)
    }

    /// Writes into `out` what θ would be after one gathered submission alone, by the order in which they came, at `c`
    /// times the rate `lr`.
    pub fn trial(
        &mut self,
        theta: View<'_, f32>,
        place: usize,
        lr: f32,
        c: f32,
        out: ViewMut<'_, f32>,
    ) -> Result<()> {
        let rate = trial_rate(lr, c)?;
        self.check_place(place)?;
        self.scale()?;
        let one = Gathered { first: place as u32, peers: 1, ..self.gathered(StrengthCap::Off) };
        // θ·1 is θ.
        self.kernels.apply(&self.tables, one, [rate, 1.0], theta, out)
    }

    /// As [`Self::trial`], with θ replaced.
    pub fn trial_in_place(&mut self, theta: ViewMut<'_, f32>, place: usize, lr: f32, c: f32) -> Result<()> {
        let rate = trial_rate(lr, c)?;
        self.check_place(place)?;
        self.scale()?;
        let one = Gathered { first: place as u32, peers: 1, ..self.gathered(StrengthCap::Off) };
        self.kernels.apply_in_place(&self.tables, one, [rate, 1.0], theta)
    }

    /// Writes Δ, the decoded aggregate before its sign is taken, into `out`.
    pub fn decode(&mut self, cap: StrengthCap, out: ViewMut<'_, f32>) -> Result<()> {
        self.scale()?;
        self.kernels.decode(&self.tables, self.gathered(cap), out)
    }

    /// Bytes of all buffers.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let Self { exponents, indices, levels, scales, reader, .. } = self;
        exponents.bytes() + indices.bytes() + levels.bytes() + scales.bytes() + reader.held()
    }

    fn check_place(&self, place: usize) -> Result<()> {
        if place < self.len() {
            Ok(())
        } else {
            Err(Error::Length { what: "the gather", expected: self.len(), found: place })
        }
    }

    fn scale(&mut self) -> Result<()> {
        let peers = self.peers();
        let sent = Sent {
            exponents: self.exponents.view(),
            indices: self.indices.view(),
            levels: self.levels.view(),
        };
        self.kernels.scale(&self.tables, sent, peers, &self.scales.view_mut())
    }

    fn gathered(&self, cap: StrengthCap) -> Gathered<'_> {
        let (exponents, indices, levels) = (self.exponents.view(), self.indices.view(), self.levels.view());
        Gathered {
            sent: Sent { exponents, indices, levels },
            scales: self.scales.view(),
            first: 0,
            peers: self.peers(),
            capped: cap == StrengthCap::LowerMedian,
        }
    }

    /// At most MAX_PEERS.
    fn peers(&self) -> u32 {
        self.hotkeys.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::unit_scale;
    use crate::gpu::test_device;
    use crate::{Codebook, Format, Layout};

    #[test]
    fn sums_of_squares_beyond_64_bits() {
        let (chunks, k) = ((1 << 16) + 2000, 64);
        let layout = Layout::from_shapes([("t", vec![chunks * k])]).unwrap();
        let format = Format::new(layout, k, k, Codebook::with_bits(8).unwrap()).unwrap();
        let tables = Tables::new(test_device(), Arc::clone(&format)).unwrap();
        let mut gather = Gather::new(tables, 2).unwrap();
        for (peer, few) in [(1, 3), (2, chunks)] {
            let mut sent = Submission::empty(Arc::clone(&format));
            sent.exponents[..few].fill(7);
            let Values::Levels(levels) = &mut sent.values else { panic!("levels") };
            levels[..few * k].fill(-127);
            gather.add([peer; 32], &sent).unwrap();
        }
        gather.scale().unwrap();
        let square = 127 * 127 * k as u128 * (1 << 28);
        let [few, all] = [3 * square, chunks as u128 * square];
        assert!(all > 1 << 64);
        assert_eq!(gather.scales.to_vec().unwrap(), [unit_scale(few), 7, unit_scale(all), 7]);
    }
}
