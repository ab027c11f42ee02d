//! Bit streams, least significant bit first, and Rice codes of index gaps.
//!
//! Ascending indices are sent as gaps minus one: g = q·2^r + s as q zeros, a one, then r bits of s. The parameter is
//! the largest r with 2^r·k·10⁶ ≤ 693147·(N−k), 0 if none: 2^r ≈ ln 2 · mean gap (PROTOCOL 5).

/// Rice parameter for `k` indices of `n`; `None` where every index is sent and none is written.
///
/// ```
/// use gauntlet_demo::rice::parameter;
/// assert_eq!((parameter(32, 4096), parameter(64, 4096), parameter(64, 64)), (Some(6), Some(5), None));
/// ```
pub fn parameter(k: usize, n: usize) -> Option<u32> {
    if k >= n {
        return None;
    }
    let (k, room) = (k as u64, 693_147 * (n - k) as u64);
    (0..32).take_while(|&r| (k * 1_000_000) << r <= room).last().or(Some(0))
}

/// Bits that ascending `indices` take.
#[inline]
pub(crate) fn cost(indices: &[u16], r: u32) -> usize {
    let mut next = 0_u32;
    let mut bits = 0;
    for &index in indices {
        bits += ((u32::from(index) - next) >> r) + 1 + r;
        next = u32::from(index) + 1;
    }
    bits as usize
}

/// Writes bits into a slice that is exactly large enough.
pub(crate) struct BitWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    buffer: u64,
    held: u32,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0, buffer: 0, held: 0 }
    }

    /// Appends the low `count` ≤ 32 bits of `value`; the bits above them must be 0.
    #[inline]
    pub(crate) fn put(&mut self, value: u32, count: u32) {
        self.buffer |= u64::from(value) << self.held;
        self.held += count;
        if self.held >= 32 {
            if let Some(bytes) = self.out.get_mut(self.at..self.at + 4) {
                bytes.copy_from_slice(&(self.buffer as u32).to_le_bytes());
            }
            self.at += 4;
            self.buffer >>= 32;
            self.held -= 32;
        }
    }

    /// Appends a Rice code.
    #[inline]
    pub(crate) fn put_rice(&mut self, value: u32, r: u32) {
        let mut zeros = value >> r;
        while zeros >= 32 {
            self.put(0, 32);
            zeros -= 32;
        }
        self.put(1 << zeros, zeros + 1);
        self.put(value & ((1 << r) - 1), r);
    }

    /// Writes what is held; the rest of the last byte is 0. Gives the bytes written.
    pub(crate) fn finish(self) -> usize {
        let len = self.held.div_ceil(8) as usize;
        if let Some(bytes) = self.out.get_mut(self.at..self.at + len) {
            bytes.copy_from_slice(&self.buffer.to_le_bytes()[..len]);
        }
        self.at + len
    }
}

/// Reads bits from a slice; `None` when they run out.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
    buffer: u64,
    held: u32,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, buffer: 0, held: 0 }
    }

    /// Holds at least 56 bits, or all that are left.
    #[inline(always)]
    fn refill(&mut self) {
        if let Some(word) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            // Bits above `held` may be set already: they are the same bits again.
            self.buffer |= u64::from_le_bytes(*word) << self.held;
            let bytes = (63 - self.held) >> 3;
            self.at += bytes as usize;
            self.held += 8 * bytes;
        } else {
            while self.held <= 56 && self.at < self.bytes.len() {
                self.buffer |= u64::from(self.bytes[self.at]) << self.held;
                self.at += 1;
                self.held += 8;
            }
        }
    }

    /// Takes `count` ≤ 32 bits.
    #[inline(always)]
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        self.refill();
        if count > self.held {
            return None;
        }
        let value = self.buffer & ((1 << count) - 1);
        self.skip(count);
        Some(value as u32)
    }

    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.buffer >>= count;
        self.held -= count;
    }

    /// Takes a Rice code of at most `limit`; a larger one gives a value above `limit` without reading it to the end.
    #[inline(always)]
    pub(crate) fn take_rice(&mut self, r: u32, limit: u32) -> Option<u32> {
        self.refill();
        let zeros = self.buffer.trailing_zeros();
        if zeros + 1 + r <= self.held {
            let rest = self.buffer >> zeros >> 1;
            let value = zeros << r | (rest & ((1 << r) - 1)) as u32;
            self.buffer = rest >> r;
            self.held -= zeros + 1 + r;
            return Some(value);
        }
        self.take_long_rice(r, limit)
    }

    #[cold]
    fn take_long_rice(&mut self, r: u32, limit: u32) -> Option<u32> {
        let mut zeros = 0_u32;
        loop {
            self.refill();
            if self.held == 0 {
                return None;
            }
            let run = self.buffer.trailing_zeros().min(self.held);
            zeros += run;
            if zeros > limit >> r {
                return Some(limit + 1);
            }
            if run < self.held {
                self.skip(run);
                self.skip(1);
                return Some(zeros << r | self.take(r)?);
            }
            self.buffer = 0;
            self.held = 0;
        }
    }

    /// Ends reading: true if all that is left is less than a byte of zeros.
    pub(crate) fn is_finished(&mut self) -> Ending {
        self.refill();
        if self.held >= 8 {
            Ending::BytesLeft
        } else if self.buffer & ((1 << self.held) - 1) != 0 {
            Ending::PaddingSet
        } else {
            Ending::Clean
        }
    }
}

/// What follows the last bit read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Fewer than eight zero bits.
    Clean,
    /// Fewer than eight bits, not all zero.
    PaddingSet,
    /// A byte or more.
    BytesLeft,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameter_is_the_largest_that_fits() {
        for n in 1..=4096_u64 {
            for k in 1..n {
                let r = parameter(k as usize, n as usize).unwrap();
                let fits = |r: u32| (1_u64 << r) * k * 1_000_000 <= 693_147 * (n - k);
                assert!((r == 0 || fits(r)) && !fits(r + 1), "{k} of {n}");
            }
        }
        assert_eq!((parameter(5, 5), parameter(9, 5)), (None, None));
    }

    #[test]
    fn a_known_stream() {
        // 3 bits 0b101, then 9 = 2·4 + 1 with r = 2: two zeros, a one, 01.
        let mut out = [0_u8; 1];
        let mut writer = BitWriter::new(&mut out);
        writer.put(0b101, 3);
        writer.put_rice(9, 2);
        assert_eq!(writer.finish(), 1);
        assert_eq!(out, [0b0110_0101]);
    }

    proptest! {
        #[test]
        fn reads_what_was_written(items in prop::collection::vec((0..4096_u32, 0..12_u32, any::<bool>()), 0..200)) {
            let width = |v: u32| 32 - v.leading_zeros();
            let bits: usize = items.iter().map(|&(v, r, rice)| if rice { (v >> r) + 1 + r } else { width(v) } as usize).sum();
            let mut out = vec![0; bits.div_ceil(8)];
            let mut writer = BitWriter::new(&mut out);
            for &(v, r, rice) in &items {
                if rice { writer.put_rice(v, r) } else { writer.put(v, width(v)) }
            }
            prop_assert_eq!(writer.finish(), out.len());
            let mut reader = BitReader::new(&out);
            for &(v, r, rice) in &items {
                prop_assert_eq!(if rice { reader.take_rice(r, 4095) } else { reader.take(width(v)) }, Some(v));
            }
            prop_assert_eq!(reader.is_finished(), Ending::Clean);
        }

        #[test]
        fn a_code_above_the_limit_is_seen(zeros in 0..2000_u32, r in 0..12_u32, limit in 0..4096_u32) {
            let mut out = vec![0; 400];
            let mut writer = BitWriter::new(&mut out);
            writer.put_rice(zeros << r, r);
            writer.finish();
            match BitReader::new(&out).take_rice(r, limit) {
                Some(value) => prop_assert!(value == zeros << r || (value > limit && zeros << r > limit)),
                None => prop_assert!(false),
            }
        }
    }
}
