//! The fast evaluation inside a round: from checks, overlaps and published values to verdicts and penalties.

use super::{Checked, Found, Round, is_miner};
use crate::events::EventKind;
use crate::facts::{CheckFacts, PeerFacts, Reach};
use crate::fast_check::{Check, FailReason};
use crate::history::History;
use crate::overlap::{self, CopyVerdict, Overlap, Standing};
use crate::penalty::{self, PenaltyCause};
use crate::state::PeerState;
use crate::submission::Commitment;
use crate::sync_score::{self, SyncFact, SyncUse};
use crate::{Hotkey, sync_score::SyncRules};
use std::collections::BTreeMap;

impl Round<'_> {
    pub(super) fn judge(&mut self, facts: &CheckFacts) -> Checked {
        let mut checks = self.known_checks(facts);
        self.count_unknown(&mut checks);
        let copies = self.find_copies(&checks, &facts.overlaps);
        for (hotkey, copy) in &copies {
            let reason = if copy.window == self.facts.window {
                FailReason::Copy { of: copy.of }
            } else {
                FailReason::Replay { of: copy.of, window: copy.window }
            };
            checks.insert(*hotkey, Check::Failed(reason));
        }
        self.note(&checks, &copies);
        self.count_misses();
        self.punish(&copies);
        self.sync(&facts.sync);
        self.punish_standing();
        self.accepted = self.gather.iter().filter(|key| self.passed(key)).copied().collect();
        let evaluate = self.drawn.iter().filter(|key| self.passed(key)).copied().collect();
        Checked { accepted: self.accepted.clone(), evaluate }
    }

    fn passed(&self, hotkey: &Hotkey) -> bool {
        self.found.get(hotkey) == Some(&Found::Passed)
    }

    /// What is known of each miner: its commitment first, then its object if somebody looked.
    fn known_checks(&self, facts: &CheckFacts) -> BTreeMap<Hotkey, Check> {
        let known = |(hotkey, peer): (&Hotkey, &PeerFacts)| {
            let check = match peer.commitment {
                Commitment::Absent => Some(Check::Failed(FailReason::NoCommitment)),
                Commitment::Late => Some(Check::Failed(FailReason::LateCommitment)),
                Commitment::Unknown(cause) => Some(Check::Unknown(cause)),
                Commitment::InTime(_) => facts.checks.get(hotkey).copied(),
            };
            Some((*hotkey, check?))
        };
        self.miners().filter_map(known).collect()
    }

    /// Counts unknown windows; a readable one makes one good. From the limit on they are a failure, if the validator's
    /// own bucket and at least half of the other peers could be read: else the fault is on this side (PROTOCOL 7.1).
    /// Not "in a row": a peer that answers every third window would be paid for three and work for one.
    fn count_unknown(&mut self, checks: &mut BTreeMap<Hotkey, Check>) {
        let limit = self.rules.fast.unknown_limit;
        let readable = checks.values().filter(|check| !matches!(check, Check::Unknown(_))).count();
        let others = checks.len().saturating_sub(1);
        let reaching = self.facts.own_storage == Reach::Reached && others > 0 && 2 * readable >= others;
        for (hotkey, check) in checks {
            let Some(peer) = self.state.peers.get_mut(hotkey) else { continue };
            if !matches!(check, Check::Unknown(_)) {
                peer.unknown_debt = peer.unknown_debt.saturating_sub(1);
            } else if reaching {
                peer.unknown_debt = peer.unknown_debt.saturating_add(1).min(limit);
                if peer.unknown_debt >= limit {
                    *check = Check::Failed(FailReason::Unreachable);
                }
            }
        }
    }

    /// Copies among the submissions that are otherwise in order.
    fn find_copies(
        &self,
        checks: &BTreeMap<Hotkey, Check>,
        overlaps: &[Overlap],
    ) -> BTreeMap<Hotkey, CopyVerdict> {
        let passed = |key: &Hotkey| matches!(checks.get(key), Some(Check::Passed { .. }));
        let here = |o: &&Overlap| passed(&o.hotkey) && (o.window < self.facts.window || passed(&o.other));
        let relevant: Vec<Overlap> = overlaps.iter().filter(here).copied().collect();
        let standing = |peer: &PeerState| Standing { commitments: peer.commitments, proof: peer.proof };
        let standing = self.state.peers.iter().map(|(key, peer)| (*key, standing(peer))).collect();
        let context = overlap::Context {
            window: self.facts.window,
            step: self.facts.step,
            run: self.facts.run,
            gather: &self.gather,
            standing: &standing,
        };
        overlap::verdicts(&self.rules.overlap, &context, &relevant)
    }

    fn note(&mut self, checks: &BTreeMap<Hotkey, Check>, copies: &BTreeMap<Hotkey, CopyVerdict>) {
        for (hotkey, check) in checks {
            let Some(peer) = self.state.peers.get_mut(hotkey) else { continue };
            let debt = peer.unknown_debt;
            if matches!(self.facts.peers.get(hotkey).map(|f| f.commitment), Some(Commitment::InTime(_))) {
                peer.last_checked = Some(self.facts.window);
            }
            if let Check::Passed { count } = *check {
                peer.count = count;
            }
            let (found, kind) = match *check {
                Check::Passed { count } => (Found::Passed, EventKind::CheckPassed { hotkey: *hotkey, count }),
                Check::Failed(reason) => {
                    let overlap = copies.get(hotkey).map(|copy| copy.fraction);
                    (Found::Failed(reason), EventKind::CheckFailed { hotkey: *hotkey, reason, overlap })
                }
                Check::Unknown(cause) => {
                    (Found::Unknown, EventKind::CheckUnknown { hotkey: *hotkey, cause, debt })
                }
            };
            self.found.insert(*hotkey, found);
            self.event(kind);
        }
    }

    /// Missing windows in a row, and the history of gather peers. Unknown windows are neither.
    fn count_misses(&mut self) {
        let keep = self.rules.penalty.miss_history;
        for (hotkey, found) in &self.found {
            let Some(peer) = self.state.peers.get_mut(hotkey) else { continue };
            let missing = match found {
                Found::Unknown => continue,
                Found::Passed => false,
                Found::Failed(reason) => reason.is_missing(),
            };
            peer.miss_streak = if missing { peer.miss_streak.saturating_add(1) } else { 0 };
            if keep > 0 && self.gather.contains(hotkey) {
                peer.misses.push(missing, keep);
            }
        }
    }

    fn punish(&mut self, copies: &BTreeMap<Hotkey, CopyVerdict>) {
        let success = self.success();
        let failed = |(key, found): (&Hotkey, &Found)| match found {
            Found::Failed(reason) => Some((*key, *reason)),
            _ => None,
        };
        let failed: Vec<(Hotkey, FailReason)> = self.found.iter().filter_map(failed).collect();
        for (hotkey, reason) in failed {
            let overlap = copies.get(&hotkey).map_or(0.0, |copy| copy.fraction);
            self.sentence(hotkey, reason, success, overlap);
        }
    }

    /// Carries out what a failed check costs.
    pub(super) fn sentence(&mut self, hotkey: Hotkey, reason: FailReason, success: f64, overlap: f64) {
        let Some(peer) = self.state.peers.get_mut(&hotkey) else { return };
        let sentence = penalty::sentence(&self.rules.penalty, reason, peer, success, overlap);
        peer.red_card |= sentence.red_card;
        self.ban(hotkey, sentence.ban);
        self.penalise(hotkey, PenaltyCause::Check(reason), sentence.factor);
    }

    fn ban(&mut self, hotkey: Hotkey, windows: u32) {
        let Some(peer) = self.state.peers.get_mut(&hotkey) else { return };
        if windows > peer.banned {
            peer.banned = windows;
            self.event(EventKind::Banned { hotkey, windows });
        }
    }

    /// Share of the gather peers of which something is known that passed; 1 where nothing is known.
    pub(super) fn success(&self) -> f64 {
        let found: Vec<&Found> = self.gather.iter().filter_map(|key| self.found.get(key)).collect();
        let known = found.iter().filter(|found| ***found != Found::Unknown).count();
        let passed = found.iter().filter(|found| ***found == Found::Passed).count();
        if known == 0 { 1.0 } else { passed as f64 / known as f64 }
    }

    fn sync(&mut self, facts: &BTreeMap<Hotkey, SyncFact>) {
        let rules: &SyncRules = &self.rules.sync;
        for (hotkey, fact) in facts {
            let registered = is_miner(&self.facts, hotkey);
            let Some(peer) = self.state.peers.get_mut(hotkey).filter(|_| registered) else { continue };
            let steps = sync_score::steps_behind(rules, self.facts.learning_rate, fact);
            let factor = sync_score::factor(rules, steps);
            peer.sync = factor;
            self.event(EventKind::Synced { hotkey: *hotkey, steps, factor });
            let behind = steps.is_none_or(|x| x > rules.limit);
            if rules.role == SyncUse::Pays && behind {
                self.penalise(*hotkey, PenaltyCause::Check(FailReason::Behind), self.rules.penalty.factor);
            }
        }
    }

    /// Penalties that rest on more than this window: too often missing, banned, gone for too long.
    fn punish_standing(&mut self) {
        let rules = &self.rules.penalty;
        let miners: Vec<Hotkey> = self.miners().map(|(key, _)| *key).collect();
        for hotkey in miners {
            let Some(peer) = self.state.peers.get_mut(&hotkey) else { continue };
            let full = rules.miss_history > 0 && peer.misses.len() >= rules.miss_history;
            let often = full && peer.misses.count(rules.miss_history) >= rules.miss_limit;
            let gone = peer.absent_streak > rules.inactive_reset;
            if often {
                // The ban pays for these misses; remembered beyond it they would ban again for ever.
                (peer.misses, peer.miss_streak) = (History::default(), 0);
                self.ban(hotkey, rules.ban_windows);
            }
            let banned = self.state.peers.get(&hotkey).is_some_and(|peer| peer.banned > 0);
            let causes = [
                (often, PenaltyCause::OftenMissing),
                (banned, PenaltyCause::Banned),
                (gone, PenaltyCause::Inactive),
            ];
            for (_, cause) in causes.iter().filter(|(holds, _)| *holds) {
                self.penalise(hotkey, *cause, 0.0);
            }
        }
    }
}
