//! What a validator measures of a window: published values, overlaps, losses before and after trial steps (PROTOCOL 7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Result, bail};
use gauntlet::evaluation_sample::{own_sequences, random_sequences};
use gauntlet::fast_check::Check;
use gauntlet::loss_score::{Losses, Marginal, RankBy};
use gauntlet::overlap::Overlap;
use gauntlet::sync_score::SyncFact;
use gauntlet::{Digest, Hotkey};
use gauntlet_demo::{OuterStep, Submission};

use super::stopwatch::Phase;
use super::validator::{Closing, Validator};
use super::{World, reader, values};
use crate::storage::Patience;

impl Validator {
    /// Values of θ that the checked peers published, beside our own.
    pub(super) fn published(
        &self,
        world: &World<'_>,
        closing: &Closing,
    ) -> Result<BTreeMap<Hotkey, SyncFact>> {
        let (me, w, run) = (self.hotkey(), closing.window, world.run);
        let ours = values::of(&self.follower.theta().values, &run.id, &world.opening(w)?);
        let limit = values::LEN as u64;
        let published =
            closing.checks.keys().copied().filter(|hotkey| world.buckets.of(&me, hotkey).is_some());
        let key = |hotkey: &Hotkey| run.keys.values(w, hotkey);
        let found = reader::fetch_all(world, &me, published, key, limit, Patience::default().soon(limit));
        let mut sync = BTreeMap::new();
        for (hotkey, found) in found {
            let fact = match found {
                Ok(found) => {
                    values::open(&found.bytes, &run.id, w, &hotkey).map_or(SyncFact::Missing, |theirs| {
                        SyncFact::Values { ours: ours.clone(), theirs, movement: Vec::new() }
                    })
                }
                // What cannot be read says nothing.
                Err(fault) if fault.unknown().is_some() => continue,
                Err(_) => SyncFact::Missing,
            };
            sync.insert(hotkey, fact);
        }
        Ok(sync)
    }

    /// Overlap of every two objects of this window, and of each with what was accepted lately.
    pub(super) fn overlaps(&self, world: &World<'_>, closing: &Closing) -> Result<Vec<Overlap>> {
        let mut overlaps = Vec::new();
        let w = closing.window;
        let mut add =
            |hotkey: &Hotkey, other: &Hotkey, window, a: &Submission, b: &Submission| -> Result<()> {
                let fraction = a.overlap(b)?;
                overlaps.push(Overlap { hotkey: *hotkey, other: *other, window, fraction });
                Ok(())
            };
        let back = world.run.manifest.gauntlet.overlap.replay_windows;
        for (i, (hotkey, sent)) in closing.objects.iter().enumerate() {
            for (other, earlier) in closing.objects.iter().take(i) {
                add(hotkey, other, w, &sent.submission, &earlier.submission)?;
            }
            for (window, listed) in self.follower.lately().filter(|(v, _)| *v < w && v + back >= w) {
                for (other, earlier) in listed {
                    add(hotkey, other, window, &sent.submission, earlier)?;
                }
            }
        }
        Ok(overlaps)
    }

    /// Losses before and after each peer's trial step, on its own data and on data nobody was given (PROTOCOL 7.3).
    pub(super) fn losses(
        &self,
        world: &mut World<'_>,
        closing: &Closing,
        seed: Digest,
        peers: &[Hotkey],
    ) -> Result<BTreeMap<Hotkey, Losses>> {
        let clock = world.compute.clock().clone();
        clock.during(Phase::Evaluate, || self.measure(world, closing, seed, peers))
    }

    fn measure(
        &self,
        world: &mut World<'_>,
        closing: &Closing,
        seed: Digest,
        peers: &[Hotkey],
    ) -> Result<BTreeMap<Hotkey, Losses>> {
        let run = world.run;
        let (rules, data) = (&run.manifest.gauntlet.loss, &run.corpus.train);
        let opening = world.opening(closing.window)?;
        // Nobody's claim may leave no sequence for a fair comparison: together they keep half of the text from it at most.
        let passed = closing.checks.values().filter(|check| matches!(check, Check::Passed { .. })).count();
        let most = run.sequences / (2 * passed.max(1) as u64);
        let mut given = BTreeSet::new();
        for (hotkey, check) in &closing.checks {
            if let Check::Passed { count } = check {
                let assignment = run.assignment(&opening, hotkey)?;
                let count = u64::from((*count).min(run.manifest.window.max_sequences));
                given.extend((0..count.min(most)).map(|i| assignment.at(i)));
            }
        }
        // A text that is too short for it leaves the window without evaluation, which is nobody's fault.
        let drawn =
            random_sequences(seed, run.sequences, rules.eval_random_sequences, |id| given.contains(&id));
        let Ok(random) = drawn else { return Ok(BTreeMap::new()) };
        let theta = Arc::clone(self.follower.theta());
        let lr = run.learning_rate(theta.steps);
        let mut random_before = None;
        let mut losses = BTreeMap::new();
        for hotkey in peers {
            let Some(sent) = closing.objects.get(hotkey) else { continue };
            let Some(Check::Passed { count }) = closing.checks.get(hotkey) else { continue };
            let assignment = run.assignment(&opening, hotkey)?;
            let count = (*count).min(run.manifest.window.max_sequences);
            let own: Vec<u64> = own_sequences(seed, hotkey, count, rules.eval_own_sequences)
                .into_iter()
                .map(|i| assignment.at(i))
                .collect();
            let random_before = match random_before {
                Some(loss) => loss,
                None => *random_before.insert(world.compute.loss(data, &theta, &random)?),
            };
            let own_before = world.compute.loss(data, &theta, &own)?;
            #[allow(clippy::cast_possible_truncation)] // a factor from the manifest
            let c = rules.trial_step as f32;
            let marginal = match rules.rank_by {
                RankBy::Alone => None,
                RankBy::Marginal => Some(self.marginal(world, closing, hotkey, &random)?),
            };
            let after = world.compute.trial(data, &theta, (&sent.submission, lr, c), &[&own, &random])?;
            let [own_after, random_after] = after.as_slice() else { bail!("two losses are measured") };
            let (own_after, random_after) = (*own_after, *random_after);
            losses.insert(*hotkey, Losses { own_before, own_after, random_before, random_after, marginal });
        }
        Ok(losses)
    }

    /// Loss on D_rand at θ moved by the gather's other objects, before and after the trial step of `hotkey`.
    fn marginal(
        &self,
        world: &mut World<'_>,
        closing: &Closing,
        hotkey: &Hotkey,
        random: &[u64],
    ) -> Result<Marginal> {
        let (run, theta) = (world.run, self.follower.theta());
        let (lr, data) = (run.learning_rate(theta.steps), &run.corpus.train);
        let Some(sent) = closing.objects.get(hotkey) else { bail!("{hotkey}: sent nothing") };
        let others = closing.gather.iter().filter(|other| *other != hotkey);
        let others = others.filter_map(|other| Some((*other, &closing.objects.get(other)?.submission)));
        let others: Vec<(Hotkey, &Submission)> = others.collect();
        let rates = OuterStep { lr, weight_decay: run.demo.weight_decay, min_gather: 1 };
        #[allow(clippy::cast_possible_truncation)] // a factor from the manifest
        let c = run.manifest.gauntlet.loss.trial_step as f32;
        let moved = (others.as_slice(), (&run.demo, &rates));
        let [before, after] = world.compute.marginal(data, theta, moved, (&sent.submission, c), random)?;
        Ok(Marginal { before, after })
    }
}
