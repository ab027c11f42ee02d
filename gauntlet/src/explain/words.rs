//! Reasons in words, as they follow a colon. The serialised names are for programs.

use crate::fast_check::{FailReason, UnknownCause};
use crate::peer_score::Gate;
use crate::penalty::PenaltyCause;
use std::fmt;

impl fmt::Display for FailReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCommitment => "no commitment was there at the deadline",
            Self::LateCommitment => "its commitment came too late",
            Self::Absent => "there was no object",
            Self::Unreachable => "it could not be read in too many windows",
            Self::TooEarly => "its object was there before the reveal phase",
            Self::TooLate => "its object came too late",
            Self::TooLarge => "its object is too large",
            Self::Undecodable => "its object does not decode",
            Self::OtherVersion => "its object is of another version of the protocol: it runs another program",
            Self::CommitmentMismatch => "its object is not the one it committed to",
            Self::WrongRun => "its object belongs to another run",
            Self::WrongWindow => "its object belongs to another window",
            Self::WrongHotkey => "its object names another hotkey",
            Self::BadSignature => "its signature does not verify",
            Self::WrongState => "it was trained on another θ",
            Self::TooFewSequences => "it was trained on too few sequences",
            Self::Copy { of } => return write!(f, "it repeats the object of {of}"),
            Self::Replay { of, window } => {
                return write!(f, "it repeats what was accepted in window {window} of {of}");
            }
            Self::NotFinite => "the loss after its trial step is not a number",
            Self::Behind => "its published values are too far off",
        })
    }
}

impl fmt::Display for UnknownCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimeOut => "no answer in time",
            Self::Connection => "no connection",
            Self::RateLimited => "it was asked too often (429)",
            Self::ServerError => "an error of the server (5xx)",
        })
    }
}

impl fmt::Display for PenaltyCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check(reason) => reason.fmt(f),
            Self::OftenMissing => f.write_str("missing in too many windows"),
            Self::Banned => f.write_str("it is banned"),
            Self::Inactive => f.write_str("no commitment for too long"),
            Self::NegativeEvaluations => f.write_str("mostly negative evaluations"),
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Banned => "it is banned",
            Self::RedCard => "its last object was invalid",
            Self::TooFewEvaluations => "too few evaluations",
            Self::ProofNotPositive => "μ is not above 0",
            Self::ProofBelowFloor => "μ is too low",
            Self::RatingNotPositive => "LossRating is not above 0",
            Self::OutOfSync => "its published values are too far off",
            Self::BelowMinimum => "it is below the least that counts",
        })
    }
}
