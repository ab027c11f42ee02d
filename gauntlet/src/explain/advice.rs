//! What would raise a peer's share: derived from the gate that is closed, or from the weakest factor.

use super::{CheckResult, Explanation};
use crate::Rules;
use crate::fast_check::{FailReason, UnknownCause};
use crate::peer_score::Gate;
use crate::proof_of_computation::threshold;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One piece of advice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "advice", rename_all = "snake_case")]
pub enum Advice {
    /// Never seen up to this window.
    Register,
    /// The newest check failed.
    FixCheck {
        /// Why.
        reason: FailReason,
        /// When.
        window: u64,
        /// The overlap behind a verdict of copying or re-use, 0..=1.
        overlap: Option<f64>,
    },
    /// The newest check could not read the storage.
    FixStorage {
        /// Why.
        cause: UnknownCause,
        /// When.
        window: u64,
    },
    /// Too few evaluations.
    WaitForEvaluations {
        /// So far.
        have: u32,
        /// Needed.
        need: u32,
    },
    /// μ_p is too low.
    TrainOnAssignedData {
        /// μ_p.
        proof: f64,
        /// What it must reach.
        need: f64,
    },
    /// LossRating is not positive.
    RankHigher {
        /// LossRating.
        loss_rating: f64,
        /// Place in the last match, 1 is best.
        place: u32,
        /// Peers in it.
        players: u32,
    },
    /// Banned until the ban ends.
    WaitOutBan {
        /// The first window after it, if every window is judged.
        until: Option<u64>,
    },
    /// An invalid object; the next evaluation that succeeds clears it.
    SubmitValidObject,
    /// Its published values are too far off.
    CatchUp {
        /// Steps behind; none where it published nothing that compares.
        steps: Option<f64>,
    },
    /// It scores, but its share is below what is paid.
    ShareTooSmall {
        /// PeerScore.
        score: f64,
    },
    /// It is paid; more sequences and better ranks are what is left.
    KeepGoing,
    /// The split of this window is not among the events.
    WindowNotJudged,
}

/// Advice for a peer, most pressing first.
pub(super) fn advise(rules: &Rules, explained: &Explanation) -> Vec<Advice> {
    let seen = explained.joined.is_some() || explained.score.is_some() || explained.last_check.is_some();
    if !seen {
        return vec![Advice::Register];
    }
    let mut advice = Vec::new();
    if explained.split.is_none() {
        advice.push(Advice::WindowNotJudged);
    }
    if let Some(line) = explained.last_check {
        let (window, overlap) = (line.window, line.overlap);
        match line.result {
            CheckResult::Failed(reason) => advice.push(Advice::FixCheck { reason, window, overlap }),
            CheckResult::Unknown(cause) => advice.push(Advice::FixStorage { cause, window }),
            CheckResult::Passed { .. } => {}
        }
    }
    advice.extend(by_score(rules, explained));
    advice
}

fn by_score(rules: &Rules, explained: &Explanation) -> Option<Advice> {
    let need = rules.score.min_evaluations.max(1);
    let too_few = Advice::WaitForEvaluations { have: explained.evaluations, need };
    let Some(score) = &explained.score else { return Some(too_few) };
    let (place, players) = explained.last_match.map_or((0, 0), |m| (m.place, m.players));
    let bar = threshold(&rules.proof, explained.evaluations);
    Some(match score.gate {
        Some(Gate::Banned) => Advice::WaitOutBan { until: explained.banned_until },
        Some(Gate::RedCard) => Advice::SubmitValidObject,
        Some(Gate::TooFewEvaluations) => too_few,
        Some(Gate::ProofNotPositive | Gate::ProofBelowFloor) => {
            Advice::TrainOnAssignedData { proof: score.proof, need: bar }
        }
        Some(Gate::RatingNotPositive) => {
            Advice::RankHigher { loss_rating: score.loss_rating, place, players }
        }
        Some(Gate::OutOfSync) => Advice::CatchUp { steps: explained.last_sync.and_then(|line| line.steps) },
        Some(Gate::BelowMinimum) => Advice::ShareTooSmall { score: score.score },
        None if explained.share > 0.0 => Advice::KeepGoing,
        None => Advice::ShareTooSmall { score: score.score },
    })
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register => write!(f, "this hotkey was not registered in any window up to this one"),
            Self::FixCheck { reason, window, overlap } => {
                write!(f, "its submission of window {window} failed: {reason}")?;
                if let Some(overlap) = overlap {
                    write!(f, ", overlap {overlap:.3}")?;
                }
                write!(f, "; each failure multiplies μ by less than 1")
            }
            Self::FixStorage { cause, window } => {
                write!(
                    f,
                    "its storage could not be read in window {window}: {cause}; too often counts as missing"
                )
            }
            Self::WaitForEvaluations { have, need } => {
                write!(f, "it has {have} of the {need} evaluations it needs before anything is paid")
            }
            Self::TrainOnAssignedData { proof, need } => write!(
                f,
                "μ is {proof:.3} and must reach {need:.3}: its own data must gain more than random data, window after window"
            ),
            Self::RankHigher { loss_rating, place, players } => write!(
                f,
                "LossRating is {loss_rating:.3} and must be above 0: it came {place}. of {players} in its last match; \
                 more sequences a window rank higher"
            ),
            Self::WaitOutBan { until: Some(until) } => {
                write!(f, "it is banned; nothing counts before window {until}")
            }
            Self::WaitOutBan { until: None } => write!(f, "it is banned; nothing counts until the ban ends"),
            Self::SubmitValidObject => {
                write!(f, "its last object was invalid; the next evaluation that succeeds clears it")
            }
            Self::CatchUp { steps: Some(steps) } => {
                write!(f, "its published values are {steps:.1} steps from the common state: catch up")
            }
            Self::CatchUp { steps: None } => {
                write!(f, "it publishes no values that compare with the common state: publish them")
            }
            Self::ShareTooSmall { score } => {
                write!(f, "its PeerScore {score:.4} is too small a part of the whole to be paid")
            }
            Self::KeepGoing => write!(f, "it is paid; better ranks and a higher μ pay more"),
            Self::WindowNotJudged => write!(f, "this window was not judged yet, or its events are missing"),
        }
    }
}
