//! What each rule may be: outside these bounds it means nothing, overflows, or asks for absurd work or memory.

use super::Rules;
use crate::Error;
use crate::evaluation_sample::MIN_RANDOM_SEQUENCES;

/// More peers than any chain has slots for (a uid is a u16).
const PEERS: f64 = 65_536.0;
/// More windows, blocks or evaluations than any run has.
const LONG: f64 = 1e9;
/// Entries of a list of factors or levels.
const LEVELS: usize = 32;

impl Rules {
    /// Refuses values under which the rules mean nothing. Errors: [`Error::Rule`] names the field.
    pub fn check(&self) -> Result<(), Error> {
        if let Some((field, _, low, high)) =
            self.numbers().into_iter().find(|(_, value, low, high)| !(*low..=*high).contains(value))
        {
            return Err(Error::Rule { field, want: format!("in {low}..={high}") });
        }
        let levels = &self.penalty.copy_levels;
        let factors = &self.penalty.missing_factors;
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let lists = [
            (
                "penalty.missing_factors",
                (1..=LEVELS).contains(&factors.len()) && factors.iter().all(|f| share(*f)),
                "one to 32 factors in 0..=1",
            ),
            (
                "penalty.copy_levels",
                levels.len() <= LEVELS
                    && levels.iter().all(|l| share(l.factor) && share(l.from) && f64::from(l.ban) <= LONG)
                    && levels.is_sorted_by(|a, b| a.from < b.from),
                "at most 32, ascending by `from`, with `from` and `factor` in 0..=1",
            ),
            ("overlap.certain", self.overlap.certain >= self.overlap.threshold, "at least overlap.threshold"),
        ];
        match lists.iter().find(|(_, holds, _)| !holds) {
            Some((field, _, want)) => Err(Error::Rule { field, want: (*want).to_owned() }),
            None => Ok(()),
        }
    }

    /// (field, value, least, most) of every number.
    fn numbers(&self) -> Vec<(&'static str, f64, f64, f64)> {
        [self.numbers_of_evaluation(), self.numbers_of_payout(), self.numbers_of_penalties()].concat()
    }

    fn numbers_of_evaluation(&self) -> Vec<(&'static str, f64, f64, f64)> {
        let Self { fast, sync, loss, proof, rating, sample, .. } = self;
        let random = MIN_RANDOM_SEQUENCES as f64;
        vec![
            ("fast.min_sequences", fast.min_sequences.into(), 0.0, LONG),
            ("fast.max_bytes", fast.max_bytes as f64, 0.0, 1e15),
            ("fast.sample", fast.sample.into(), 0.0, PEERS),
            ("fast.unknown_limit", fast.unknown_limit.into(), 1.0, LONG),
            ("fast.recent_windows", fast.recent_windows as f64, 1.0, LONG),
            ("sync.limit", sync.limit, 1e-9, 1e9),
            ("sync.zero_at", sync.zero_at, 1e-9, 1e9),
            ("sync.exponent", sync.exponent, 1e-3, 1e3),
            ("loss.trial_step", loss.trial_step, 1e-9, 1e3),
            ("loss.eval_own_sequences", loss.eval_own_sequences.into(), 1.0, PEERS),
            ("loss.eval_random_sequences", loss.eval_random_sequences.into(), random, PEERS),
            ("proof.decay", proof.decay, 0.0, 0.999_999),
            ("proof.floor", proof.floor, 0.0, 1.0),
            ("proof.floor_after", proof.floor_after.into(), 0.0, LONG),
            ("proof.margin", proof.margin, 0.0, 1.0),
            ("proof.chance", proof.chance, 0.0, 1e3),
            ("proof.chance_early", proof.chance_early, 0.0, 1e3),
            ("rating.mu", rating.mu, -1e6, 1e6),
            ("rating.sigma", rating.sigma, 1e-6, 1e6),
            ("rating.beta", rating.beta, 1e-6, 1e6),
            ("rating.kappa", rating.kappa, 1e-12, 1.0),
            ("rating.tau", rating.tau, 0.0, 1e6),
            ("sample.peers", sample.peers.into(), 2.0, PEERS),
            ("sample.bins", sample.bins.into(), 1.0, PEERS),
        ]
    }

    fn numbers_of_payout(&self) -> Vec<(&'static str, f64, f64, f64)> {
        let Self { score, incentive, selection, .. } = self;
        vec![
            ("score.min_evaluations", score.min_evaluations.into(), 0.0, LONG),
            ("score.full_sequences", score.full_sequences.into(), 0.0, LONG),
            ("score.min_score", score.min_score, 0.0, 1e9),
            ("incentive.exponent", incentive.exponent, 1e-3, 8.0),
            ("incentive.min_share", incentive.min_share, 0.0, 1.0),
            ("incentive.burn", incentive.burn, 0.0, 1.0),
            ("incentive.gather_places", incentive.gather_places.into(), 0.0, PEERS),
            ("incentive.reserve_places", incentive.reserve_places.into(), 0.0, PEERS),
            ("incentive.gather_share", incentive.gather_share, 0.0, 1.0),
            ("incentive.gather_top", incentive.gather_top, 1e-6, 1e6),
            ("incentive.reserve_decay", incentive.reserve_decay, 0.0, 1.0),
            ("incentive.reserve_cap", incentive.reserve_cap, 0.0, 1.0),
            ("selection.places", selection.places.into(), 1.0, PEERS),
            ("selection.reserve", selection.reserve.into(), 0.0, PEERS),
            ("selection.open_places", selection.open_places.into(), 0.0, PEERS),
            ("selection.open_positive", selection.open_positive.into(), 0.0, LONG),
            ("selection.free_before", selection.free_before as f64, 0.0, LONG),
            ("selection.every", selection.every as f64, 1.0, LONG),
        ]
    }

    fn numbers_of_penalties(&self) -> Vec<(&'static str, f64, f64, f64)> {
        let Self { overlap, penalty, .. } = self;
        vec![
            ("overlap.threshold", overlap.threshold, 0.0, 1.0),
            ("overlap.median_factor", overlap.median_factor, 0.0, 1e3),
            ("overlap.median_limit", overlap.median_limit, 0.0, 1.0),
            ("overlap.certain", overlap.certain, 0.0, 2.0),
            ("overlap.exempt_submissions", overlap.exempt_submissions as f64, 0.0, LONG),
            ("overlap.from_step", overlap.from_step as f64, 0.0, LONG),
            ("overlap.replay_windows", overlap.replay_windows as f64, 0.0, LONG),
            ("overlap.own_replay", overlap.own_replay, 1e-6, 2.0),
            ("penalty.factor", penalty.factor, 0.0, 1.0),
            ("penalty.success_floor", penalty.success_floor, 0.0, 1.0),
            ("penalty.miss_history", penalty.miss_history.into(), 0.0, 32.0),
            ("penalty.miss_limit", penalty.miss_limit.into(), 1.0, 32.0),
            ("penalty.ban_windows", penalty.ban_windows.into(), 0.0, LONG),
            ("penalty.inactive_reset", penalty.inactive_reset as f64, 0.0, LONG),
            ("penalty.negative_history", penalty.negative_history.into(), 0.0, 32.0),
            ("penalty.negative_span", penalty.negative_span.into(), 1.0, 32.0),
            ("penalty.negative_factor", penalty.negative_factor, 0.0, 1.0),
            ("penalty.negative_exclude", penalty.negative_exclude.into(), 1.0, LONG),
            ("penalty.negative_place", penalty.negative_place.into(), 1.0, PEERS),
        ]
    }
}
