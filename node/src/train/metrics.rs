//! `metrics.jsonl`: one line a step and one a validation, kept whole over a resume.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::files;

/// Name of the file in a run folder.
pub(crate) const FILE: &str = "metrics.jsonl";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Metric {
    /// After an optimizer step.
    Train {
        /// Steps done.
        step: u64,
        /// Tokens trained on so far.
        tokens: u64,
        /// Mean loss of the step's tokens before it, in nats.
        loss: f64,
        /// Learning rate of the step.
        lr: f64,
        /// Norm of the gradient before clipping.
        grad_norm: f64,
        /// Speed of this step.
        tokens_per_s: f64,
        /// DeMo: mean bytes of a worker's payload.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<f64>,
        /// DeMo: mean bits of an index in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bits_per_index: Option<f64>,
    },
    /// A measurement on held-out text.
    Validation {
        /// Steps done.
        step: u64,
        /// Tokens trained on so far.
        tokens: u64,
        /// Mean loss a token, in nats.
        loss: f64,
        /// Loss in bits divided by the bytes of the text measured.
        bits_per_byte: f64,
    },
}

impl Metric {
    fn step(&self) -> u64 {
        match self {
            Self::Train { step, .. } | Self::Validation { step, .. } => *step,
        }
    }
}

/// Appends to the file and remembers everything for the report.
pub(crate) struct Metrics {
    path: PathBuf,
    file: File,
    all: Vec<Metric>,
}

impl Metrics {
    /// Opens the file of a run that stands at `step`: lines of later steps, written after the last
    /// checkpoint and before a crash, are dropped, because those steps run again.
    pub(crate) fn open(run: &Path, step: u64) -> Result<Self> {
        let path = run.join(FILE);
        let all: Vec<Metric> = match fs::read_to_string(&path) {
            // A line a crash cut short does not parse and is dropped with the others.
            Ok(text) => text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let all: Vec<Metric> = all.into_iter().filter(|m| step > 0 && m.step() <= step).collect();
        let mut lines = String::new();
        for metric in &all {
            lines += &(serde_json::to_string(metric)? + "\n");
        }
        files::write(&path, lines)?;
        let cannot = || format!("cannot write {}", path.display());
        let file = OpenOptions::new().append(true).open(&path).with_context(cannot)?;
        Ok(Self { path, file, all })
    }

    /// Adds one line.
    pub(crate) fn add(&mut self, metric: Metric) -> Result<String> {
        let line = serde_json::to_string(&metric)?;
        writeln!(self.file, "{line}").with_context(|| format!("cannot write {}", self.path.display()))?;
        self.all.push(metric);
        Ok(line)
    }

    /// Whether the line of a validation at `step` is there.
    pub(crate) fn validated(&self, step: u64) -> bool {
        let at = |metric: &Metric| matches!(metric, Metric::Validation { step: at, .. } if *at == step);
        self.all.iter().any(at)
    }

    /// All lines of the run.
    pub(crate) fn all(&self) -> &[Metric] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(step: u64) -> Metric {
        Metric::Train {
            step,
            tokens: step * 8,
            loss: 1.5,
            lr: 0.1,
            grad_norm: 2.0,
            tokens_per_s: 3.0,
            bytes: None,
            bits_per_index: None,
        }
    }

    #[test]
    fn a_resume_drops_what_runs_again() {
        let run = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(run.path(), 0).unwrap();
        for step in 1..=5 {
            metrics.add(train(step)).unwrap();
        }
        let path = run.path().join(FILE);
        let torn = fs::read_to_string(&path).unwrap() + "{\"kind\":\"tra";
        fs::write(&path, torn).unwrap();
        let mut metrics = Metrics::open(run.path(), 3).unwrap();
        metrics.add(train(4)).unwrap();
        let steps: Vec<u64> = metrics.all().iter().map(Metric::step).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4);
    }
}
