//! The primary evaluation inside a round: proof of computation, then the match.

use super::{Found, Round};
use crate::Hotkey;
use crate::events::EventKind;
use crate::fast_check::FailReason;
use crate::loss_score::{LossScores, Losses, scores};
use crate::penalty::{PenaltyCause, too_negative};
use crate::proof_of_computation::{bar, indicator, update};
use crate::rating::{FailedAre, Rating, places, rate};
use crate::state::PeerState;
use std::collections::BTreeMap;

impl Round<'_> {
    pub(super) fn evaluate(&mut self, losses: &BTreeMap<Hotkey, Losses>) {
        let drawn = self.drawn.clone();
        let measured: Vec<(Hotkey, Losses, Option<LossScores>)> = drawn
            .iter()
            .filter(|key| self.found.get(key) == Some(&Found::Passed))
            .filter_map(|key| losses.get(key).map(|l| (*key, *l, scores(&self.rules.loss, l))))
            .collect();
        if !measured.is_empty() && measured.iter().all(|(_, _, scores)| scores.is_none()) {
            self.void = true;
            self.event(EventKind::Void);
            return;
        }
        let gains: Vec<f64> = measured.iter().filter_map(|(_, _, s)| s.map(|s| s.own - s.random)).collect();
        let bar = bar(&self.rules.proof, &gains);
        for (hotkey, losses, scores) in measured {
            match scores {
                Some(scores) => self.prove(hotkey, losses, scores, bar),
                None => {
                    self.found.insert(hotkey, Found::Failed(FailReason::NotFinite));
                    self.sentence(hotkey, FailReason::NotFinite, 1.0, 0.0);
                }
            }
        }
        let failed = self.failed_evaluations(&drawn);
        self.punish_negative();
        self.play(&failed);
    }

    /// One evaluation that gave scores: counters and μ_p.
    fn prove(&mut self, hotkey: Hotkey, losses: Losses, scores: LossScores, bar: f64) {
        let Some(peer) = self.state.peers.get_mut(&hotkey) else { return };
        peer.last_evaluated = Some(self.facts.window);
        peer.evaluations = peer.evaluations.saturating_add(1);
        peer.positive = peer.positive.saturating_add(u32::from(scores.random > 0.0));
        peer.red_card = false;
        let indicator = indicator(scores.own, scores.random, bar);
        let before = peer.proof;
        peer.proof = update(&self.rules.proof, before, indicator);
        let after = peer.proof;
        self.scored.push((hotkey, scores));
        self.event(EventKind::Evaluated { hotkey, losses, scores, bar, indicator, before, after });
    }

    /// Drawn peers that failed by their own fault. They have had their turn.
    fn failed_evaluations(&mut self, drawn: &[Hotkey]) -> Vec<(Hotkey, FailReason)> {
        let mut failed = Vec::new();
        for hotkey in drawn {
            let Some(Found::Failed(reason)) = self.found.get(hotkey).copied() else { continue };
            if let Some(peer) = self.state.peers.get_mut(hotkey) {
                peer.last_evaluated = Some(self.facts.window);
            }
            failed.push((*hotkey, reason));
            self.event(EventKind::EvaluationFailed { hotkey: *hotkey, reason });
        }
        failed
    }

    /// Negative evaluations (profile `reference-2026`; R§3.5.8). Where even the fifth-best score of the match is
    /// negative, the model is to blame and nobody is punished.
    fn punish_negative(&mut self) {
        let rules = &self.rules.penalty;
        let mut ranked: Vec<f64> = self.scored.iter().map(|(_, s)| s.random).collect();
        ranked.sort_by(|a, b| b.total_cmp(a));
        let place = (rules.negative_place.max(1) as usize).min(ranked.len());
        let blame_model = place == 0 || ranked[place - 1] < 0.0;
        if rules.negative_history == 0 || blame_model {
            return;
        }
        for (hotkey, scores) in self.scored.clone() {
            let Some(peer) = self.state.peers.get_mut(&hotkey) else { continue };
            let negative = scores.random < 0.0;
            peer.negatives.push(negative, rules.negative_history);
            peer.negative_streak = if negative { peer.negative_streak.saturating_add(1) } else { 0 };
            if too_negative(rules, peer) {
                self.penalise(hotkey, PenaltyCause::NegativeEvaluations, rules.negative_factor);
            }
        }
    }

    /// The match. Those that were scored are rated by place. Those that failed are last; their rating changes only where
    /// that lowers their LossRating (a tie at the bottom lifts the weaker one). Fewer than two scored: none. Players are
    /// taken in the order of their hotkeys, so the draw's order leaves no trace in the bits.
    fn play(&mut self, failed: &[(Hotkey, FailReason)]) {
        if self.scored.len() < 2 {
            return;
        }
        self.scored.sort_by_key(|(hotkey, _)| *hotkey);
        let scored: Vec<Hotkey> = self.scored.iter().map(|(key, _)| *key).collect();
        let mut last: Vec<(Hotkey, bool)> =
            failed.iter().map(|(key, reason)| (*key, is_copy(*reason))).collect();
        last.sort();
        let opponents = match self.rules.rating.failed {
            FailedAre::Last => Vec::new(),
            FailedAre::Opponents => last.iter().filter(|(_, copy)| !copy).map(|(key, _)| *key).collect(),
        };
        let rated = self.rate_with(&opponents);
        let fallen: Vec<(Hotkey, Rating)> = last
            .iter()
            .map(|(key, _)| match opponents.iter().position(|other| other == key) {
                Some(i) => (*key, rated[scored.len() + i]),
                None => (*key, self.rate_with(&[*key])[scored.len()]),
            })
            .collect();
        let ranks = places(&self.scored.iter().map(|(_, s)| s.rank).collect::<Vec<_>>());
        let players = scored.len() + last.len();
        for ((hotkey, place), rating) in scored.iter().zip(&ranks).zip(&rated) {
            self.set_rating(*hotkey, *place, players, *rating);
        }
        for (hotkey, rating) in fallen {
            let lowers = |p: &PeerState| rating.loss_rating() < p.rating.loss_rating();
            if self.state.peers.get(&hotkey).is_some_and(lowers) {
                self.set_rating(hotkey, scored.len(), players, rating);
            }
        }
    }

    /// Ratings of the scored peers, then of `last`, after a match of just these; `last` tie behind all others.
    fn rate_with(&self, last: &[Hotkey]) -> Vec<Rating> {
        let scored = self.scored.iter().map(|(key, scores)| (key, scores.rank));
        let players: Vec<(&Hotkey, f64)> =
            scored.chain(last.iter().map(|key| (key, f64::NEG_INFINITY))).collect();
        let rating =
            |key: &Hotkey| self.state.peers.get(key).map_or(Rating::new(&self.rules.rating), |p| p.rating);
        let ratings: Vec<Rating> = players.iter().map(|(key, _)| rating(key)).collect();
        let scores: Vec<f64> = players.iter().map(|(_, score)| *score).collect();
        rate(&self.rules.rating, &ratings, &places(&scores))
    }

    fn set_rating(&mut self, hotkey: Hotkey, place: usize, players: usize, after: Rating) {
        let Some(peer) = self.state.peers.get_mut(&hotkey) else { return };
        let before = std::mem::replace(&mut peer.rating, after);
        let (place, players) = (place as u32 + 1, players as u32);
        self.event(EventKind::Rated { hotkey, place, players, before, after });
    }
}

fn is_copy(reason: FailReason) -> bool {
    matches!(reason, FailReason::Copy { .. } | FailReason::Replay { .. })
}
