//! The end of a round: PeerScores, incentives, selection, next state.

use super::{Finished, Outcome, Round};
use crate::Hotkey;
use crate::events::EventKind;
use crate::incentive::{IncentiveForm, Incentives, incentives};
use crate::peer_score::{PeerScore, peer_score, signed_product};
use crate::selection::{Candidate, SELECTION_DELAY, Selection, select};
use crate::state::{FORGOTTEN_AFTER, PeerState};
use std::collections::BTreeMap;

impl Round<'_> {
    pub(super) fn close(mut self) -> Finished {
        let scores = self.score();
        let incentives = self.split(&scores);
        let selection = self.select(&incentives);
        self.serve_bans();
        self.forget();
        let window = self.facts.window;
        self.state.next_window = window + 1;
        self.state.selection = Some(selection.clone());
        let outcome =
            Outcome { window, accepted: self.accepted, scores, incentives, selection, void: self.void };
        Finished { state: self.state, outcome, events: self.events }
    }

    fn score(&mut self) -> BTreeMap<Hotkey, PeerScore> {
        let rules = self.rules;
        let of =
            |key: &Hotkey| self.state.peers.get(key).map(|peer| (peer_score(rules, peer), peer.evaluations));
        let scores: Vec<(Hotkey, (PeerScore, u32))> =
            self.miners().filter_map(|(key, _)| Some((*key, of(key)?))).collect();
        for (hotkey, (score, evaluations)) in &scores {
            if self.scores_before.get(hotkey) != Some(score) {
                self.event(EventKind::Scored { hotkey: *hotkey, score: *score, evaluations: *evaluations });
            }
        }
        scores.into_iter().map(|(hotkey, (score, _))| (hotkey, score)).collect()
    }

    fn split(&mut self, scores: &BTreeMap<Hotkey, PeerScore>) -> Incentives {
        let value = |score: &PeerScore| match self.rules.incentive.form {
            IncentiveForm::MinShift => signed_product(score),
            IncentiveForm::Power | IncentiveForm::Places => Some(score.score),
        };
        let values = scores.iter().filter_map(|(hotkey, score)| Some((*hotkey, value(score)?))).collect();
        let split = incentives(&self.rules.incentive, &values);
        for (hotkey, share) in &split.shares {
            self.event(EventKind::Paid { hotkey: *hotkey, share: *share });
        }
        let (paid, pool, kept, burn) = (split.shares.len() as u32, split.pool, split.kept, split.burn);
        self.event(EventKind::Split { paid, pool, kept, burn });
        split
    }

    /// The gather set of two windows on. Where the profile selects less often, the last one stands until its period
    /// ends; where the window that should have selected was left out, the next one does.
    fn select(&mut self, incentives: &Incentives) -> Selection {
        let window = self.facts.window;
        let rules = &self.rules.selection;
        let period = window - window % rules.every.max(1);
        let selection = match &self.state.selection {
            Some(last) if window > period && last.window >= period.saturating_add(SELECTION_DELAY) => {
                Selection { window: window.saturating_add(SELECTION_DELAY), ..last.clone() }
            }
            _ => select(rules, window, &self.facts.reveal_block, &self.candidates(incentives)),
        };
        self.event(EventKind::Selected { selection: selection.clone() });
        selection
    }

    fn candidates(&self, incentives: &Incentives) -> BTreeMap<Hotkey, Candidate> {
        let penalty = &self.rules.penalty;
        let free = |peer: &PeerState| {
            let excluded = penalty.negative_history > 0 && peer.negative_streak >= penalty.negative_exclude;
            peer.is_active(self.facts.window, self.rules.fast.recent_windows) && peer.banned == 0 && !excluded
        };
        let candidate = |key: &Hotkey| {
            let peer = self.state.peers.get(key).filter(|peer| free(peer))?;
            Some((*key, Candidate { incentive: incentives.share(key), positive: peer.positive }))
        };
        self.miners().filter_map(|(key, _)| candidate(key)).collect()
    }

    /// Drops peers that lost their slot: those that never committed at once, the others a while after they last did.
    fn forget(&mut self) {
        let (window, peers) = (self.facts.window, &self.facts.peers);
        let lately = |peer: &PeerState| {
            peer.last_seen.is_some_and(|seen| window.saturating_sub(seen) < FORGOTTEN_AFTER)
        };
        self.state.peers.retain(|hotkey, peer| peers.contains_key(hotkey) || lately(peer));
    }

    fn serve_bans(&mut self) {
        for peer in self.state.peers.values_mut() {
            peer.banned = peer.banned.saturating_sub(1);
        }
    }
}
