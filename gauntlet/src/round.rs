//! A round: one window judged by one validator, as a pure function (state, facts) → (state, outcome, events).
//!
//! `open` draws who is looked at, `fast` judges what was found, `primary` scores the losses, `finish` splits the payout
//! and selects. The order of operations is the reference's (R§3.2 A–L): checks and penalties, proof of
//! computation, rating, PeerScore, incentive, selection. Only μ_p, the rating and counters are kept; PeerScore and
//! incentive follow from them, so nothing can be paid that the state does not explain.
//!
//! Where we differ from the reference, besides what each rule's module says: registered peers without a commitment are
//! penalised every window, not only when sampled, since the window record lists all commitments; a match with a single
//! scored peer is dropped, not carried into the next window, whose losses are on other data.

use crate::evaluation_sample::{Drawable, peers, seed};
use crate::events::{Event, EventKind};
use crate::facts::{CheckFacts, PeerFacts, Role, RoundFacts, WindowFacts};
use crate::fast_check::FailReason;
use crate::incentive::Incentives;
use crate::loss_score::{LossScores, Losses};
use crate::peer_score::{PeerScore, peer_score};
use crate::penalty::{self, PenaltyCause};
use crate::selection::Selection;
use crate::state::{LAST_WINDOW, PeerState, State};
use crate::submission::Commitment;
use crate::{Digest, Error, Hotkey, Rules};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

mod fast;
mod finish;
mod primary;

/// A round in progress.
pub struct Round<'r> {
    rules: &'r Rules,
    state: State,
    facts: WindowFacts,
    seed: Digest,
    gather: BTreeSet<Hotkey>,
    drawn: Vec<Hotkey>,
    found: BTreeMap<Hotkey, Found>,
    scored: Vec<(Hotkey, LossScores)>,
    accepted: Vec<Hotkey>,
    scores_before: BTreeMap<Hotkey, PeerScore>,
    void: bool,
    stage: Stage,
    events: Vec<Event>,
}

/// What the fast evaluation found of a peer. A peer that was not looked at has none.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Found {
    Passed,
    Failed(FailReason),
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Stage {
    Opened,
    Checked,
    Evaluated,
}

/// Whom a validator looks at in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Objects to fetch and check: the gather set, those drawn, and some others in rotation.
    pub fast: Vec<Hotkey>,
    /// Peers to evaluate if their check passes, in the order drawn.
    pub primary: Vec<Hotkey>,
    /// Seed of the sequences to evaluate on ([`crate::evaluation_sample`]).
    pub seed: Digest,
}

/// What the fast evaluation leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Gather peers whose submissions the leader lists in the record; ascending.
    pub accepted: Vec<Hotkey>,
    /// Drawn peers to evaluate, in the order drawn.
    pub evaluate: Vec<Hotkey>,
}

/// The outcome of a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The window judged.
    pub window: u64,
    /// Gather peers whose submissions passed; ascending.
    pub accepted: Vec<Hotkey>,
    /// PeerScores of all registered miners.
    pub scores: BTreeMap<Hotkey, PeerScore>,
    /// The split of the payout.
    pub incentives: Incentives,
    /// The gather set of two windows on.
    pub selection: Selection,
    /// No loss was finite: the primary evaluation did not count.
    pub void: bool,
}

/// A round that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// State for the next window.
    pub state: State,
    /// What follows from this one.
    pub outcome: Outcome,
    /// Why.
    pub events: Vec<Event>,
}

/// Judges a whole round from its facts. Errors: as the steps of [`Round`].
pub fn replay(rules: &Rules, state: State, facts: &RoundFacts) -> Result<Finished, Error> {
    let mut round = Round::open(rules, state, facts.window.clone())?;
    round.fast(&facts.checks)?;
    round.primary(&facts.losses)?;
    round.finish()
}

impl<'r> Round<'r> {
    /// Opens a round and draws whom to look at. `rules` have passed [`Rules::check`].
    /// Errors: [`Error::WindowJudged`] for a window before `state.next_window`; windows may be left out.
    /// [`Error::WindowLimit`] for one beyond [`LAST_WINDOW`].
    pub fn open(rules: &'r Rules, state: State, facts: WindowFacts) -> Result<Self, Error> {
        if facts.window > LAST_WINDOW {
            return Err(Error::WindowLimit { window: facts.window, last: LAST_WINDOW });
        }
        if facts.window < state.next_window {
            return Err(Error::WindowJudged { window: facts.window, next: state.next_window });
        }
        let seed = seed(&facts.run, facts.window, &facts.reveal_block, &facts.validator);
        let gather = facts.gather.iter().filter(|key| is_miner(&facts, key)).copied().collect();
        let mut round = Self {
            rules,
            state,
            facts,
            seed,
            gather,
            drawn: Vec::new(),
            found: BTreeMap::new(),
            scored: Vec::new(),
            accepted: Vec::new(),
            scores_before: BTreeMap::new(),
            void: false,
            stage: Stage::Opened,
            events: Vec::new(),
        };
        round.meet();
        round.draw();
        Ok(round)
    }

    /// Whom to look at: a function of public values.
    pub fn plan(&self) -> Plan {
        let mut others: Vec<(Option<u64>, Hotkey)> = self
            .miners()
            .filter(|(key, peer)| committed(peer) && !self.gather.contains(key) && !self.drawn.contains(key))
            .map(|(key, _)| (self.state.peers.get(key).and_then(|p| p.last_checked), *key))
            .collect();
        others.sort();
        let rotation = others.into_iter().map(|(_, key)| key).take(self.rules.fast.sample as usize);
        let fast: BTreeSet<Hotkey> = self.gather.iter().chain(&self.drawn).copied().chain(rotation).collect();
        Plan { fast: fast.into_iter().collect(), primary: self.drawn.clone(), seed: self.seed }
    }

    /// Takes the results of the fast evaluation and applies its penalties. Errors: [`Error::RoundOrder`].
    pub fn fast(&mut self, facts: &CheckFacts) -> Result<Checked, Error> {
        self.expect(Stage::Opened, "fast")?;
        self.stage = Stage::Checked;
        Ok(self.judge(facts))
    }

    /// Takes the losses of the peers that were evaluated. Drawn peers without losses are left as they are.
    /// Errors: [`Error::RoundOrder`]; [`Error::NotDrawn`] for losses of another peer; [`Error::RandomLoss`] where
    /// `random_before` is not one value, as it is measured once for all.
    pub fn primary(&mut self, losses: &BTreeMap<Hotkey, Losses>) -> Result<(), Error> {
        self.expect(Stage::Checked, "primary")?;
        if let Some(hotkey) = losses.keys().find(|key| !self.drawn.contains(key)) {
            return Err(Error::NotDrawn { hotkey: *hotkey, window: self.facts.window });
        }
        let first = losses.values().next().map(|l| l.random_before);
        let other = |x: f64| first.is_some_and(|y| x != y && (x.is_finite() || y.is_finite()));
        if let Some((hotkey, _)) = losses.iter().find(|(_, l)| other(l.random_before)) {
            return Err(Error::RandomLoss { hotkey: *hotkey });
        }
        self.stage = Stage::Evaluated;
        self.evaluate(losses);
        Ok(())
    }

    /// Splits the payout, selects, and gives the next state. Errors: [`Error::RoundOrder`].
    pub fn finish(self) -> Result<Finished, Error> {
        self.expect(Stage::Evaluated, "finish")?;
        Ok(self.close())
    }

    /// Enters newcomers and counts commitments.
    fn meet(&mut self) {
        let window = self.facts.window;
        for (hotkey, facts) in self.facts.peers.iter().filter(|(_, facts)| facts.role == Role::Miner) {
            if !self.state.peers.contains_key(hotkey) {
                self.state.peers.insert(*hotkey, PeerState::new(&self.rules.rating, window));
                self.events.push(Event { window, kind: EventKind::Joined { hotkey: *hotkey } });
            }
            if let Some(peer) = self.state.peers.get_mut(hotkey) {
                self.scores_before.insert(*hotkey, peer_score(self.rules, peer));
                match facts.commitment {
                    Commitment::InTime(_) => {
                        peer.last_seen = Some(window);
                        peer.commitments = peer.commitments.saturating_add(1);
                        peer.absent_streak = 0;
                    }
                    Commitment::Late | Commitment::Absent => {
                        peer.absent_streak = peer.absent_streak.saturating_add(1);
                    }
                    Commitment::Unknown(_) => {}
                }
            }
        }
    }

    fn draw(&mut self) {
        let window = self.facts.window;
        let drawable = |(hotkey, facts): (&Hotkey, &PeerFacts)| {
            let peer = self.state.peers.get(hotkey)?;
            let free = committed(facts) && peer.banned == 0;
            let (loss_rating, waiting) = (peer.rating.loss_rating(), peer.waiting(window));
            free.then_some(Drawable { hotkey: *hotkey, loss_rating, waiting })
        };
        let candidates: Vec<Drawable> = self.miners().filter_map(drawable).collect();
        self.drawn = peers(&self.rules.sample, self.seed, &candidates);
        self.event(EventKind::Drawn { hotkeys: self.drawn.clone() });
    }

    fn miners(&self) -> impl Iterator<Item = (&Hotkey, &PeerFacts)> {
        self.facts.peers.iter().filter(|(_, facts)| facts.role == Role::Miner)
    }

    /// Lowers μ_p, if it is positive, and says so.
    fn penalise(&mut self, hotkey: Hotkey, cause: PenaltyCause, factor: f64) {
        let Some(peer) = self.state.peers.get_mut(&hotkey) else { return };
        let before = peer.proof;
        peer.proof = penalty::apply(before, factor);
        if peer.proof < before {
            let after = peer.proof;
            self.event(EventKind::Penalised { hotkey, cause, factor, before, after });
        }
    }

    fn event(&mut self, kind: EventKind) {
        self.events.push(Event { window: self.facts.window, kind });
    }

    fn expect(&self, stage: Stage, step: &'static str) -> Result<(), Error> {
        if self.stage == stage { Ok(()) } else { Err(Error::RoundOrder { step }) }
    }
}

fn is_miner(facts: &WindowFacts, hotkey: &Hotkey) -> bool {
    facts.peers.get(hotkey).is_some_and(|peer| peer.role == Role::Miner)
}

fn committed(peer: &PeerFacts) -> bool {
    matches!(peer.commitment, Commitment::InTime(_))
}
