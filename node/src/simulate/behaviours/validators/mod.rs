//! How validators behave: one file each, against [`Conduct`]. To add one, write a file, name it in [`conduct`], and give it a
//! name to be typed in `../../spec.rs`: in `ValidatorKind`, its `window`, and `VALIDATORS`.

mod equivocating;
mod favouring;
mod forging;
mod forking;
mod garbage;
mod silent;
mod withholding;

use super::super::spec::ValidatorKind;
use crate::run::conduct::{Conduct, Honest, Lead};

/// The conduct of a validator of this kind.
pub(crate) fn conduct(kind: ValidatorKind) -> Box<dyn Conduct> {
    match kind {
        ValidatorKind::Honest
        | ValidatorKind::Offline(_)
        | ValidatorKind::Restart(..)
        // Its store is what fails.
        | ValidatorKind::MuteJudge(_)
        | ValidatorKind::BucketDown(_) => Box::new(Honest),
        ValidatorKind::SilentLeader(from) => Box::new(silent::Silent { from }),
        ValidatorKind::EquivocatingLeader(at) => Box::new(equivocating::Equivocating { at }),
        ValidatorKind::WithholdingLeader(at) => Box::new(withholding::Withholding { at }),
        ValidatorKind::ForkingLeader(at) => Box::new(forking::Forking { at, withheld: None }),
        ValidatorKind::FavouringLeader(from) => Box::new(favouring::Favouring { from }),
        ValidatorKind::ForgingLeader(from) => Box::new(forging::Forging { from }),
        ValidatorKind::GarbageAnchors(from) => Box::new(garbage::GarbageAnchors { from }),
    }
}
