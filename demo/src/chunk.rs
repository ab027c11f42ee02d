//! Chunks: the blocks of a tensor that are transformed and selected on their own.
//!
//! A dimension n is cut into edges of `split(n)` = its largest divisor ≤ the target (64). A matrix `[R, C]` has
//! chunks of h × w at (y·h, x·w), numbered y-major; a vector `[C]` has chunks 1 × w (PROTOCOL 4, DeMo 2411.19870).
//! One row of chunks is a *band*: its elements are contiguous in θ, which makes bands the unit of parallel work.

use std::ops::Range;

/// Largest edge: bases exist for N = 1…64.
pub const MAX_EDGE: usize = 64;
/// Elements of the largest chunk.
pub const MAX_CHUNK: usize = MAX_EDGE * MAX_EDGE;
/// Elements of θ one parallel task covers at least, where the tensor has as many.
const PIECE: usize = 1 << 16;

/// Largest divisor of `n` that is at most `target`.
///
/// ```
/// assert_eq!(gauntlet_demo::chunk::split(1376, 64), 43);
/// ```
pub fn split(n: usize, target: usize) -> usize {
    (1..=target.min(n)).rev().find(|edge| n.is_multiple_of(*edge)).unwrap_or(1)
}

/// How one tensor is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Bands: rows of chunks.
    pub bands: usize,
    /// Chunks in a band.
    pub per_band: usize,
    /// Rows of a chunk.
    pub h: usize,
    /// Columns of a chunk.
    pub w: usize,
}

impl Grid {
    /// Cuts a tensor of one or two dimensions.
    pub fn new(shape: &[usize], target: usize) -> Self {
        match *shape {
            [rows, cols] => {
                let (h, w) = (split(rows, target), split(cols, target));
                Self { bands: rows / h, per_band: cols / w, h, w }
            }
            _ => {
                let len = shape.iter().product();
                let w = split(len, target);
                Self { bands: len / w, per_band: 1, h: 1, w }
            }
        }
    }

    /// Number of chunks.
    pub fn chunks(&self) -> usize {
        self.bands * self.per_band
    }

    /// Elements of a chunk.
    pub fn chunk_len(&self) -> usize {
        self.h * self.w
    }

    /// Elements from one row of the tensor to the next.
    pub fn stride(&self) -> usize {
        self.per_band * self.w
    }

    /// Elements of a band.
    pub fn band_len(&self) -> usize {
        self.h * self.stride()
    }

    /// Bands in parallel tasks of about equal size. Depends on the tensor alone, not on the thread count.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (bands, step) = (self.bands, PIECE.div_ceil(self.band_len()).max(1));
        (0..bands).step_by(step).map(move |first| first..(first + step).min(bands))
    }
}

/// Cuts a slice into consecutive parts of the given lengths.
pub(crate) fn cut<T>(mut rest: &mut [T], lengths: impl IntoIterator<Item = usize>) -> Vec<&mut [T]> {
    lengths
        .into_iter()
        .map(|len| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            part
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_rows_of_one() {
        assert_eq!(Grid::new(&[96], 64), Grid { bands: 2, per_band: 1, h: 1, w: 48 });
        assert_eq!(Grid::new(&[96, 130], 64), Grid { bands: 2, per_band: 5, h: 48, w: 26 });
    }

    #[test]
    fn pieces_cover_every_band_once() {
        for shape in [vec![1], vec![4096], vec![100_000], vec![2048, 2048], vec![127, 64], vec![64, 1 << 20]]
        {
            let grid = Grid::new(&shape, 64);
            let bands: Vec<_> = grid.pieces().flatten().collect();
            assert_eq!(bands, (0..grid.bands).collect::<Vec<_>>());
        }
    }
}
