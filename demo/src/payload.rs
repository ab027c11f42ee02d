//! The bytes of a submission.
//!
//! Little-endian, tensors in manifest order: the tensor's largest exponent e_max (i8, −128 when every chunk is empty),
//! then its chunks in groups of 64, each group a u32 byte length and a bit stream, least significant bit first. A chunk
//! is one bit 1 if it is empty; else a bit 0, its exponent e (8 bits), k codes, and, unless k covers the chunk, k
//! Rice-coded gaps. Padding bits are 0 (PROTOCOL 5).
//!
//! Decoding is total and linear: any bytes give a submission whose encoding is those bytes, or a typed error.

use crate::chunk::cut;
use crate::error::{Error, Result};
use crate::format::{Format, GROUP, Plan};
use crate::rice::{self, BitReader, BitWriter, Ending};
use crate::submission::{EMPTY, Fault, Submission, Values, ValuesMut, check_exact};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Exponent of a tensor that sends nothing.
pub(crate) const EMPTY_TENSOR: i8 = i8::MIN;

impl Submission {
    /// The payload's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let groups: Vec<_> =
            self.format.plans().flat_map(|(_, plan)| plan.groups().map(move |group| (plan, group))).collect();
        let lengths: Vec<usize> = groups
            .par_iter()
            .with_min_len(8)
            .map(|(plan, group)| group.clone().map(|c| self.chunk_bits(plan, c)).sum::<usize>().div_ceil(8))
            .collect();
        let head = |(_, group): &(&Plan, Range<usize>)| 4 + usize::from(group.start == 0);
        let parts: Vec<usize> = groups.iter().zip(&lengths).map(|(group, len)| head(group) + len).collect();
        let mut out = vec![0; parts.iter().sum()];
        let codes = self.format.codebook().codes();
        cut(&mut out, parts).into_par_iter().zip(&groups).zip(&lengths).with_min_len(8).for_each(
            |((part, group), &len)| {
                let (top, body) = part.split_at_mut(head(group));
                let (e_max, length) = top.split_at_mut(top.len() - 4);
                if let [byte] = e_max {
                    *byte = self.max_exponent(group.0).map_or(EMPTY_TENSOR, |e| e as i8).cast_unsigned();
                }
                length.copy_from_slice(&(len as u32).to_le_bytes());
                let mut writer = BitWriter::new(body);
                for chunk in group.1.clone() {
                    self.write_chunk(group.0, chunk, &codes, &mut writer);
                }
                writer.finish();
            },
        );
        out
    }

    fn chunk_bits(&self, plan: &Plan, chunk: usize) -> usize {
        if self.exponents[plan.first_chunk + chunk] == EMPTY {
            return 1;
        }
        let indices = &self.indices[plan.chunk_entries(chunk)];
        9 + plan.k * self.format.codebook().bits() as usize + plan.rice.map_or(0, |r| rice::cost(indices, r))
    }

    fn write_chunk(&self, plan: &Plan, chunk: usize, codes: &[u8], writer: &mut BitWriter<'_>) {
        let exponent = self.exponents[plan.first_chunk + chunk];
        if exponent == EMPTY {
            writer.put(1, 1);
            return;
        }
        writer.put(u32::from((exponent as i8).cast_unsigned()) << 1, 9);
        let entries = plan.chunk_entries(chunk);
        match &self.values {
            Values::Levels(levels) => {
                for &level in &levels[entries.clone()] {
                    writer.put(
                        u32::from(codes[(i16::from(level) + 127) as usize]),
                        self.format.codebook().bits(),
                    );
                }
            }
            Values::Exact(values) => {
                for value in &values[entries.clone()] {
                    writer.put(value.to_bits(), 32);
                }
            }
        }
        if let Some(r) = plan.rice {
            let mut next = 0_u32;
            for &index in &self.indices[entries] {
                writer.put_rice(u32::from(index) - next, r);
                next = u32::from(index) + 1;
            }
        }
    }

    /// Reads a payload. Allocates what the format implies, whatever the bytes say.
    pub fn decode(format: &Arc<Format>, payload: &[u8]) -> Result<Self> {
        let groups = frame(format, payload)?;
        let mut out = Self::empty(Arc::clone(format));
        let entry_counts: Vec<usize> = groups.iter().map(|g| g.chunks.len() * g.plan.k).collect();
        let exponents = cut(&mut out.exponents, groups.iter().map(|g| g.chunks.len()));
        let indices = cut(&mut out.indices, entry_counts.iter().copied());
        let values = out.values.cut(entry_counts);
        // Fewer than 16 groups stay on this thread.
        let faults: Vec<Result<()>> = (&groups, exponents, indices, values)
            .into_par_iter()
            .with_min_len(8)
            .map(|(group, exponents, indices, values)| read_group(format, group, exponents, indices, values))
            .collect();
        faults.into_iter().collect::<Result<()>>()?;
        let mut stated = groups.iter().filter(|group| group.chunks.start == 0).map(|group| group.e_max);
        for (tensor, plan) in format.plans() {
            let found = out.max_exponent(plan).map_or(EMPTY_TENSOR, |e| e as i8);
            match stated.next() {
                Some(stated) if stated != found => {
                    return Err(Error::MaxExponent { tensor: tensor.name.clone(), stated, found });
                }
                _ => {}
            }
        }
        Ok(out)
    }
}

/// One group of a payload, located but not read.
pub(crate) struct Group<'a> {
    name: &'a str,
    plan: &'a Plan,
    pub(crate) chunks: Range<usize>,
    /// What the tensor states before its first group.
    pub(crate) e_max: i8,
    pub(crate) bytes: &'a [u8],
}

/// Locates every group by the stated lengths.
pub(crate) fn frame<'a>(format: &'a Format, payload: &'a [u8]) -> Result<Vec<Group<'a>>> {
    let mut rest = payload;
    let mut groups = Vec::new();
    for (tensor, plan) in format.plans() {
        let short = || Error::Truncated { tensor: tensor.name.clone() };
        let (&e_max, tail) = rest.split_first().ok_or_else(short)?;
        rest = tail;
        for (number, chunks) in plan.groups().enumerate() {
            let (stated, tail) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            let stated = u32::from_le_bytes(*stated) as usize;
            if stated > format.max_group(plan, chunks.len()) {
                return Err(Error::GroupLength { tensor: tensor.name.clone(), group: number, stated });
            }
            let (bytes, tail) = tail.split_at_checked(stated).ok_or_else(short)?;
            groups.push(Group { name: &tensor.name, plan, chunks, e_max: e_max.cast_signed(), bytes });
            rest = tail;
        }
    }
    if rest.is_empty() { Ok(groups) } else { Err(Error::TrailingBytes { count: rest.len() }) }
}

fn read_group(
    format: &Format,
    group: &Group<'_>,
    exponents: &mut [i16],
    indices: &mut [u16],
    mut values: ValuesMut<'_>,
) -> Result<()> {
    let k = group.plan.k;
    let mut reader = BitReader::new(group.bytes);
    for (i, exponent) in exponents.iter_mut().enumerate() {
        let entries = i * k..(i + 1) * k;
        let values = values.part(entries.clone());
        *exponent = read_chunk(format, group.plan, &mut reader, &mut indices[entries], values)
            .map_err(|fault| fault.at(group.name, group.chunks.start + i))?;
    }
    let (tensor, number) = (|| group.name.to_owned(), group.chunks.start / GROUP);
    match reader.is_finished() {
        Ending::Clean => Ok(()),
        Ending::PaddingSet => Err(Error::Padding { tensor: tensor(), group: number }),
        Ending::BytesLeft => {
            Err(Error::GroupLength { tensor: tensor(), group: number, stated: group.bytes.len() })
        }
    }
}

fn read_chunk(
    format: &Format,
    plan: &Plan,
    reader: &mut BitReader<'_>,
    indices: &mut [u16],
    values: ValuesMut<'_>,
) -> std::result::Result<i16, Fault> {
    if reader.take(1).ok_or(Fault::Short)? == 1 {
        return Ok(EMPTY);
    }
    let exponent = i16::from((reader.take(8).ok_or(Fault::Short)? as u8).cast_signed());
    match values {
        ValuesMut::Levels(levels) => read_levels(format, reader, levels)?,
        ValuesMut::Exact(values) => {
            for value in values.iter_mut() {
                *value = f32::from_bits(reader.take(32).ok_or(Fault::Short)?);
            }
            check_exact(exponent, values)?;
        }
    }
    let n = plan.grid.chunk_len() as u32;
    match plan.rice {
        Some(r) => {
            let mut next = 0;
            for index in indices {
                next += reader.take_rice(r, n).ok_or(Fault::Short)?;
                if next >= n {
                    return Err(Fault::Range);
                }
                *index = next as u16;
                next += 1;
            }
        }
        None => {
            for (index, i) in indices.iter_mut().zip(0..) {
                *index = i;
            }
        }
    }
    Ok(exponent)
}

fn read_levels(
    format: &Format,
    reader: &mut BitReader<'_>,
    levels: &mut [i8],
) -> std::result::Result<(), Fault> {
    let book = format.codebook();
    let (bits, mask) = (book.bits(), (1 << book.bits()) - 1);
    let mut any = 0;
    // As many codes at a time as fit 32 bits.
    for levels in levels.chunks_mut((32 / bits) as usize) {
        let mut word = u64::from(reader.take(bits * levels.len() as u32).ok_or(Fault::Short)?);
        for level in levels {
            *level = book.level((word & mask) as u32).ok_or(Fault::Code)?;
            any |= *level;
            word >>= bits;
        }
    }
    if any == 0 { Err(Fault::Zero) } else { Ok(()) }
}
