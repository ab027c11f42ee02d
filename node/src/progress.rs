//! Progress on a terminal: bars on standard error, which stay away where nobody looks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gauntlet_data::{Advance, Phase, Progress, Totals};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::output::note;

/// Set by the first Ctrl-C (or SIGTERM); long work looks at it often and ends with its state saved.
static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Signals closer than this are one: a terminal or `timeout` may send to the program and to its group.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// Whether the user asked to stop.
pub(crate) fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Makes the first Ctrl-C a request and the second one final.
pub(crate) fn catch_signals() -> anyhow::Result<()> {
    let mut first = None;
    ctrlc::set_handler(move || match first {
        None => {
            first = Some(Instant::now());
            STOP.store(true, Ordering::Relaxed);
            note("\nstopping; once more to stop without saving");
        }
        Some(first) if first.elapsed() < ONE_SIGNAL => {}
        Some(_) => std::process::exit(130),
    })?;
    Ok(())
}

/// A bar over `len` with the given template (hidden where standard error is no terminal).
pub(crate) fn bar(len: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(len);
    // The templates are constants of this program; a wrong one shows as the default style.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Time between two lines where there is no bar.
const BETWEEN_LINES: Duration = Duration::from_secs(20);

/// Bar over the bytes of the files being prepared, read or copied; where nobody looks at a bar, a line now and then.
pub(crate) struct Preparing {
    bar: ProgressBar,
    said: Mutex<Instant>,
}

impl Preparing {
    pub(crate) fn new() -> Self {
        let bar = bar(0, "{msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}");
        Self { bar, said: Mutex::new(Instant::now()) }
    }

    /// Whether a line is due at `now`, which then counts as said.
    fn line_due(&self, now: Instant) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let due = now.saturating_duration_since(*said) >= BETWEEN_LINES;
        *said = if due { now } else { *said };
        due
    }

    /// What is being done, and how much of it is.
    fn line(&self) -> String {
        let done = HumanBytes(self.bar.position());
        match self.bar.length() {
            Some(total) if total > 0 => format!("{}: {done} of {}", self.bar.message(), HumanBytes(total)),
            _ => format!("{}: {done}", self.bar.message()),
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Preparing {
    fn start(&self, phase: Phase, totals: Totals) {
        self.bar.set_length(totals.bytes);
        self.bar.set_position(0);
        self.bar.set_message(match phase {
            Phase::TrainTokenizer => "training tokenizer",
            Phase::Tokenize => "tokenizing",
            Phase::Verify => "reading",
            Phase::Copy => "copying",
        });
    }

    fn advance(&self, step: Advance) {
        self.bar.inc(step.input_bytes);
        if self.bar.is_hidden() && self.line_due(Instant::now()) {
            note(self.line());
        }
    }

    fn stopped(&self) -> bool {
        stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_now_and_then() {
        let preparing = Preparing::new();
        preparing.start(Phase::Tokenize, Totals { inputs: 2, bytes: 2048 });
        preparing.advance(Advance { input_bytes: 1024, ..Advance::default() });
        assert_eq!(preparing.line(), "tokenizing: 1.00 KiB of 2.00 KiB");
        let now = *preparing.said.lock().unwrap();
        let due: Vec<bool> =
            [0, 19, 20, 21, 39, 40].map(|s| preparing.line_due(now + Duration::from_secs(s))).into();
        assert_eq!(due, [false, false, true, false, false, true]);
    }
}
