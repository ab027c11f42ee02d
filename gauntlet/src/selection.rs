//! Selection of the gather set: whose submissions move θ two windows from now (R§3.4; PROTOCOL section 7.8).
//!
//! Top G = 15 by incentive; open places go to active peers with a positive evaluation, at most ⌈G/3⌉ of them, in the
//! order a block hash gives; before window 20 to any active peer. A function of published state: anyone recomputes it.
//! Where we differ from the reference: the open places were filled in the order of a hash set, or at random by the
//! leader; ours cannot be steered. `reference-2026`: 20 places and 10 in reserve, every second window (R§3.5.12).

use crate::draw::order_key;
use crate::settings::settings;
use crate::{Digest, Hotkey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Windows between the window that selects and the one in which the selection holds (R§1.2 peer_list_window_margin).
pub const SELECTION_DELAY: u64 = 2;

settings! {
    /// Constants of the selection.
    SelectionRules, SelectionPatch {
        /// G: places in the gather set.
        places: u32 = 15, 20;
        /// Places in reserve.
        reserve: u32 = 0, 10;
        /// Most places that unpaid peers may fill: ⌈15/3⌉; the reference fills all.
        open_places: u32 = 5, 20;
        /// Positive evaluations an unpaid peer needs.
        open_positive: u32 = 1, 0;
        /// Before this window unpaid peers may fill all places, evaluated or not: nobody has a score yet.
        free_before: u64 = 20, 0;
        /// A new selection every so many windows.
        every: u64 = 1, 2;
    }
}

/// What the selection knows of an active peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its share of the payout.
    pub incentive: f64,
    /// Evaluations in which it lowered the loss.
    pub positive: u32,
}

/// A gather set, for one window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// The window in which it holds.
    pub window: u64,
    /// Gather set, ascending by hotkey.
    pub gather: Vec<Hotkey>,
    /// Reserve, best first.
    pub reserve: Vec<Hotkey>,
}

/// Selects for `window + 2` at the end of `window`.
pub fn select(
    rules: &SelectionRules,
    window: u64,
    block: &Digest,
    candidates: &BTreeMap<Hotkey, Candidate>,
) -> Selection {
    let mut paid: Vec<(&Hotkey, f64)> =
        candidates.iter().filter(|(_, c)| c.incentive > 0.0).map(|(key, c)| (key, c.incentive)).collect();
    paid.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| order_key(block, a.0).cmp(&order_key(block, b.0))));
    let free = window < rules.free_before;
    let mut open: Vec<&Hotkey> = candidates
        .iter()
        .filter(|(_, c)| c.incentive <= 0.0 && (free || c.positive >= rules.open_positive))
        .map(|(key, _)| key)
        .collect();
    open.sort_by_cached_key(|key| order_key(block, key));
    let places = rules.places as usize;
    let mut ranked: Vec<Hotkey> = paid.iter().map(|(key, _)| **key).collect();
    let vacant = places.saturating_sub(ranked.len());
    let open_places = if free { vacant } else { vacant.min(rules.open_places as usize) };
    ranked.extend(open.into_iter().take(open_places));
    let mut gather: Vec<Hotkey> = ranked.iter().take(places).copied().collect();
    gather.sort();
    let reserve = ranked.into_iter().skip(places).take(rules.reserve as usize).collect();
    Selection { window: window.saturating_add(SELECTION_DELAY), gather, reserve }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Profile;

    fn peers(n: u8, f: impl Fn(u8) -> Candidate) -> BTreeMap<Hotkey, Candidate> {
        (0..n).map(|i| (Hotkey([i; 32]), f(i))).collect()
    }

    #[test]
    fn best_first_then_a_third_of_open_places() {
        let rules = SelectionRules::of(Profile::Paper);
        let candidates = peers(40, |i| Candidate {
            incentive: if i < 8 { 0.1 + f64::from(i) } else { 0.0 },
            positive: u32::from(i % 2),
        });
        let chosen = select(&rules, 50, &Digest([1; 32]), &candidates);
        assert_eq!((chosen.window, chosen.gather.len()), (52, 13), "8 paid and 5 open");
        assert!((0..8).all(|i| chosen.gather.contains(&Hotkey([i; 32]))));
        assert!(
            chosen.gather.iter().all(|key| key.0[0] < 8 || key.0[0] % 2 == 1),
            "open places need a positive one"
        );
        let other = select(&rules, 50, &Digest([2; 32]), &candidates);
        assert_ne!(chosen.gather, other.gather, "the block hash decides over open places");
    }

    #[test]
    fn early_windows_are_free_and_places_are_limited() {
        let rules = SelectionRules::of(Profile::Paper);
        let nobody_paid = peers(40, |_| Candidate { incentive: 0.0, positive: 0 });
        assert_eq!(select(&rules, 19, &Digest([1; 32]), &nobody_paid).gather.len(), 15);
        assert_eq!(select(&rules, 20, &Digest([1; 32]), &nobody_paid).gather.len(), 0);
        let all_paid = peers(40, |i| Candidate { incentive: 1.0 + f64::from(i), positive: 9 });
        let chosen = select(&rules, 90, &Digest([1; 32]), &all_paid);
        assert_eq!(chosen.gather, (25..40).map(|i| Hotkey([i; 32])).collect::<Vec<_>>());
    }

    #[test]
    fn reserve_is_what_comes_next() {
        let rules = SelectionRules::of(Profile::Reference2026);
        let all_paid = peers(40, |i| Candidate { incentive: 1.0 + f64::from(i), positive: 9 });
        let chosen = select(&rules, 90, &Digest([1; 32]), &all_paid);
        assert_eq!(chosen.reserve, (10..20).rev().map(|i| Hotkey([i; 32])).collect::<Vec<_>>());
    }
}
