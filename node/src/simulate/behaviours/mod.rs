//! How peers behave: one file each, against [`Behaviour`]; those that do honest work at other times only need none. To add
//! one, write a file, name it in [`make`], and give it a name to be typed in `../spec.rs`: in `Kind`, where that is read and
//! written, and in `KINDS`. Validators' ways are in `validators/`.

mod absent;
mod concentrate;
mod copycat;
mod early_reader;
mod eraser;
mod idle;
mod late;
mod late_copycat;
mod lazy;
mod malformed;
mod mixer;
mod noise;
mod random;
mod replayer;
mod shuffler;
mod signflip;
mod stale;
mod sybil;
#[cfg(test)]
mod tests;
pub(crate) mod tools;
mod twoface;
pub(crate) mod validators;
mod zero;

use super::spec::{Kind, SybilForm, Tardy};
use crate::run::conduct::{Act, Behaviour, Draft, Honest};

/// The behaviours of the peers of one entry: one each, or a group that knows of itself.
pub(crate) fn make(kind: &Kind, peers: usize) -> Vec<Box<dyn Behaviour>> {
    let each = |new: &dyn Fn() -> Box<dyn Behaviour>| (0..peers).map(|_| new()).collect();
    match kind.clone() {
        Kind::Honest | Kind::Joiner(..) | Kind::Leaver(_) | Kind::Offline(_) | Kind::Restart(..) => {
            each(&|| Box::new(Honest))
        }
        Kind::Lazy => each(&|| Box::new(lazy::Lazy)),
        Kind::Idle => each(&|| Box::new(idle::Idle::default())),
        Kind::Random => each(&|| Box::new(random::Random)),
        Kind::Zero => each(&|| Box::new(zero::Zero)),
        Kind::SignFlip => each(&|| Box::new(signflip::SignFlip)),
        Kind::Noise(x) => each(&|| Box::new(noise::Noise(x))),
        Kind::Stale(k) => each(&|| Box::new(stale::Stale::new(k))),
        Kind::Copycat => each(&|| Box::new(copycat::Copycat::default())),
        Kind::LateCopycat => each(&|| Box::new(late_copycat::LateCopycat)),
        Kind::EarlyReader => each(&|| Box::new(early_reader::EarlyReader::default())),
        Kind::Mixer(own) => each(&|| Box::new(mixer::Mixer { own })),
        Kind::Replayer(own) => each(&|| Box::new(replayer::Replayer { own })),
        Kind::Shuffler => each(&|| Box::new(shuffler::Shuffler)),
        Kind::TwoFace => each(&|| Box::new(twoface::TwoFace)),
        Kind::Eraser => each(&|| Box::new(eraser::Eraser)),
        Kind::Late(Tardy::Commitment) => each(&|| Box::new(late::Late)),
        Kind::Late(Tardy::Object) => each(&|| Box::new(late::LateObject)),
        Kind::Absent(p) => each(&|| Box::new(absent::Absent(p))),
        Kind::Malformed => each(&|| Box::new(malformed::Malformed)),
        Kind::Concentrate => each(&|| Box::new(concentrate::Concentrate)),
        Kind::Sybil(SybilForm::Split, _) => each(&|| Box::new(Honest)),
        Kind::Sybil(form, n) => sybil::group(form, n, peers),
    }
}
