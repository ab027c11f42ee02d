//! What one peer sends for one window: for each chunk an exponent, and k codes at k ascending indices.
//!
//! Payload, little-endian, tensors in manifest order: the tensor's largest exponent e_max (i8, −128 when every chunk
//! is empty), then its chunks in groups of 64, each group a u32 byte length and a bit stream, least significant bit
//! first. A chunk is one bit 1 if it is empty; else a bit 0, its exponent e (8 bits), k codes, and, unless k covers
//! the chunk, k Rice-coded gaps. Padding bits are 0.
//!
//! Decoding is total and linear: any bytes give a submission whose encoding is those bytes, or a typed error.

use crate::chunk::cut;
use crate::error::{Error, Result};
use crate::format::{Format, Plan};
use crate::rice::{self, BitReader, BitWriter, Ending};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Exponent of a chunk that sends nothing.
pub const EMPTY: i16 = i16::MIN;
/// Exponent of a tensor that sends nothing.
const EMPTY_TENSOR: i8 = i8::MIN;

/// One value for each entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Signed levels of the codebook; 0 is not sent.
    Levels(Vec<i8>),
    /// f32 values, for measurements with the 32-bit codebook.
    Exact(Vec<f32>),
}

/// A decoded or freshly encoded submission.
#[derive(Debug, Clone)]
pub struct Submission {
    pub(crate) format: Arc<Format>,
    pub(crate) exponents: Vec<i16>,
    pub(crate) indices: Vec<u16>,
    pub(crate) values: Values,
}

impl PartialEq for Submission {
    fn eq(&self, other: &Self) -> bool {
        self.format.check(&other.format).is_ok()
            && self.exponents == other.exponents
            && self.indices == other.indices
            && self.values == other.values
    }
}

impl Submission {
    /// A submission that sends nothing.
    pub fn empty(format: Arc<Format>) -> Self {
        let entries = format.entries();
        let values = if format.codebook().is_exact() {
            Values::Exact(vec![0.0; entries])
        } else {
            Values::Levels(vec![0; entries])
        };
        Self { exponents: vec![EMPTY; format.chunks()], indices: vec![0; entries], values, format }
    }

    /// Checks parts: one exponent ([`EMPTY`] for none) a chunk, k indices and values a chunk, chunk after chunk, tensor
    /// after tensor. Entries of empty chunks are 0.
    pub fn new(format: Arc<Format>, exponents: Vec<i16>, indices: Vec<u16>, values: Values) -> Result<Self> {
        let count = |what, expected, found| {
            if expected == found { Ok(()) } else { Err(Error::Count { what, expected, found }) }
        };
        count("exponents", format.chunks(), exponents.len())?;
        count("indices", format.entries(), indices.len())?;
        let found = match &values {
            Values::Levels(levels) if !format.codebook().is_exact() => levels.len(),
            Values::Exact(values) if format.codebook().is_exact() => values.len(),
            _ => return Err(Error::Format),
        };
        count("values", format.entries(), found)?;
        let submission = Self { format, exponents, indices, values };
        for (tensor, plan) in submission.format.plans() {
            for chunk in 0..plan.grid.chunks() {
                submission.check_chunk(plan, chunk).map_err(|fault| fault.at(&tensor.name, chunk))?;
            }
        }
        Ok(submission)
    }

    /// The format it belongs to.
    pub fn format(&self) -> &Arc<Format> {
        &self.format
    }

    /// Exponents of all chunks, [`EMPTY`] for none.
    pub fn exponents(&self) -> &[i16] {
        &self.exponents
    }

    /// Indices of all entries.
    pub fn indices(&self) -> &[u16] {
        &self.indices
    }

    /// Values of all entries.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Entries that are sent: their value is not 0.
    pub fn sent(&self) -> usize {
        match &self.values {
            Values::Levels(levels) => levels.iter().filter(|&&level| level != 0).count(),
            Values::Exact(values) => values.iter().filter(|&&value| value != 0.0).count(),
        }
    }

    /// Largest exponent of a tensor's chunks, if any is sent.
    pub(crate) fn max_exponent(&self, plan: &Plan) -> Option<i16> {
        self.exponents[plan.chunks()].iter().copied().filter(|&e| e != EMPTY).max()
    }

    /// Share of entries with the same index and sign in chunks of two dimensions: what a copy of `other` would have 1
    /// of. 0 where neither sends any.
    pub fn overlap(&self, other: &Self) -> Result<f64> {
        self.format.check(&other.format)?;
        let (mut same, mut all) = (0_u64, 0_u64);
        for (_, plan) in self.format.plans().filter(|(tensor, _)| tensor.shape.len() == 2) {
            for chunk in 0..plan.grid.chunks() {
                let (mine, theirs) = (self.signs(plan, chunk), other.signs(plan, chunk));
                all += mine.clone().count().max(theirs.clone().count()) as u64;
                let mut theirs = theirs.peekable();
                for (index, sign) in mine {
                    while theirs.next_if(|&(i, _)| i < index).is_some() {}
                    same += u64::from(theirs.peek() == Some(&(index, sign)));
                }
            }
        }
        Ok(if all == 0 { 0.0 } else { same as f64 / all as f64 })
    }

    /// Index and sign of what a chunk sends, ascending.
    fn signs(&self, plan: &Plan, chunk: usize) -> impl Iterator<Item = (u16, bool)> + Clone {
        plan.chunk_entries(chunk).filter_map(|entry| {
            let value = match &self.values {
                Values::Levels(levels) => f32::from(levels[entry]),
                Values::Exact(values) => values[entry],
            };
            (value != 0.0).then_some((self.indices[entry], value > 0.0))
        })
    }

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
        let values: Vec<ValuesMut<'_>> = match &mut out.values {
            Values::Levels(levels) => cut(levels, entry_counts).into_iter().map(ValuesMut::Levels).collect(),
            Values::Exact(values) => cut(values, entry_counts).into_iter().map(ValuesMut::Exact).collect(),
        };
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

    fn check_chunk(&self, plan: &Plan, chunk: usize) -> std::result::Result<(), Fault> {
        let entries = plan.chunk_entries(chunk);
        let (exponent, indices) = (self.exponents[plan.first_chunk + chunk], &self.indices[entries.clone()]);
        if exponent == EMPTY {
            let zero = indices.iter().all(|&i| i == 0)
                && match &self.values {
                    Values::Levels(levels) => levels[entries].iter().all(|&l| l == 0),
                    Values::Exact(values) => values[entries].iter().all(|&v| v.to_bits() == 0),
                };
            return if zero { Ok(()) } else { Err(Fault::Order) };
        }
        if i8::try_from(exponent).is_err() {
            return Err(Fault::Exponent);
        }
        if !indices.is_sorted_by(|a, b| a < b) {
            return Err(Fault::Order);
        }
        if indices.last().is_some_and(|&i| usize::from(i) >= plan.grid.chunk_len()) {
            return Err(Fault::Range);
        }
        match &self.values {
            Values::Levels(levels) => {
                let (levels, book) = (&levels[entries], self.format.codebook());
                if levels.iter().any(|&level| book.code(level).is_none()) {
                    return Err(Fault::Code);
                }
                if levels.iter().all(|&level| level == 0) { Err(Fault::Zero) } else { Ok(()) }
            }
            Values::Exact(values) => check_exact(exponent, &values[entries]),
        }
    }
}

/// floor(log2 x) of a positive finite x, not below −128: what an i8 can say.
pub(crate) fn exponent_of(x: f32) -> i16 {
    let bits = x.to_bits();
    let e = match bits >> 23 {
        0 => -118 - bits.leading_zeros() as i16,
        e => e as i16 - 127,
    };
    e.max(-128)
}

fn check_exact(exponent: i16, values: &[f32]) -> std::result::Result<(), Fault> {
    let max = values.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
    if values.iter().any(|v| !v.is_finite()) {
        return Err(Fault::Exponent);
    }
    if max == 0.0 {
        return Err(Fault::Zero);
    }
    if exponent_of(max) == exponent { Ok(()) } else { Err(Fault::Exponent) }
}

/// One group of a payload, located but not read.
struct Group<'a> {
    name: &'a str,
    plan: &'a Plan,
    chunks: Range<usize>,
    e_max: i8,
    bytes: &'a [u8],
}

/// Locates every group by the stated lengths.
fn frame<'a>(format: &'a Format, payload: &'a [u8]) -> Result<Vec<Group<'a>>> {
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

enum ValuesMut<'a> {
    Levels(&'a mut [i8]),
    Exact(&'a mut [f32]),
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
        let values = match &mut values {
            ValuesMut::Levels(levels) => ValuesMut::Levels(&mut levels[entries.clone()]),
            ValuesMut::Exact(values) => ValuesMut::Exact(&mut values[entries.clone()]),
        };
        *exponent = read_chunk(format, group.plan, &mut reader, &mut indices[entries], values)
            .map_err(|fault| fault.at(group.name, group.chunks.start + i))?;
    }
    let (tensor, number) = (|| group.name.to_owned(), group.chunks.start / crate::format::GROUP);
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

/// What is wrong with a chunk, before its place is named.
enum Fault {
    Short,
    Range,
    Order,
    Code,
    Zero,
    Exponent,
}

impl Fault {
    fn at(self, tensor: &str, chunk: usize) -> Error {
        let tensor = tensor.to_owned();
        match self {
            Self::Short => Error::ShortGroup { tensor, chunk },
            Self::Range => Error::IndexRange { tensor, chunk },
            Self::Order => Error::IndexOrder { tensor, chunk },
            Self::Code => Error::UnknownCode { tensor, chunk },
            Self::Zero => Error::ZeroChunk { tensor, chunk },
            Self::Exponent => Error::ChunkExponent { tensor, chunk },
        }
    }
}
