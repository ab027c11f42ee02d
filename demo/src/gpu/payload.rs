//! A submission's bytes, written and read on the device: [`crate::payload`], byte for byte.
#![allow(
    unsafe_code,
    reason = "launches: every buffer has the length its kernel reaches, and groups were located inside the payload"
)]

use crate::error::Result;
use crate::format::Format;
use crate::gpu::launch::{Sent, SentMut, THREADS, at_least, check, check_sent, launch, read, write};
use crate::gpu::memory::{Buffer, View};
use crate::gpu::tables::Tables;
use crate::payload::{EMPTY_TENSOR, frame};
use crate::submission::EMPTY;
use gauntlet_gpu::{Arg, Device, Grid, Kernel};

/// Threads of a block that does one group a thread: few, so that groups spread over the device.
const GROUP_THREADS: u32 = 32;
/// Bytes behind a payload that its reader may look at.
pub(super) const BEHIND: usize = 8;

/// Writes payloads.
pub(super) struct Writer<D: Device> {
    measure: Kernel,
    place: Kernel,
    write: Kernel,
    lengths: Buffer<D, u32>,
    starts: Buffer<D, u64>,
    payload: Buffer<D, u8>,
}

impl<D: Device> Writer<D> {
    pub(super) fn new(tables: &Tables<D>) -> Result<Self> {
        let (device, groups) = (&tables.device, tables.n_groups as usize);
        Ok(Self {
            measure: device.kernel("measure_groups")?,
            place: device.kernel("place_groups")?,
            write: device.kernel("write_groups")?,
            lengths: Buffer::zeros(device, groups)?,
            starts: Buffer::zeros(device, groups + 1)?,
            payload: Buffer::zeros(device, tables.format.max_payload())?,
        })
    }

    /// Writes a submission; `tops` are its tensors' largest exponents.
    pub(super) fn queue(&mut self, t: &Tables<D>, sent: Sent<'_>, tops: View<'_, i32>) -> Result<()> {
        check_sent(t, 1, [sent.exponents.len, sent.indices.len, sent.levels.len])?;
        check("largest exponents", t.n_tensors as usize, tops.len)?;
        let bits = Arg::U32(t.format.codebook().bits());
        let groups = [read(t.tensors.view()), Arg::U32(t.n_tensors), Arg::U32(t.n_groups)];
        let (lengths, starts) = (self.lengths.view_mut(), self.starts.view_mut());
        let of_sent = [read(sent.exponents), read(sent.indices)];
        let measure = [&groups[..], &[bits], &of_sent, &[write(&lengths)]].concat();
        let place = [&groups[..], &[write(&lengths), write(&starts)]].concat();
        let placed = [read(tops), write(&lengths), write(&starts), write(&self.payload.view_mut())];
        let codes = [bits, read(t.codes.view())];
        let write = [&groups[..], &codes, &of_sent, &[read(sent.levels)], &placed].concat();
        // SAFETY: lengths were checked; no submission of this format is longer than the payload's buffer.
        unsafe {
            launch(t, self.measure, Grid::new(t.n_groups.div_ceil(THREADS / 32), THREADS), &measure)?;
            launch(t, self.place, Grid::new(1, 128), &place)?;
            launch(t, self.write, group_grid(t), &write)
        }
    }

    /// Bytes of all buffers.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let Self { lengths, starts, payload, .. } = self;
        lengths.bytes() + starts.bytes() + payload.bytes()
    }

    /// What was written last.
    pub(super) fn payload(&self) -> Result<Vec<u8>> {
        let end = self.starts.len() - 1;
        let len = self.starts.download(end..end + 1)?.first().copied().unwrap_or(0);
        self.payload.download(0..len as usize)
    }
}

/// Reads payloads.
pub(super) struct Reader<D: Device> {
    read: Kernel,
    payload: Buffer<D, u8>,
    starts: Buffer<D, u64>,
    lengths: Buffer<D, u32>,
    tops: Buffer<D, i32>,
    fault: Buffer<D, u32>,
}

/// Whether a payload is what an encoder writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is.
    Canonical,
    /// The CPU's decoder has to say what is wrong.
    Faulty,
}

impl<D: Device> Reader<D> {
    pub(super) fn new(tables: &Tables<D>) -> Result<Self> {
        let (device, groups) = (&tables.device, tables.n_groups as usize);
        Ok(Self {
            read: device.kernel("read_groups")?,
            payload: Buffer::zeros(device, tables.format.max_payload() + BEHIND)?,
            starts: Buffer::zeros(device, groups)?,
            lengths: Buffer::zeros(device, groups)?,
            tops: Buffer::zeros(device, tables.n_tensors as usize)?,
            fault: Buffer::zeros(device, 1)?,
        })
    }

    /// Bytes of all buffers.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let Self { payload, starts, lengths, tops, fault, .. } = self;
        payload.bytes() + starts.bytes() + lengths.bytes() + tops.bytes() + fault.bytes()
    }

    /// Reads a payload into place `place` of `out`. An error if its groups do not even lie inside it.
    pub(super) fn decode(
        &mut self,
        t: &Tables<D>,
        payload: &[u8],
        out: &SentMut<'_>,
        place: usize,
    ) -> Result<Verdict> {
        let located = locate(&t.format, payload)?;
        at_least("the payload", payload.len() + BEHIND, self.payload.len())?;
        check("groups", self.starts.len(), located.starts.len())?;
        self.payload.upload(0, payload)?;
        self.starts.upload(0, &located.starts)?;
        self.lengths.upload(0, &located.lengths)?;
        self.tops.upload(0, &vec![i32::from(EMPTY); self.tops.len()])?;
        self.fault.upload(0, &[0])?;
        let peers = place as u32 + 1;
        check_sent(t, peers, [out.exponents.len, out.indices.len, out.levels.len])?;
        let (chunks, entries) = (t.n_chunks as usize * place, t.format.entries() * place);
        let args = [
            read(t.tensors.view()),
            Arg::U32(t.n_tensors),
            Arg::U32(t.n_groups),
            Arg::U32(t.format.codebook().bits()),
            read(t.level_of_code.view()),
            read(self.payload.view()),
            read(self.starts.view()),
            read(self.lengths.view()),
            Arg::Ptr(out.exponents.address + 2 * chunks as u64),
            Arg::Ptr(out.indices.address + 2 * entries as u64),
            Arg::Ptr(out.levels.address + entries as u64),
            write(&self.tops.view_mut()),
            write(&self.fault.view_mut()),
        ];
        // SAFETY: lengths were checked; groups lie inside the payload, and the reader stops at a fault.
        unsafe { launch(t, self.read, group_grid(t), &args)? };
        let found = self.tops.to_vec()?;
        let found = found.iter().map(|&top| top.max(i32::from(EMPTY_TENSOR)));
        let agree = found.eq(located.stated.iter().map(|&e| i32::from(e)));
        let sound = agree && self.fault.to_vec()? == [0];
        Ok(if sound { Verdict::Canonical } else { Verdict::Faulty })
    }
}

/// Where groups lie, and the largest exponent each tensor states.
struct Located {
    starts: Vec<u64>,
    lengths: Vec<u32>,
    stated: Vec<i8>,
}

fn locate(format: &Format, payload: &[u8]) -> Result<Located> {
    let mut out = Located { starts: Vec::new(), lengths: Vec::new(), stated: Vec::new() };
    let mut at = 0;
    for group in frame(format, payload)? {
        at += 4;
        if group.chunks.start == 0 {
            at += 1;
            out.stated.push(group.e_max);
        }
        out.starts.push(at);
        out.lengths.push(group.bytes.len() as u32);
        at += group.bytes.len() as u64;
    }
    Ok(out)
}

fn group_grid<D: Device>(t: &Tables<D>) -> Grid {
    Grid::new(t.n_groups.div_ceil(GROUP_THREADS), GROUP_THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::test_device;
    use crate::submission::{Submission, Values};
    use crate::synthetic::{mix, normal};
    use crate::{Codebook, Layout, Momentum, Subtract};
    use std::sync::Arc;

    #[test]
    fn gaps_longer_than_a_word_of_zeros_are_read() {
        let device = test_device();
        let layout = Layout::from_shapes([("a", vec![64, 64])]).unwrap();
        let format = Format::new(layout, 64, 64, Codebook::with_bits(3).unwrap()).unwrap();
        let tables = Tables::new(Arc::clone(&device), Arc::clone(&format)).unwrap();
        let mut reader = Reader::new(&tables).unwrap();
        // The Rice parameter is 5: 1,024 places apart are 32 zeros, and 4,032 are 126.
        for last in [62 + 1024, 62 + 1025, 62 + 1056, 62 + 1057, 3000, 4095] {
            let indices: Vec<u16> = (0..63).chain([last]).collect();
            let levels = Values::Levels(vec![40; 64]);
            let sent = Submission::new(Arc::clone(&format), vec![3], indices.clone(), levels).unwrap();
            let mut buffers = (
                Buffer::zeros(&device, 1).unwrap(),
                Buffer::zeros(&device, 64).unwrap(),
                Buffer::zeros(&device, 64).unwrap(),
            );
            let out = SentMut {
                exponents: buffers.0.view_mut(),
                indices: buffers.1.view_mut(),
                levels: buffers.2.view_mut(),
            };
            assert_eq!(reader.decode(&tables, &sent.encode(), &out, 0), Ok(Verdict::Canonical), "{last}");
            assert_eq!(buffers.1.to_vec().unwrap(), indices);
        }
    }

    #[test]
    fn the_device_sees_every_fault_and_no_other() {
        let (device, mut faulty) = (test_device(), 0);
        for (bits, k) in [(1, 3), (2, 64), (3, 8), (4, 32), (8, 5)] {
            let layout =
                Layout::from_shapes([("a", vec![64, 33]), ("b", vec![130]), ("c", vec![331])]).unwrap();
            let format = Format::new(layout, 64, k, Codebook::with_bits(bits).unwrap()).unwrap();
            let tables = Tables::new(Arc::clone(&device), Arc::clone(&format)).unwrap();
            let mut momentum = Momentum::new(Arc::clone(&format), 0.9, 9, Subtract::Always).unwrap();
            let grads: Vec<f32> = (0..format.layout().len() as u64)
                .map(|i| if mix(i).is_multiple_of(3) { 0.0 } else { normal(i) })
                .collect();
            let payload = momentum.step(&grads, 1.0).unwrap().encode();
            let mut exponents = Buffer::zeros(&device, 2 * format.chunks()).unwrap();
            let mut indices = Buffer::zeros(&device, 2 * format.entries()).unwrap();
            let mut levels = Buffer::zeros(&device, 2 * format.entries()).unwrap();
            let mut reader = Reader::new(&tables).unwrap();
            for bit in (0..8 * payload.len()).step_by(1 + payload.len() / 40).chain([usize::MAX]) {
                let mut bytes = payload.clone();
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                let expected = Submission::decode(&format, &bytes);
                if locate(&format, &bytes).is_err() {
                    assert!(expected.is_err());
                    continue;
                }
                let out = SentMut {
                    exponents: exponents.view_mut(),
                    indices: indices.view_mut(),
                    levels: levels.view_mut(),
                };
                let found = reader.decode(&tables, &bytes, &out, 1).unwrap();
                assert_eq!(found == Verdict::Canonical, expected.is_ok(), "{bits} bits, bit {bit}");
                faulty += usize::from(found == Verdict::Faulty);
                assert!(bit < usize::MAX || found == Verdict::Canonical);
            }
        }
        assert!(faulty > 50, "{faulty}");
    }
}
