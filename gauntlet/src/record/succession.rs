//! Succession: whose turn it is to publish the record (PROTOCOL section 6.0).
//!
//! Validators lead in the order of their stake, ties by hotkey. Who has published nothing at its deadline is skipped:
//! the next in order takes over for as long, and so on, around. A record that a skipped leader publishes later is void.
//! Turns are counted in blocks of the chain, the only clock there is. Stakes are those of the finalised block that
//! opened the window, so everybody has the same order.

use crate::Hotkey;
use std::collections::BTreeMap;

/// Whose turn it is when, in one window.
#[derive(Clone, Copy, Debug)]
pub struct Turns<'a> {
    /// Validators in the order in which they lead it ([`order`]).
    pub order: &'a [Hotkey],
    /// Block in which its record can first be published.
    pub opens: u64,
    /// Blocks of a turn (`record_deadline`).
    pub deadline: u64,
}

impl Turns<'_> {
    /// Who leads at `block` ([`leader`]).
    pub fn leader(&self, block: u64) -> Option<Hotkey> {
        leader(self.order, self.opens, self.deadline, block)
    }
}

/// Validators in the order in which they lead `window`. Those without stake, and those barred from an earlier window on,
/// do not. One that is barred from this very window keeps its turn, which passes without a valid record: the proof may
/// come when others had theirs already, and their turns must not move.
pub fn order(stakes: &BTreeMap<Hotkey, u64>, barred: &BTreeMap<Hotkey, u64>, window: u64) -> Vec<Hotkey> {
    let is_barred = |key: &Hotkey| barred.get(key).is_some_and(|from| window > *from);
    let mut order: Vec<(&Hotkey, u64)> = stakes
        .iter()
        .map(|(key, stake)| (key, *stake))
        .filter(|(key, stake)| *stake > 0 && !is_barred(key))
        .collect();
    order.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    order.into_iter().map(|(key, _)| *key).collect()
}

/// Who leads at `block`, when the record could first be published at `opens` and a turn lasts `deadline` blocks.
/// `None` before that, with nobody to lead, or with a deadline of 0.
pub fn leader(order: &[Hotkey], opens: u64, deadline: u64, block: u64) -> Option<Hotkey> {
    let turn = block.checked_sub(opens)?.checked_div(deadline)?;
    let place = turn.checked_rem(order.len() as u64)?;
    order.get(usize::try_from(place).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Hotkey {
        Hotkey([n; 32])
    }

    #[test]
    fn most_stake_first_and_the_next_after_each_deadline() {
        let stakes = BTreeMap::from([(key(1), 5), (key(2), 9), (key(3), 5), (key(4), 0), (key(5), 7)]);
        let barred = BTreeMap::from([(key(5), 8)]);
        assert_eq!(super::order(&stakes, &barred, 8), [key(2), key(5), key(1), key(3)], "it keeps its turn");
        let order = order(&stakes, &barred, 9);
        assert_eq!(order, [key(2), key(1), key(3)]);
        let at = |block| leader(&order, 100, 4, block);
        assert_eq!(at(99), None);
        assert_eq!(
            [at(100), at(103), at(104), at(108), at(112)].map(Option::unwrap),
            [key(2), key(2), key(1), key(3), key(2)]
        );
        assert_eq!(leader(&[], 0, 4, 1), None);
        assert_eq!(leader(&order, 0, 0, 1), None);
    }
}
