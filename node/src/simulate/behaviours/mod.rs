//! How peers behave: one file each, against [`Behaviour`]. To add one, write a file and name it in [`make`]. Validators'
//! ways are in `validators/`.

mod copycat;
mod data;
mod gradient;
mod mixing;
mod objects;
mod sybil;
#[cfg(test)]
mod tests;
mod timing;
pub(crate) mod tools;
pub(crate) mod validators;

use super::spec::{Kind, SybilForm, Tardy};
use crate::run::conduct::{Act, Behaviour, Draft, Honest};

/// The behaviours of the peers of one entry: one each, or a group that knows of itself.
pub(crate) fn make(kind: &Kind, peers: usize) -> Vec<Box<dyn Behaviour>> {
    let each = |new: &dyn Fn() -> Box<dyn Behaviour>| (0..peers).map(|_| new()).collect();
    match kind.clone() {
        Kind::Honest | Kind::Joiner(..) | Kind::Leaver(_) | Kind::Offline(_) | Kind::Restart(..) => {
            each(&|| Box::new(Honest))
        }
        Kind::Lazy => each(&|| Box::new(data::Lazy)),
        Kind::Idle => each(&|| Box::new(gradient::Idle::default())),
        Kind::Random => each(&|| Box::new(gradient::Random)),
        Kind::Zero => each(&|| Box::new(gradient::Zero)),
        Kind::SignFlip => each(&|| Box::new(gradient::SignFlip)),
        Kind::Noise(x) => each(&|| Box::new(gradient::Noise(x))),
        Kind::Stale(k) => each(&|| Box::new(data::Stale::new(k))),
        Kind::Copycat => each(&|| Box::new(copycat::Copycat::default())),
        Kind::LateCopycat => each(&|| Box::new(copycat::LateCopycat)),
        Kind::EarlyReader => each(&|| Box::new(copycat::EarlyReader::default())),
        Kind::Mixer(own) => each(&|| Box::new(mixing::Mixer { own })),
        Kind::Replayer(own) => each(&|| Box::new(mixing::Replayer { own })),
        Kind::Shuffler => each(&|| Box::new(mixing::Shuffler)),
        Kind::TwoFace => each(&|| Box::new(objects::TwoFace)),
        Kind::Eraser => each(&|| Box::new(timing::Eraser)),
        Kind::Late(Tardy::Commitment) => each(&|| Box::new(timing::Late)),
        Kind::Late(Tardy::Object) => each(&|| Box::new(timing::LateObject)),
        Kind::Absent(p) => each(&|| Box::new(timing::Absent(p))),
        Kind::Malformed => each(&|| Box::new(objects::Malformed)),
        Kind::Concentrate => each(&|| Box::new(objects::Concentrate)),
        Kind::Sybil(SybilForm::Split, _) => each(&|| Box::new(Honest)),
        Kind::Sybil(form, n) => sybil::group(form, n, peers),
    }
}
