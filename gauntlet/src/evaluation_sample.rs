//! Who is evaluated this window, and on which sequences (R§3.2 F; PROTOCOL section 7.3).
//!
//! Peers are drawn without replacement with probability proportional to the windows since their last evaluation. With
//! enough candidates one of `bins` groups of similar LossRating is drawn first: comparing peers of similar strength
//! tells more (R§3.2 F, from v0.2.83). Seed = BLAKE3(run ‖ w ‖ block after the reveal deadline ‖ validator): nobody
//! knows it while submissions are made, and everybody can check the draw afterwards.
//! Where we differ from the reference: its seeds were private and never revealed.
//! A drawn peer that cannot be read keeps its turn: only an evaluation, or a failure, resets its windows.

use crate::draw::Draw;
use crate::settings::settings;
use crate::state::LAST_WINDOW;
use crate::{Digest, Error, Hotkey};

/// Least number of sequences of D_rand: with fewer a LossScore is the sample's, not the peer's (PROTOCOL section 7.3).
pub const MIN_RANDOM_SEQUENCES: usize = 8;

settings! {
    /// Constants of the draw.
    SampleRules, SamplePatch {
        /// Peers evaluated a window (paper 5, later up to 30; R§1.5).
        peers: u32 = 5, 20;
        /// Groups of similar rating; used once there are `bins × peers` candidates.
        bins: u32 = 5, 5;
    }
}

/// A peer that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawable {
    /// Who.
    pub hotkey: Hotkey,
    /// μ − 3σ.
    pub loss_rating: f64,
    /// Windows since it was last evaluated or, before that, first seen; at least 1, at most [`LAST_WINDOW`].
    pub waiting: u64,
}

/// The seed of a validator's draws in a window.
pub fn seed(run: &Digest, window: u64, block: &Digest, validator: &Hotkey) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&run.0).update(&window.to_le_bytes()).update(&block.0).update(&validator.0);
    Digest(hasher.finalize().into())
}

/// The peers to evaluate, in the order drawn.
pub fn peers(rules: &SampleRules, seed: Digest, candidates: &[Drawable]) -> Vec<Hotkey> {
    let mut draw = Draw::new(seed, "peers");
    let mut pool = bin(rules, &mut draw, candidates);
    // Below 2³⁴ each, so no number of candidates that fits in memory overflows the sum.
    pool.iter_mut().for_each(|c| c.waiting = c.waiting.clamp(1, LAST_WINDOW));
    let mut total: u64 = pool.iter().map(|c| c.waiting).sum();
    let mut chosen = Vec::with_capacity(pool.len().min(rules.peers as usize));
    while chosen.len() < rules.peers as usize && !pool.is_empty() {
        let mut at = draw.below(total);
        let index = pool.iter().position(|c| {
            let here = at < c.waiting;
            at = at.saturating_sub(c.waiting);
            here
        });
        let peer = pool.remove(index.unwrap_or(0));
        total -= peer.waiting;
        chosen.push(peer.hotkey);
    }
    chosen
}

/// Positions, among the first `count` sequences of a peer's D_p, on which it is evaluated; ascending.
pub fn own_sequences(seed: Digest, hotkey: &Hotkey, count: u32, sample: u32) -> Vec<u64> {
    Draw::new(seed, &format!("own {hotkey}")).distinct(u64::from(sample), u64::from(count))
}

/// `sample` different sequences of `0..total` for D_rand, none of them in any D_p of the window, in the order drawn.
/// Fewer where hardly any are free: after 64 misses in a row the draw ends.
/// Errors: [`Error::RandomData`] with less than [`MIN_RANDOM_SEQUENCES`] of them.
pub fn random_sequences(
    seed: Digest,
    total: u64,
    sample: u32,
    assigned: impl Fn(u64) -> bool,
) -> Result<Vec<u64>, Error> {
    let mut draw = Draw::new(seed, "random");
    let mut chosen = Vec::new();
    let mut misses = 0;
    while total > 0 && chosen.len() < sample as usize && misses < 64 {
        let id = draw.below(total);
        if chosen.contains(&id) || assigned(id) {
            misses += 1;
        } else {
            misses = 0;
            chosen.push(id);
        }
    }
    if chosen.len() < MIN_RANDOM_SEQUENCES {
        return Err(Error::RandomData { got: chosen.len(), need: MIN_RANDOM_SEQUENCES });
    }
    Ok(chosen)
}

/// One group of similar rating, or everybody where there are too few. The first groups get one more (R§3.2 F).
fn bin(rules: &SampleRules, draw: &mut Draw, candidates: &[Drawable]) -> Vec<Drawable> {
    let (bins, n) = (rules.bins.max(1) as usize, candidates.len());
    let mut sorted = candidates.to_vec();
    if bins == 1 || n < bins.saturating_mul(rules.peers as usize) {
        sorted.sort_by_key(|c| c.hotkey);
        return sorted;
    }
    sorted.sort_by(|a, b| a.loss_rating.total_cmp(&b.loss_rating).then(a.hotkey.cmp(&b.hotkey)));
    let chosen = draw.below(bins as u64) as usize;
    let (size, extra) = (n / bins, n % bins);
    let start = chosen * size + chosen.min(extra);
    sorted.drain(start..start + size + usize::from(chosen < extra)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Profile;
    use std::collections::BTreeMap;

    fn candidates(n: u8) -> Vec<Drawable> {
        let peer = |i: u8| Drawable {
            hotkey: Hotkey([i; 32]),
            loss_rating: f64::from(i),
            waiting: 1 + u64::from(i % 4),
        };
        (0..n).map(peer).collect()
    }

    #[test]
    fn probability_follows_the_windows_waited() {
        let rules = SampleRules { peers: 1, ..SampleRules::of(Profile::Paper) };
        let rules = SampleRules { bins: 1, ..rules };
        let mut counts: BTreeMap<u8, f64> = BTreeMap::new();
        for w in 0..40_000 {
            let seed = seed(&Digest([0; 32]), w, &Digest([1; 32]), &Hotkey([2; 32]));
            *counts.entry(peers(&rules, seed, &candidates(4))[0].0[0]).or_default() += 1.0;
        }
        for (i, count) in counts {
            let expected = 40_000.0 * f64::from(i + 1) / 10.0;
            assert!((count - expected).abs() < 0.05 * expected, "peer {i}: {count} against {expected}");
        }
    }

    #[test]
    fn bins_hold_neighbours_and_cover_everybody() {
        let rules = SampleRules::of(Profile::Paper);
        let mut seen = std::collections::BTreeSet::new();
        for w in 0..400 {
            let seed = seed(&Digest([0; 32]), w, &Digest([1; 32]), &Hotkey([2; 32]));
            let chosen: Vec<u8> = peers(&rules, seed, &candidates(53)).iter().map(|key| key.0[0]).collect();
            let (low, high) = (*chosen.iter().min().unwrap(), *chosen.iter().max().unwrap());
            assert!(chosen.len() == 5 && high - low <= 10, "{chosen:?}");
            seen.extend(chosen);
        }
        assert_eq!(seen.len(), 53);
    }

    #[test]
    fn random_data_avoids_assigned_data() {
        let seed = Digest([3; 32]);
        let ids = random_sequences(seed, 100, 16, |id| id % 2 == 0).unwrap();
        assert!(ids.len() == 16 && ids.iter().all(|id| id % 2 == 1));
        assert_eq!(own_sequences(seed, &Hotkey([1; 32]), 5, 16), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn fewer_than_eight_random_sequences_are_refused() {
        let seed = Digest([3; 32]);
        let from = |total| random_sequences(seed, total, 16, |_| false).map(|ids| ids.len());
        assert_eq!(from(7), Err(Error::RandomData { got: 7, need: 8 }));
        assert_eq!(from(8), Ok(8));
        assert!(random_sequences(seed, 100, 16, |_| true).is_err());
    }

    #[test]
    fn waits_of_any_length_are_drawn_from() {
        let mut candidates = candidates(9);
        candidates.iter_mut().for_each(|c| c.waiting = u64::MAX);
        assert_eq!(peers(&SampleRules::of(Profile::Paper), Digest([3; 32]), &candidates).len(), 5);
        candidates.iter_mut().for_each(|c| c.waiting = 0);
        assert_eq!(peers(&SampleRules::of(Profile::Paper), Digest([3; 32]), &candidates).len(), 5);
    }

    /// Part of the protocol: these draws never change. Computed in Python from their descriptions.
    #[test]
    fn golden() {
        let seed = seed(&Digest([1; 32]), 7, &Digest([2; 32]), &Hotkey([3; 32]));
        assert_eq!(seed.to_string(), "6348bfa3fc70a131458242fe0df7f8076633e80ca9a5b36ea6cb443b076ba281");
        let drawn = peers(&SampleRules::of(Profile::Paper), seed, &candidates(30));
        assert_eq!(drawn, [2, 3, 5, 1, 0].map(|i| Hotkey([i; 32])));
        assert_eq!(
            own_sequences(seed, &Hotkey([4; 32]), 1_000_003, 6),
            [105_867, 124_048, 387_947, 445_888, 475_674, 676_219]
        );
        let random = random_sequences(seed, 1_000_003, 8, |id| id % 2 == 0).unwrap();
        assert_eq!(random, [859_941, 526_885, 572_077, 51_025, 415_715, 403_575, 227_537, 431_627]);
    }
}
