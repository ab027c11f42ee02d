//! Why a peer got what it got: every factor of a payout, rebuilt from the events of a run.
//!
//! "Why is my reward 0?" is the most common complaint of every incentive network, and "when was I last evaluated?" the
//! next. For any hotkey and window: the share and how it follows from the PeerScore, the PeerScore and its factors, the
//! evaluation and the match each factor came from, every change of μ_p, and what would raise the share ([`advice`]).
//! The explanation is computed from events alone; nothing is asked of the validator's state, so whoever has the events
//! has the answer. It serialises (JSON), and prints as text.

use crate::events::{Event, EventKind};
use crate::fast_check::{FailReason, UnknownCause};
use crate::incentive::{IncentiveForm, incentives};
use crate::loss_score::{LossScores, Losses};
use crate::peer_score::PeerScore;
use crate::penalty::PenaltyCause;
use crate::rating::Rating;
use crate::{Hotkey, Rules};
use advice::Advice;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub mod advice;
mod text;
mod words;

/// The explanation of one peer's share in one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who.
    pub hotkey: Hotkey,
    /// The window explained.
    pub window: u64,
    /// When it was first seen; none if never.
    pub joined: Option<u64>,
    /// Its share of the payout.
    pub share: f64,
    /// The split of the window; none if the window was not judged.
    pub split: Option<Split>,
    /// Its PeerScore with the factors, as of the window.
    pub score: Option<PeerScore>,
    /// Evaluations that gave scores, so far.
    pub evaluations: u32,
    /// The newest evaluation.
    pub last_evaluation: Option<Evaluation>,
    /// The newest match that changed its rating.
    pub last_match: Option<Match>,
    /// The newest result of a check.
    pub last_check: Option<CheckLine>,
    /// The newest SyncScore.
    pub last_sync: Option<SyncLine>,
    /// The first window after its newest ban, if every window is judged; none if it never was banned.
    pub banned_until: Option<u64>,
    /// Every change of μ_p so far, oldest first.
    pub proof: Vec<ProofStep>,
    /// Whether it was drawn for evaluation in this window.
    pub drawn: bool,
    /// Whether it is in the gather set of two windows on.
    pub selected: bool,
    /// What would raise its share, most pressing first.
    pub advice: Vec<Advice>,
}

/// The split of a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// Peers paid.
    pub paid: u32,
    /// Σ of the raw shares.
    pub pool: f64,
    /// Part of the pool kept after small shares were dropped.
    pub kept: f64,
    /// Burned share.
    pub burn: f64,
    /// Share that follows from the PeerScore by the incentive's formula; none in the min-shift form, which needs the
    /// scores of all others.
    pub recomputed: Option<f64>,
}

/// An evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Its window.
    pub window: u64,
    /// Losses before and after.
    pub losses: Losses,
    /// LossScores.
    pub scores: LossScores,
    /// What own − random had to exceed.
    pub bar: f64,
    /// 1, 0 or −1.
    pub indicator: f64,
}

/// A match.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// Its window.
    pub window: u64,
    /// Place, 1 is best.
    pub place: u32,
    /// Peers in it.
    pub players: u32,
    /// Rating before.
    pub before: Rating,
    /// Rating after.
    pub after: Rating,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckLine {
    /// Its window.
    pub window: u64,
    /// What came out.
    pub result: CheckResult,
    /// The overlap behind a verdict of copying or re-use, 0..=1.
    pub overlap: Option<f64>,
}

/// A SyncScore.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncLine {
    /// Its window.
    pub window: u64,
    /// Steps behind; none where nothing compares.
    pub steps: Option<f64>,
    /// Factor on the PeerScore; 1 where it pays nothing.
    pub factor: f64,
}

/// What came out of a check.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// It passed.
    Passed {
        /// Sequences the submission says it was trained on.
        count: u32,
    },
    /// It failed.
    Failed(FailReason),
    /// Nothing was known.
    Unknown(UnknownCause),
}

/// A change of μ_p.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProofStep {
    /// Its window.
    pub window: u64,
    /// Why.
    pub cause: ProofCause,
    /// μ_p before.
    pub before: f64,
    /// μ_p after.
    pub after: f64,
}

/// Why μ_p changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofCause {
    /// An evaluation, with its indicator.
    Evaluated(f64),
    /// A penalty.
    Penalty {
        /// Why.
        cause: PenaltyCause,
        /// Factor on μ_p.
        factor: f64,
    },
}

/// Explains a peer's share in `window` from the events of the run so far. Events of later windows are ignored.
pub fn explain(rules: &Rules, events: &[Event], hotkey: Hotkey, window: u64) -> Explanation {
    let mut explanation = empty(hotkey, window);
    let mut scores: BTreeMap<Hotkey, f64> = BTreeMap::new();
    let mut paid: BTreeMap<Hotkey, f64> = BTreeMap::new();
    for event in events.iter().filter(|event| event.window <= window) {
        let now = event.window == window;
        match &event.kind {
            EventKind::Scored { hotkey, score, .. } => {
                scores.insert(*hotkey, score.score);
            }
            EventKind::Paid { hotkey, share } if now => {
                paid.insert(*hotkey, *share);
            }
            EventKind::Split { paid, pool, kept, burn } if now => {
                let (paid, pool, kept, burn) = (*paid, *pool, *kept, *burn);
                explanation.split = Some(Split { paid, pool, kept, burn, recomputed: None });
            }
            EventKind::Drawn { hotkeys } if now => explanation.drawn = hotkeys.contains(&hotkey),
            EventKind::Selected { selection } if now => {
                explanation.selected = selection.gather.contains(&hotkey)
            }
            _ => {}
        }
        if event.kind.hotkey() == Some(&hotkey) {
            explanation.take(event);
        }
    }
    explanation.share = paid.get(&hotkey).copied().unwrap_or(0.0);
    let paid_scores = paid.keys().map(|key| (*key, scores.get(key).copied().unwrap_or(0.0))).collect();
    if let Some(split) = &mut explanation.split {
        split.recomputed = recompute(rules, split, &hotkey, &paid_scores);
    }
    explanation.advice = advice::advise(rules, &explanation);
    explanation
}

impl Explanation {
    /// Takes in an event of this peer.
    fn take(&mut self, event: &Event) {
        let window = event.window;
        match event.kind {
            EventKind::Joined { .. } => self.joined = Some(window),
            EventKind::CheckPassed { count, .. } => self.check(window, CheckResult::Passed { count }, None),
            EventKind::CheckFailed { reason, overlap, .. } => {
                self.check(window, CheckResult::Failed(reason), overlap);
            }
            EventKind::CheckUnknown { cause, .. } => self.check(window, CheckResult::Unknown(cause), None),
            EventKind::EvaluationFailed { reason, .. } => {
                // A failed check is its own reason; what it measured stays.
                let overlap =
                    self.last_check.filter(|line| line.window == window).and_then(|line| line.overlap);
                self.check(window, CheckResult::Failed(reason), overlap);
            }
            EventKind::Synced { steps, factor, .. } => {
                self.last_sync = Some(SyncLine { window, steps, factor })
            }
            EventKind::Banned { windows, .. } => {
                self.banned_until = Some(window.saturating_add(u64::from(windows)));
            }
            EventKind::Penalised { cause, factor, before, after, .. } => {
                self.proof.push(ProofStep {
                    window,
                    cause: ProofCause::Penalty { cause, factor },
                    before,
                    after,
                });
            }
            EventKind::Evaluated { losses, scores, bar, indicator, before, after, .. } => {
                self.evaluations += 1;
                self.last_evaluation = Some(Evaluation { window, losses, scores, bar, indicator });
                self.proof.push(ProofStep { window, cause: ProofCause::Evaluated(indicator), before, after });
            }
            EventKind::Rated { place, players, before, after, .. } => {
                self.last_match = Some(Match { window, place, players, before, after });
            }
            // The count is the state's: right even where the first events of the run are missing.
            EventKind::Scored { score, evaluations, .. } => {
                (self.score, self.evaluations) = (Some(score), evaluations);
            }
            _ => {}
        }
    }

    fn check(&mut self, window: u64, result: CheckResult, overlap: Option<f64>) {
        self.last_check = Some(CheckLine { window, result, overlap });
    }

    /// The last window in which it was evaluated.
    pub fn last_evaluated(&self) -> Option<u64> {
        self.last_evaluation.map(|e| e.window)
    }
}

fn empty(hotkey: Hotkey, window: u64) -> Explanation {
    Explanation {
        hotkey,
        window,
        joined: None,
        share: 0.0,
        split: None,
        score: None,
        evaluations: 0,
        last_evaluation: None,
        last_match: None,
        last_check: None,
        last_sync: None,
        banned_until: None,
        proof: Vec::new(),
        drawn: false,
        selected: false,
        advice: Vec::new(),
    }
}

/// The share by the incentive's formula, from the scores of those paid and the pool.
fn recompute(rules: &Rules, split: &Split, hotkey: &Hotkey, paid: &BTreeMap<Hotkey, f64>) -> Option<f64> {
    let score = paid.get(hotkey).copied().unwrap_or(0.0);
    match rules.incentive.form {
        IncentiveForm::MinShift => None,
        _ if score <= 0.0 => Some(0.0),
        IncentiveForm::Power => {
            let raw = libm::pow(score, rules.incentive.exponent);
            Some(raw / split.pool / split.kept * (1.0 - rules.incentive.burn))
        }
        // Places beyond the paid ones take no part.
        IncentiveForm::Places => Some(incentives(&rules.incentive, paid).share(hotkey)),
    }
}
