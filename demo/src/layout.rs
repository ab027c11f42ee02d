//! Where each tensor lies in θ: one flat f32 buffer, tensors in ascending UTF-8 name order.

use crate::error::{Error, Result};
use serde::Serialize;
use std::ops::Range;

/// One tensor of θ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorSpec {
    /// Name, for example `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// One or two dimensions, each at least 1, row-major.
    pub shape: Vec<usize>,
    /// Index of its first element in θ.
    pub offset: usize,
}

impl TensorSpec {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its elements in θ.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.numel()
    }
}

/// The tensors of θ, in manifest order, without gaps.
///
/// ```
/// use gauntlet_demo::Layout;
/// let layout = Layout::from_shapes([("norm", vec![64]), ("embed", vec![128, 64])])?;
/// assert_eq!(layout.tensors()[0].name, "embed");
/// assert_eq!(layout.len(), 128 * 64 + 64);
/// # Ok::<(), gauntlet_demo::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layout {
    tensors: Vec<TensorSpec>,
    len: usize,
}

impl Layout {
    /// Checks a list of tensors: ascending names, one or two dimensions, no gap between tensors.
    pub fn new(tensors: Vec<TensorSpec>) -> Result<Self> {
        let mut len = 0_usize;
        for (i, tensor) in tensors.iter().enumerate() {
            let refuse = |reason: String| Err(Error::Layout { tensor: tensor.name.clone(), reason });
            if i > 0 && tensors[i - 1].name >= tensor.name {
                return refuse(format!("must come before `{}`, names ascend", tensors[i - 1].name));
            }
            if !matches!(tensor.shape.len(), 1 | 2) || tensor.shape.contains(&0) {
                return refuse(format!("shape {:?}: one or two dimensions of at least 1", tensor.shape));
            }
            let numel = tensor.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
            let end = numel.and_then(|n| len.checked_add(n));
            let Some(end) = end.filter(|&end| end <= isize::MAX as usize / 4) else {
                return refuse(format!("shape {:?} is too large", tensor.shape));
            };
            if tensor.offset != len {
                return refuse(format!("starts at {}, the tensor before it ends at {len}", tensor.offset));
            }
            len = end;
        }
        Ok(Self { tensors, len })
    }

    /// Sorts tensors by name and lays them out one after the other.
    pub fn from_shapes<N: Into<String>>(shapes: impl IntoIterator<Item = (N, Vec<usize>)>) -> Result<Self> {
        let mut named: Vec<_> = shapes.into_iter().map(|(name, shape)| (name.into(), shape)).collect();
        named.sort();
        let mut offset = 0_usize;
        let mut tensors = Vec::with_capacity(named.len());
        for (name, shape) in named {
            let spec = TensorSpec { name, shape, offset };
            offset = spec.shape.iter().fold(1_usize, |n, &d| n.saturating_mul(d)).saturating_add(offset);
            tensors.push(spec);
        }
        Self::new(tensors)
    }

    /// The tensors in manifest order.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Elements of θ.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Refuses a buffer that does not have one element for each of θ.
    pub(crate) fn check(&self, what: &'static str, found: usize) -> Result<()> {
        if found == self.len { Ok(()) } else { Err(Error::Length { what, expected: self.len, found }) }
    }

    /// The first tensor with a value that is not finite, of one value for each of θ.
    pub(crate) fn first_not_finite(&self, values: &[f32]) -> Option<&TensorSpec> {
        self.tensors.iter().find(|tensor| values[tensor.range()].iter().any(|x| !x.is_finite()))
    }

    /// Refuses a saved momentum that no step could have left.
    pub(crate) fn check_saved(&self, coefficients: &[f32]) -> Result<()> {
        self.check("the saved momentum", coefficients.len())?;
        match self.first_not_finite(coefficients) {
            Some(tensor) => Err(Error::SavedNonFinite { tensor: tensor.name.clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_by_utf8_bytes_and_packs() {
        let layout = Layout::from_shapes([("b", vec![3]), ("B", vec![2, 2]), ("é", vec![1])]).unwrap();
        let names: Vec<_> = layout.tensors().iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["B", "b", "é"]);
        assert_eq!(layout.tensors()[2].range(), 7..8);
    }

    #[test]
    fn refuses_what_is_not_one_flat_buffer() {
        let spec = |name: &str, shape: &[usize], offset| TensorSpec {
            name: name.into(),
            shape: shape.into(),
            offset,
        };
        for tensors in [
            vec![spec("a", &[2], 1)],
            vec![spec("b", &[2], 0), spec("a", &[2], 2)],
            vec![spec("a", &[2], 0), spec("a", &[2], 2)],
            vec![spec("a", &[2, 2, 2], 0)],
            vec![spec("a", &[0], 0)],
            vec![spec("a", &[usize::MAX, 2], 0)],
        ] {
            assert!(matches!(Layout::new(tensors), Err(Error::Layout { .. })));
        }
    }
}
