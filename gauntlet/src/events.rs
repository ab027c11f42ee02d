//! Events: what happened in a round, typed, in order. From them every factor of every payout can be rebuilt.
//!
//! "Why is my reward 0?" is the most common complaint of every incentive network; the answer is computed from these
//! ([`mod@crate::explain`]), never from logs.

use crate::Hotkey;
use crate::fast_check::{FailReason, UnknownCause};
use crate::loss_score::{LossScores, Losses};
use crate::peer_score::PeerScore;
use crate::penalty::PenaltyCause;
use crate::rating::Rating;
use crate::selection::Selection;
use serde::{Deserialize, Serialize};

/// One event of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The window judged.
    pub window: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A hotkey was seen for the first time.
    Joined {
        /// Who.
        hotkey: Hotkey,
    },
    /// The draw of the peers to evaluate.
    Drawn {
        /// Who, in the order drawn.
        hotkeys: Vec<Hotkey>,
    },
    /// The object passed the fast evaluation.
    CheckPassed {
        /// Who.
        hotkey: Hotkey,
        /// Sequences it says it was trained on.
        count: u32,
    },
    /// A check failed.
    CheckFailed {
        /// Who.
        hotkey: Hotkey,
        /// Why.
        reason: FailReason,
        /// The overlap behind a verdict of copying or re-use, 0..=1.
        overlap: Option<f64>,
    },
    /// A ban began, or grew.
    Banned {
        /// Who.
        hotkey: Hotkey,
        /// Judged windows it lasts, this one included.
        windows: u32,
    },
    /// Nothing was known: no effect.
    CheckUnknown {
        /// Who.
        hotkey: Hotkey,
        /// Why.
        cause: UnknownCause,
        /// Unknown windows that readable ones have not made good.
        debt: u32,
    },
    /// μ_p was lowered.
    Penalised {
        /// Who.
        hotkey: Hotkey,
        /// Why.
        cause: PenaltyCause,
        /// Factor on μ_p.
        factor: f64,
        /// μ_p before.
        before: f64,
        /// μ_p after.
        after: f64,
    },
    /// SyncScore was measured.
    Synced {
        /// Who.
        hotkey: Hotkey,
        /// Steps behind; none where nothing compares.
        steps: Option<f64>,
        /// Factor on the PeerScore; 1 where it pays nothing.
        factor: f64,
    },
    /// A peer was evaluated.
    Evaluated {
        /// Who.
        hotkey: Hotkey,
        /// Its losses.
        losses: Losses,
        /// Its scores.
        scores: LossScores,
        /// What own − random had to exceed; 0 by the paper.
        bar: f64,
        /// 1, 0 or −1: whether the assigned data gained more.
        indicator: f64,
        /// μ_p before.
        before: f64,
        /// μ_p after.
        after: f64,
    },
    /// A drawn peer could not be evaluated by its own fault: last in the match.
    EvaluationFailed {
        /// Who.
        hotkey: Hotkey,
        /// Why.
        reason: FailReason,
    },
    /// A rating changed in the match.
    Rated {
        /// Who.
        hotkey: Hotkey,
        /// Place, 1 is best.
        place: u32,
        /// Peers in the match.
        players: u32,
        /// Rating before.
        before: Rating,
        /// Rating after.
        after: Rating,
    },
    /// No loss was finite: nothing counts, it is the model.
    Void,
    /// A PeerScore changed.
    Scored {
        /// Who.
        hotkey: Hotkey,
        /// The score with its factors.
        score: PeerScore,
        /// Evaluations so far.
        evaluations: u32,
    },
    /// A share of the payout.
    Paid {
        /// Who.
        hotkey: Hotkey,
        /// Its share.
        share: f64,
    },
    /// The split of the window.
    Split {
        /// Peers paid.
        paid: u32,
        /// Σ of the raw shares.
        pool: f64,
        /// Part of the pool kept after small shares were dropped.
        kept: f64,
        /// Burned share.
        burn: f64,
    },
    /// The gather set of two windows on.
    Selected {
        /// Who.
        selection: Selection,
    },
}

impl EventKind {
    /// The one peer it concerns, if it is one.
    pub fn hotkey(&self) -> Option<&Hotkey> {
        use EventKind::*;
        match self {
            Joined { hotkey }
            | CheckPassed { hotkey, .. }
            | CheckFailed { hotkey, .. }
            | CheckUnknown { hotkey, .. }
            | Banned { hotkey, .. }
            | Penalised { hotkey, .. }
            | Synced { hotkey, .. }
            | Evaluated { hotkey, .. }
            | EvaluationFailed { hotkey, .. }
            | Rated { hotkey, .. }
            | Scored { hotkey, .. }
            | Paid { hotkey, .. } => Some(hotkey),
            Drawn { .. } | Void | Split { .. } | Selected { .. } => None,
        }
    }
}
