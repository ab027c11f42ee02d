//! A short history of yes and no, newest first, in one word.

use serde::{Deserialize, Serialize};

/// The last outcomes, up to 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    bits: u32,
    len: u32,
}

impl History {
    /// Adds an outcome and keeps the newest `keep` (at most 32).
    pub fn push(&mut self, outcome: bool, keep: u32) {
        let keep = keep.min(32);
        self.len = self.len.saturating_add(1).min(keep);
        self.bits = (self.bits << 1 | u32::from(outcome)) & mask(self.len);
    }

    /// Whether it holds what [`Self::push`] leaves: at most 32 outcomes, and no bit beyond them.
    pub(crate) fn is_sound(&self) -> bool {
        self.len <= 32 && self.bits & !mask(self.len) == 0
    }

    /// Outcomes kept.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of the newest `span` are yes.
    pub fn count(&self, span: u32) -> u32 {
        (self.bits & mask(span)).count_ones()
    }
}

fn mask(len: u32) -> u32 {
    1_u32.checked_shl(len).map_or(u32::MAX, |bit| bit - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest() {
        let mut history = History::default();
        assert!(history.is_empty());
        for outcome in [true, true, false, true] {
            history.push(outcome, 3);
        }
        assert_eq!((history.len(), history.count(3), history.count(1), history.count(99)), (3, 2, 1, 2));
        for _ in 0..40 {
            history.push(true, 40);
        }
        assert_eq!((history.len(), history.count(32)), (32, 32));
    }
}
