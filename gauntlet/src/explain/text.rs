//! The text form of an explanation.

use super::{CheckResult, Explanation, ProofCause, ProofStep};
use std::fmt;

/// Changes of μ_p that the text shows; the data form has all.
const STEPS_SHOWN: usize = 8;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} in window {}", self.hotkey, self.window)?;
        self.write_share(f)?;
        self.write_score(f)?;
        self.write_evaluation(f)?;
        self.write_check(f)?;
        self.write_standing(f)?;
        self.write_proof(f)?;
        writeln!(f, "  what would raise it")?;
        self.advice.iter().try_for_each(|advice| writeln!(f, "    - {advice}"))
    }
}

impl Explanation {
    fn write_share(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  share           {:.6}", self.share)?;
        if let Some(split) = &self.split {
            let (paid, pool, kept, burn) = (split.paid, split.pool, split.kept, split.burn);
            writeln!(
                f,
                "  split           {paid} peers paid, pool {pool:.6}, kept {kept:.6}, burned {burn:.4}"
            )?;
        }
        let yes = |x: bool| if x { "yes" } else { "no" };
        writeln!(f, "  gather set      in two windows: {}", yes(self.selected))
    }

    fn write_score(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(score) = &self.score else { return writeln!(f, "  PeerScore       none yet") };
        let (proof, rating, sync, work) = (score.proof, score.loss_rating, score.sync, score.work);
        write!(f, "  PeerScore       {:.6} = μ {proof:.6} × LossRating {rating:.6}", score.score)?;
        if sync != 1.0 {
            write!(f, " × sync {sync:.4}")?;
        }
        if work != 1.0 {
            write!(f, " × work {work:.4}")?;
        }
        match score.gate {
            Some(gate) => writeln!(f, ", but nothing is paid: {gate}"),
            None => writeln!(f),
        }
    }

    fn write_evaluation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last_evaluation {
            None => writeln!(f, "  last evaluated  never")?,
            Some(e) => {
                let ago = self.window - e.window;
                writeln!(
                    f,
                    "  last evaluated  window {} ({ago} windows ago), {} in all",
                    e.window, self.evaluations
                )?;
                let l = &e.losses;
                writeln!(
                    f,
                    "    own data      {:.6} → {:.6}: gain {:+.3e}",
                    l.own_before, l.own_after, e.scores.own
                )?;
                let gain = e.scores.random;
                writeln!(
                    f,
                    "    random data   {:.6} → {:.6}: gain {gain:+.3e}",
                    l.random_before, l.random_after
                )?;
            }
        }
        match &self.last_match {
            None => writeln!(f, "  last match      none"),
            Some(m) => writeln!(
                f,
                "  last match      window {}: {}. of {}; μ−3σ {:.4} → {:.4}",
                m.window,
                m.place,
                m.players,
                m.before.loss_rating(),
                m.after.loss_rating()
            ),
        }
    }

    fn write_check(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(line) = &self.last_check else { return writeln!(f, "  last check      none") };
        match line.result {
            CheckResult::Passed { count } => {
                writeln!(f, "  last check      window {}: passed, {count} sequences", line.window)
            }
            CheckResult::Failed(reason) => {
                write!(f, "  last check      window {}: failed: {reason}", line.window)?;
                match line.overlap {
                    Some(overlap) => writeln!(f, ", overlap {overlap:.3}"),
                    None => writeln!(f),
                }
            }
            CheckResult::Unknown(cause) => {
                writeln!(f, "  last check      window {}: unknown: {cause}", line.window)
            }
        }
    }

    fn write_standing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(sync) = &self.last_sync {
            let steps =
                sync.steps.map_or("nothing to compare".to_owned(), |x| format!("{x:.2} steps behind"));
            writeln!(f, "  SyncScore       window {}: {steps}, factor {:.4}", sync.window, sync.factor)?;
        }
        match self.banned_until {
            Some(until) if until > self.window => writeln!(f, "  banned          before window {until}"),
            _ => Ok(()),
        }
    }

    fn write_proof(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = self.proof.len().saturating_sub(STEPS_SHOWN);
        writeln!(f, "  changes of μ    {} in all, the last {}", self.proof.len(), self.proof.len() - hidden)?;
        self.proof.iter().skip(hidden).try_for_each(|step| write_step(f, step))
    }
}

fn write_step(f: &mut fmt::Formatter<'_>, step: &ProofStep) -> fmt::Result {
    write!(f, "    window {:<6} {:+.6} → {:+.6}  ", step.window, step.before, step.after)?;
    match step.cause {
        ProofCause::Evaluated(indicator) => writeln!(f, "evaluated, sign {indicator:+}"),
        ProofCause::Penalty { cause, factor } => writeln!(f, "penalty × {factor}: {cause}"),
    }
}
