//! Copies and re-use: peers whose submissions repeat each other's, or what was accepted before (R§3.5.9; PROTOCOL 7.9).
//!
//! Overlap = matching (index, sign) over the 2-D chunks / k, measured by the node. A verdict needs more than
//! max(`threshold`, `median_factor` × median over the pairs of the gather set), because honest peers overlap too: .65
//! during momentum warm-up, .2 at window 9, .08 at 19, .02 at 59. No verdict while that median is above `median_limit`,
//! nor in a peer's first `exempt_submissions`; at `certain` and above there is one always, since honest peers never got
//! near it. Of a cluster one member counts: the one with the highest μ_p, since who repeats another's object cannot show
//! a gain on its own data; then the one with most commitments; then by hash. Drawing lots every window instead would
//! let a copier take half of its victim's windows away.
//! Where we differ from the reference: it blamed the later upload, a time the storage vendor states and a copier can
//! undercut; commit–reveal makes copying inside a window impossible, so a cluster is one owner or a leak.
//! A peer may repeat itself more than others (one momentum), so its own past has a threshold of its own, and none in its
//! first submissions.

use crate::draw::order_key;
use crate::settings::settings;
use crate::{Digest, Hotkey};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

settings! {
    /// Constants of the copy verdict.
    OverlapRules, OverlapPatch {
        /// Least overlap for a verdict.
        threshold: f64 = 0.4, 0.4;
        /// The median of the gather pairs times this is the other bound; 0 is off.
        median_factor: f64 = 3.0, 0.0;
        /// No verdict while the median is above this.
        median_limit: f64 = 0.25, 1.0;
        /// Overlap at which there is a verdict in any case; above 1 is off.
        certain: f64 = 0.95, 2.0;
        /// Commitments of a peer before a verdict below `certain`: momentum warm-up (5) and 10.
        exempt_submissions: u64 = 15, 0;
        /// Outer steps before any verdict below `certain` (R§8.2 row 14).
        from_step: u64 = 0, 20;
        /// Windows back that count as re-use.
        replay_windows: u64 = 3, 3;
        /// Overlap with the own past that counts as re-use.
        own_replay: f64 = 0.9, 0.9;
    }
}

/// The measured overlap of a submission with another one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlap {
    /// Whose submission.
    pub hotkey: Hotkey,
    /// Whose it is compared with.
    pub other: Hotkey,
    /// The window of the other one: this window, or an earlier one in which it was accepted.
    pub window: u64,
    /// Share of equal (index, sign), 0..=1.
    pub fraction: f64,
}

/// Why a submission counts as a copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyVerdict {
    /// The peer that counts.
    pub of: Hotkey,
    /// Window of its submission.
    pub window: u64,
    /// The overlap.
    pub fraction: f64,
}

/// What is remembered of a peer when copies are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Standing {
    /// Windows with a commitment in time, this one included.
    pub commitments: u64,
    /// μ_p.
    pub proof: f64,
}

/// What the verdicts depend on besides the overlaps.
pub struct Context<'a> {
    /// This window.
    pub window: u64,
    /// Outer steps applied so far.
    pub step: u64,
    /// The run, for ties that nothing else decides.
    pub run: Digest,
    /// Peers of the gather set.
    pub gather: &'a BTreeSet<Hotkey>,
    /// What is remembered of each peer.
    pub standing: &'a BTreeMap<Hotkey, Standing>,
}

/// The submissions of this window that do not count, with the reason.
pub fn verdicts(
    rules: &OverlapRules,
    ctx: &Context<'_>,
    overlaps: &[Overlap],
) -> BTreeMap<Hotkey, CopyVerdict> {
    let bound = Bound::of(rules, ctx, overlaps);
    let mut found = BTreeMap::new();
    for o in
        overlaps.iter().filter(|o| o.window < ctx.window && ctx.window - o.window <= rules.replay_windows)
    {
        let own = o.hotkey == o.other;
        let repeats = if own {
            o.fraction >= rules.own_replay && !is_young(rules, ctx, &o.hotkey)
        } else {
            bound.exceeded(rules, ctx, o)
        };
        if repeats {
            worst(&mut found, o.hotkey, CopyVerdict { of: o.other, window: o.window, fraction: o.fraction });
        }
    }
    for (cluster, pairs) in clusters(overlaps.iter().filter(|o| bound.is_copy_pair(rules, ctx, o))) {
        let senior = senior(ctx, &cluster, &found);
        for copy in cluster.iter().filter(|key| **key != senior) {
            let fraction = pairs.iter().filter(|o| o.hotkey == *copy || o.other == *copy);
            let fraction = fraction.map(|o| o.fraction).fold(0.0, f64::max);
            worst(&mut found, *copy, CopyVerdict { of: senior, window: ctx.window, fraction });
        }
    }
    found
}

/// The overlap above which a verdict falls, or none while honest peers overlap too much.
struct Bound(Option<f64>);

impl Bound {
    fn of(rules: &OverlapRules, ctx: &Context<'_>, overlaps: &[Overlap]) -> Self {
        let in_gather = |o: &&Overlap| {
            o.window == ctx.window
                && o.hotkey != o.other
                && ctx.gather.contains(&o.hotkey)
                && ctx.gather.contains(&o.other)
        };
        let mut pairs: Vec<f64> = overlaps.iter().filter(in_gather).map(|o| o.fraction).collect();
        pairs.sort_by(f64::total_cmp);
        let median = if pairs.is_empty() {
            0.0
        } else {
            (pairs[(pairs.len() - 1) / 2] + pairs[pairs.len() / 2]) / 2.0
        };
        let early = ctx.step < rules.from_step || median > rules.median_limit;
        Self((!early).then(|| rules.threshold.max(rules.median_factor * median)))
    }

    fn exceeded(&self, rules: &OverlapRules, ctx: &Context<'_>, overlap: &Overlap) -> bool {
        let young = |key| is_young(rules, ctx, key);
        let judged = !young(&overlap.hotkey) && (overlap.window < ctx.window || !young(&overlap.other));
        overlap.fraction >= rules.certain || judged && self.0.is_some_and(|bound| overlap.fraction >= bound)
    }

    fn is_copy_pair(&self, rules: &OverlapRules, ctx: &Context<'_>, overlap: &Overlap) -> bool {
        overlap.window == ctx.window && overlap.hotkey != overlap.other && self.exceeded(rules, ctx, overlap)
    }
}

/// Whether a peer is in its first submissions. During momentum warm-up nothing is subtracted, so an honest peer repeats
/// itself too (0.9 and more from one window to the next).
fn is_young(rules: &OverlapRules, ctx: &Context<'_>, hotkey: &Hotkey) -> bool {
    ctx.standing.get(hotkey).map_or(0, |s| s.commitments) <= rules.exempt_submissions
}

/// Connected peers, with the pairs that connect them.
fn clusters<'a>(pairs: impl Iterator<Item = &'a Overlap>) -> Vec<(BTreeSet<Hotkey>, Vec<&'a Overlap>)> {
    let mut groups: Vec<(BTreeSet<Hotkey>, Vec<&Overlap>)> = Vec::new();
    for pair in pairs {
        let touches = |group: &(BTreeSet<Hotkey>, Vec<&Overlap>)| {
            group.0.contains(&pair.hotkey) || group.0.contains(&pair.other)
        };
        let (mut joined, apart): (Vec<_>, Vec<_>) = groups.into_iter().partition(touches);
        let mut merged = (BTreeSet::from([pair.hotkey, pair.other]), vec![pair]);
        for (members, pairs) in joined.drain(..) {
            merged.0.extend(members);
            merged.1.extend(pairs);
        }
        groups = apart;
        groups.push(merged);
    }
    groups
}

/// The member that counts: not itself a replay, highest μ_p, most commitments, first by hash.
fn senior(ctx: &Context<'_>, cluster: &BTreeSet<Hotkey>, replays: &BTreeMap<Hotkey, CopyVerdict>) -> Hotkey {
    let standing = |hotkey: &Hotkey| ctx.standing.get(hotkey).copied().unwrap_or_default();
    let first = |a: &&Hotkey, b: &&Hotkey| {
        let (x, y) = (standing(a), standing(b));
        (replays.contains_key(*a).cmp(&replays.contains_key(*b)))
            .then(y.proof.total_cmp(&x.proof))
            .then(y.commitments.cmp(&x.commitments))
            .then_with(|| order_key(&ctx.run, a).cmp(&order_key(&ctx.run, b)))
    };
    cluster.iter().min_by(first).copied().unwrap_or(Hotkey([0; 32]))
}

fn worst(found: &mut BTreeMap<Hotkey, CopyVerdict>, hotkey: Hotkey, verdict: CopyVerdict) {
    let known = found.entry(hotkey).or_insert(verdict);
    if verdict.fraction > known.fraction {
        *known = verdict;
    }
}
