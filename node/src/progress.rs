//! Progress on a terminal: bars on standard error, which stay away where nobody looks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use gauntlet_data::{Advance, Phase, Progress, Totals};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::note;

/// Set by the first Ctrl-C (or SIGTERM); long work looks at it often and ends with its state saved.
static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether the user asked to stop.
pub(crate) fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Makes the first Ctrl-C a request and the second one final.
pub(crate) fn catch_signals() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        note("\nstopping; once more to stop without saving");
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

/// Bar over the bytes of the files being prepared, read or copied.
pub(crate) struct Preparing {
    bar: ProgressBar,
}

impl Preparing {
    pub(crate) fn new() -> Self {
        Self { bar: bar(0, "{msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}") }
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
    }

    fn stopped(&self) -> bool {
        stopped()
    }
}
