//! What one peer sends for one window: for each chunk an exponent, and k codes at k ascending indices.
//!
//! A code stands for level · 2^(e−6); 0 is not sent. [`crate::payload`] turns it into bytes and back.

use crate::chunk::cut;
use crate::error::{Error, Result};
use crate::format::{Format, Plan};
use std::ops::Range;
use std::sync::Arc;

/// Exponent of a chunk that sends nothing.
pub const EMPTY: i16 = i16::MIN;

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

/// An exponent and f32 values that belong together.
pub(crate) fn check_exact(exponent: i16, values: &[f32]) -> std::result::Result<(), Fault> {
    let max = values.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
    if values.iter().any(|v| !v.is_finite()) {
        return Err(Fault::Exponent);
    }
    if max == 0.0 {
        return Err(Fault::Zero);
    }
    if exponent_of(max) == exponent { Ok(()) } else { Err(Fault::Exponent) }
}

/// Part of a submission's values, to write.
pub(crate) enum ValuesMut<'a> {
    Levels(&'a mut [i8]),
    Exact(&'a mut [f32]),
}

impl Values {
    /// Consecutive parts of the given lengths.
    pub(crate) fn cut(&mut self, lengths: impl IntoIterator<Item = usize>) -> Vec<ValuesMut<'_>> {
        match self {
            Self::Levels(levels) => cut(levels, lengths).into_iter().map(ValuesMut::Levels).collect(),
            Self::Exact(values) => cut(values, lengths).into_iter().map(ValuesMut::Exact).collect(),
        }
    }
}

impl ValuesMut<'_> {
    /// Some of the entries.
    pub(crate) fn part(&mut self, entries: Range<usize>) -> ValuesMut<'_> {
        match self {
            Self::Levels(levels) => ValuesMut::Levels(&mut levels[entries]),
            Self::Exact(values) => ValuesMut::Exact(&mut values[entries]),
        }
    }
}

/// What is wrong with a chunk, before its place is named.
pub(crate) enum Fault {
    Short,
    Range,
    Order,
    Code,
    Zero,
    Exponent,
}

impl Fault {
    pub(crate) fn at(self, tensor: &str, chunk: usize) -> Error {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponent_is_the_floor_of_the_logarithm_down_to_what_an_i8_says() {
        for e in -128..=127 {
            let power = libm::ldexp(1.0, e.into()) as f32;
            assert_eq!(exponent_of(power), e);
            // Between normal and subnormal numbers too: 2⁻¹²⁶ has its last neighbour below.
            assert_eq!(exponent_of(power.next_up()), e);
            assert_eq!(exponent_of(power.next_down()), (e - 1).max(-128));
        }
        assert_eq!(exponent_of(f32::MAX), 127);
        for subnormal in [1, 2, 0x000f_ffff, 0x001f_ffff] {
            assert_eq!(exponent_of(f32::from_bits(subnormal)), -128);
        }
        // Below 2⁻¹²⁷ and from it on.
        assert_eq!(
            [0x003f_ffff, 0x0040_0000, 0x007f_ffff].map(|x| exponent_of(f32::from_bits(x))),
            [-128, -127, -127]
        );
    }
}
