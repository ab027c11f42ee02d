//! Where a process's time goes: every moment belongs to one phase, the innermost that has begun.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Part of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Miners' gradients.
    Train,
    /// Gradients to signed objects: momentum, codes, state tag, signature.
    Encode,
    /// Putting commitments.
    Commit,
    /// Putting objects.
    Reveal,
    /// Validators read commitments and objects, check and compare them.
    Read,
    /// Validators' losses, before and after trial steps.
    Evaluate,
    /// Leaders' records, statements, and everybody following, but for what moves θ.
    Record,
    /// The outer step and the hash of θ.
    Apply,
    /// A device's outer step made on the CPU again, to compare.
    Check,
    /// What only a simulation does: held-out losses and the baseline.
    Measure,
    /// All else.
    Rest,
}

/// Seconds of each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Seconds {
    pub(crate) train: f64,
    pub(crate) encode: f64,
    pub(crate) commit: f64,
    pub(crate) reveal: f64,
    pub(crate) read: f64,
    pub(crate) evaluate: f64,
    pub(crate) record: f64,
    pub(crate) apply: f64,
    pub(crate) check: f64,
    pub(crate) measure: f64,
    pub(crate) rest: f64,
}

impl Seconds {
    fn of(&mut self, phase: Phase) -> &mut f64 {
        match phase {
            Phase::Train => &mut self.train,
            Phase::Encode => &mut self.encode,
            Phase::Commit => &mut self.commit,
            Phase::Reveal => &mut self.reveal,
            Phase::Read => &mut self.read,
            Phase::Evaluate => &mut self.evaluate,
            Phase::Record => &mut self.record,
            Phase::Apply => &mut self.apply,
            Phase::Check => &mut self.check,
            Phase::Measure => &mut self.measure,
            Phase::Rest => &mut self.rest,
        }
    }
}

/// A clock that everybody of a process shares.
#[derive(Clone)]
pub(crate) struct Stopwatch(Arc<Mutex<State>>);

struct State {
    phase: Phase,
    since: Instant,
    spent: Seconds,
}

impl State {
    fn enter(&mut self, phase: Phase, now: Instant) -> Phase {
        let passed: Duration = now.saturating_duration_since(self.since);
        *self.spent.of(self.phase) += passed.as_secs_f64();
        self.since = now;
        std::mem::replace(&mut self.phase, phase)
    }
}

impl Stopwatch {
    /// Runs, in [`Phase::Rest`].
    pub(crate) fn start() -> Self {
        let state = State { phase: Phase::Rest, since: Instant::now(), spent: Seconds::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Does `work` in a phase, then goes on with the one before.
    pub(crate) fn during<R>(&self, phase: Phase, work: impl FnOnce() -> R) -> R {
        let before = self.state().enter(phase, Instant::now());
        let result = work();
        self.state().enter(before, Instant::now());
        result
    }

    /// What was spent since the last call.
    pub(crate) fn lap(&self) -> Seconds {
        let mut state = self.state();
        let phase = state.phase;
        state.enter(phase, Instant::now());
        std::mem::take(&mut state.spent)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_belongs_to_the_innermost_phase() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut state = State { phase: Phase::Rest, since: start, spent: Seconds::default() };
        assert_eq!(state.enter(Phase::Train, at(1)), Phase::Rest);
        assert_eq!(state.enter(Phase::Encode, at(3)), Phase::Train);
        assert_eq!(state.enter(Phase::Train, at(7)), Phase::Encode);
        assert_eq!(state.enter(Phase::Rest, at(15)), Phase::Train);
        state.enter(Phase::Rest, at(31));
        let expected = Seconds { train: 10.0, encode: 4.0, rest: 17.0, ..Seconds::default() };
        assert_eq!(state.spent, expected);
    }

    #[test]
    fn a_lap_begins_anew_and_phases_return_where_they_came_from() {
        let clock = Stopwatch::start();
        let inner = clock.during(Phase::Apply, || clock.during(Phase::Check, || clock.state().phase));
        assert_eq!((inner, clock.state().phase), (Phase::Check, Phase::Rest));
        let first = clock.lap();
        assert!(first.apply > 0.0 && first.check > 0.0 && first.train == 0.0);
        assert_eq!(clock.lap().check, 0.0);
    }
}
