//! Codes: the few signed levels a coefficient may be sent as.
//!
//! A chunk's exponent e = floor(log2 max|v|) sets its unit: level L stands for L · 2^(e−6), so 128 is the next power
//! of two above the largest value. Levels are 1…127; code 0 is *not sent*, code c ≤ n the c-th level, code 2^bits − c
//! its negative; what is left over is unknown. A 1-bit codebook has no zero: code 0 is +, code 1 is −.
//! Values go to the nearest level, halves up; below half the smallest level they become 0 (PROTOCOL 5).

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Largest level.
pub const MAX_LEVEL: i8 = 127;
/// Bits of the measurement codebook that sends f32 values.
pub const EXACT_BITS: u32 = 32;

/// The default: the smallest payload whose loss in training was within the spread of f32 values (docs/log.md).
const DEFAULT_BITS: u32 = 1;
/// Default level of 1 bit: the sign alone. What it stands for cancels, since receivers and the momentum rescale.
const ONE_BIT: [i8; 1] = [1];

/// The manifest's levels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Levels", try_from = "Levels")]
pub struct Codebook {
    bits: u32,
    levels: Vec<i8>,
    /// Level code (1…n, 0 for zero) of a magnitude in half units.
    nearest: Vec<u8>,
    /// Signed level of each code.
    decode: Vec<Option<i8>>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Levels {
    bits: u32,
    levels: Vec<i8>,
}

impl Codebook {
    /// The default levels for 1, 2, 3, 4 or 8 bits, or f32 values for 32.
    pub fn with_bits(bits: u32) -> Result<Self> {
        let levels = match bits {
            1 => ONE_BIT.to_vec(),
            2 => vec![64],
            3 => vec![40, 66, 98],
            4 => vec![20, 34, 48, 62, 78, 96, 116],
            8 => (1..=MAX_LEVEL).collect(),
            EXACT_BITS => Vec::new(),
            _ => {
                return Err(Error::Config {
                    field: "codebook.bits",
                    reason: format!("{bits}: 1, 2, 3, 4, 8, or 32 for f32 values (measurements only)"),
                });
            }
        };
        Self::new(bits, levels)
    }

    /// Positive levels, ascending, at most 2^(bits−1) − 1 of them (one for 1 bit, none for 32).
    pub fn new(bits: u32, levels: Vec<i8>) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Config { field: "codebook.levels", reason });
        let room = match bits {
            1 => 1,
            2..=8 => (1 << (bits - 1)) - 1,
            EXACT_BITS => 0,
            _ => {
                return Err(Error::Config {
                    field: "codebook.bits",
                    reason: format!("{bits}: 1 to 8, or 32"),
                });
            }
        };
        if levels.len() > room || levels.is_empty() != (room == 0) {
            let hold = match room {
                0 => "none".into(),
                1 => "one".into(),
                _ => format!("1 to {room}"),
            };
            let hold = if levels.len() > room && room > 0 { hold + "; more need more bits" } else { hold };
            return refuse(format!("{} levels, and `bits` = {bits} holds {hold}", levels.len()));
        }
        if levels.iter().any(|&l| l < 1) || !levels.is_sorted_by(|a, b| a < b) {
            return refuse(format!("{levels:?}: positive and ascending"));
        }
        Ok(Self::build(bits, levels))
    }

    /// Tables for levels that fit.
    fn build(bits: u32, levels: Vec<i8>) -> Self {
        let decode = (0..if bits <= 8 { 1_usize << bits } else { 0 })
            .map(|code| match code {
                0 | 1 if bits == 1 => Some(if code == 0 { levels[0] } else { -levels[0] }),
                0 => Some(0),
                c if c <= levels.len() => Some(levels[c - 1]),
                c => levels.get((1 << bits) - c - 1).map(|&l| -l),
            })
            .collect();
        let mut book = Self { bits, levels, nearest: Vec::new(), decode };
        book.nearest = (0..=2 * u16::from(MAX_LEVEL.unsigned_abs()) + 1).map(|x| book.nearest(x)).collect();
        book
    }

    /// Bits of a code.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The positive levels, ascending.
    pub fn levels(&self) -> &[i8] {
        &self.levels
    }

    /// True for the measurement codebook of f32 values.
    pub fn is_exact(&self) -> bool {
        self.bits == EXACT_BITS
    }

    /// Number of the level nearest to `half_units`/2 … just below (`half_units`+1)/2; 0 for zero.
    fn nearest(&self, half_units: u16) -> u8 {
        // A midpoint of two levels is a whole number of half units, so a truncated magnitude decides like the
        // magnitude itself; so does half the smallest level, the midpoint to 0.
        let mut below = 0;
        let mut code = u8::from(self.bits == 1);
        for (number, &level) in (1_u8..).zip(&self.levels) {
            if half_units >= below + u16::from(level.unsigned_abs()) {
                code = number;
            }
            below = u16::from(level.unsigned_abs());
        }
        code
    }

    /// The signed level for a value, `scale` = 2^(6−e).
    #[inline]
    pub(crate) fn quantise(&self, value: f32, scale: f64) -> i8 {
        let half_units = (2.0 * scale * f64::from(value).abs()) as usize;
        let number = usize::from(self.nearest[half_units.min(self.nearest.len() - 1)]);
        let Some(&level) = self.levels.get(number.wrapping_sub(1)) else { return 0 };
        if value.is_sign_negative() { -level } else { level }
    }

    /// The code of a signed level.
    pub(crate) fn code(&self, level: i8) -> Option<u32> {
        self.decode.iter().position(|&l| l == Some(level)).map(|code| code as u32)
    }

    /// The signed level of a code, if it has one.
    #[inline]
    pub(crate) fn level(&self, code: u32) -> Option<i8> {
        self.decode.get(code as usize).copied().flatten()
    }

    /// Codes of all signed levels, at `level + 127`; 0 where there is none.
    pub(crate) fn codes(&self) -> Vec<u8> {
        (-MAX_LEVEL..=MAX_LEVEL).map(|level| self.code(level).map_or(0, |code| code as u8)).collect()
    }
}

impl Default for Codebook {
    fn default() -> Self {
        Self::build(DEFAULT_BITS, ONE_BIT.to_vec())
    }
}

impl From<Codebook> for Levels {
    fn from(book: Codebook) -> Self {
        Self { bits: book.bits, levels: book.levels }
    }
}

impl TryFrom<Levels> for Codebook {
    type Error = Error;
    fn try_from(levels: Levels) -> Result<Self> {
        Self::new(levels.bits, levels.levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_level_halves_up_and_zero_below_half_the_smallest() {
        let book = Codebook::new(3, vec![10, 20, 41]).unwrap();
        let quantise = |x: f32| book.quantise(x, 1.0);
        assert_eq!([quantise(4.99), quantise(5.0), quantise(14.99), quantise(15.0)], [0, 10, 10, 20]);
        assert_eq!([quantise(30.49), quantise(30.5), quantise(127.99), quantise(-30.5)], [20, 41, 41, -41]);
        assert_eq!(quantise(-0.0), 0);
    }

    #[test]
    fn one_bit_has_no_zero() {
        let book = Codebook::with_bits(1).unwrap();
        assert_eq!(
            [book.quantise(0.0, 1.0), book.quantise(-0.0, 1.0), book.quantise(-90.0, 1.0)],
            [1, -1, -1]
        );
        assert_eq!([book.level(0), book.level(1)], [Some(1), Some(-1)]);
    }

    #[test]
    fn every_level_has_one_code_and_back() {
        for bits in [1, 2, 3, 4, 5, 6, 7, 8] {
            let book = match Codebook::with_bits(bits) {
                Ok(book) => book,
                Err(_) => Codebook::new(bits, (1..1_i8 << (bits - 1)).collect()).unwrap(),
            };
            for &level in book.levels() {
                for level in [level, -level] {
                    let code = book.code(level).unwrap();
                    assert_eq!(book.level(code), Some(level));
                    assert_eq!(book.quantise(f32::from(level), 1.0), level);
                }
            }
            let known = (0..1_u32 << bits).filter(|&code| book.level(code).is_some()).count();
            assert_eq!(known, 2 * book.levels().len() + usize::from(bits > 1));
        }
        let eight = Codebook::with_bits(8).unwrap();
        assert_eq!((eight.level(128), eight.level(129), eight.level(255)), (None, Some(-127), Some(-1)));
    }

    #[test]
    fn refuses_impossible_levels() {
        for (bits, levels) in [
            (0, vec![1]),
            (9, vec![1]),
            (1, vec![1, 2]),
            (4, vec![]),
            (4, vec![3, 3]),
            (4, vec![0, 1]),
            (2, vec![1, 2]),
        ] {
            assert!(matches!(Codebook::new(bits, levels), Err(Error::Config { .. })));
        }
        assert!(Codebook::with_bits(5).is_err());
    }
}
